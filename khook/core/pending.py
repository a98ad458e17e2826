"""Why a pod is Pending, and since when: the level behind `pod-pending` from pod status.

A Pending pod is in one of four conditions: its status names the reason (an unschedulable pod, a container that
cannot get its image or be created), somebody holds it back on purpose (scheduling gates, KEP-3521), an init
container is at work, or nothing is said at all. The first is a level at once, the last becomes one when it has
lasted for `stuck_pending`. The level's identity is (pod uid, `since`), and `since` is made of times in the pod's
own status wherever there are any, so that a restart of ours or a relist finds the same identity again.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from khook.core.signal import ContainerStatus, PodCondition, PodLine

PENDING: Final = "Pending"

# What a level keeps of a scheduler's or a runtime's message: one is held for each Pending pod of a worker, and
# what the agent is told of it is cut to 1 KiB anyway.
MAX_MESSAGE_CHARACTERS: Final = 1024

UNSCHEDULED: Final = frozenset({"Unschedulable", "SchedulerError"})
"""Reasons of the condition PodScheduled=False (core/v1 PodReasonUnschedulable, PodReasonSchedulerError)."""

CANNOT_START: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    }
)
"""Reasons of a waiting container (pkg/kubelet/images/types.go, pkg/kubelet/container/sync_result.go)."""


CLOCKS_AGREE: Final = timedelta(seconds=5)
"""A mark no further ahead of our clock is believed as it stands. What we know of the API server's time is off by up to
a second: cut to that, one pod would have another `since` for each owner of its namespace, and be told anew by each."""


class PendingKind(StrEnum):
    KNOWN = "known"
    """The status names the reason."""
    GATED = "gated"
    INITIALIZING = "initializing"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What holds a Pending pod. `since` is the level's identity, or (UNEXPLAINED) when its timer started."""

    kind: PendingKind
    since: datetime
    reason: str = ""
    message: str = ""
    container: str | None = None


def pending_of(line: PodLine, before: Pending | None, *, flapped: bool, now: datetime) -> Pending | None:
    """What holds this pod, or None where it is not Pending.

    `before` is what held it at its last line; `flapped`: it was known, and was not Pending then. A phase that
    falls back to Pending (the runtime lost a container's state) has lasted only since we saw it.
    """
    if line.status.phase != PENDING:
        return None
    scheduled = _condition(line, "PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        since = scheduled.last_transition_time or line.metadata.creation_timestamp or now
        if scheduled.reason in UNSCHEDULED:
            return _known(since, scheduled.reason or "", scheduled.message, None)
        if scheduled.reason == "SchedulingGated":
            return Pending(kind=PendingKind.GATED, since=since)
    for status in container_statuses(line):
        waiting = status.state.waiting if status.state is not None else None
        if waiting is not None and waiting.reason in CANNOT_START:
            since = _newest(_marks(line, failed_too=False)) or now
            return _known(since, waiting.reason or "", waiting.message, status.name)
    if any(s.state is not None and s.state.running is not None for s in _init_statuses(line)):
        return Pending(kind=PendingKind.INITIALIZING, since=_newest(_marks(line, failed_too=True)) or now)
    unscheduled = scheduled is None or scheduled.status != "True"
    since = now if flapped else _quiet_since(line, before, unscheduled=unscheduled, now=now)
    return Pending(kind=PendingKind.UNEXPLAINED, since=since)


def container_statuses(line: PodLine) -> Iterator[ContainerStatus]:
    """All of a pod's containers: init, main, ephemeral."""
    status = line.status
    for group in (status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses):
        yield from group or ()


def _known(since: datetime, reason: str, message: str | None, container: str | None) -> Pending:
    text = (message or "")[:MAX_MESSAGE_CHARACTERS]
    return Pending(kind=PendingKind.KNOWN, since=since, reason=reason, message=text, container=container)


def _quiet_since(line: PodLine, before: Pending | None, *, unscheduled: bool, now: datetime) -> datetime:
    marked = _newest(_marks(line, failed_too=True)) or now
    ahead = marked > now + CLOCKS_AGREE
    if before is not None and before.kind is PendingKind.UNEXPLAINED:
        # A node's clock that is ahead of ours must not push the timer away.
        return before.since if ahead else max(marked, before.since)
    if before is not None and before.kind is PendingKind.GATED and unscheduled:
        # Nothing in the status says when a gate was taken away.
        return now
    return now if ahead else marked


def _marks(line: PodLine, *, failed_too: bool) -> Iterator[datetime | None]:
    """The steps on a pod's way out of Pending: created, scheduled, accepted by its kubelet, each init done."""
    yield line.metadata.creation_timestamp
    for condition in line.status.conditions or ():
        step = ("PodScheduled", "True"), ("Ready", "False")
        if (condition.type, condition.status) in step:
            yield condition.last_transition_time
    for status in _init_statuses(line):
        ended = status.state.terminated if status.state is not None else None
        if ended is None and status.last_state is not None:
            ended = status.last_state.terminated
        if ended is not None and (failed_too or ended.exit_code == 0):
            yield ended.finished_at


def _init_statuses(line: PodLine) -> Iterator[ContainerStatus]:
    """Init containers that are meant to end: sidecars (KEP-753, restartPolicy Always) are not."""
    sidecars = {spec.name for spec in line.spec.init_containers or () if spec.restart_policy == "Always"}
    for status in line.status.init_container_statuses or ():
        if status.name not in sidecars:
            yield status


def _condition(line: PodLine, kind: str) -> PodCondition | None:
    return next((c for c in line.status.conditions or () if c.type == kind), None)


def _newest(times: Iterable[datetime | None]) -> datetime | None:
    return max((t for t in times if t is not None), default=None)
