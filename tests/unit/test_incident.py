"""What a signal means for its incident, and the life of a row: each line of the tables as one promise."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from incidents import COOLDOWN, RULES, START, a_call, a_legacy_row, a_row, a_signal, an_entry, at

from khook.core import rows
from khook.core.incident import Call, CallId, CallReason, CallState, Facts, LastSignal, Row, RowStatus, Verdict
from khook.core.rowjson import row_bytes
from khook.core.signal import EventType, PodUid, Signal, Source
from khook.core.status import ACTIVE_EVENTS_MAX_BYTES
from khook.core.verdict import judge

QUEUED = a_call(CallState.PENDING, CallReason.QUEUED)
SUSPENDED = a_call(CallState.PENDING, CallReason.SUSPENDED)
CALLING = a_call(CallState.CALLING)
RUNNING = a_call(CallState.ACCEPTED, task_id="task-1", accepted_time=at(10))
NO_ANSWER = a_call(CallState.ACCEPTED, CallReason.NO_ANSWER, accepted_time=at(10))
COMPLETED = a_call(CallState.COMPLETED, accepted_time=at(10), ended_time=at(40))
RUN_FAILED = a_call(CallState.FAILED, CallReason.RUN_FAILED, accepted_time=at(10), ended_time=at(40))
UNREACHABLE = a_call(CallState.FAILED, CallReason.UNREACHABLE, ended_time=at(10))

GAP_S = RULES.retry_gap.total_seconds()
COOLDOWN_S = COOLDOWN.total_seconds()
DAY_S = 86_400.0


def verdict(row: Row | None, signal: Signal, *, now: datetime, suspended: bool = False, room: bool = True) -> Verdict:
    return judge(row, signal, now=now, cooldown=COOLDOWN, suspended=suspended, has_room=room, rules=RULES)


def fresh(call: Call | None, *, after_s: float, suspended: bool = False) -> Verdict:
    """The verdict on a live signal that happens `after_s` after the row was opened."""
    return verdict(a_row(call), a_signal(after_s), now=at(after_s), suspended=suspended)


# The table of verdicts.


@pytest.mark.parametrize(
    ("call", "after_s", "expected"),
    [
        (QUEUED, DAY_S, Verdict.IN_FLIGHT),
        (replace(QUEUED, reason=CallReason.PARKED, attempts=3), DAY_S, Verdict.IN_FLIGHT),
        (replace(QUEUED, reason=CallReason.BUDGET), DAY_S, Verdict.IN_FLIGHT),
        (CALLING, DAY_S, Verdict.IN_FLIGHT),
        (RUNNING, DAY_S, Verdict.IN_FLIGHT),
        (COMPLETED, 10 + COOLDOWN_S - 0.001, Verdict.REPEAT),
        (COMPLETED, 10 + COOLDOWN_S, Verdict.REFIRE),
        (NO_ANSWER, 10 + COOLDOWN_S - 0.001, Verdict.REPEAT),
        (NO_ANSWER, 10 + COOLDOWN_S, Verdict.REFIRE),
        (RUN_FAILED, 10 + COOLDOWN_S - 0.001, Verdict.REPEAT),
        (RUN_FAILED, 10 + COOLDOWN_S, Verdict.REFIRE),
        (UNREACHABLE, 10 + GAP_S - 0.001, Verdict.REPEAT),
        (UNREACHABLE, 10 + GAP_S, Verdict.FIRE),
        (SUSPENDED, 1, Verdict.FIRE),
        (None, 1, Verdict.FIRE),
    ],
)
def test_a_fresh_signal_is_judged_by_what_became_of_the_call(
    call: Call | None, after_s: float, expected: Verdict
) -> None:
    assert expected == fresh(call, after_s=after_s)


@pytest.mark.parametrize(
    ("call", "after_s", "expected"),
    [
        (SUSPENDED, 1, Verdict.SUSPENDED),
        (None, 1, Verdict.SUSPENDED),
        (CALLING, 1, Verdict.IN_FLIGHT),
        (COMPLETED, 10 + COOLDOWN_S - 0.001, Verdict.REPEAT),
        (COMPLETED, 10 + COOLDOWN_S, Verdict.SUSPENDED),
        (UNREACHABLE, 10 + GAP_S, Verdict.SUSPENDED),
    ],
)
def test_a_suspended_hook_never_gets_a_new_call(call: Call | None, after_s: float, expected: Verdict) -> None:
    assert expected == fresh(call, after_s=after_s, suspended=True)


def test_the_first_signal_fires_unless_there_is_no_room_or_the_hook_is_suspended() -> None:
    signal = a_signal()
    assert verdict(None, signal, now=START) == Verdict.FIRE
    assert verdict(None, signal, now=START, suspended=True) == Verdict.SUSPENDED
    assert verdict(None, signal, now=START, room=False) == Verdict.NO_ROOM
    assert verdict(None, signal, now=START, suspended=True, room=False) == Verdict.NO_ROOM


# What is new, what is stale.


@pytest.mark.parametrize(
    ("signal", "stale"),
    [
        (a_signal(50), True),
        (a_signal(49), True),
        (a_signal(51), False),
        (a_signal(50, listed=True), True),
        (a_signal(51, listed=True), False),
        (a_signal(60, pod_uid="uid-2", listed=True), True),
        (a_signal(61, pod_uid="uid-2", listed=True), False),
        (a_signal(-3600, pod_uid="uid-2"), False),
    ],
)
def test_known_signals_are_stale_and_a_live_one_of_another_pod_never_is(signal: Signal, stale: bool) -> None:
    row = a_row(CALLING, last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(50)), last_seen=at(60))
    assert verdict(row, signal, now=at(90)) == (Verdict.STALE if stale else Verdict.IN_FLIGHT)


@pytest.mark.parametrize(("seconds", "stale"), [(3600, True), (3599, False), (3601, False), (60, True), (61, False)])
def test_a_node_clock_that_was_ahead_does_not_mute_its_pod(seconds: float, stale: bool) -> None:
    """The kept time lies an hour after anything we have seen: only that very time is known, or an old one."""
    row = a_row(CALLING, last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(3600)), last_seen=at(60))
    assert verdict(row, a_signal(seconds), now=at(90)) == (Verdict.STALE if stale else Verdict.IN_FLIGHT)


@pytest.mark.parametrize(
    ("changes", "age_s", "expected"),
    [
        ({"listed": True}, 901, Verdict.HISTORY),
        ({"listed": True}, 900, Verdict.FIRE),
        ({"listed": False}, 901, Verdict.FIRE),
        ({"listed": True, "level": True}, DAY_S, Verdict.FIRE),
    ],
)
def test_only_listed_signals_can_be_too_old_to_open_a_row(
    changes: dict[str, Any], age_s: float, expected: Verdict
) -> None:
    assert expected == verdict(None, a_signal(0, **changes), now=at(age_s))


def test_a_listed_signal_that_a_row_has_not_seen_fires_again_at_any_age() -> None:
    """The row proves that it is news: khook was down while it happened."""
    listed = a_signal(1000, listed=True)
    assert verdict(a_row(COMPLETED), listed, now=at(1000 + DAY_S)) == Verdict.REFIRE


def test_an_unsuspended_row_counts_as_none_so_history_does_not_fire_it() -> None:
    listed = a_signal(1, listed=True)
    assert verdict(a_row(SUSPENDED), listed, now=at(1000)) == Verdict.HISTORY
    assert verdict(a_row(SUSPENDED), listed, now=at(100)) == Verdict.FIRE
    assert verdict(a_row(SUSPENDED), listed, now=at(1000), suspended=True) == Verdict.SUSPENDED


@pytest.mark.parametrize(
    ("call", "after_s", "suspended", "expected"),
    [
        (COMPLETED, DAY_S, False, Verdict.STALE),
        (RUN_FAILED, DAY_S, False, Verdict.STALE),
        (CALLING, DAY_S, False, Verdict.STALE),
        (UNREACHABLE, 10 + COOLDOWN_S - 0.001, False, Verdict.STALE),
        (UNREACHABLE, 10 + COOLDOWN_S, False, Verdict.FIRE),
        (UNREACHABLE, 10 + COOLDOWN_S, True, Verdict.STALE),
        (SUSPENDED, 1, True, Verdict.STALE),
        (SUSPENDED, 1, False, Verdict.FIRE),
        (None, 1, False, Verdict.FIRE),
    ],
)
def test_a_level_opens_once_and_speaks_again_only_where_nobody_was_told(
    call: Call | None, after_s: float, suspended: bool, expected: Verdict
) -> None:
    level = a_signal(0, type=EventType.POD_PENDING, level=True, listed=True)
    row = a_row(call, event_type=EventType.POD_PENDING)
    assert expected == verdict(row, level, now=at(after_s), suspended=suspended)


# What a verdict does to the row.


def applied(row: Row | None, signal: Signal, verdict: Verdict, *, now: datetime, **changes: Any) -> Row:
    return rows.apply(row, signal, verdict, now=now, entry=an_entry(**changes), call_id=CallId("call-2"))


def test_a_level_that_is_told_again_makes_no_news_of_what_came_since() -> None:
    row = a_row(UNREACHABLE, last_seen=at(300), last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(300)))
    level = a_signal(0, type=EventType.POD_PENDING, level=True)
    told_again = applied(row, level, Verdict.FIRE, now=at(900))
    assert verdict(told_again, a_signal(300, listed=True), now=at(901)) is Verdict.STALE


def test_a_time_that_lay_in_the_future_is_not_kept_over_a_level() -> None:
    row = a_row(UNREACHABLE, last_seen=at(300), last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(7200)))
    level = a_signal(0, type=EventType.POD_PENDING, level=True)
    assert applied(row, level, Verdict.FIRE, now=at(900)).last_signal.raw_time == at(0)


def test_firing_opens_a_row_with_a_claim() -> None:
    row = applied(None, a_signal(5), Verdict.FIRE, now=at(7))
    assert row == Row(
        entry=an_entry().identity,
        event_type=EventType.POD_RESTART,
        resource_kind="Pod",
        resource_name="my-app",
        agent="kagent/k8s-agent",
        pod_uid=PodUid("uid-1"),
        first_seen=at(5),
        last_seen=at(5),
        status=RowStatus.FIRING,
        count=1,
        last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(5)),
        facts=Facts(
            container="app",
            reason="BackOff",
            message="Back-off restarting failed container app",
            time=at(5),
            pod="my-app",
        ),
        call=Call(id=CallId("call-2"), state=CallState.PENDING, reason=CallReason.QUEUED, claimed_time=at(7)),
    )


def test_the_time_of_a_signal_is_at_most_now_but_its_own_time_is_kept() -> None:
    row = applied(None, a_signal(3600, container=None), Verdict.FIRE, now=at(0))
    assert (row.first_seen, row.last_seen, row.last_signal.raw_time) == (at(0), at(0), at(3600))
    assert row.facts is not None
    assert (row.facts.time, row.facts.container) == (at(0), "")


def test_last_seen_never_goes_back() -> None:
    row = applied(a_row(COMPLETED, last_seen=at(60)), a_signal(5, pod_uid="uid-2"), Verdict.REPEAT, now=at(70))
    assert (row.last_seen, row.pod_uid, row.last_signal) == (
        at(60),
        "uid-2",
        LastSignal(pod_uid=PodUid("uid-2"), raw_time=at(5)),
    )


def test_a_repeat_counts_and_wakes_a_resolved_row_without_a_call() -> None:
    quiet = replace(rows.resolved(a_row(COMPLETED, facts=None), now=at(50)), count=4)
    row = applied(quiet, a_signal(60), Verdict.REPEAT, now=at(61))
    assert row == replace(
        quiet,
        status=RowStatus.FIRING,
        resolved_time=None,
        count=5,
        last_seen=at(60),
        last_signal=LastSignal(pod_uid=PodUid("uid-1"), raw_time=at(60)),
    )


def test_a_new_call_goes_on_counting_while_firing_and_starts_again_after_a_resolve() -> None:
    firing = a_row(COMPLETED, count=4, facts=None)
    assert applied(firing, a_signal(700), Verdict.REFIRE, now=at(700)).count == 5
    assert applied(firing, a_signal(700), Verdict.REFIRE, now=at(700)).first_seen == START
    again = applied(rows.resolved(firing, now=at(300)), a_signal(700), Verdict.REFIRE, now=at(700))
    assert (again.count, again.first_seen, again.status) == (1, at(700), RowStatus.FIRING)
    assert again.call == Call(
        id=CallId("call-2"), state=CallState.PENDING, reason=CallReason.QUEUED, claimed_time=at(700)
    )


@pytest.mark.parametrize(
    ("call", "kind", "newest"),
    [
        (QUEUED, EventType.POD_RESTART, True),
        (replace(QUEUED, attempts=1), EventType.POD_RESTART, False),
        (CALLING, EventType.POD_RESTART, False),
        (QUEUED, EventType.OOM_KILL, False),
    ],
)
def test_the_newest_text_wins_until_something_was_sent_or_says_less_than_the_oom_kill(
    call: Call, kind: EventType, newest: bool
) -> None:
    row = applied(a_row(call, event_type=kind), a_signal(9, message="newer"), Verdict.IN_FLIGHT, now=at(9))
    assert row.facts is not None
    assert row.facts.message == ("newer" if newest else "m")
    assert (row.count, row.call) == (2, call)


def test_a_stale_event_about_the_same_moment_still_gives_an_unsent_call_its_words() -> None:
    row = a_row(QUEUED)
    words = rows.reworded(row, a_signal(0, message="in words"))
    assert words.facts is not None
    assert words.facts.message == "in words"
    assert words == replace(row, facts=words.facts)


@pytest.mark.parametrize(
    ("row", "signal"),
    [
        (a_row(QUEUED), a_signal(-1)),
        (a_row(QUEUED), a_signal(0, source=Source.POD)),
        (a_row(CALLING), a_signal(0)),
        (a_row(QUEUED, facts=None), a_signal(0)),
        (a_row(QUEUED, event_type=EventType.OOM_KILL), a_signal(0)),
    ],
)
def test_other_stale_signals_change_no_text(row: Row, signal: Signal) -> None:
    assert rows.reworded(row, signal) is row


def test_a_suspended_hook_opens_rows_whose_call_is_never_sent() -> None:
    opened = rows.apply(None, a_signal(), Verdict.SUSPENDED, now=at(1), entry=an_entry())
    assert opened.call == Call(id=CallId(""), state=CallState.PENDING, reason=CallReason.SUSPENDED, claimed_time=at(1))
    counted = rows.apply(opened, a_signal(5, message="newer"), Verdict.SUSPENDED, now=at(6), entry=an_entry())
    assert (counted.count, counted.call) == (2, opened.call)
    assert counted.facts is not None
    assert counted.facts.message == "newer"
    withheld = rows.apply(a_row(COMPLETED), a_signal(700), Verdict.SUSPENDED, now=at(700), entry=an_entry())
    assert withheld.call is not None
    assert withheld.call.reason is CallReason.SUSPENDED


@pytest.mark.parametrize("silent", [Verdict.STALE, Verdict.HISTORY, Verdict.NO_ROOM])
def test_a_verdict_without_a_trace_changes_no_row(silent: Verdict) -> None:
    assert not silent.changes_row
    with pytest.raises(ValueError, match=silent.value):
        applied(a_row(QUEUED), a_signal(), silent, now=START)


def test_text_from_the_cluster_is_kept_as_one_short_line_without_control_or_bidi_characters() -> None:
    message = "a\x1b[31mb\r\n\tc\u202ed\x00\x85e\ud800" + "é" * 1024
    row = applied(None, a_signal(message=message, reason="R" * 200), Verdict.FIRE, now=START)
    assert row.facts is not None
    assert row.facts.message.startswith("ab cd eé")
    assert len(row.facts.message.encode()) in (1023, 1024)
    assert len(row.facts.reason) == 128


# The life of a call.


def test_a_call_goes_from_claim_to_answer_and_takes_its_facts_along() -> None:
    row = rows.attempted(rows.calling(a_row(QUEUED), protocol="execute"))
    assert row.call == replace(QUEUED, state=CallState.CALLING, reason=None, protocol="execute", attempts=1)
    assert row.facts is not None
    done = rows.completed(row, now=at(20), result="fixed\x00 " + "x" * 2000)
    assert row.call is not None
    assert done.call == replace(
        row.call,
        state=CallState.COMPLETED,
        accepted_time=at(20),
        ended_time=at(20),
        result="fixed " + "x" * 1018,
    )
    assert done.facts is None


def test_a_run_keeps_its_facts_and_the_time_of_its_acceptance() -> None:
    run = rows.accepted(rows.calling(a_row(QUEUED), protocol="a2a"), now=at(10), task_id="task-1")
    assert run.facts is not None
    assert run.call is not None
    assert run.call.open
    ended = rows.completed(run, now=at(99))
    assert ended.call is not None
    assert (ended.call.accepted_time, ended.call.ended_time, ended.facts) == (at(10), at(99), None)


def test_an_acceptance_without_an_answer_is_the_end_of_the_call() -> None:
    row = rows.accepted(a_row(CALLING), now=at(10), reason=CallReason.NO_ANSWER)
    assert row.call == replace(CALLING, state=CallState.ACCEPTED, reason=CallReason.NO_ANSWER, accepted_time=at(10))
    assert row.facts is None
    assert not row.call.open


def test_a_failure_says_why_in_one_short_line() -> None:
    row = rows.failed(a_row(CALLING), now=at(9), reason=CallReason.UNREACHABLE, error="refused\n" + "x" * 300)
    assert row.call is not None
    assert (row.call.state, row.call.reason, row.call.ended_time) == (CallState.FAILED, CallReason.UNREACHABLE, at(9))
    assert row.call.error == "refused " + "x" * 248
    assert row.facts is None


def test_suspending_stops_what_waits_and_leaves_what_was_sent() -> None:
    assert rows.suspended(a_row(QUEUED)) == a_row(SUSPENDED)
    for call in (CALLING, RUNNING, COMPLETED, None):
        assert rows.suspended(a_row(call)) == a_row(call)


# Resolved, expired.


def over(row: Row, after_s: float, *, settled: bool, unwell: bool, cooldown: timedelta = COOLDOWN) -> bool:
    return rows.resolves(row, now=at(after_s), all_settled=settled, any_unwell=unwell, cooldown=cooldown, rules=RULES)


@pytest.mark.parametrize(
    ("after_s", "settled", "unwell", "expected"),
    [
        (119, True, False, False),
        (120, True, False, True),
        (599, False, False, False),
        (600, False, False, True),
        (DAY_S, False, True, False),
    ],
)
def test_an_incident_is_over_when_its_pods_are_well_and_it_is_quiet(
    after_s: float, settled: bool, unwell: bool, expected: bool
) -> None:
    assert expected == over(a_row(COMPLETED), after_s, settled=settled, unwell=unwell)


def test_the_long_silence_is_the_cooldown_where_that_is_longer() -> None:
    hour = timedelta(hours=1)
    assert not over(a_row(COMPLETED), 3599, settled=False, unwell=False, cooldown=hour)
    assert over(a_row(COMPLETED), 3600, settled=False, unwell=False, cooldown=hour)


def test_a_claim_breaks_the_silence_where_the_nodes_clock_is_behind() -> None:
    row = a_row(replace(COMPLETED, claimed_time=at(1000)))
    assert not over(row, 1119, settled=True, unwell=False)
    assert over(row, 1120, settled=True, unwell=False)


def test_only_a_firing_row_of_ours_resolves() -> None:
    assert not over(rows.resolved(a_row(COMPLETED), now=at(5)), DAY_S, settled=True, unwell=False)
    assert not over(a_legacy_row(), DAY_S, settled=True, unwell=False)
    assert over(a_row(None), DAY_S, settled=True, unwell=False)


def gone(row: Row, after_s: float, cooldown: timedelta = COOLDOWN) -> bool:
    return rows.expired(row, now=at(after_s), cooldown=cooldown, rules=RULES)


def test_a_row_outlives_its_incident_by_what_a_list_could_still_show() -> None:
    row = rows.resolved(a_row(COMPLETED), now=at(100))
    assert not gone(row, 999)
    assert gone(row, 1000)
    late = replace(row, last_seen=at(200))
    assert not gone(late, 1099)
    assert gone(late, 1100)
    hour = timedelta(hours=1)
    assert not gone(row, 3699, hour)
    assert gone(row, 3700, hour)


@pytest.mark.parametrize("call", [QUEUED, CALLING, RUNNING])
def test_a_row_lives_as_long_as_it_fires_or_its_call_is_open(call: Call) -> None:
    assert not gone(a_row(COMPLETED), DAY_S)
    assert not gone(rows.resolved(a_row(call), now=at(1)), DAY_S)


@pytest.mark.parametrize("call", [SUSPENDED, NO_ANSWER, UNREACHABLE, None])
def test_a_row_whose_call_waits_for_nobody_ends_with_its_incident(call: Call | None) -> None:
    assert gone(rows.resolved(a_row(call), now=at(1)), 901)


def test_a_window_that_began_late_keeps_its_row() -> None:
    """Accepted long after the incident resolved: without the row a signal in its window would call again."""
    row = rows.resolved(a_row(replace(COMPLETED, accepted_time=at(890))), now=at(1))
    assert not gone(row, 890 + COOLDOWN_S - 1)
    assert gone(row, 890 + COOLDOWN_S)


# Rows that name no entry.


@pytest.mark.parametrize(
    ("signal", "now_s", "muted"),
    [
        (a_signal(5), 599, True),
        (a_signal(600), 600, False),
        (a_signal(599, listed=True), 700, True),
        (a_signal(600, listed=True), 700, False),
        (a_signal(5, pod="other"), 5, False),
        (a_signal(5), -601, False),
    ],
)
def test_a_row_of_the_go_controller_mutes_its_type_and_pod_for_one_cooldown(
    signal: Signal, now_s: float, muted: bool
) -> None:
    table = [a_row(COMPLETED), a_legacy_row()]
    asked: dict[str, Any] = {"now": at(now_s), "cooldown": COOLDOWN}
    assert muted == rows.muted_by_legacy(table, signal, event_type=EventType.POD_RESTART, **asked)
    assert not rows.muted_by_legacy(table, signal, event_type=EventType.OOM_KILL, **asked)


def test_a_legacy_row_lives_until_nothing_it_mutes_can_be_listed() -> None:
    assert not gone(a_legacy_row(), 600 + 899)
    assert gone(a_legacy_row(), 600 + 900)


# Room.

BUDGET = replace(QUEUED, reason=CallReason.BUDGET)


def room(table: list[Row], *, now_s: float = 1000) -> rows.Room:
    return rows.make_room(table, now=at(now_s), cooldown_of=lambda _: COOLDOWN, rules=RULES)


def test_rows_past_their_life_go_first_and_nothing_else_when_that_is_enough() -> None:
    past, waiting = rows.resolved(a_row(UNREACHABLE), now=at(1)), a_row(BUDGET)
    assert room([past, waiting, a_row(CALLING)]) == rows.Room(dropped=(past,), failed=(), has_room=True)


def test_then_the_oldest_that_wait_for_the_budget_fail_as_few_as_needed() -> None:
    older, newer = a_row(BUDGET, last_seen=at(1)), a_row(BUDGET, last_seen=at(2))
    table = [newer, older] + [a_row(CALLING)] * (rows.MAX_ROWS - 2)
    assert room(table) == rows.Room(dropped=(), failed=(older,), has_room=True)


@pytest.mark.parametrize("call", [QUEUED, CALLING, RUNNING, COMPLETED])
def test_there_is_no_room_rather_than_one_incident_forgotten(call: Call) -> None:
    table = [a_row(call)] * (rows.MAX_ROWS - 1)
    assert room(table).has_room
    assert room([*table, a_row(BUDGET), a_row(call)]) == rows.Room(dropped=(), failed=(), has_room=False)


def test_room_is_bounded_in_bytes_too() -> None:
    big = a_row(replace(COMPLETED, result="x" * 4096), facts=None)
    most = (ACTIVE_EVENTS_MAX_BYTES - rows.ROW_RESERVE_BYTES) // row_bytes(big)
    assert room([big] * most).has_room
    assert not room([big] * (most + 1)).has_room
    assert room([big] * most + [replace(big, call=replace(BUDGET, error="x" * 4096))]).failed
