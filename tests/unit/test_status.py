"""The Hook's status: rows survive it to the microsecond, garbage harms nobody, the condition tells what is wrong."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from incidents import START, a_call, a_legacy_row, a_row, at

from khook.core.condition import (
    MESSAGE_MAX_BYTES,
    Problem,
    ReadyFacts,
    find_condition,
    ready_condition,
    with_condition,
)
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
from khook.core.rowjson import render_row, row_bytes
from khook.core.signal import EventType, PodUid
from khook.core.status import ACTIVE_EVENTS_MAX_BYTES, RenderedRows, call_state, changed, render, restore

# Rows of any kind.

times = st.datetimes(datetime(2000, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(0, 2**52)


def rows_with(characters: st.SearchStrategy[str]) -> st.SearchStrategy[Row]:
    texts, names = st.text(characters, max_size=40), st.text(characters, min_size=1, max_size=20)
    calls = st.builds(
        Call,
        id=names.map(CallId),
        state=st.sampled_from(CallState),
        reason=st.none() | st.sampled_from(CallReason),
        protocol=texts,
        task_id=texts,
        attempts=counts,
        claimed_time=times,
        accepted_time=st.none() | times,
        ended_time=st.none() | times,
        error=texts,
        result=texts,
    )
    facts = st.builds(
        Facts,
        container=texts,
        reason=texts,
        message=texts,
        time=times,
        pod=names,
        count=counts,
        pods=st.lists(st.builds(FailedPod, name=names, reason=texts), min_size=1, max_size=3).map(tuple),
        pod_count=counts,
    )
    last_signals = st.builds(LastSignal, pod_uid=texts.map(PodUid), raw_time=times)
    return st.builds(
        Row,
        entry=names.map(EntryId),
        event_type=st.sampled_from(EventType),
        resource_kind=texts,
        resource_name=names,
        agent=texts,
        pod_uid=texts.map(PodUid),
        first_seen=times,
        last_seen=times,
        status=st.sampled_from(RowStatus),
        resolved_time=st.none() | times,
        count=counts,
        last_signal=last_signals,
        pod_signals=st.lists(last_signals, max_size=3).map(tuple),
        facts=st.none() | facts,
        call=st.none() | calls,
    )


def legacy_row(seen: datetime, name: str) -> Row:
    return a_legacy_row((seen - START).total_seconds(), resource_name=name)


texts = st.text(max_size=20)
rows_of_ours = rows_with(st.characters(codec="utf-8"))
legacy_rows = st.builds(legacy_row, times, st.text(min_size=1, max_size=20))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def stored(status: dict[str, Any]) -> Any:
    """What the API server gives back."""
    return orjson.loads(orjson.dumps(status))


@given(st.lists(rows_of_ours | legacy_rows, max_size=4))
def test_rows_come_back_from_a_status_as_they_were(rows: list[Row]) -> None:
    restored = restore(stored(render(rows, [], last_updated=START)))
    assert (list(restored.rows), restored.dropped) == (rows, 0)


@given(rows_with(st.characters(codec="utf-8", exclude_categories=["Cc"])))
def test_the_size_of_a_row_is_never_underestimated(row: Row) -> None:
    assert row_bytes(row) >= len(orjson.dumps(render_row(row))) + 1


@given(rows_of_ours, st.data())
def test_a_status_that_somebody_edited_never_raises(row: Row, data: st.DataObject) -> None:
    status = stored(render([row], [], last_updated=START))
    target: dict[str, Any] = status["activeEvents"][0]
    target = data.draw(st.sampled_from([target] + [part for part in target.values() if isinstance(part, dict)]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(any_json)
    assert len(restore(status).rows) <= 1


@given(any_json)
def test_a_status_that_makes_no_sense_gives_no_rows(value: object) -> None:
    assert restore(value).rows == ()
    assert restore({"activeEvents": value}).rows == ()
    assert restore({"activeEvents": [value]}).rows == ()


# What the JSON looks like.


def test_a_row_is_written_as_people_and_the_first_controller_know_it() -> None:
    call = a_call(
        CallState.FAILED,
        CallReason.RUN_FAILED,
        protocol="a2a",
        task_id="task-1",
        attempts=2,
        accepted_time=at(1.5),
        ended_time=at(9),
        error="e",
        result="r",
    )
    row = a_row(call, status=RowStatus.RESOLVED, resolved_time=at(60), entry=EntryId("pod-restart-1"))
    assert render([row], [{"type": "Ready"}], last_updated=at(61.7)) == {
        "activeEvents": [
            {
                "eventType": "pod-restart",
                "resourceName": "my-app",
                "firstSeen": "2024-01-15T10:30:00Z",
                "lastSeen": "2024-01-15T10:30:00Z",
                "status": "resolved",
                "resolvedTime": "2024-01-15T10:31:00Z",
                "entry": "pod-restart-1",
                "agent": "kagent/k8s-agent",
                "resourceKind": "Pod",
                "podUid": "uid-1",
                "count": 1,
                "lastSignal": {"podUid": "uid-1", "rawTime": "2024-01-15T10:30:00Z"},
                "call": {
                    "id": "call-1",
                    "state": "Failed",
                    "reason": "RunFailed",
                    "protocol": "a2a",
                    "taskId": "task-1",
                    "attempts": 2,
                    "claimedTime": "2024-01-15T10:30:00Z",
                    "acceptedTime": "2024-01-15T10:30:01.500000Z",
                    "endedTime": "2024-01-15T10:30:09Z",
                    "error": "e",
                    "result": "r",
                },
                "facts": {
                    "container": "app",
                    "reason": "BackOff",
                    "message": "m",
                    "time": "2024-01-15T10:30:00Z",
                    "pod": "my-app",
                    "count": 1,
                },
            }
        ],
        "conditions": [{"type": "Ready"}],
        "lastUpdated": "2024-01-15T10:31:01Z",
    }


SEED_ROW = {
    "eventType": "pod-restart",
    "resourceName": "my-app",
    "firstSeen": "2024-01-15T12:30:00+02:00",
    "lastSeen": "2024-01-15T10:30:05Z",
    "status": "firing",
}


def test_a_row_of_the_go_controller_is_read_and_written_back_as_its_own() -> None:
    (row,) = restore({"activeEvents": [SEED_ROW]}).rows
    assert row == replace(a_legacy_row(5), first_seen=START)
    assert render_row(row) == SEED_ROW | {"firstSeen": "2024-01-15T10:30:00Z"}


@pytest.mark.parametrize(
    ("status", "dropped"),
    [
        (None, 0),
        ({}, 0),
        ({"activeEvents": None}, 0),
        ({"activeEvents": "x"}, 1),
        ({"activeEvents": [1, "x", None, {}]}, 4),
        ({"activeEvents": [SEED_ROW | {"lastSeen": "yesterday"}]}, 1),
        ({"activeEvents": [SEED_ROW | {"lastSeen": "2024-01-15T10:30:05"}]}, 1),
        ({"activeEvents": [SEED_ROW | {"lastSeen": "9999-12-31T23:59:59Z"}]}, 1),
        ({"activeEvents": [SEED_ROW | {"lastSeen": "0001-01-01T00:00:00+14:00"}]}, 1),
        ({"activeEvents": [SEED_ROW | {"entry": "pod-restart-1"}]}, 1),
    ],
)
def test_what_cannot_be_read_is_counted(status: object, dropped: int) -> None:
    restored = restore(status)
    assert (restored.rows, restored.dropped) == ((), dropped)


def test_a_row_outlives_a_call_or_facts_that_make_no_sense() -> None:
    whole = a_row(a_call(CallState.CALLING))
    event = render_row(whole)
    without_call = restore({"activeEvents": [event | {"call": {"id": "x"}}]})
    assert (without_call.rows, without_call.dropped) == ((replace(whole, call=None),), 1)
    without_both = restore({"activeEvents": [event | {"call": 5, "facts": {"pod": ""}}]})
    assert (without_both.rows, without_both.dropped) == ((replace(whole, call=None, facts=None),), 2)


def test_a_reason_of_a_newer_khook_leaves_the_call_its_state() -> None:
    whole = a_row(a_call(CallState.PENDING, CallReason.PARKED))
    event = render_row(whole)
    event["call"]["reason"] = "Hypnotised"
    assert restore({"activeEvents": [event]}).rows == (a_row(a_call(CallState.PENDING)),)


def test_too_many_bytes_cost_the_oldest_answers_first() -> None:
    answer = "x" * 1024
    done = a_call(CallState.COMPLETED, accepted_time=START, result=answer)
    rows = [a_row(replace(done, ended_time=at(number)), facts=None) for number in range(450)]
    events = render(rows, [], last_updated=START)["activeEvents"]
    left = ["result" in event["call"] for event in events]
    assert 0 < left.count(True) < 450
    assert left == sorted(left)
    assert ACTIVE_EVENTS_MAX_BYTES - 1100 < len(orjson.dumps(events)) <= ACTIVE_EVENTS_MAX_BYTES


def test_when_every_answer_is_gone_the_rows_stay() -> None:
    rows = [a_row(a_call(CallState.CALLING, error="x" * 2048)) for _ in range(300)]
    assert len(render(rows, [], last_updated=START)["activeEvents"]) == 300


@given(st.lists(rows_of_ours, min_size=1, max_size=4), st.lists(st.sets(st.integers(0, 7)), max_size=6))
def test_what_was_rendered_before_changes_nothing_in_what_is_rendered_now(
    some: list[Row], writes: list[set[int]]
) -> None:
    rows = [*some, *(replace(row, count=row.count // 2 + 1) for row in some)]
    rendered = RenderedRows()
    for chosen in writes:
        now = [row for number, row in enumerate(rows) if number in chosen]
        assert render(now, [], last_updated=START, rendered=rendered) == render(now, [], last_updated=START)


def test_a_row_that_stays_is_rendered_once() -> None:
    stays, before, after = a_row(None), a_row(None, count=2), a_row(None, count=3)
    rendered = RenderedRows()
    first, second = (
        render([stays, moving], [], last_updated=START, rendered=rendered)["activeEvents"] for moving in (before, after)
    )
    assert first[0] is second[0]
    assert (first[1]["count"], second[1]["count"]) == (2, 3)


def test_an_answer_that_was_left_out_for_want_of_room_is_back_when_there_is_room() -> None:
    done = a_call(CallState.COMPLETED, accepted_time=START, ended_time=START, result="x" * 1024)
    rows = [a_row(done, facts=None) for _ in range(450)]
    rendered = RenderedRows()
    shown = render(rows, [], last_updated=START, rendered=rendered)["activeEvents"]
    assert not all("result" in event["call"] for event in shown)
    shown = render(rows[:10], [], last_updated=START, rendered=rendered)["activeEvents"]
    assert all("result" in event["call"] for event in shown)


def test_a_status_has_changed_when_more_than_its_time_has() -> None:
    before = render([a_row(None)], [], last_updated=at(0))
    assert not changed(before, render([a_row(None)], [], last_updated=at(5)))
    assert changed(before, render([a_row(None, count=2)], [], last_updated=at(0)))
    assert changed({}, before)


# Did the claim survive?


def test_a_claim_counts_when_the_answer_holds_its_id_and_state() -> None:
    status = render([a_row(a_call(CallState.CALLING)), a_legacy_row()], [], last_updated=START)
    assert call_state(status, CallId("call-1")) == CallState.CALLING
    assert call_state(status, CallId("call-2")) is None


@pytest.mark.parametrize(
    "status",
    [
        {},
        None,
        {"activeEvents": "x"},
        {"activeEvents": [5, SEED_ROW, SEED_ROW | {"call": "call-1"}]},
    ],
)
def test_an_older_crd_that_prunes_our_fields_keeps_no_claim(status: object) -> None:
    assert call_state(status, CallId("call-1")) is None


# The Ready condition.


def ready(previous: dict[str, Any] | None = None, *, seconds: float = 0, **known: Any) -> dict[str, Any]:
    return ready_condition(ReadyFacts(**{"entries": 2} | known), previous=previous, generation=3, now=at(seconds))


def test_a_hook_without_problems_is_ready() -> None:
    assert ready(seconds=0.7) == {
        "type": "Ready",
        "status": "True",
        "reason": "HookConfigured",
        "message": "2 event configurations at work",
        "observedGeneration": 3,
        "lastTransitionTime": "2024-01-15T10:30:00Z",
    }


def test_the_worst_problem_gives_the_reason_and_all_of_them_the_message() -> None:
    problems = {problem: [f"{problem}!"] for problem in reversed(Problem)}
    for worst in ("CRDOutdated", "WatchForbidden", "InvalidConfiguration", "KagentAPIError", "AgentNotFound"):
        condition = ready(problems=problems)
        assert (condition["status"], condition["reason"]) == ("False", worst)
        assert condition["message"] == "; ".join(f"{problem}!" for problem in Problem if problem in problems)
        del problems[Problem(worst)]
    assert ready(problems={Problem.CRD_OUTDATED: []})["status"] == "True"


def test_the_transition_time_moves_with_the_status_alone() -> None:
    first = ready()
    broken = ready(first, seconds=5, problems={Problem.INVALID_CONFIGURATION: ["a"]})
    assert broken["lastTransitionTime"] == "2024-01-15T10:30:05Z"
    worse = ready(broken, seconds=9, problems={Problem.WATCH_FORBIDDEN: ["b"]})
    assert (worse["reason"], worse["lastTransitionTime"]) == ("WatchForbidden", "2024-01-15T10:30:05Z")
    assert ready(worse, seconds=12)["lastTransitionTime"] == "2024-01-15T10:30:12Z"
    assert ready({"status": "True"}, seconds=12)["lastTransitionTime"] == "2024-01-15T10:30:12Z"


def test_a_suspended_hook_and_one_without_room_say_so() -> None:
    assert ready(entries=1, suspended=True, full=True)["message"] == (
        "1 event configuration at work; suspended: no agent is called; "
        "full: new incidents find no room in the status and call no agent"
    )


def test_a_message_is_bounded() -> None:
    lines = ["é" * 1000] * 50
    assert len(ready(problems={Problem.INVALID_CONFIGURATION: lines})["message"].encode()) <= MESSAGE_MAX_BYTES


def test_conditions_of_others_stay() -> None:
    status = {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Theirs"}, "garbage"]}
    assert find_condition(status) == {"type": "Ready", "status": "False"}
    assert find_condition({"conditions": "x"}) is None
    assert find_condition(None) is None
    assert with_condition(status, ready()) == [{"type": "Theirs"}, ready()]


def test_times_of_any_zone_are_written_in_utc() -> None:
    away = START.astimezone(timezone(timedelta(hours=-7)))
    assert render_row(a_legacy_row(first_seen=away))["firstSeen"] == "2024-01-15T10:30:00Z"
