"""One agent's breaker: the figures it promises, and any order of sends, late answers and times against a model."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from khook.core.breaker import Admission, Breaker, BreakerState

YES, PROBE, NO = Admission.YES, Admission.PROBE, Admission.NO


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker()
    breaker.exhausted(at, YES)
    return breaker


def test_the_fifth_failure_in_a_row_opens_for_30_s() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(100.0, YES)
    assert (breaker.state, breaker.failures, breaker.until_at) == (BreakerState.CLOSED, 4, None)
    assert breaker.admits(100.0) is YES
    breaker.failed(100.0, YES)
    assert (breaker.state, breaker.until_at) == (BreakerState.OPEN, 130.0)
    assert breaker.admits(129.999) is NO


def test_a_success_between_failures_starts_the_row_anew() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(0.0, YES)
    breaker.succeeded()
    for _ in range(4):
        breaker.failed(0.0, YES)
    assert breaker.admits(0.0) is YES


def test_one_delivery_that_used_up_its_attempts_opens() -> None:
    assert opened(at=5.0).until_at == 35.0


def test_the_last_attempt_of_a_delivery_counts_once() -> None:
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(0.0, YES)
    breaker.exhausted(1.0, YES)
    assert breaker.until_at == 30.0


def test_there_is_one_probe_and_all_others_wait_for_its_answer() -> None:
    breaker = opened()
    assert [breaker.admits(at) for at in (29.9, 30.0, 30.0, 10_000.0)] == [NO, PROBE, NO, NO]
    assert (breaker.state, breaker.until_at) == (BreakerState.HALF_OPEN, None)


def test_each_failed_probe_doubles_the_wait_up_to_5_min() -> None:
    breaker, at, waits = opened(), 0.0, []
    for _ in range(6):
        assert breaker.until_at is not None
        waits.append(breaker.until_at - at)
        at = breaker.until_at
        assert breaker.admits(at) is PROBE
        breaker.failed(at, PROBE)
    assert waits == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_a_probe_that_succeeds_closes_and_forgets_the_doubling() -> None:
    breaker = opened()
    assert breaker.admits(30.0) is PROBE
    breaker.failed(30.0, PROBE)
    assert breaker.admits(90.0) is PROBE
    breaker.succeeded()
    assert breaker.at_rest
    assert breaker.admits(90.0) is YES
    breaker.exhausted(100.0, YES)
    assert breaker.until_at == 130.0


def test_a_probe_given_up_without_an_answer_leaves_its_turn_to_the_next() -> None:
    breaker = opened()
    assert breaker.admits(31.0) is PROBE
    breaker.abandoned(PROBE)
    assert (breaker.admits(31.0), breaker.admits(31.0)) == (PROBE, NO)


def test_late_answers_of_sends_before_it_opened_do_not_decide_for_the_probe() -> None:
    breaker = opened()
    breaker.failed(29.0, YES)
    breaker.exhausted(29.0, YES)
    assert breaker.until_at == 30.0
    assert breaker.admits(30.0) is PROBE
    breaker.failed(31.0, YES)
    breaker.exhausted(31.0, YES)
    breaker.abandoned(YES)
    breaker.answered(YES)
    assert breaker.admits(10_000.0) is NO


def test_a_late_success_closes_it_for_the_agent_has_just_answered() -> None:
    breaker = opened()
    breaker.succeeded()
    assert breaker.admits(1.0) is YES


def test_a_4xx_closes_it_as_the_probe_but_hides_no_outage() -> None:
    breaker = opened()
    assert breaker.admits(30.0) is PROBE
    breaker.answered(PROBE)
    assert breaker.admits(30.0) is YES
    assert not breaker.at_rest
    for _ in range(4):
        breaker.failed(40.0, YES)
        breaker.answered(YES)
    breaker.failed(40.0, YES)
    assert breaker.until_at == 100.0


class Breakers(RuleBasedStateMachine):
    """The model keeps what was said since the last success: how often it opened, how many failures in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.row = 0
        self.openings = 0
        self.closed_until: float | None = None  # to callers
        self.probing = False
        self.sent: list[Admission] = []

    def opens(self) -> None:
        self.closed_until = self.now + min(30.0 * 2**self.openings, 300.0)
        self.row, self.openings, self.probing = 0, self.openings + 1, False

    def closes(self) -> None:
        self.closed_until, self.row, self.probing = None, 0, False

    def report(self, which: int) -> tuple[Admission, bool]:
        admission = self.sent.pop(which % len(self.sent))
        return admission, admission is PROBE and self.probing

    @rule(passed_s=st.sampled_from([0.5, 29.5, 30.0, 60.0, 300.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    @precondition(lambda self: self.closed_until is not None)
    @rule(early_s=st.sampled_from([0.0, 0.125]))
    def time_comes_to_its_end(self, early_s: float) -> None:
        assert self.closed_until is not None
        self.now = max(self.now, self.closed_until - early_s)
        self.a_call_asks()

    @rule()
    def a_call_asks(self) -> None:
        expected = YES
        if self.closed_until is not None:
            expected = NO if self.probing or self.now < self.closed_until else PROBE
        assert self.breaker.admits(self.now) is expected
        if expected is not NO:
            self.sent.append(expected)
        self.probing = self.probing or expected is PROBE

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 9))
    def it_succeeds(self, which: int) -> None:
        self.report(which)
        self.breaker.succeeded()
        self.closes()
        self.openings = 0

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 9))
    def it_gets_a_4xx(self, which: int) -> None:
        admission, decides = self.report(which)
        self.breaker.answered(admission)
        if decides:
            self.closes()

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 9), last=st.booleans())
    def it_fails(self, which: int, last: bool) -> None:
        admission, decides = self.report(which)
        self.breaker.failed(self.now, admission)
        if last:
            self.breaker.exhausted(self.now, admission)
        if self.closed_until is None:
            self.row += 1
            if last or self.row == 5:
                self.opens()
        elif decides:
            self.opens()

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0, 9))
    def it_is_given_up(self, which: int) -> None:
        admission, decides = self.report(which)
        self.breaker.abandoned(admission)
        if decides:
            self.probing = False

    @invariant()
    def it_is_as_told(self) -> None:
        expected = BreakerState.CLOSED if self.closed_until is None else BreakerState.OPEN
        expected = BreakerState.HALF_OPEN if self.probing else expected
        assert self.breaker.state is expected
        assert self.breaker.failures == self.row
        assert self.breaker.until_at == (None if self.probing else self.closed_until)
        assert self.breaker.at_rest is (self.closed_until is None and self.row == 0 and self.openings == 0)

    def teardown(self) -> None:
        """However its sends end, it lets somebody in again."""
        for admission in self.sent:
            self.breaker.abandoned(admission)
        assert self.breaker.admits(self.now + 300.0) is not NO


Breakers.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_any_order_of_sends_answers_and_times = Breakers.TestCase
