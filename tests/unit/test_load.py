"""How busy a namespace is: the measured rate whatever the ticks do, forgotten with the namespace, and its weight."""

from math import exp

import hypothesis.strategies as st
import pytest
from hypothesis import given

from khook.messages import NamespaceReport, WorkerReport, decode_report, encode
from khook.supervisor.load import BASE_WEIGHT, TIME_CONSTANT_S, Loads, weight
from shards.wire import MAX_MESSAGE_BYTES


def loads(*names: str, now_at: float = 0.0) -> Loads:
    made = Loads(now_at=now_at)
    made.wanted(names)
    return made


@pytest.mark.parametrize(
    ("lines", "after_s", "then_quiet_s", "rate"),
    [
        (0, 60.0, 0.0, 0.0),
        (600, 60.0, 0.0, 10 * (1 - exp(-60 / TIME_CONSTANT_S))),
        (3000, TIME_CONSTANT_S, 0.0, 10 * (1 - exp(-1))),
        (3000, TIME_CONSTANT_S, TIME_CONSTANT_S, 10 * (1 - exp(-1)) * exp(-1)),
        (30_000_000, 3_000_000.0, 0.0, 10.0),
    ],
)
def test_a_rate_nears_what_is_counted_and_fades_with_the_time_constant(
    lines: int, after_s: float, then_quiet_s: float, rate: float
) -> None:
    one = loads("shop")
    one.counted({"shop": lines})
    one.rates(after_s)
    assert one.rates(after_s + then_quiet_s)["shop"] == pytest.approx(rate)


@given(st.lists(st.integers(min_value=1, max_value=200), min_size=1, max_size=30))
def test_a_steady_rate_gives_the_same_however_the_ticks_fall(waits_s: list[int]) -> None:
    """4 lines a second, looked at after any waits, or only once at the end."""
    often, once = loads("shop"), loads("shop")
    now_at = 0.0
    for wait_s in waits_s:
        now_at += wait_s
        for one in (often, once):
            one.counted({"shop": 4 * wait_s})
        often.rates(now_at)
    assert often.rates(now_at)["shop"] == pytest.approx(once.rates(now_at)["shop"])
    assert often.rates(now_at)["shop"] <= 4.0 + 1e-9


def test_looking_twice_at_one_time_changes_nothing_and_loses_no_line() -> None:
    one, other = loads("shop"), loads("shop")
    for lines in (one, other):
        lines.counted({"shop": 30})
        lines.rates(10.0)
    one.counted({"shop": 30})
    assert one.rates(10.0) == other.rates(10.0)
    assert one.rates(10.0) == other.rates(9.0)  # a clock that is asked out of order
    other.counted({"shop": 30})
    assert one.rates(20.0) == other.rates(20.0)


def test_a_new_namespace_has_no_rate_and_one_that_nobody_wants_is_forgotten() -> None:
    one = loads("shop")
    one.counted({"shop": 600, "bank": 600})  # bank: a late report of a namespace that was given up
    one.rates(60.0)
    one.counted({"shop": 600})
    one.wanted(["bank"])
    assert one.rates(120.0) == {"bank": 0.0}
    one.wanted(["bank", "shop"])
    assert one.rates(180.0) == {"bank": 0.0, "shop": 0.0}


def test_lines_of_a_namespace_before_it_was_wanted_do_not_count_when_it_is() -> None:
    one = loads("shop")
    one.counted({"shop": 600, "bank": 600})
    one.wanted(["bank"])
    one.wanted(["bank", "shop"])
    assert one.rates(60.0) == {"bank": 0.0, "shop": 0.0}


def test_the_wish_weighs_a_quiet_namespace_as_one_line_a_second() -> None:
    one = loads("quiet", "busy")
    one.counted({"busy": 9_000_000})
    weights = one.weights(3_000_000.0)
    assert weights == {"quiet": BASE_WEIGHT, "busy": pytest.approx(BASE_WEIGHT + 3.0)}
    assert list(weights) == ["quiet", "busy"]
    assert weight(0.0) > 0


def test_a_heartbeat_over_ten_thousand_namespaces_that_are_all_busy_and_ill_fits_into_a_message() -> None:
    names = [f"{number:05d}-{'n' * 57}" for number in range(10_000)]
    ill = (NamespaceReport(namespace=one, deaf_s=123456.789, live=False, forbidden=True, reason="forbidden")
           for one in names)  # fmt: skip
    report = WorkerReport(not_live=tuple(ill), lines=dict.fromkeys(names, 10**9))
    encoded = encode(report)
    assert len(encoded) < MAX_MESSAGE_BYTES * 0.75
    assert decode_report(encoded) == report


def test_a_report_without_lines_says_nothing_of_them() -> None:
    assert decode_report(b'{"type":"report","not_live":[]}').lines == {}
