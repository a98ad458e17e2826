"""What we remember of a pod, and what a new line about it says that we did not know: pod status → Signals.

Pod status is the truth about OOM kills, restarts and Pending. It is sticky: `lastState` stands in every later
line, and a reconnected watch or a relist tells old facts again. So each fact, (container, `finishedAt`) or
"evicted" or a level's identity, enters the pod's record, `PodFacts`, and is a signal only where it is not in it
yet; that holds for the facts of listed lines and of silenced pods too. The record of a pod that is gone is the
caller's to drop. Sources: core/v1 PodStatus; pkg/kubelet/kubelet_pods.go (getPhase, ContainerStatusUnknown);
KEP-3329 (DisruptionTarget); KEP-2000 (node shutdown).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from khook.core.owner import POD_KIND, Controller, ResourceRef, controller_of
from khook.core.pending import PENDING, Pending, PendingKind, container_statuses, pending_of
from khook.core.signal import (
    OOM_KILLED,
    ContainerStatus,
    EventType,
    Namespace,
    PodLine,
    PodUid,
    Signal,
    Source,
    Terminated,
)

# A line holds at most two terminations of a container (`state` and `lastState`); a watch resumed from its last
# bookmark, about a minute old, repeats a few more. CrashLoopBackOff allows no eight restarts in a minute.
MAX_SEEN: Final = 8

ENDED_PHASES: Final = frozenset({"Succeeded", "Failed"})
NODE_SHUTDOWN_REASONS: Final = frozenset({"Terminated", "NodeShutdown"})
"""pkg/kubelet/nodeshutdown: nodeShutdownReason, NodeShutdownNotAdmittedReason."""
EVICTED: Final = "Evicted"

_Fact = TypeVar("_Fact")

# Names that stand in the kubelet's eviction messages and may well contain "memory".
_EVICTION_NAMES: Final = re.compile(r'\b(?:Container|Pod) [a-z0-9]\S*|"[^"]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """How a container last ended. `finished_time` is its node's clock, None where the kubelet lost track."""

    reason: str
    exit_code: int
    finished_time: datetime | None

    @property
    def oom(self) -> bool:
        """Only the runtime's word counts: exit code 137 is any SIGKILL."""
        return self.reason == OOM_KILLED


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerFacts:
    """One container (init, main or ephemeral). The `seen` times are the facts already told, newest last."""

    restarts: int = 0
    running: bool = False
    started_time: datetime | None = None
    """Of the running state."""
    latest: Termination | None = None
    seen_ooms: tuple[datetime | None, ...] = ()
    seen_restarts: tuple[datetime | int, ...] = ()
    """A restart that no time tells of is known by its count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodFacts:
    """One pod as its newest line had it, and which of its facts are no news any more."""

    namespace: Namespace
    name: str
    uid: PodUid
    labels: Mapping[str, str]
    controller: Controller | None
    """Its direct one."""
    phase: str
    ready: bool
    ready_time: datetime | None = None
    """Since when it is Ready, or is not."""
    deleting: bool
    ended_by_node: bool
    crash_looping: bool
    containers: Mapping[str, ContainerFacts]
    evicted: bool = False
    """Its eviction for memory is known."""
    pending: Pending | None = None
    seen_levels: tuple[datetime, ...] = ()

    @property
    def ref(self) -> ResourceRef:
        return ResourceRef(POD_KIND, self.name)

    @property
    def silenced(self) -> bool:
        """Somebody ends it on purpose: nothing about it is a signal but a genuine OOM."""
        return self.deleting or self.ended_by_node


def observe(
    before: PodFacts | None, line: PodLine, *, listed: bool, now: datetime, stuck_pending: timedelta
) -> tuple[PodFacts, tuple[Signal, ...]]:
    """The record after this line, and what of the line is news; OOM kills come first.

    `before` None gives every signal that the line holds: a pod not seen yet, or one read again for a new entry.
    """
    pod = _facts(before, line, now=now)
    signals = [*_oom_signals(before, pod, line, listed=listed, now=now)]
    if not pod.silenced:
        signals += _restart_signals(before, pod, line, listed=listed, now=now)
        level = _new_level(pod, listed=listed, now=now, stuck_pending=stuck_pending)
        if level is not None:
            signals.append(level)
            pod = level_told(pod, level)
    return (before if before is not None and pod == before else pod), tuple(signals)


def stuck_at(pod: PodFacts, stuck_pending: timedelta) -> datetime | None:
    """When a pod that is Pending without a word is to be looked at again; None: no timer is needed."""
    waiting = pod.pending
    if waiting is None or waiting.kind is not PendingKind.UNEXPLAINED or waiting.since in pod.seen_levels:
        return None
    return waiting.since + stuck_pending


def stuck_signal(pod: PodFacts, *, now: datetime, stuck_pending: timedelta) -> Signal | None:
    """The stuck-Pending level, once its time has come and as long as it was not told (`level_told`)."""
    due = stuck_at(pod, stuck_pending)
    return _level(pod, listed=False) if due is not None and now >= due else None


def level_told(pod: PodFacts, signal: Signal) -> PodFacts:
    """The record with this level in it: the same identity is not told again."""
    return replace(pod, seen_levels=_seen(pod.seen_levels, signal.raw_time))


def level_signal(pod: PodFacts) -> Signal | None:
    """The level that holds now and was told before, to be judged again: after a failed call, an unsuspended Hook."""
    if pod.pending is None or pod.pending.since not in pod.seen_levels:
        return None
    return _level(pod, listed=False)


def settled(pod: PodFacts) -> bool:
    """It has ended, or it is Ready: nothing of an incident is left to see in it."""
    return pod.phase in ENDED_PHASES or pod.ready


def unwell(pod: PodFacts) -> bool:
    """It has not ended, and is Pending, crash looping or not Ready."""
    return pod.phase not in ENDED_PHASES and (pod.phase == PENDING or pod.crash_looping or not pod.ready)


def names_memory(message: str) -> bool:
    """An eviction message gives memory as its cause; containers, pods and volumes may be called so, too."""
    return "memory" in _EVICTION_NAMES.sub("", message).lower()


def _facts(before: PodFacts | None, line: PodLine, *, now: datetime) -> PodFacts:
    meta, status = line.metadata, line.status
    conditions = status.conditions or ()
    ready = next((c for c in conditions if c.type == "Ready"), None)
    deleting, ended_by_node = meta.deletion_timestamp is not None, _ended_by_node(line)
    pending = None
    if not (deleting or ended_by_node):
        flapped = before is not None and before.phase != PENDING
        pending = pending_of(line, before.pending if before is not None else None, flapped=flapped, now=now)
    known = before.containers if before is not None else {}
    return PodFacts(
        namespace=Namespace(meta.namespace),
        name=meta.name,
        uid=PodUid(meta.uid),
        labels=meta.labels or {},
        controller=controller_of(meta.owner_references),
        phase=status.phase,
        ready=ready is not None and ready.status == "True",
        ready_time=ready.last_transition_time if ready is not None else None,
        deleting=deleting,
        ended_by_node=ended_by_node,
        crash_looping=any(_waits_for(c) == "CrashLoopBackOff" for c in container_statuses(line)),
        containers={**known, **{s.name: _container(known.get(s.name), s) for s in container_statuses(line)}},
        evicted=(before is not None and before.evicted) or _evicted_for_memory(line),
        pending=pending,
        seen_levels=before.seen_levels if before is not None else (),
    )


def _container(before: ContainerFacts | None, status: ContainerStatus) -> ContainerFacts:
    known = before if before is not None else ContainerFacts()
    terminated = _terminations(status)
    running = status.state.running if status.state is not None else None
    seen_ooms, seen_restarts = known.seen_ooms, known.seen_restarts
    for ended in reversed(terminated):
        if ended.reason == OOM_KILLED:
            seen_ooms = _seen(seen_ooms, ended.finished_at)
    if status.restart_count > known.restarts:
        seen_restarts = _seen(seen_restarts, _restart_time(status) or status.restart_count)
    return ContainerFacts(
        restarts=status.restart_count,
        running=running is not None,
        started_time=running.started_at if running is not None else None,
        latest=_termination(terminated[0]) if terminated else known.latest,
        seen_ooms=seen_ooms,
        seen_restarts=seen_restarts,
    )


def _oom_signals(
    before: PodFacts | None, pod: PodFacts, line: PodLine, *, listed: bool, now: datetime
) -> Iterator[Signal]:
    for status in container_statuses(line):
        known = _known_container(before, status.name)
        told = list(known.seen_ooms)
        for ended in reversed(_terminations(status)):
            if ended.reason != OOM_KILLED or ended.finished_at in told:
                continue
            told.append(ended.finished_at)
            yield _signal(
                pod,
                EventType.OOM_KILL,
                container=status.name,
                reason=OOM_KILLED,
                message=_oom_message(line, status.name, ended),
                raw_time=ended.finished_at or _status_time(line) or now,
                listed=listed,
            )
    if pod.evicted and (before is None or not before.evicted):
        yield _signal(
            pod,
            EventType.OOM_KILL,
            container=None,
            reason=EVICTED,
            message=line.status.message or "",
            raw_time=_status_time(line) or now,
            listed=listed,
        )


def _restart_signals(
    before: PodFacts | None, pod: PodFacts, line: PodLine, *, listed: bool, now: datetime
) -> Iterator[Signal]:
    for status in container_statuses(line):
        known = _known_container(before, status.name)
        restart_time = _restart_time(status)
        fact = restart_time or status.restart_count
        if status.restart_count <= known.restarts or fact in known.seen_restarts:
            continue
        last = status.last_state.terminated if status.last_state is not None else None
        yield _signal(
            pod,
            EventType.POD_RESTART,
            container=status.name,
            reason=(last.reason if last is not None else None) or "ContainerRestarted",
            message=_restart_message(status, last),
            raw_time=restart_time or _status_time(line) or now,
            listed=listed,
        )


def _new_level(pod: PodFacts, *, listed: bool, now: datetime, stuck_pending: timedelta) -> Signal | None:
    held = pod.pending
    if held is None or held.since in pod.seen_levels:
        return None
    # A live line may be old: a watch that goes on after an outage tells a pod's past before its present. Being stuck
    # is the one thing that no line says, so there the timer decides, once the lines that follow have come.
    stuck = held.kind is PendingKind.UNEXPLAINED and listed and now >= held.since + stuck_pending
    if held.kind is PendingKind.KNOWN or stuck:
        return _level(pod, listed=listed)
    return None


def _level(pod: PodFacts, *, listed: bool) -> Signal | None:
    held = pod.pending
    if held is None or held.kind not in (PendingKind.KNOWN, PendingKind.UNEXPLAINED):
        return None
    known = held.kind is PendingKind.KNOWN
    return _signal(
        pod,
        EventType.POD_PENDING,
        container=held.container,
        reason=held.reason if known else "StuckPending",
        message=held.message if known else f"Pending since {_stamp(held.since)}, and its status names no reason",
        raw_time=held.since,
        listed=listed,
        level=True,
    )


def _signal(
    pod: PodFacts,
    kind: EventType,
    *,
    container: str | None,
    reason: str,
    message: str,
    raw_time: datetime,
    listed: bool,
    level: bool = False,
) -> Signal:
    return Signal(
        type=kind,
        source=Source.POD,
        namespace=pod.namespace,
        pod=pod.name,
        pod_uid=pod.uid,
        container=container,
        reason=reason,
        message=message,
        raw_time=raw_time,
        listed=listed,
        level=level,
    )


def _known_container(before: PodFacts | None, name: str) -> ContainerFacts:
    return (before.containers.get(name) if before is not None else None) or ContainerFacts()


def _ended_by_node(line: PodLine) -> bool:
    if line.status.reason == EVICTED:
        # The eviction manager sets the same condition (pkg/kubelet/eviction/eviction_manager.go); it is no shutdown.
        return False
    return line.status.reason in NODE_SHUTDOWN_REASONS or any(
        c.type == "DisruptionTarget" and c.status == "True" and c.reason == "TerminationByKubelet"
        for c in line.status.conditions or ()
    )


def _evicted_for_memory(line: PodLine) -> bool:
    status = line.status
    return status.phase == "Failed" and status.reason == EVICTED and names_memory(status.message or "")


def _terminations(status: ContainerStatus) -> tuple[Terminated, ...]:
    """Newest first: `state`, then `lastState`."""
    states = (status.state, status.last_state)
    return tuple(s.terminated for s in states if s is not None and s.terminated is not None)


def _termination(ended: Terminated) -> Termination:
    return Termination(reason=ended.reason or "", exit_code=ended.exit_code, finished_time=ended.finished_at)


def _restart_time(status: ContainerStatus) -> datetime | None:
    """When the container that was replaced ended; its successor's start only where that is not said."""
    last = status.last_state.terminated if status.last_state is not None else None
    if last is not None and last.finished_at is not None:
        return last.finished_at
    running = status.state.running if status.state is not None else None
    return running.started_at if running is not None else None


def _status_time(line: PodLine) -> datetime | None:
    """The newest time that the status names, for facts that carry none of their own."""
    times = [c.last_transition_time for c in line.status.conditions or ()]
    times += [line.status.start_time, line.metadata.creation_timestamp]
    return max((t for t in times if t is not None), default=None)


def _waits_for(status: ContainerStatus) -> str | None:
    waiting = status.state.waiting if status.state is not None else None
    return waiting.reason if waiting is not None else None


def _oom_message(line: PodLine, container: str, ended: Terminated) -> str:
    specs = (*(line.spec.init_containers or ()), *(line.spec.containers or ()))
    resources = next((s.resources for s in specs if s.name == container), None)
    limit = (resources.limits or {}).get("memory") if resources is not None else None
    within = f"memory limit {limit}" if limit is not None else "no memory limit"
    return f"Container {container} was OOM killed: {within}, exit code {ended.exit_code}, {_ended(ended)}"


def _restart_message(status: ContainerStatus, last: Terminated | None) -> str:
    text = f"Container {status.name} has restarted, restart count {status.restart_count}"
    if last is None:
        return text
    return f"{text}: last ended with {last.reason or 'no reason'}, exit code {last.exit_code}, {_ended(last)}"


def _ended(ended: Terminated) -> str:
    return f"finished at {_stamp(ended.finished_at)}" if ended.finished_at is not None else "at an unknown time"


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seen(seen: tuple[_Fact, ...], fact: _Fact) -> tuple[_Fact, ...]:
    return seen if fact in seen else (*seen, fact)[-MAX_SEEN:]
