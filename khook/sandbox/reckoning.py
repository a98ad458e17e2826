"""The calls that a story's incidents must lead to, and the agents' own record set against them.

`expected` is computed from what the steps show and from the Hooks' entries, `compare` looks for each call in the
record, prompts included. A call about a group may be named after any of its pods, and there must be one. Nothing here
knows khook: a lost or repeated call cannot be explained away.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from khook.sandbox.kagent import Run
from khook.sandbox.story import Object, Step, Story

AGENT_NAMESPACE: Final = "kagent"
"""Where a bare `agentId` lives."""


@dataclass(frozen=True, slots=True, order=True)
class Expected:
    """One call that must be made once: (hook `namespace/name`, event type, resource, agent `namespace/name`)."""

    hook: str
    event_type: str
    resource: str
    """A pod; or of a group its owner, as `Kind name`."""
    agent: str
    opening: str = field(default="", compare=False)
    """How its prompt begins: up to the first field that only the event fills in."""
    pods: frozenset[str] = field(default=frozenset(), compare=False)
    """Of a group: those that fail. The call is named after one of them."""

    @property
    def namespace(self) -> str:
        return self.hook.split("/")[0]

    def __str__(self) -> str:
        return f"{self.hook} {self.event_type} {self.resource} -> {self.agent}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`lost`: expected, never called. `repeated`: one entry for each call too many. `unexpected`: nobody's call.

    `misworded`: one entry for each call whose prompt is not its entry's.
    """

    lost: tuple[Expected, ...]
    repeated: tuple[Expected, ...]
    unexpected: tuple[Expected, ...]
    misworded: tuple[Expected, ...] = ()

    @property
    def clean(self) -> bool:
        return not (self.lost or self.repeated or self.unexpected or self.misworded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """Pods that failed together, and the calls about any of them."""

    pods: int
    calls: int


def expected(story: Story) -> list[Expected]:
    """Every incident that a step shows and a Hook's entry asks for, once for each such entry."""
    steps = (*story.steps, *story.crash_loop.encore)
    return sorted(
        one
        for hook in story.hooks
        for entry in hook["spec"]["eventConfigurations"]
        for one in _of_entry(hook, entry, [step for step in steps if step.namespace == hook["metadata"]["namespace"]])
    )


def _of_entry(hook: Object, entry: Object, steps: Sequence[Step]) -> list[Expected]:
    """A call for each pod that shows what the entry asks for, or for each owner of such pods where it groups."""
    groups: dict[str, set[str]] = {}
    for step in steps:
        if step.shows is not None and step.shows.value == entry["eventType"]:
            owner = step.owner if entry.get("groupBy") == "Owner" else ""
            groups.setdefault(owner or step.pod, set()).add(step.pod)
    namespace, event_type, agent = hook["metadata"]["namespace"], entry["eventType"], qualified(entry["agentId"])
    return [
        Expected(
            f"{namespace}/{hook['metadata']['name']}",
            event_type,
            resource,
            agent,
            opening(
                entry["prompt"], namespace=namespace, pod=resource if resource in pods else "", event_type=event_type
            ),
            pods=frozenset() if resource in pods else frozenset(pods),
        )
        for resource, pods in groups.items()
    ]


def qualified(agent: str) -> str:
    """`namespace/name`: as kagent's own protocol names an agent that a Hook names with or without a namespace."""
    return agent if "/" in agent else f"{AGENT_NAMESPACE}/{agent}"


def opening(prompt: str, *, namespace: str, pod: str, event_type: str) -> str:
    """The beginning of an entry's prompt as an agent must receive it. `pod` is empty where it may be one of several."""
    known = {"{{.ResourceName}}": pod, "{{.Namespace}}": namespace, "{{.EventType}}": event_type}
    for written, value in known.items():
        if value:
            prompt = prompt.replace(written, value)
    return re.split(r"\{\{", prompt, maxsplit=1)[0]


def compare(wanted: Sequence[Expected], runs: Sequence[Run]) -> Verdict:
    """The agents' own record, of either protocol, against the story. A run's Hook is found by its namespace."""
    hooks = {one.namespace: one.hook for one in wanted}
    owners = {(one.hook, one.event_type, pod): one.resource for one in wanted for pod in one.pods}
    wanted_of = {one: one for one in wanted}
    made: Counter[Expected] = Counter()
    misworded: list[Expected] = []
    for run in runs:
        context = run.context
        hook = hooks.get(context["namespace"], f"{context['namespace']}/?")
        event_type, pod = context["eventName"], context["resourceName"]
        one = Expected(hook, event_type, owners.get((hook, event_type, pod), pod), qualified(run.agent))
        made[one] += 1
        if not _is_worded(run.prompt, wanted_of.get(one, one)):
            misworded.append(one)
    known = set(wanted)
    return Verdict(
        lost=tuple(sorted(known - set(made))),
        repeated=tuple(sorted(one for one, times in made.items() if one in known for _ in range(times - 1))),
        unexpected=tuple(sorted(one for one, times in made.items() if one not in known for _ in range(times))),
        misworded=tuple(sorted(misworded)),
    )


def _is_worded(prompt: str, wanted: Expected) -> bool:
    """The entry's prompt, rendered; one about a group names more than the pod that it is named after."""
    names_group = not wanted.pods or sum(pod in prompt for pod in wanted.pods) > 1
    return "{{" not in prompt and prompt.startswith(wanted.opening) and names_group


def storm(wanted: Sequence[Expected], runs: Sequence[Run]) -> Storm:
    """The pods that had to be one call for each of their owners, and the calls that they were."""
    pods = {(one.namespace, one.event_type, pod) for one in wanted for pod in one.pods}
    contexts = [run.context for run in runs]
    asked = [(one["namespace"], one["eventName"], one["resourceName"]) for one in contexts]
    return Storm(pods=len(pods), calls=sum(one in pods for one in asked))
