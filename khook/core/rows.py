"""The life of a row: opened and counted by signals, moved on by its call, resolved, expired, evicted.

Every function takes a row and gives the next one, or answers a question about it; rows are never changed and `now`
is always an argument. Which verdict a signal gets is `khook.core.verdict`'s decision; here is what follows from it.
A row is also the memory that keeps an old signal from firing again, so it outlives its incident.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from khook.core.incident import (
    Call,
    CallId,
    CallReason,
    CallState,
    Facts,
    FailedPod,
    IncidentRules,
    LastSignal,
    Row,
    RowStatus,
    Verdict,
)
from khook.core.match import Entry
from khook.core.owner import POD_KIND, ResourceRef
from khook.core.rowjson import RowSizes, row_bytes
from khook.core.signal import EventType, PodUid, Signal, Source
from khook.core.status import ACTIVE_EVENTS_MAX_BYTES
from khook.core.text import plain
from khook.core.verdict import window_end

# Of a message: as events.k8s.io bounds it. core/v1 lets any length pass, and what happened stands in the first lines.
MESSAGE_MAX_BYTES: Final = 1024
# A reason or a container name: core/v1 allows 128 characters for the one and 63 for the other.
NAME_MAX_BYTES: Final = 128
RESULT_MAX_BYTES: Final = 1024
ERROR_MAX_BYTES: Final = 256

# Rows of one Hook: a page that a person can still read, and what etcd's 1.5 MiB an object leaves room for.
MAX_ROWS: Final = 500
# Pods of a group that are named, and whose newest signals are remembered: a screen for a person, 4 KiB of a status.
GROUP_PODS_MOST: Final = 20
# Kept free for the row that is about to come: its names, its message, the answer to it.
ROW_RESERVE_BYTES: Final = 4096

# However short its cooldown, an incident whose pods we cannot see has to be silent this long.
QUIET_AT_LEAST: Final = timedelta(minutes=10)


def pod_of(signal: Signal) -> ResourceRef:
    return ResourceRef(POD_KIND, signal.pod)


def apply(
    row: Row | None,
    signal: Signal,
    verdict: Verdict,
    *,
    now: datetime,
    entry: Entry,
    resource: ResourceRef | None = None,
    call_id: CallId | None = None,
    waits: CallReason = CallReason.QUEUED,
    pod_count: int = 1,
) -> Row:
    """The row after the signal, for a verdict that `changes_row`.

    FIRE and REFIRE claim: a new call `Pending/waits` with `call_id`. SUSPENDED opens one that is never sent under
    its id, so it needs none. A resolved row that gets a new call is a new incident: its count begins again.
    `resource` is what the row is about, the signal's pod where it is left out; `pod_count` how many pods of a group
    have failed, with this one.
    """
    if not verdict.changes_row:
        raise ValueError(f"{verdict} leaves the row as it is")
    seen = min(signal.raw_time, now)
    call = _new_call(row, verdict, now=now, call_id=call_id, waits=waits)
    if row is None:
        assert call is not None, "only a call opens a row"
        return _opened(signal, entry, seen, resource=resource or pod_of(signal), call=call)
    row = _counted(row, signal, seen, anew=call is not None and row.status is RowStatus.RESOLVED)
    if call is not None:
        return _with_first_facts(replace(row, agent=entry.agent, call=call), signal, seen)
    return _retold(row, signal, seen, pod_count=pod_count)


def reworded(row: Row, signal: Signal, *, pod_count: int = 1) -> Row:
    """What a stale signal still adds to an unsent call. Nothing is counted.

    Words: pod status and the Event about it carry times of whole seconds, often the same one; as a signal the Event
    is no news, but it says best what happened. And pods of a group: a LIST tells them in any order, and after the
    death of a worker not all of those that had joined are in the row.
    """
    if row.facts is None:
        return row
    if row.is_group and signal.pod != row.facts.pod:
        told = _retold(row, signal, row.facts.time, pod_count=pod_count)
        return row if told is row else _with_memory_of(told, signal)
    if signal.source is not Source.EVENT or signal.raw_time < row.facts.time:
        return row
    return _retold(row, signal, row.facts.time, pod_count=pod_count)


def says_more(row: Row, signal: Signal, *, now: datetime, rules: IncidentRules) -> bool:
    """Whether a stale signal may add to the unsent call (`reworded`): it may tell of a failure that this call is about.

    A pod of a group whose signals the row remembers was counted in its time, in this call or in one before. And a LIST
    shows the last restart of a pod for ever: what happened too long ago to open an incident is none of this one's.
    """
    if not row.is_group or row.facts is None or signal.pod == row.facts.pod:
        return True
    if any(pod.name == signal.pod for pod in row.facts.pods):
        return True
    is_history = signal.listed and not signal.level and now - signal.raw_time > rules.max_signal_age
    return row.signal_of(signal.pod_uid) is None and not is_history


def calling(row: Row, *, protocol: str) -> Row:
    """The claim says from here on that it may be on the wire."""
    return _with_call(row, state=CallState.CALLING, reason=None, protocol=protocol)


def attempted(row: Row) -> Row:
    """One more send has begun."""
    return _with_call(row, attempts=_call(row).attempts + 1)


def accepted(row: Row, *, now: datetime, task_id: str = "", reason: CallReason | None = None) -> Row:
    """An agent has it: the window starts. Without a `task_id` to follow (`NoAnswer`) that is its end too."""
    row = _with_call(row, state=CallState.ACCEPTED, reason=reason, task_id=task_id, accepted_time=now)
    return _without_needless_facts(row)


def completed(row: Row, *, now: datetime, result: str = "") -> Row:
    """The agent has answered; under `execute` the acceptance is the answer."""
    row = _with_call(
        row,
        state=CallState.COMPLETED,
        reason=None,
        accepted_time=_call(row).accepted_time or now,
        ended_time=now,
        error="",
        result=plain(result, max_bytes=RESULT_MAX_BYTES),
    )
    return _without_needless_facts(row)


def failed(row: Row, *, now: datetime, reason: CallReason, error: str) -> Row:
    """It will not be tried again. Where no agent had accepted it, the next signal fires after the retry gap."""
    row = _with_call(
        row, state=CallState.FAILED, reason=reason, ended_time=now, error=plain(error, max_bytes=ERROR_MAX_BYTES)
    )
    return _without_needless_facts(row)


def parked(row: Row, *, reason: CallReason) -> Row:
    """It waits again, and may be sent again under the same id; what was tried stays counted."""
    return _with_call(row, state=CallState.PENDING, reason=reason)


def gathered(row: Row) -> Row:
    """The wait for more pods of its group is over."""
    if row.call is None or row.call.reason is not CallReason.GROUPING:
        return row
    return _with_call(row, reason=CallReason.QUEUED)


def afforded(row: Row, *, now: datetime) -> Row:
    """Its Hook's budget allows the call now: it is decided anew, under the same id."""
    return _with_call(row, reason=CallReason.QUEUED, claimed_time=now)


def suspended(row: Row) -> Row:
    """The Hook is suspended: what waits to be sent stays unsent, what was sent is followed to its end.

    There is no way back: unsuspended, nothing fires by itself, and the row counts as none at its next signal.
    """
    if row.call is None or row.call.state is not CallState.PENDING:
        return row
    return _with_call(row, reason=CallReason.SUSPENDED)


def resolved(row: Row, *, now: datetime) -> Row:
    """The incident is over; the row stays as its memory."""
    return replace(row, status=RowStatus.RESOLVED, resolved_time=now)


def is_quiet(row: Row, *, now: datetime, cooldown: timedelta, rules: IncidentRules) -> bool:
    """Whether the row may be over, as far as it knows itself: its pods need to be looked at only then."""
    if row.legacy or row.status is RowStatus.RESOLVED:
        return False
    return now - _quiet_since(row) >= min(rules.resolve_after, _long_silence(cooldown))


def resolves(
    row: Row, *, now: datetime, all_settled: bool, any_unwell: bool, cooldown: timedelta, rules: IncidentRules
) -> bool:
    """Whether a firing incident is over.

    `all_settled`: each of its pods is gone (DELETED, or missing from a LIST), has ended, or is Ready. `any_unwell`:
    one that has not ended is Pending, in CrashLoopBackOff or not Ready.
    """
    if not is_quiet(row, now=now, cooldown=cooldown, rules=rules):
        return False
    silence = now - _quiet_since(row)
    if all_settled and silence >= rules.resolve_after:
        return True
    return not any_unwell and silence >= _long_silence(cooldown)


def expired(row: Row, *, now: datetime, cooldown: timedelta, rules: IncidentRules) -> bool:
    """Nothing can need the row any more: no signal that a LIST could still show, no window, no open call."""
    end = _life_end(row, cooldown=cooldown, rules=rules)
    return end is not None and now >= end


def muted_by_legacy(
    rows: Iterable[Row], signal: Signal, *, event_type: EventType, now: datetime, cooldown: timedelta
) -> bool:
    """A row that names no entry says that somebody was called about this pod within the cooldown.

    Such a row is not counted up: it mutes from its own `lastSeen`, not for as long as signals come. What happened
    within that time stays muted when a LIST shows it later.
    """
    return any(
        abs(now - row.last_seen) < cooldown or (signal.listed and signal.raw_time < row.last_seen + cooldown)
        for row in rows
        if row.legacy and row.event_type is event_type and row.resource_name == signal.pod
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What `make_room` found: rows to drop, and whether one more fits then."""

    dropped: tuple[Row, ...]
    """Past their life: nobody misses them."""
    failed: tuple[Row, ...]
    """Waiting for their Hook's budget: they go as visible failures."""
    has_room: bool


def make_room(
    rows: Sequence[Row],
    *,
    now: datetime,
    cooldown_of: Callable[[Row], timedelta],
    rules: IncidentRules,
    sizes: RowSizes | None = None,
) -> Room:
    """Room for one more row of this Hook: first without those past their life, then without those for the budget.

    Never goes one inside its window or with an open call: forgetting it would call its agent twice. Where no room
    can be made, nothing that still means something is given up for it.
    """
    dropped = tuple(row for row in rows if expired(row, now=now, cooldown=cooldown_of(row), rules=rules))
    gone = {id(row) for row in dropped}
    kept = [row for row in rows if id(row) not in gone]
    rows_over = len(kept) + 1 - MAX_ROWS
    bytes_over = sum((sizes or RowSizes()).of(kept)) + ROW_RESERVE_BYTES - ACTIVE_EVENTS_MAX_BYTES
    failed: list[Row] = []
    for row in sorted(filter(waits_for_budget, kept), key=lambda row: row.last_seen):
        if rows_over <= 0 and bytes_over <= 0:
            break
        failed.append(row)
        rows_over -= 1
        bytes_over -= row_bytes(row)
    if rows_over > 0 or bytes_over > 0:
        return Room(dropped=dropped, failed=(), has_room=False)
    return Room(dropped=dropped, failed=tuple(failed), has_room=True)


def _new_call(
    row: Row | None, verdict: Verdict, *, now: datetime, call_id: CallId | None, waits: CallReason
) -> Call | None:
    if verdict in (Verdict.FIRE, Verdict.REFIRE):
        assert call_id, "a call has its id before it is claimed"
        return Call(id=call_id, state=CallState.PENDING, reason=waits, claimed_time=now)
    if verdict is Verdict.SUSPENDED and not (row and row.call and row.call.reason is CallReason.SUSPENDED):
        unsent = call_id or CallId("")
        return Call(id=unsent, state=CallState.PENDING, reason=CallReason.SUSPENDED, claimed_time=now)
    return None


def _opened(signal: Signal, entry: Entry, seen: datetime, *, resource: ResourceRef, call: Call) -> Row:
    row = Row(
        entry=entry.identity,
        event_type=entry.event_type,
        resource_kind=resource.kind,
        resource_name=resource.name,
        agent=entry.agent,
        pod_uid=signal.pod_uid,
        first_seen=seen,
        last_seen=seen,
        status=RowStatus.FIRING,
        count=1,
        last_signal=LastSignal(pod_uid=signal.pod_uid, raw_time=signal.raw_time),
        facts=None,
        call=call,
    )
    return _with_first_facts(row, signal, seen)


def _counted(row: Row, signal: Signal, seen: datetime, *, anew: bool) -> Row:
    return replace(
        row,
        pod_uid=signal.pod_uid,
        first_seen=seen if anew else row.first_seen,
        last_seen=max(row.last_seen, seen),
        status=RowStatus.FIRING,
        resolved_time=None,
        count=1 if anew else row.count + 1,
        last_signal=_newest(row, signal),
        pod_signals=_others(row, signal.pod_uid),
    )


def _newest(row: Row, signal: Signal) -> LastSignal:
    """A level that is told again is as old as it ever was: it must not make news of what came since."""
    last = row.signal_of(signal.pod_uid)
    if last is not None and signal.level and signal.raw_time < last.raw_time <= row.last_seen:
        return last
    return LastSignal(pod_uid=signal.pod_uid, raw_time=signal.raw_time)


def _others(row: Row, uid: PodUid) -> tuple[LastSignal, ...]:
    """Of a group: what its other pods said last, those that spoke last kept."""
    if not row.is_group:
        return ()
    others = (one for one in (*row.pod_signals, row.last_signal) if one.pod_uid != uid)
    return tuple(others)[-(GROUP_PODS_MOST - 1) :]


def _with_memory_of(row: Row, signal: Signal) -> Row:
    """Its pod is counted in this call, and joins no later one for the same; what was said since is kept before it."""
    if row.signal_of(signal.pod_uid) is not None:
        return row
    told = LastSignal(pod_uid=signal.pod_uid, raw_time=signal.raw_time)
    return replace(row, pod_signals=(told, *row.pod_signals)[-(GROUP_PODS_MOST - 1) :])


def _with_first_facts(row: Row, signal: Signal, seen: datetime) -> Row:
    facts = _facts(row, signal, seen)
    return replace(row, facts=_joined(facts, signal, pod_count=1) if row.is_group else facts)


def _retold(row: Row, signal: Signal, seen: datetime, *, pod_count: int) -> Row:
    """What the call will say after one more signal, as long as nothing was sent.

    The newest text wins; that of a group stays the one of the pod that it names. A restart that belongs to an OOM
    kill says less than the kill.
    """
    call, facts = row.call, row.facts
    if call is None or not call.unsent or facts is None:
        return row
    says = signal.type is row.event_type
    if says and signal.pod == facts.pod:
        facts = replace(_facts(row, signal, seen), pods=facts.pods, pod_count=facts.pod_count)
    if says and row.is_group:
        facts = _joined(facts, signal, pod_count=pod_count)
    facts = replace(facts, count=row.count)
    return row if facts == row.facts else replace(row, facts=facts)


def _joined(facts: Facts, signal: Signal, *, pod_count: int) -> Facts:
    """With this pod among those that failed, its newest reason beside it."""
    failed = FailedPod(name=signal.pod, reason=plain(signal.reason, max_bytes=NAME_MAX_BYTES))
    names = [pod.name for pod in facts.pods]
    pods = facts.pods
    if signal.pod in names:
        pods = tuple(failed if pod.name == signal.pod else pod for pod in pods)
    elif len(pods) < GROUP_PODS_MOST:
        pods = (*pods, failed)
    return replace(facts, pods=pods, pod_count=max(facts.pod_count, pod_count, len(pods)))


def _facts(row: Row, signal: Signal, seen: datetime) -> Facts:
    return Facts(
        container=plain(signal.container or "", max_bytes=NAME_MAX_BYTES),
        reason=plain(signal.reason, max_bytes=NAME_MAX_BYTES),
        message=plain(signal.message, max_bytes=MESSAGE_MAX_BYTES),
        time=seen,
        pod=signal.pod,
        count=row.count,
    )


def _call(row: Row) -> Call:
    assert row.call is not None, "only a row with a call is called for"
    return row.call


def _with_call(row: Row, **changes: Any) -> Row:
    return replace(row, call=replace(_call(row), **changes))


def _without_needless_facts(row: Row) -> Row:
    return replace(row, facts=None) if _call(row).ended else row


def waits_for_budget(row: Row) -> bool:
    call = row.call
    return call is not None and call.state is CallState.PENDING and call.reason is CallReason.BUDGET


def _quiet_since(row: Row) -> datetime:
    """When the last signal is known to have come: a node's clock may be behind, a claim's is ours."""
    return row.last_seen if row.call is None else max(row.last_seen, row.call.claimed_time)


def _long_silence(cooldown: timedelta) -> timedelta:
    return max(cooldown, QUIET_AT_LEAST)


def _life_end(row: Row, *, cooldown: timedelta, rules: IncidentRules) -> datetime | None:
    """When the row may go; None while that does not depend on time."""
    if row.legacy:
        return row.last_seen + cooldown + rules.max_signal_age
    call = row.call
    if row.status is RowStatus.FIRING or (call is not None and call.open):
        return None
    end = max(row.last_seen, row.resolved_time or row.last_seen) + max(cooldown, rules.max_signal_age)
    return end if call is None else max(end, window_end(call, cooldown=cooldown))
