"""What the load says, pure: which incident is told in which namespace, to which agent it belongs, and in which writes.

The shapes are the demo's (`khook.sandbox.story`), which are kubelet's and the scheduler's. An incident is one pod
that existed before the load began, is told once, and must lead to one call. Three of the four types are told by an
Event (with the pod status that a kubelet writes before it). Of an OOM kill Kubernetes writes no Event on the pod: it
is told by pod status alone, and khook then waits `TEXT_WAIT_S` for a better text; so these are a group of their own.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from khook.core.signal import EventType
from khook.sandbox.reckoning import qualified
from khook.sandbox.story import (
    Action,
    Moment,
    Write,
    container_restarted,
    failed_scheduling,
    kubelet_event,
    namespace_with_hook,
    pod_created,
    pod_running,
    pod_unschedulable,
)

AGENTS_A_TYPE: Final = 5
"""A large cluster has more than one agent a type, and khook holds at most eight sends for one of them."""
TYPES: Final = (EventType.POD_RESTART, EventType.POD_PENDING, EventType.OOM_KILL, EventType.PROBE_FAILED)
BY_STATUS: Final = frozenset({EventType.OOM_KILL})
PROMPT: Final = (
    "{{.EventType}} of {{.ResourceName}} in {{.Namespace}} at {{.EventTime}}: {{.Reason}}: {{.EventMessage}}"
)

Key = tuple[str, str, str]
"""Namespace, agent, pod: one incident as an agent's record names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    namespace: str
    event_type: EventType
    agent: str
    """`namespace/name`."""
    pod: str

    @property
    def key(self) -> Key:
        return (self.namespace, self.agent, self.pod)

    @property
    def by_status(self) -> bool:
        return self.event_type in BY_STATUS


def namespaces(count: int) -> tuple[str, ...]:
    return tuple(f"bench-{number:04d}" for number in range(count))


def plan(phase: str, count: int, *, in_namespaces: int) -> list[Incident]:
    """The incidents of a phase: the namespaces take turns, and in each of them the types do."""
    names = namespaces(in_namespaces)
    return [
        _incident(names[number % in_namespaces], number % in_namespaces, TYPES[_turn(number, in_namespaces)], pod)
        for number, pod in ((number, f"{phase}-{number:05d}") for number in range(count))
    ]


def slowest_first(incidents: Iterable[Incident]) -> list[Incident]:
    """Those told by pod status before the others: their wait for a text then passes while the others are worked on."""
    return sorted(incidents, key=lambda one: not one.by_status)


def installed(name: str, number: int) -> list[Write]:
    """A namespace with its Hook, which has an entry of every type."""
    entries = [{"eventType": kind.value, "agentId": _agent(kind, number), "prompt": PROMPT} for kind in TYPES]
    hook: dict[str, Any] = {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Hook",
        "metadata": {"name": "all", "namespace": name},
        "spec": {"eventConfigurations": entries},
    }
    return _written(name, [namespace_with_hook(hook)], Moment(now=datetime.min.replace(tzinfo=UTC)))


def prepared(incident: Incident, now: datetime) -> list[Write]:
    """The pod while it is well, or not scheduled yet; the first write's answer has its uid."""
    waits = incident.event_type is EventType.POD_PENDING
    created = pod_created(incident.pod, scheduled=not waits)
    actions = [created] if waits else [created, pod_running(incident.pod)]
    return _written(incident.namespace, actions, Moment(now=now))


def told(incident: Incident, now: datetime, *, uid: str) -> list[Write]:
    """What tells of the incident; before the last of these writes nobody can know all of it."""
    moment = Moment(now=now, uids={f"{incident.namespace}/{incident.pod}": uid})
    return _written(incident.namespace, _TOLD[incident.event_type](incident.pod), moment)


def judged(wanted: Iterable[Key], found: Iterable[Key]) -> tuple[list[Key], list[Key]]:
    """(lost, repeated): what was told and no agent was asked about, and each call too many."""
    told_keys, calls = Counter(wanted), Counter(found)
    return sorted((told_keys - calls).elements()), sorted((calls - told_keys).elements())


def _turn(number: int, in_namespaces: int) -> int:
    return (number + number // in_namespaces) % len(TYPES)


def _incident(namespace: str, number: int, event_type: EventType, pod: str) -> Incident:
    return Incident(namespace=namespace, event_type=event_type, agent=qualified(_agent(event_type, number)), pod=pod)


def _agent(event_type: EventType, namespace_number: int) -> str:
    return f"{event_type.value}-{namespace_number % AGENTS_A_TYPE}"


def _written(namespace: str, actions: Sequence[Action], moment: Moment) -> list[Write]:
    return [write for action in actions for write in action(namespace, moment)]


def _restart(pod: str) -> list[Action]:
    message = f"Back-off restarting failed container app in pod {pod}"
    return [
        container_restarted(pod, reason="Error", exit_code=1, count=1, looping=True),
        kubelet_event(pod, reason="BackOff", message=message),
    ]


def _oom(pod: str) -> list[Action]:
    return [container_restarted(pod, reason="OOMKilled", exit_code=137, count=1, looping=True)]


def _pending(pod: str) -> list[Action]:
    return [pod_unschedulable(pod), failed_scheduling(pod)]


def _probe(pod: str) -> list[Action]:
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    return [kubelet_event(pod, reason="Unhealthy", message=message)]


_TOLD: Final[Mapping[EventType, Callable[[str], list[Action]]]] = {
    EventType.POD_RESTART: _restart,
    EventType.OOM_KILL: _oom,
    EventType.POD_PENDING: _pending,
    EventType.PROBE_FAILED: _probe,
}
