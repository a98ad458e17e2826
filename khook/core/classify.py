"""What a Kubernetes Event about a Pod means: one table, first match wins.

An Event is text that somebody wrote for people; what it says becomes a Signal only together with what we know of
its pod (phase, deletion, restarts, OOM). Everything else is a `Silence` with its reason, so that nothing is
dropped without a word. Aggregated Events carry a prefix and count nothing: each line, ADDED or MODIFIED, is judged
by what it says and by when it *last* happened. Formats: pkg/kubelet (events/event.go and its users),
pkg/scheduler/schedule_one.go, pkg/volume/util/operationexecutor of Kubernetes v1.36.3; `tests/corpus` cites each.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from khook.api import names
from khook.core.pending import PENDING
from khook.core.pods import PodFacts, names_memory
from khook.core.signal import EventLine, EventType, Namespace, PodUid, Signal, Source

OWN_COMPONENT: Final = "kagent-hook-controller"

EVENT_FIELD_SELECTOR: Final = (
    "involvedObject.kind=Pod,reason!=Scheduled,reason!=Pulled,reason!=Pulling,reason!=Created,reason!=Started"
)
"""What an Events watch asks for: the five reasons that every start of a pod writes stay in the API server."""


class Silence(StrEnum):
    """Why an Event is not a signal."""

    NOT_A_POD = "not_a_pod"
    """Of another kind, or so named that it cannot be a pod."""
    OWN_EVENT = "own_event"
    REASON_IGNORED = "reason_ignored"
    MESSAGE_IGNORED = "message_ignored"
    """The reason is in the table, but not with this text."""
    STARTUP_PROBE = "startup_probe"
    """A container that is still starting; being killed for it is the signal."""
    POD_NOT_PENDING = "pod_not_pending"
    POD_DELETING = "pod_deleting"
    NODE_SHUTDOWN = "node_shutdown"
    POD_GONE = "pod_gone"
    """It needs a Pending pod, and the pod is gone."""
    TIMELESS = "timeless"


class Depends(StrEnum):
    """Rows whose type depends on more than the text."""

    ON_RESTARTS = "on_restarts"
    """Of a container that never restarted it is pod-pending, else pod-restart."""
    ON_MEMORY = "on_memory"
    """An eviction that names memory is oom-kill, else pod-restart."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: an Event with this reason and a message in which `text` is found."""

    reason: str
    text: re.Pattern[str] | None
    means: EventType | Depends | Silence
    only_pending: bool = False


def _row(
    reason: str, text: str | None, means: EventType | Depends | Silence, *, only_pending: bool = False
) -> tuple[str, Rule]:
    return reason, Rule(reason, re.compile(text) if text is not None else None, means, only_pending)


_ROWS: Final = (
    _row("BackOff", r"pulling image ", EventType.POD_PENDING),
    _row("BackOff", None, EventType.POD_RESTART),
    _row("Failed", r"^Failed to pull image |^Error: (ErrImagePull|ImagePullBackOff)\b", EventType.POD_PENDING),
    _row("Failed", None, Depends.ON_RESTARTS),
    _row("InspectFailed", None, EventType.POD_PENDING),
    _row("ErrImageNeverPull", None, EventType.POD_PENDING),
    _row("FailedScheduling", r"^skip schedule deleting pod", Silence.POD_DELETING),
    _row("FailedScheduling", None, EventType.POD_PENDING),
    _row("FailedMount", None, EventType.POD_PENDING, only_pending=True),
    _row("FailedAttachVolume", None, EventType.POD_PENDING, only_pending=True),
    _row("FailedMapVolume", None, EventType.POD_PENDING, only_pending=True),
    _row("FailedCreatePodSandBox", None, EventType.POD_PENDING, only_pending=True),
    _row("FailedPodSandBoxStatus", None, EventType.POD_PENDING, only_pending=True),
    _row("NetworkNotReady", None, EventType.POD_PENDING, only_pending=True),
    _row("FailedPrepareDynamicResources", None, EventType.POD_PENDING, only_pending=True),
    # Anchored: a probe's own output follows, and may say anything.
    _row("Unhealthy", r"^(Liveness|Readiness) probe (failed|errored)\b", EventType.PROBE_FAILED),
    _row("Unhealthy", r"^Startup probe (failed|errored)\b", Silence.STARTUP_PROBE),
    _row("Killing", r"failed (liveness|startup) probe, will be restarted", EventType.POD_RESTART),
    # A sidecar is always restarted, and its message does not say so.
    _row("Killing", r"^Init container \S+ failed (liveness|startup) probe", EventType.POD_RESTART),
    _row("FailedPostStartHook", None, EventType.POD_RESTART),
    _row("Evicted", None, Depends.ON_MEMORY),
    _row("OOMKilling", None, EventType.OOM_KILL),
    _row("OOMKilled", None, EventType.OOM_KILL),
)

TABLE: Final = {reason: tuple(rule for name, rule in _ROWS if name == reason) for reason, _ in _ROWS}
"""The table by reason, rows in order; a reason that is not in it is no signal."""

# client-go tools/record/events_cache.go, EventAggregatorByReasonMessageFunc.
_AGGREGATED: Final = "(combined from similar events): "
# pkg/kubelet/container/ref.go, fieldPath.
_CONTAINER_PATH: Final = re.compile(r"^spec\.(?:containers|initContainers|ephemeralContainers)\{(.+)\}$")


def event_time(event: EventLine) -> datetime | None:
    """When it last happened. A repeated Event keeps its `creationTimestamp` and moves one of the others."""
    times = (
        event.series.last_observed_time if event.series is not None else None,
        event.last_timestamp,
        event.event_time,
        event.metadata.creation_timestamp,
    )
    return max((t for t in times if t is not None), default=None)


def classify_event(event: EventLine, pod: PodFacts | None, *, listed: bool) -> Signal | Silence:
    """The Event as a signal, or why it is none. `pod` None: the pod is gone (404, or its name has another uid)."""
    source = event.source.component if event.source is not None else None
    if OWN_COMPONENT in (event.reporting_component, source):
        return Silence.OWN_EVENT
    about = event.involved_object
    if about.kind != "Pod":
        return Silence.NOT_A_POD
    text = (event.message or "").removeprefix(_AGGREGATED)
    rule = _rule(event.reason or "", text)
    if isinstance(rule, Silence):
        return rule
    if not names.can_exist(kind=about.kind, name=about.name, uid=about.uid):
        return Silence.NOT_A_POD
    raw_time = event_time(event)
    if raw_time is None:
        return Silence.TIMELESS
    if pod is not None and about.uid and pod.uid != about.uid:
        pod = None
    path = _CONTAINER_PATH.match(about.field_path or "")
    container = path[1] if path is not None else None
    kind = _means(rule, text, pod, container)
    if isinstance(kind, Silence):
        return kind
    return Signal(
        type=kind,
        source=Source.EVENT,
        namespace=Namespace(about.namespace or event.metadata.namespace),
        pod=about.name,
        pod_uid=pod.uid if pod is not None else PodUid(about.uid),
        container=container,
        reason=rule.reason,
        message=event.message or "",
        raw_time=raw_time,
        since_time=event.first_timestamp,
        listed=listed,
    )


def wait_for_pod_line(signal: Signal, pod: PodFacts | None) -> bool:
    """A pod-restart Event that speaks of a termination which the pod's record does not have yet.

    The record still shows the container running since before the Event, or does not know the container: whether
    it was an OOM kill is in a pod line that is under way. Of a pod that is gone there is no line to wait for.
    """
    if signal.type is not EventType.POD_RESTART or signal.source is not Source.EVENT:
        return False
    if pod is None or signal.container is None:
        return False
    known = pod.containers.get(signal.container)
    if known is None:
        return True
    return known.running and (known.started_time is None or known.started_time <= signal.raw_time)


def belongs_to_oom(signal: Signal, pod: PodFacts | None) -> bool:
    """A pod-restart signal whose container last ended by an OOM kill, or that counts a restart after one.

    Where the Hook has an oom-kill entry that selects the pod, such a signal is that entry's incident.
    """
    if signal.type is not EventType.POD_RESTART or pod is None or signal.container is None:
        return False
    known = pod.containers.get(signal.container)
    if known is None:
        return False
    if known.latest is not None and known.latest.oom:
        return True
    return signal.source is Source.POD and signal.raw_time in known.seen_ooms


def _rule(reason: str, text: str) -> Rule | Silence:
    rules = TABLE.get(reason)
    if rules is None:
        return Silence.REASON_IGNORED
    rule = next((r for r in rules if r.text is None or r.text.search(text)), None)
    if rule is None:
        return Silence.MESSAGE_IGNORED
    return rule.means if isinstance(rule.means, Silence) else rule


def _means(rule: Rule, text: str, pod: PodFacts | None, container: str | None) -> EventType | Silence:
    kind = _kind(rule, text, pod, container)
    if kind is EventType.OOM_KILL or isinstance(kind, Silence):
        return kind
    if pod is None:
        return Silence.POD_GONE if rule.only_pending else kind
    if pod.deleting:
        return Silence.POD_DELETING
    if pod.ended_by_node:
        return Silence.NODE_SHUTDOWN
    if rule.only_pending and pod.phase != PENDING:
        return Silence.POD_NOT_PENDING
    return kind


def _kind(rule: Rule, text: str, pod: PodFacts | None, container: str | None) -> EventType | Silence:
    match rule.means:
        case Depends.ON_MEMORY:
            return EventType.OOM_KILL if names_memory(text) else EventType.POD_RESTART
        case Depends.ON_RESTARTS:
            if pod is None:
                return EventType.POD_RESTART
            return EventType.POD_RESTART if _restarts(pod, container) else EventType.POD_PENDING
        case means:
            return means


def _restarts(pod: PodFacts, container: str | None) -> int:
    """Of the container, or of the whole pod where the Event names none."""
    named = pod.containers.values() if container is None else [c for n, c in pod.containers.items() if n == container]
    return sum(c.restarts for c in named)
