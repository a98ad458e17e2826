"""The Hook (`kagent.dev/v1alpha2`) as pydantic models: what a user may write, and what its status shows.

The models are the one source: the CRD is generated from them (`khook.api.crd`), and `parse_entries` checks with
them what a worker reads, entry by entry, so that one broken entry leaves the others working. They are stricter than
the schema where OpenAPI cannot say it (bounds of a duration, the values of a selector's operator).
Docstrings of attributes are what `kubectl explain` prints. No field has a default in the schema: the API server
would write it into every Hook.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails, PydanticCustomError

from khook.api import duration, names
from khook.api.model import Strict

GROUP: Final = "kagent.dev"
VERSION: Final = "v1alpha2"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "Hook"
PLURAL: Final = "hooks"

MAX_ENTRIES: Final = 50
"""Every entry is matched against every signal of its namespace."""
MAX_PROMPT_CHARS: Final = 16_384
"""A Hook is read and written whole; fifty long prompts still fit into an etcd value of 1.5 MiB."""
MAX_LABELS: Final = 64
MAX_SELECTOR_VALUES: Final = 64
MAX_LABEL_KEY_CHARS: Final = 317
"""A DNS subdomain, a slash and a name (meta/v1 label syntax)."""
COOLDOWN_BOUNDS: Final = ("1m", "24h")
HOLD_FOR_BOUNDS: Final = ("0s", "24h")


def _lasting(bounds: tuple[str, str]) -> tuple[AfterValidator, WithJsonSchema]:
    low, high = bounds

    def check(text: str) -> str:
        duration.between(text, low=low, high=high)
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": duration.PATTERN, "maxLength": 56})


Cooldown = Annotated[str, *_lasting(COOLDOWN_BOUNDS)]
HoldFor = Annotated[str, *_lasting(HOLD_FOR_BOUNDS)]
AgentName = Annotated[
    str,
    AfterValidator(names.agent),
    WithJsonSchema({"type": "string", "maxLength": names.MAX_AGENT_CHARS, "pattern": names.AGENT_PATTERN}),
]
NamespaceName = Annotated[
    str,
    AfterValidator(names.namespace),
    WithJsonSchema({"type": "string", "maxLength": names.MAX_NAMESPACE_CHARS, "pattern": names.NAMESPACE_PATTERN}),
]
AgentId = Annotated[
    str,
    AfterValidator(names.agent_id),
    WithJsonSchema({"type": "string", "maxLength": names.MAX_AGENT_ID_CHARS, "pattern": names.AGENT_ID_PATTERN}),
]
LabelKey = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_KEY_CHARS)]
LabelValue = Annotated[str, Field(max_length=63)]


class AgentRef(Strict):
    """A kagent agent by its resource's name, as the Go controller's Hooks name it."""

    name: AgentName
    """Name of the agent."""
    namespace: NamespaceName | None = None
    """Namespace of the agent; the Hook's own where it is absent."""


class LabelSelectorRequirement(Strict):
    """One expression of a label selector."""

    key: LabelKey
    """Label that the expression is about."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """In and NotIn need values, Exists and DoesNotExist must not have any."""
    values: Annotated[list[LabelValue], Field(max_length=MAX_SELECTOR_VALUES)] = Field(default_factory=list)
    """Values of In and NotIn."""

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if (self.operator in {"In", "NotIn"}) != bool(self.values):
            raise PydanticCustomError("values", "values are needed for In and NotIn, and for no other operator")
        return self


class LabelSelector(Strict):
    """Which pods: all labels and all expressions must hold."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
    """Labels that the pod must have."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=MAX_LABELS)] = Field(
        default_factory=list
    )
    """Expressions that must hold for the pod's labels."""


class EventConfiguration(Strict):
    """What to watch for, and which agent to ask about it. Exactly one of agentId and agentRef is set."""

    event_type: Literal["pod-restart", "pod-pending", "oom-kill", "probe-failed"]
    """Type of event to watch for."""
    agent_id: AgentId | None = None
    """Agent to call: its name, in the namespace that the controller was given for agents, or namespace/name."""
    agent_ref: AgentRef | None = None
    """Agent to call, by reference."""
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARS)]
    """What to ask. A template with the fields {{.ResourceName}}, {{.Namespace}}, {{.EventType}}, {{.EventTime}},
    {{.EventMessage}}, {{.Reason}}, {{.Message}} and {{.Timestamp}}. As in Go's text/template it may have {{if}},
    {{else}} and {{end}}, comments, and the functions and, or, not, eq, ne, quote, upper, lower, trunc and default."""
    cooldown: Cooldown | None = None
    """How long an incident that was called is not called again: 1m to 24h, 10m where absent."""
    group_by: Literal["Pod", "Owner"] = "Pod"
    """What one incident is about: a pod, or the controller of pods (Deployment, StatefulSet, DaemonSet, Job, CronJob
    and so on), all of whose pods that fail together are one incident and one call."""
    hold_for: HoldFor | None = None
    """How long a pod must stay Pending or not Ready after the first evidence before the agent is asked: 0s to 24h, 0s
    where absent. For pod-pending and probe-failed."""
    selector: LabelSelector | None = None
    """Pods to watch; all of the namespace where absent."""

    @model_validator(mode="after")
    def _one_agent(self) -> Self:
        if (self.agent_id is None) == (self.agent_ref is None):
            raise PydanticCustomError("agent", "exactly one of agentId and agentRef must be set")
        return self

    @field_validator("hold_for", mode="after")
    @classmethod
    def _holds_a_state(cls, hold_for: str | None, info: ValidationInfo) -> str | None:
        """A restart and an OOM kill have happened: there is nothing that could pass by itself."""
        event_type = info.data.get("event_type")
        if hold_for is not None and duration.parse(hold_for) and event_type in {"pod-restart", "oom-kill"}:
            raise PydanticCustomError("hold_for", "is for pod-pending and probe-failed; use 0s or leave it out")
        return hold_for

    def held_for(self) -> timedelta:
        return timedelta(0) if self.hold_for is None else duration.parse(self.hold_for)

    def cooldown_or(self, default: timedelta) -> timedelta:
        return default if self.cooldown is None else duration.parse(self.cooldown)


class HookSpec(Strict):
    """What to watch for and whom to ask."""

    suspend: bool = False
    """True stops calls to agents; incidents are still shown in the status."""
    event_configurations: Annotated[list[EventConfiguration], Field(min_length=1, max_length=MAX_ENTRIES)]
    """Entries, each with an event type, an agent and a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryProblem:
    """Why a part of a Hook does not work. `path` as kubectl writes it: `spec.eventConfigurations[2].prompt`."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedSpec:
    """The entries that work, each with its place in the Hook, and why the others do not."""

    entries: tuple[tuple[int, EventConfiguration], ...]
    problems: tuple[EntryProblem, ...]
    suspended: bool


def parse_entries(hook: Mapping[str, Any]) -> ParsedSpec:
    """Checks a Hook as it was read, entry by entry; whatever is in it, this raises nothing."""
    spec = hook.get("spec")
    if not isinstance(spec, dict):
        return ParsedSpec(entries=(), problems=(_problem("spec", "is required"),), suspended=False)
    problems = [_problem(f"spec.{name}", "unknown field") for name in sorted(spec.keys() - _SPEC_FIELDS, key=str)]
    suspend = spec.get("suspend", False)
    if not isinstance(suspend, bool):
        problems.append(_problem("spec.suspend", "must be true or false"))
    configurations = spec.get("eventConfigurations")
    if not isinstance(configurations, list) or not configurations:
        problems.append(_problem(_ENTRIES, f"must be a list of 1 to {MAX_ENTRIES} entries"))
        configurations = []
    if len(configurations) > MAX_ENTRIES:
        problems.append(_problem(_ENTRIES, f"must be a list of 1 to {MAX_ENTRIES} entries: the others are ignored"))
    entries = []
    for index, configuration in enumerate(configurations[:MAX_ENTRIES]):
        match _parse_entry(configuration, path=f"{_ENTRIES}[{index}]"):
            case EventConfiguration() as entry:
                entries.append((index, entry))
            case found:
                problems += found
    return ParsedSpec(entries=tuple(entries), problems=tuple(problems), suspended=suspend is True)


_ENTRIES: Final = "spec.eventConfigurations"
_SPEC_FIELDS: Final = {to_camel(name) for name in HookSpec.model_fields}


def _parse_entry(configuration: object, *, path: str) -> EventConfiguration | list[EntryProblem]:
    try:
        entry = EventConfiguration.model_validate(configuration)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        return [_problem(path + _suffix(one), _reason(one)) for one in details]
    return entry


_PLAIN: Final = {
    "missing": "is required",
    "extra_forbidden": "unknown field",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a map",
    "model_type": "must be an object",
    "literal_error": "must be one of {expected}",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} elements",
}
"""pydantic's error types in the words of somebody who writes YAML."""


def _reason(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    if error["type"] in _PLAIN:
        return _PLAIN[error["type"]].format_map(context)
    return str(context.get("error", error["msg"]))


def _suffix(error: ErrorDetails) -> str:
    """The place inside an entry; `[key]` is pydantic's mark for a map's key."""
    parts = (part for part in error["loc"] if part != "[key]")
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _problem(path: str, reason: str) -> EntryProblem:
    return EntryProblem(path=path[:MAX_PATH_CHARS], reason=reason)


MAX_PATH_CHARS: Final = 256
"""A path may hold a key of the user's making; a condition's message is short."""
