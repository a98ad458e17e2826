"""One slot's policy against a model that keeps a list of what is still to come, and the figures it promises."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shards.policy import Action, Phase, PoolLimits, SlotPolicy, Why

LIMITS = PoolLimits(crash_budget=4, crash_window_s=300.0, healthy_after_s=60.0)
TERM, ABRT, KILL = Action.SIGTERM, Action.SIGABRT, Action.SIGKILL


class PolicyMachine(RuleBasedStateMachine):
    """The model: a phase, and `due`, the actions that follow if nothing happens, each with its delay after the one
    before it (the first one's is a time)."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = SlotPolicy(LIMITS)
        self.now = 0.0
        self.phase = Phase.WAITING
        self.due: list[tuple[float, Action]] = [(0.0, Action.START)]
        self.again = True
        self.served_from: float | None = None
        self.row = 0
        self.probation = False
        self.breaks = 0
        self.starts: list[float] = []
        self.deaths: list[float] = []
        self.processes = 0
        self.a_process_comes_to_serve()

    def expect_doom(self, first: Action) -> None:
        self.phase = Phase.DOOMED
        self.due = [(self.now, ABRT), (0.5, KILL)] if first is ABRT else [(self.now, KILL)]

    def pop(self) -> Action:
        _, action = self.due.pop(0)
        if self.due:
            self.due[0] = (self.now + self.due[0][0], self.due[0][1])
        return action

    @property
    def joins_at(self) -> float:
        """When the process will have served its probation."""
        serves = self.phase is Phase.RUNNING and self.probation and self.served_from is not None
        return self.served_from + 60.0 if serves and self.served_from is not None else float("inf")

    @rule(passed_s=st.sampled_from([0.05, 0.5, 2.0, 9.0, 30.0, 130.0, 700.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    @rule()
    def tick(self) -> None:
        if not self.due or self.now < min(self.due[0][0], self.joins_at):
            assert self.policy.tick(self.now) is None
            return
        if self.now < self.due[0][0]:
            self.probation, self.breaks = False, 0
            assert self.policy.tick(self.now) is Action.JOIN
            return
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self.expect_doom(ABRT)
        expected = self.pop()
        assert self.policy.tick(self.now) is expected
        if expected is Action.START:
            self.processes += 1
            self.starts.append(self.now)
            self.probation = self.phase is Phase.BROKEN
            self.phase, self.due = Phase.STARTING, [(self.now + 15.0, ABRT)]
        else:
            self.phase = Phase.DOOMED

    @precondition(lambda self: self.due)
    @rule()
    def what_is_due_happens(self) -> None:
        self.now = max(self.now, min(self.due[0][0], self.joins_at))
        self.tick()

    @precondition(lambda self: self.probation and self.phase is Phase.RUNNING)
    @rule()
    def it_beats_until_it_has_served(self) -> None:
        while self.probation:
            self.now += 6.0
            self.tick()
            self.heartbeat()

    @precondition(lambda self: self.phase in (Phase.WAITING, Phase.BROKEN))
    @rule()
    def a_process_comes_to_serve(self) -> None:
        self.what_is_due_happens()
        self.hello()

    @rule()
    def hello(self) -> None:
        welcome = self.phase is Phase.STARTING
        assert self.policy.hello(self.now) is welcome
        if welcome:
            self.phase, self.due, self.served_from = Phase.RUNNING, [(self.now + 10.0, ABRT)], self.now

    @rule()
    def heartbeat(self) -> None:
        self.policy.heartbeat(self.now)
        if self.phase is Phase.RUNNING:
            self.due = [(self.now + 10.0, ABRT)]

    @rule(late_s=st.sampled_from([1.5, 60.0]))
    def the_pool_was_stalled(self, late_s: float) -> None:
        self.now += late_s
        self.policy.postpone(late_s)
        if self.phase in (Phase.STARTING, Phase.RUNNING):
            self.due = [(self.due[0][0] + late_s, ABRT)]

    @rule()
    def condemn(self) -> None:
        expected = None
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            self.expect_doom(ABRT)
            expected = self.pop()
        assert self.policy.condemn(self.now, Why.BREACH) is expected

    @precondition(lambda self: len(self.deaths) >= 2 or self.phase is not Phase.WAITING)  # else most lives end at once
    @rule(drain_s=st.sampled_from([0.0, 20.0]))
    def stop(self, drain_s: float) -> None:
        self.again, expected = False, None
        match self.phase:
            case Phase.WAITING | Phase.BROKEN:
                self.phase, self.due = Phase.STOPPED, []
            case Phase.STARTING:
                self.expect_doom(KILL)
                expected = self.pop()
            case Phase.RUNNING | Phase.STOPPING:
                self.phase = Phase.STOPPING
                self.due = [(self.now + drain_s + 2.0, TERM), (2.0, ABRT), (0.5, KILL)]
                expected = Action.SEND_STOP
        assert self.policy.stop(self.now, drain_s) is expected

    @precondition(lambda self: len(self.deaths) >= 2)
    @rule()
    def abort(self) -> None:
        self.again = False
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.DOOMED):
            assert self.policy.abort() is KILL
            self.phase, self.due = Phase.DOOMED, []
        else:
            assert self.policy.abort() is None
            self.phase, self.due = Phase.STOPPED, []

    @rule(drain_s=st.sampled_from([0.0, 20.0]))
    def leaving(self, drain_s: float) -> None:
        self.policy.leaving(self.now, drain_s)
        if self.phase is Phase.RUNNING:
            self.phase = Phase.STOPPING
            self.due = [(self.now + drain_s + 2.0, TERM), (2.0, ABRT), (0.5, KILL)]

    @rule()
    def hung_up(self) -> None:
        self.policy.hung_up(self.now)
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            self.phase, self.due = Phase.DOOMED, [(self.now + 2.0, ABRT), (0.5, KILL)]

    @rule(chance=st.sampled_from([0.0, 0.5]))
    def died(self, chance: float) -> None:
        if not self.processes:
            return
        self.processes -= 1
        self.policy.died(self.now, chance)
        served_s = self.now - self.served_from if self.served_from is not None else 0.0
        self.served_from = None
        was_on_probation, self.probation = self.probation, False
        if not self.again:
            self.phase, self.due = Phase.STOPPED, []
            return
        self.row = 1 if served_s >= 60.0 else self.row + 1
        self.deaths.append(self.now)
        if was_on_probation or len([at for at in self.deaths if at > self.now - 300.0]) >= 4:
            self.breaks, self.row = self.breaks + 1, 0
            broken_for_s = min(3600.0, 600.0 * 2 ** (self.breaks - 1))
            self.phase, self.due = Phase.BROKEN, [(self.now + broken_for_s, Action.START)]
        else:
            backoff_s = min(30.0, 0.1 * 2 ** (self.row - 1)) * (1 - 0.2 * chance)
            self.phase, self.due = Phase.WAITING, [(self.now + backoff_s, Action.START)]

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        assert self.policy.phase is self.phase
        assert self.policy.ended is (self.phase is Phase.STOPPED)
        assert self.policy.on_probation is self.probation
        assert self.policy.broken is (self.probation or self.phase is Phase.BROKEN)
        assert self.processes <= 1
        if self.due and self.due[0][0] > 0:
            assert self.policy.deadline_at == pytest.approx(min(self.due[0][0], self.joins_at))
        elif not self.due:
            assert self.policy.deadline_at is None

    @invariant()
    def no_window_sees_more_restarts_than_the_budget(self) -> None:
        restarts = self.starts[1:]
        assert all(later - first >= 300.0 for first, later in zip(restarts, restarts[4:], strict=False))


TestPolicy = PolicyMachine.TestCase
TestPolicy.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def crash(policy: SlotPolicy, now: float, chance: float = 0.0) -> float:
    """Let the slot start when it may and die at once; returns when that was."""
    assert policy.deadline_at is not None
    now = max(now, policy.deadline_at)
    assert policy.tick(now) is Action.START
    policy.died(now, chance)
    return now


def test_the_backoff_doubles_from_a_tenth_of_a_second_and_the_tenth_death_breaks_the_slot() -> None:
    policy = SlotPolicy(PoolLimits())
    died_at = [crash(policy, 0.0)]
    while policy.phase is not Phase.BROKEN:
        died_at.append(crash(policy, died_at[-1]))
    waits_s = [after - before for before, after in pairwise(died_at)]
    assert waits_s == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6])


def test_the_backoff_never_exceeds_its_maximum_nor_overflows() -> None:
    policy = SlotPolicy(PoolLimits(crash_budget=3, crash_window_s=1.0))
    now = 0.0
    for _ in range(2000):
        now = crash(policy, now)
        assert policy.deadline_at is not None
        now = max(now, policy.deadline_at)
        assert policy.deadline_at - now <= 30.0
        if policy.phase is Phase.BROKEN:
            break
        now += 1.0
    assert policy.phase is Phase.WAITING


def broken(limits: PoolLimits) -> tuple[SlotPolicy, float]:
    """A slot that just broke, and when."""
    policy, now = SlotPolicy(limits), 0.0
    while policy.phase is not Phase.BROKEN:
        now = crash(policy, now)
    return policy, now


def test_a_broken_slot_is_tried_again_after_ten_minutes_and_doubles_them_up_to_an_hour() -> None:
    policy, now = broken(PoolLimits())
    waits_s = []
    for _ in range(5):
        assert policy.deadline_at is not None
        waits_s.append(policy.deadline_at - now)
        now = crash(policy, now)
        assert policy.phase is Phase.BROKEN
    assert waits_s == pytest.approx([600.0, 1200.0, 2400.0, 3600.0, 3600.0])


def test_a_slot_that_served_its_probation_is_as_good_as_new() -> None:
    policy, now = broken(PoolLimits())
    now = crash(policy, now)
    now += 1200.0
    assert policy.tick(now) is Action.START
    assert policy.on_probation
    policy.hello(now)
    for _ in range(12):
        assert policy.tick(now) is None
        assert policy.broken
        now += 5.0
        policy.heartbeat(now)
    assert policy.tick(now) is Action.JOIN
    assert not policy.broken
    policy.died(now, 0.0)
    assert policy.deadline_at == pytest.approx(now + 0.1), "a first back-off"
    for _ in range(9):  # and a whole crash budget
        assert not policy.broken
        now = crash(policy, now)
    assert policy.phase is Phase.BROKEN
    assert policy.deadline_at == pytest.approx(now + 600.0)


def test_a_slot_that_is_silent_at_the_end_of_its_probation_has_not_served_it() -> None:
    policy, now = broken(PoolLimits(probation_s=10.0))
    now += 600.0
    policy.tick(now)
    policy.hello(now)
    assert policy.tick(now + 10.0) is Action.SIGABRT
    assert policy.on_probation


def test_no_ten_minutes_see_more_than_ten_restarts_however_long_each_process_lives() -> None:
    for lives_s in (0.0, 1.0, 31.0, 61.0, 66.6, 70.0, 119.0):
        policy, now, starts = SlotPolicy(PoolLimits()), 0.0, []
        while now < 6 * 3600.0:
            assert policy.deadline_at is not None
            now = max(now, policy.deadline_at)
            assert policy.tick(now) is Action.START
            starts.append(now)
            policy.hello(now)
            while (left_s := starts[-1] + lives_s - now) > 0:
                now += min(5.0, left_s)
                policy.heartbeat(now)
                policy.tick(now)
            policy.died(now, 0.0)
        restarts = starts[1:]
        assert all(later - first >= 600.0 for first, later in zip(restarts, restarts[10:], strict=False)), lives_s


def slot_in(phase: Phase) -> SlotPolicy:
    if phase is Phase.BROKEN:
        return broken(PoolLimits())[0]
    policy = SlotPolicy(PoolLimits())
    if phase is Phase.STOPPED:
        policy.stop(0.0, 0.0)
    if phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.DOOMED):
        policy.tick(0.0)
    if phase in (Phase.RUNNING, Phase.STOPPING, Phase.DOOMED):
        policy.hello(0.0)
    if phase is Phase.STOPPING:
        policy.leaving(0.0, 20.0)
    if phase is Phase.DOOMED:
        policy.condemn(0.0, Why.BREACH)
    assert policy.phase is phase
    return policy


@pytest.mark.parametrize(
    ("phase", "stop", "stopped", "abort", "aborted"),
    [
        (Phase.WAITING, None, Phase.STOPPED, None, Phase.STOPPED),
        (Phase.STARTING, KILL, Phase.DOOMED, KILL, Phase.DOOMED),
        (Phase.RUNNING, Action.SEND_STOP, Phase.STOPPING, KILL, Phase.DOOMED),
        (Phase.STOPPING, Action.SEND_STOP, Phase.STOPPING, KILL, Phase.DOOMED),
        (Phase.DOOMED, None, Phase.DOOMED, KILL, Phase.DOOMED),
        (Phase.STOPPED, None, Phase.STOPPED, None, Phase.STOPPED),
        (Phase.BROKEN, None, Phase.STOPPED, None, Phase.STOPPED),
    ],
)
def test_a_slot_that_shall_end_never_starts_again(
    phase: Phase, stop: Action | None, stopped: Phase, abort: Action | None, aborted: Phase
) -> None:
    asked, cut = slot_in(phase), slot_in(phase)
    now = 1000.0
    assert (asked.stop(now, 5.0), asked.phase) == (stop, stopped)
    assert (cut.abort(), cut.phase) == (abort, aborted)
    for policy in (asked, cut):
        if not policy.ended:
            policy.died(now, 0.0)
        assert policy.ended
        assert policy.tick(1e9) is None


def test_why_a_process_was_killed_is_kept_until_its_successor_starts() -> None:
    policy = SlotPolicy(PoolLimits())
    policy.tick(0.0)
    policy.hello(0.0)
    assert policy.tick(9.9) is None
    assert policy.tick(10.0) is Action.SIGABRT
    assert policy.tick(10.5) is Action.SIGKILL
    assert policy.tick(1000.0) is None
    policy.died(1000.0, 0.0)
    assert policy.why is Why.NO_HEARTBEAT
    policy.tick(1001.0)
    assert policy.why is None


def test_a_channel_that_ends_condemns_nobody_who_exits_in_time() -> None:
    policy = SlotPolicy(PoolLimits())
    policy.tick(0.0)
    policy.hello(0.0)
    policy.hung_up(1.0)
    assert policy.why is None
    assert policy.tick(3.0) is Action.SIGABRT
    assert policy.why is Why.HUNG_UP


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"heartbeat_s": 0.0}, "heartbeat_s must be above 0"),
        ({"heartbeat_timeout_s": 2.9}, "3 heartbeats"),
        ({"backoff_max_s": 0.05}, "backoff_max_s"),
        ({"backoff_jitter": 1.0}, "backoff_jitter"),
        ({"crash_budget": 0}, "crash_budget"),
        ({"broken_for_s": 599.0}, "broken_for_s must not be below crash_window_s"),
        ({"broken_for_max_s": 599.0}, "broken_for_max_s"),
        ({"probation_s": -1.0}, "probation_s"),
        ({"sigabrt_grace_s": -1.0}, "sigabrt_grace_s"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        PoolLimits(**limits)  # type: ignore[arg-type]


def test_a_stuck_worker_is_killed_within_a_second_of_its_heartbeat_timeout() -> None:
    assert PoolLimits().sigabrt_grace_s < 1.0
    assert PoolLimits().stop_overrun_s == 4.5
