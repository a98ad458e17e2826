"""What a signal means for its incident: the one decision that makes "once per incident and cooldown" true.

`judge` takes the row (or none), the signal and `now`, and returns the `Verdict`; it changes nothing. Three questions
in this order: is the signal news (else STALE), is it young enough to open anything (else HISTORY), and what has
become of the row's latest call. It knows one entry and one resource at a time; which entries a signal concerns is
`khook.core.match`, what the verdict does to the row is `khook.core.rows`.
"""

from datetime import datetime, timedelta

from khook.core.incident import Call, CallReason, CallState, IncidentRules, Row, Verdict
from khook.core.signal import Signal


def judge(
    row: Row | None,
    signal: Signal,
    *,
    now: datetime,
    cooldown: timedelta,
    suspended: bool,
    has_room: bool,
    rules: IncidentRules,
) -> Verdict:
    """The verdict on `signal`, for the row of its entry and resource.

    `suspended` is the Hook's `spec.suspend` now; `has_room` matters only where there is no row (`rows.make_room`).
    """
    if row is not None and is_stale(row, signal) and not _level_again(row, signal, now, cooldown, suspended):
        return Verdict.STALE
    call = None if row is None else row.call
    if call is None or (_shelved(call) and not suspended):
        if _is_history(signal, now=now, rules=rules):
            return Verdict.HISTORY
        if row is None and not has_room:
            return Verdict.NO_ROOM
        return Verdict.SUSPENDED if suspended else Verdict.FIRE
    return _after_call(call, now=now, cooldown=cooldown, suspended=suspended, rules=rules)


def is_stale(row: Row, signal: Signal) -> bool:
    """The row knows this signal already, or a newer one of the same source.

    Only *listed* signals of a pod that the row does not remember are compared with `lastSeen`: a live watch line is
    news whatever its node's clock says. A kept time that lay in the future (it is newer than `lastSeen`, which is at
    most our clock's) would mute a pod until its node's clock is set right, so there only that very time is known.
    """
    last = row.signal_of(signal.pod_uid)
    if last is None:
        return signal.listed and signal.raw_time <= row.last_seen
    if last.raw_time > row.last_seen:
        return signal.raw_time == last.raw_time or signal.raw_time <= row.last_seen
    return signal.raw_time <= last.raw_time


def window_end(call: Call, *, cooldown: timedelta) -> datetime:
    """Until when an agent's acceptance of this call mutes; a call that nobody accepted mutes nothing."""
    return (call.accepted_time or call.claimed_time) + cooldown if _was_accepted(call) else call.claimed_time


def _after_call(call: Call, *, now: datetime, cooldown: timedelta, suspended: bool, rules: IncidentRules) -> Verdict:
    if _shelved(call):
        return Verdict.SUSPENDED
    if call.open:
        return Verdict.IN_FLIGHT
    if _was_accepted(call):
        muted, later = now < window_end(call, cooldown=cooldown), Verdict.REFIRE
    else:
        muted, later = now < _failed_time(call) + rules.retry_gap, Verdict.FIRE
    if muted:
        return Verdict.REPEAT
    return Verdict.SUSPENDED if suspended else later


def _level_again(row: Row, signal: Signal, now: datetime, cooldown: timedelta, suspended: bool) -> bool:
    """A state that lasts says so again where nobody has been told: after a failure, or after a suspension."""
    if not signal.level or suspended:
        return False
    call = row.call
    if call is None or _shelved(call):
        return True
    return call.state is CallState.FAILED and not _was_accepted(call) and now >= _failed_time(call) + cooldown


def _is_history(signal: Signal, *, now: datetime, rules: IncidentRules) -> bool:
    return signal.listed and not signal.level and now - signal.raw_time > rules.max_signal_age


def _shelved(call: Call) -> bool:
    return call.state is CallState.PENDING and call.reason is CallReason.SUSPENDED


def _was_accepted(call: Call) -> bool:
    return call.accepted_time is not None or call.state in (CallState.ACCEPTED, CallState.COMPLETED)


def _failed_time(call: Call) -> datetime:
    return call.ended_time or call.claimed_time
