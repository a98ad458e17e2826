"""Rows about the owner of pods: which pods they name, what they remember of them, and what is stale for them."""

from typing import Any

from incidents import COOLDOWN, RULES, a_call, a_signal, an_entry, at

from khook.core import rows
from khook.core.incident import CallId, CallReason, CallState, LastSignal, Row, Verdict
from khook.core.owner import ResourceRef
from khook.core.rowjson import render_row, restore_row
from khook.core.signal import PodUid, Signal, Source
from khook.core.verdict import is_stale, judge

DEPLOYMENT = ResourceRef("Deployment", "web")
ENTRY = an_entry(group_by_owner=True)


def of(number: int, seconds: float = 0, **changes: Any) -> Signal:
    return a_signal(seconds, pod=f"web-{number}", pod_uid=PodUid(f"uid-{number}"), **changes)


def fired(signal: Signal, row: Row | None = None, verdict: Verdict = Verdict.FIRE, *, now: float = 0) -> Row:
    return rows.apply(
        row, signal, verdict, now=at(now), entry=ENTRY, resource=DEPLOYMENT,
        call_id=CallId("call-1"), waits=CallReason.GROUPING,
    )  # fmt: skip


def joined(row: Row, *signals: Signal, already: int = 1) -> Row:
    for more, signal in enumerate(signals, 1):
        now = signal.raw_time
        row = rows.apply(row, signal, Verdict.IN_FLIGHT, now=now, entry=ENTRY, pod_count=already + more)
    return row


def names(row: Row) -> list[str]:
    assert row.facts is not None
    return [pod.name for pod in row.facts.pods]


def test_a_group_names_its_first_twenty_pods_with_their_newest_reason_and_counts_all() -> None:
    row = joined(fired(of(0)), *(of(number, number) for number in range(1, 50)))
    assert (row.resource, row.count) == (DEPLOYMENT, 50)
    assert names(row) == [f"web-{number}" for number in range(20)]
    assert row.facts is not None
    assert (row.facts.pod, row.facts.pod_count, row.facts.count) == ("web-0", 50, 50)
    again = joined(row, of(3, 60, reason="OOMKilled"), already=49)
    assert again.facts is not None
    assert [pod.reason for pod in again.facts.pods[2:5]] == ["BackOff", "OOMKilled", "BackOff"]
    assert again.facts.pod_count == 50


def test_what_it_says_is_said_of_the_pod_that_it_names() -> None:
    row = joined(fired(of(0, message="first")), of(1, 1, message="another's"))
    assert row.facts is not None
    assert row.facts.message == "first"
    row = joined(row, of(0, 2, message="newer"), already=1)
    assert row.facts is not None
    assert (row.facts.message, row.facts.pod, names(row)) == ("newer", "web-0", ["web-0", "web-1"])


def test_nothing_joins_a_call_that_was_sent_but_its_signals_count() -> None:
    sent = rows.attempted(rows.calling(fired(of(0)), protocol="a2a"))
    row = joined(sent, of(1, 1))
    assert row.facts == sent.facts
    assert row.count == 2


def test_a_new_call_begins_a_new_group() -> None:
    old = rows.completed(joined(fired(of(0)), of(1, 1)), now=at(6))
    row = fired(of(2, 700), old, Verdict.REFIRE, now=700)
    assert names(row) == ["web-2"]
    assert row.facts is not None
    assert row.facts.pod_count == 1


def test_signals_of_twenty_pods_are_remembered_and_others_are_compared_with_the_last_seen() -> None:
    row = joined(fired(of(0)), *(of(number, number) for number in range(1, 30)))
    assert len(row.pod_signals) == 19
    for number in range(10, 30):
        assert is_stale(row, of(number, number))
        assert not is_stale(row, of(number, number + 1))
    assert not is_stale(row, of(2, 2)), "live, and nobody remembers it"
    assert is_stale(row, of(2, 2, listed=True))
    assert not is_stale(row, of(2, 30, listed=True))


def test_a_pod_that_speaks_again_moves_to_the_end_of_what_is_remembered() -> None:
    row = joined(fired(of(0)), of(1, 1), of(0, 2))
    assert [one.pod_uid for one in (*row.pod_signals, row.last_signal)] == ["uid-1", "uid-0"]


def test_a_row_about_a_pod_remembers_one_pod_whatever_its_uid() -> None:
    row = rows.apply(None, of(0), Verdict.FIRE, now=at(0), entry=an_entry(), call_id=CallId("call-1"))
    row = rows.apply(row, a_signal(5, pod="web-0", pod_uid=PodUid("next")), Verdict.IN_FLIGHT, now=at(5), entry=ENTRY)
    assert (row.pod_signals, row.facts and row.facts.pods) == ((), ())


def test_a_listed_pod_that_is_old_news_still_joins_the_group_that_waits() -> None:
    row = fired(of(5, 50), now=50)
    late = of(1, 10, listed=True, source=Source.POD)
    assert judge(row, late, now=at(51), cooldown=COOLDOWN, suspended=False, has_room=True, rules=RULES) is Verdict.STALE
    told = rows.reworded(row, late, pod_count=2)
    assert names(told) == ["web-5", "web-1"]
    assert (told.count, told.last_signal) == (row.count, row.last_signal)
    assert told.signal_of(late.pod_uid) == LastSignal(pod_uid=late.pod_uid, raw_time=late.raw_time)


def test_a_listed_pod_joins_no_group_that_counted_it_before_nor_one_that_failed_long_after_it() -> None:
    def may_join(row: Row, signal: Signal, now: float) -> bool:
        return rows.says_more(row, signal, now=at(now), rules=RULES)

    again = fired(of(2, 700), rows.completed(joined(fired(of(0)), of(1, 1)), now=at(6)), Verdict.REFIRE, now=700)
    assert not may_join(again, of(1, 1, listed=True), 701), "told of in the call before"
    assert may_join(again, of(3, 690, listed=True), 701)
    assert may_join(again, of(2, 699, listed=True), 701), "the words of the pod that the call is about"
    old = RULES.max_signal_age.total_seconds() + 1
    assert not may_join(again, of(3, 700 - old, listed=True), 700)
    assert may_join(again, of(3, 700 - old, listed=True, level=True), 700), "it lasts"


def test_the_wait_for_a_group_ends_and_a_suspension_in_it_stays() -> None:
    row = fired(of(0))
    gathered = rows.gathered(row)
    assert gathered.call is not None
    assert (gathered.call.state, gathered.call.reason) == (CallState.PENDING, CallReason.QUEUED)
    assert rows.gathered(rows.suspended(row)) == rows.suspended(row)


def test_a_group_comes_back_from_the_status_as_it_was() -> None:
    row = joined(fired(of(0)), *(of(number, number) for number in range(1, 30)))
    assert restore_row(render_row(row)) == (row, 0)


def test_a_call_that_waits_for_the_budget_is_decided_anew_when_it_may_be_made() -> None:
    row = rows.parked(fired(of(0)), reason=CallReason.BUDGET)
    assert rows.waits_for_budget(row)
    assert row.call is not None
    assert not row.call.charged
    afforded = rows.afforded(row, now=at(1800))
    assert afforded.call == a_call(CallState.PENDING, CallReason.QUEUED, claimed_time=at(1800))
