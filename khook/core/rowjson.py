"""One row ↔ one element of `activeEvents`, exact to the microsecond.

Writing lists the fields in the order a person reads them. Reading goes through msgspec structs that name the same
fields: whatever anybody has written there, it gives a row or it gives none, and says how many parts made no sense.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec

from khook.core.incident import (
    Call,
    CallId,
    CallReason,
    CallState,
    EntryId,
    Facts,
    FailedPod,
    LastSignal,
    Row,
    RowStatus,
)
from khook.core.moment import rfc3339
from khook.core.signal import EventType, PodUid

Json = dict[str, Any]

# Field names, times, enums, numbers and punctuation as JSON at their longest: all but the strings of any length.
_ROW_FRAME_BYTES: Final = 352
_CALL_FRAME_BYTES: Final = 280
_FACTS_FRAME_BYTES: Final = 160
_POD_FRAME_BYTES: Final = 27
_POD_SIGNAL_FRAME_BYTES: Final = 64


def render_row(row: Row) -> Json:
    """One element of `activeEvents`. A legacy row stays as its author wrote it: the seed's five fields."""
    event: Json = {
        "eventType": row.event_type.value,
        "resourceName": row.resource_name,
        "firstSeen": rfc3339(row.first_seen),
        "lastSeen": rfc3339(row.last_seen),
        "status": row.status.value,
    }
    if row.legacy:
        return event
    event |= {
        "entry": row.entry,
        "agent": row.agent,
        "resourceKind": row.resource_kind,
        "podUid": row.pod_uid,
        "count": row.count,
        "lastSignal": _render_signal(row.last_signal),
    }
    if row.pod_signals:
        event["podSignals"] = [_render_signal(one) for one in row.pod_signals]
    if row.resolved_time is not None:
        event["resolvedTime"] = rfc3339(row.resolved_time)
    if row.call is not None:
        event["call"] = _render_call(row.call)
    if row.facts is not None:
        event["facts"] = _render_facts(row.facts)
    return event


def row_bytes(row: Row) -> int:
    """At least as many bytes as the row has in JSON; cheaper than rendering it."""
    size = _ROW_FRAME_BYTES
    texts = [row.entry, row.agent, row.resource_kind, row.resource_name, row.pod_uid, row.last_signal.pod_uid]
    if row.pod_signals:
        size += _POD_SIGNAL_FRAME_BYTES * len(row.pod_signals)
        texts += [one.pod_uid for one in row.pod_signals]
    if (call := row.call) is not None:
        size += _CALL_FRAME_BYTES
        texts += (call.id, call.protocol, call.task_id, call.error, call.result)
    if (facts := row.facts) is not None:
        size += _FACTS_FRAME_BYTES + _POD_FRAME_BYTES * len(facts.pods)
        texts += (facts.container, facts.reason, facts.message, facts.pod)
        for pod in facts.pods:
            texts += (pod.name, pod.reason)
    return size + sum(map(_json_bytes, texts))


class RowSizes:
    """`row_bytes` of one Hook's rows, each reckoned once: a row is immutable, and a storm asks at each new incident."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Row, int]] = {}
        """By identity, which stays a row's own as long as the row is held here."""

    def of(self, rows: Sequence[Row]) -> list[int]:
        known = self._known
        sized = [known.get(id(row)) or (row, row_bytes(row)) for row in rows]
        self._known = {id(row): one for row, one in zip(rows, sized, strict=True)}
        return [size for _, size in sized]


def _render_signal(signal: LastSignal) -> Json:
    return {"podUid": signal.pod_uid, "rawTime": rfc3339(signal.raw_time)}


def _render_call(call: Call) -> Json:
    rendered: Json = {"id": call.id, "state": call.state.value}
    if call.reason is not None:
        rendered["reason"] = call.reason.value
    rendered |= {"attempts": call.attempts, "claimedTime": rfc3339(call.claimed_time)}
    texts = {"protocol": call.protocol, "taskId": call.task_id, "error": call.error, "result": call.result}
    times = {"acceptedTime": call.accepted_time, "endedTime": call.ended_time}
    rendered |= {name: text for name, text in texts.items() if text}
    return rendered | {name: rfc3339(time) for name, time in times.items() if time is not None}


def _render_facts(facts: Facts) -> Json:
    texts = {"container": facts.container, "reason": facts.reason, "message": facts.message}
    rendered: Json = {"pod": facts.pod, "time": rfc3339(facts.time), "count": facts.count} | {
        name: text for name, text in texts.items() if text
    }
    if facts.pods:
        rendered["podCount"] = facts.pod_count
        rendered["pods"] = [{"name": pod.name, "reason": pod.reason} for pod in facts.pods]
    return rendered


def _json_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace")) + text.count('"') + text.count("\\")


# What is read back. Strings are taken as they are; enums, numbers and times decide what makes sense.

_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Name = Annotated[str, msgspec.Meta(min_length=1)]
# Far from where adding one leaves what a JSON number holds exactly.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**52)]
# Years in which adding a cooldown cannot overflow, and in which no pod of ours can have failed outside of.
_YEARS: Final = range(1900, 9000)


class _Read(msgspec.Struct, rename="camel"):
    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, datetime):
                if value.year not in _YEARS:
                    raise ValueError("a time out of range")
                setattr(self, name, value.astimezone(UTC))


class _SeedRow(_Read):
    event_type: EventType
    resource_name: _Name
    first_seen: _Time
    last_seen: _Time
    status: RowStatus


class _LastSignal(_Read):
    pod_uid: str
    raw_time: _Time


class _FullRow(_SeedRow):
    entry: _Name
    agent: str
    resource_kind: str
    pod_uid: str
    count: _Count
    last_signal: _LastSignal
    pod_signals: tuple[_LastSignal, ...] = ()
    resolved_time: _Time | None = None


class _Call(_Read):
    id: str
    state: CallState
    claimed_time: _Time
    reason: str = ""
    protocol: str = ""
    task_id: str = ""
    attempts: _Count = 0
    accepted_time: _Time | None = None
    ended_time: _Time | None = None
    error: str = ""
    result: str = ""


class _FailedPod(_Read):
    name: _Name
    reason: str = ""


class _Facts(_Read):
    time: _Time
    pod: _Name
    container: str = ""
    reason: str = ""
    message: str = ""
    count: _Count = 1
    pods: tuple[_FailedPod, ...] = ()
    pod_count: _Count = 0


_Kind = TypeVar("_Kind", bound=_Read)


def _read(value: object, kind: type[_Kind]) -> _Kind | None:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def restore_row(event: object) -> tuple[Row | None, int]:
    """The row, and how many parts of it made no sense."""
    if isinstance(event, dict) and not event.get("entry"):
        seed = _read(event, _SeedRow)
        return (None, 1) if seed is None else (_legacy_row(seed), 0)
    full = _read(event, _FullRow)
    if full is None or not isinstance(event, dict):
        return None, 1
    call, facts = _read(event.get("call"), _Call), _read(event.get("facts"), _Facts)
    lost = (call is None and event.get("call") is not None) + (facts is None and event.get("facts") is not None)
    row = Row(
        entry=EntryId(full.entry),
        event_type=full.event_type,
        resource_kind=full.resource_kind,
        resource_name=full.resource_name,
        agent=full.agent,
        pod_uid=PodUid(full.pod_uid),
        first_seen=full.first_seen,
        last_seen=full.last_seen,
        status=full.status,
        resolved_time=full.resolved_time,
        count=full.count,
        last_signal=_restored_signal(full.last_signal),
        pod_signals=tuple(map(_restored_signal, full.pod_signals)),
        facts=None if facts is None else _restored_facts(facts),
        call=None if call is None else _restored_call(call),
    )
    return row, lost


def _restored_signal(signal: _LastSignal) -> LastSignal:
    return LastSignal(pod_uid=PodUid(signal.pod_uid), raw_time=signal.raw_time)


def _restored_facts(facts: _Facts) -> Facts:
    pods = tuple(FailedPod(name=pod.name, reason=pod.reason) for pod in facts.pods)
    return Facts(**msgspec.structs.asdict(facts) | {"pods": pods})


_REASONS: Final = {reason.value: reason for reason in CallReason}


def _restored_call(call: _Call) -> Call:
    """A reason that this version does not know says nothing that its state does not."""
    reason = _REASONS.get(call.reason)
    return Call(**msgspec.structs.asdict(call) | {"id": CallId(call.id), "reason": reason})


def _legacy_row(seed: _SeedRow) -> Row:
    return Row(
        entry=EntryId(""),
        event_type=seed.event_type,
        resource_kind="",
        resource_name=seed.resource_name,
        agent="",
        pod_uid=PodUid(""),
        first_seen=seed.first_seen,
        last_seen=seed.last_seen,
        status=seed.status,
        count=1,
        last_signal=LastSignal(pod_uid=PodUid(""), raw_time=seed.last_seen),
        facts=None,
        call=None,
    )
