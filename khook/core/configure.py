"""From a Hook as it was read to the entries that work, and why the others do not.

Above the schema's rules (`khook.api.v1alpha2`) stand three that need more than the Hook: its prompt must be a
template, its agent must be one that this Hook may call, and every entry gets its identity and its defaults. One
broken entry leaves the others working.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from khook.api.v1alpha2 import EntryProblem, EventConfiguration, LabelSelector, parse_entries
from khook.core.incident import EntryId
from khook.core.match import Entry, Selector, with_identities
from khook.core.signal import EventType
from khook.core.template import Template, TemplateError, parse

ANY_NAMESPACE: Final = "*"
"""Among the allowed agent namespaces: every one."""
_ALLOWING_SETTING: Final = "KHOOK_ALLOWED_AGENT_NAMESPACES"
_UNNAMED: Final = EntryId("")
"""Until all entries are known: an identity counts equal ones."""


class AgentNotAllowed(EntryProblem):
    """The entry is well written, and names an agent that this Hook may not call."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What a Hook asks for, as far as it makes sense."""

    entries: tuple[Entry, ...]
    problems: tuple[EntryProblem, ...]
    suspended: bool


def configure(
    hook: Mapping[str, Any],
    *,
    default_cooldown: timedelta,
    agent_namespace: str,
    allowed_agent_namespaces: Collection[str],
) -> Configured:
    """The entries of a Hook in its order, and every problem with its path. Raises nothing, whatever the Hook holds."""
    parsed = parse_entries(hook)
    may_call = _MayCall(
        own=_namespace_of(hook), bare=agent_namespace, allowed=frozenset(allowed_agent_namespaces) | {agent_namespace}
    )
    entries, problems = [], list(parsed.problems)
    for index, configuration in parsed.entries:
        path = f"spec.eventConfigurations[{index}]"
        agent = may_call.agent_of(configuration)
        prompt = _template(configuration, path=path)
        found = may_call.problems(agent, configuration, path=path)
        found += [prompt] if isinstance(prompt, EntryProblem) else []
        problems += found
        if not found and isinstance(prompt, Template):
            entries.append(_entry(index, configuration, prompt, agent=agent, default_cooldown=default_cooldown))
    return Configured(entries=tuple(with_identities(entries)), problems=tuple(problems), suspended=parsed.suspended)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MayCall:
    """Whose agents one Hook may call: its own namespace's, those of `bare`, and what the operator allows."""

    own: str
    bare: str
    allowed: frozenset[str]

    def agent_of(self, configuration: EventConfiguration) -> str:
        """`namespace/name`. A bare agentId lives in `bare`, an agentRef without namespace in the Hook's own."""
        if configuration.agent_ref is not None:
            return f"{configuration.agent_ref.namespace or self.own}/{configuration.agent_ref.name}"
        agent_id = configuration.agent_id or ""
        return agent_id if "/" in agent_id else f"{self.bare}/{agent_id}"

    def problems(self, agent: str, configuration: EventConfiguration, *, path: str) -> list[EntryProblem]:
        namespace = agent.partition("/")[0]
        if namespace == self.own or namespace in self.allowed or ANY_NAMESPACE in self.allowed:
            return []
        field = "agentId" if configuration.agent_ref is None else "agentRef.namespace"
        reason = f"an agent in namespace {namespace} may not be called from here: {_ALLOWING_SETTING} does not allow it"
        return [AgentNotAllowed(path=f"{path}.{field}", reason=reason)]


def _template(configuration: EventConfiguration, *, path: str) -> Template | EntryProblem:
    try:
        return parse(configuration.prompt)
    except TemplateError as error:
        return EntryProblem(path=f"{path}.prompt", reason=str(error))


def _entry(
    index: int, configuration: EventConfiguration, prompt: Template, *, agent: str, default_cooldown: timedelta
) -> Entry:
    return Entry(
        index=index,
        identity=_UNNAMED,
        event_type=EventType(configuration.event_type),
        agent=agent,
        agent_id=configuration.agent_id or agent,
        template=prompt,
        cooldown=configuration.cooldown_or(default_cooldown),
        selector=None if configuration.selector is None else _selector(configuration.selector),
        group_by_owner=configuration.group_by == "Owner",
        hold_for=configuration.held_for(),
    )


def _selector(selector: LabelSelector) -> Selector:
    return Selector(
        match_labels=tuple(selector.match_labels.items()),
        expressions=tuple((one.key, one.operator, tuple(one.values)) for one in selector.match_expressions),
    )


def _namespace_of(hook: Mapping[str, Any]) -> str:
    metadata = hook.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return namespace if isinstance(namespace, str) else ""
