"""A Hook's bucket of calls: its size at once, its size an hour, and what a new owner makes of what stands there."""

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from incidents import START, at

from khook.core.budget import Budget
from khook.worker.allowance import Allowance

HOUR_S = 3600


def taken(budget: Budget, times: list[datetime]) -> list[datetime]:
    return [time for time in times if budget.take(time)]


def test_all_of_it_at_once_and_then_one_for_each_part_of_an_hour() -> None:
    budget = Budget(300, now=START)
    assert taken(budget, [START] * 400) == [START] * 300
    assert not budget.take(at(11.9))
    assert taken(budget, [at(12), at(12), at(23), at(24)]) == [at(12), at(24)]


def test_an_hour_fills_it_and_no_more() -> None:
    budget = Budget(5, now=START)
    taken(budget, [START] * 5)
    assert len(taken(budget, [at(100 * HOUR_S)] * 9)) == 5


def test_a_clock_that_steps_back_gives_and_takes_nothing() -> None:
    budget = Budget(60, now=START)
    taken(budget, [at(600)] * 60)
    assert taken(budget, [START, at(600)]) == []
    assert budget.take(at(660))


@given(st.integers(1, 50), st.lists(st.floats(0, 3 * HOUR_S), max_size=200))
def test_in_any_stretch_of_time_it_allows_its_size_and_what_has_refilled(size: int, seconds: list[float]) -> None:
    times = taken(Budget(size, now=START), [at(s) for s in sorted(seconds)])
    for first, begin in enumerate(times):
        for last, end in enumerate(times[first:], first):
            assert last - first + 1 <= size + size * ((end - begin) / timedelta(hours=1)) + 1e-6


@given(st.integers(1, 20), st.lists(st.floats(0, 2 * HOUR_S), max_size=60), st.floats(0, HOUR_S))
def test_a_new_owner_who_knows_all_calls_goes_on_where_the_old_one_was(
    size: int, seconds: list[float], later_s: float
) -> None:
    old = Budget(size, now=START)
    made = taken(old, [at(s) for s in sorted(seconds)])
    now = at(max(seconds, default=0.0)) + timedelta(seconds=later_s)
    new = Budget(size, now=now, charged=made)
    left = [len(taken(budget, [now] * size)) for budget in (old, new)]
    assert abs(left[0] - left[1]) <= 1, "but for a rounding error at the very edge of a call"


def test_who_waits_is_served_in_turn_and_nobody_overtakes() -> None:
    allowance: Allowance[str] = Allowance(Budget(2, now=START))
    assert [allowance.charge(key, START) for key in "abcd"] == [True, True, False, False]
    assert not allowance.charge("e", at(1800)), "there is a call, and c waits for it"
    allowance.forget("d")
    assert list(allowance.due(at(1800))) == ["c"]
    assert list(allowance.due(at(1801))) == []
    assert len(allowance) == 1
    assert list(allowance.due(at(3600))) == ["e"]


def test_without_a_budget_nobody_waits() -> None:
    allowance: Allowance[int] = Allowance(None)
    assert all(allowance.charge(number, START) for number in range(10_000))
    assert len(allowance) == 0
