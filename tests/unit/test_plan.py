"""The plan against a naive model of it, and against processes that act on its steps late, or die before they do."""

from collections import deque
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shards.plan import Grant, Hold, Plan, Revoke, Step

KEYS = ["a", "b"]
SLOTS = ["w0", "w1", "w2"]
REVOKE_TIMEOUT_S = 5.0

slots = st.sampled_from(SLOTS)


@dataclass
class Worker:
    """What really happens in a slot: messages in order, acted on some time, all lost with the process."""

    alive: bool = False
    taking: bool = False
    inbox: deque[Step] = field(default_factory=deque)
    outbox: deque[tuple[str, str, int]] = field(default_factory=deque)
    running: dict[str, int] = field(default_factory=dict)


class PlanMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.plan = Plan()
        self.leads = False
        self.now = 0.0
        self.workers = {slot: Worker() for slot in SLOTS}
        self.homes: dict[str, str] = {}
        self.holds: dict[str, Hold] = {}
        self.last_epoch = 0
        for slot in SLOTS[:2]:
            self.a_process_starts(slot)

    @initialize(at_once=st.sampled_from([True, True, True, False]))
    def begin(self, *, at_once: bool) -> None:
        if at_once:
            self.the_pool_begins_to_lead(1)

    @precondition(lambda self: not self.leads)
    @rule(first_epoch=st.sampled_from([1, 7]))
    def the_pool_begins_to_lead(self, first_epoch: int) -> None:
        self.plan.lead(first_epoch)
        self.leads, self.last_epoch = True, first_epoch - 1

    @precondition(lambda self: self.leads)
    @rule(first_epoch=st.integers(-1, 40))
    def nobody_leads_twice(self, first_epoch: int) -> None:
        with pytest.raises(ValueError, match="leads already"):
            self.plan.lead(first_epoch)

    @rule(homes=st.dictionaries(st.sampled_from(KEYS), slots), at_once=st.booleans())
    def want(self, homes: dict[str, str], *, at_once: bool) -> None:
        self.plan.want(homes)
        self.homes = homes
        if at_once:
            self.the_pool_asks_for_steps()

    @rule(slot=slots)
    def a_process_starts(self, slot: str) -> None:
        if not self.workers[slot].alive:
            self.workers[slot] = Worker(alive=True, taking=True)
            self.plan.ready(slot)

    @rule(slot=slots)
    def a_process_dies(self, slot: str) -> None:
        self.workers[slot] = Worker()
        self.plan.dead(slot)
        self.holds = {key: hold for key, hold in self.holds.items() if hold.slot != slot}

    @rule(slot=slots)
    def a_process_begins_to_leave(self, slot: str) -> None:
        self.workers[slot].taking = False
        self.plan.leaving(slot)

    @rule(passed_s=st.floats(0.5, 4))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s

    @rule()
    def the_pool_asks_for_steps(self) -> None:
        expected = {key: due for key in KEYS if (due := self.expected_step(key)) is not None}
        steps = self.plan.steps(self.now)
        assert {(type(step), step.slot, step.key) for step in steps} == {
            (kind, slot, key) for key, (kind, slot) in expected.items()
        }
        for step in steps:
            if isinstance(step, Grant):
                assert step.epoch == self.last_epoch + 1
                self.last_epoch = step.epoch
                self.holds[step.key] = Hold(slot=step.slot, epoch=step.epoch)
            else:
                hold = self.holds[step.key]
                assert step.epoch == hold.epoch
                self.holds[step.key] = Hold(
                    slot=hold.slot, epoch=hold.epoch, started=hold.started, revoked_at=self.now, problem=hold.problem
                )
            self.workers[step.slot].inbox.append(step)

    def expected_step(self, key: str) -> tuple[type[Step], str] | None:
        home, hold = self.homes.get(key), self.holds.get(key)
        if hold is None:
            return (Grant, home) if self.leads and home is not None and self.workers[home].taking else None
        return None if hold.revoking or hold.slot == home else (Revoke, hold.slot)

    @rule(slot=slots)
    def a_process_acts_and_is_heard(self, slot: str) -> None:
        self.a_process_acts(slot)
        self.the_pool_hears(slot)

    @rule(slot=slots)
    def a_process_acts(self, slot: str) -> None:
        worker = self.workers[slot]
        if worker.inbox:
            step = worker.inbox.popleft()
            if isinstance(step, Grant):
                worker.running[step.key] = step.epoch
                worker.outbox.append(("started", step.key, step.epoch))
            else:
                del worker.running[step.key]
                worker.outbox.append(("stopped", step.key, step.epoch))

    @rule(slot=slots)
    def the_pool_hears(self, slot: str) -> None:
        outbox = self.workers[slot].outbox
        if outbox:
            self.hear(slot, *outbox.popleft())

    def hear(self, slot: str, what: str, key: str, epoch: int) -> None:
        hold = self.holds[key]
        if what == "started":
            assert self.plan.started(slot, key, epoch)
            self.holds[key] = Hold(slot=slot, epoch=epoch, started=True, revoked_at=hold.revoked_at)
        else:
            assert self.plan.stopped(slot, key, epoch)
            del self.holds[key]

    @rule(slot=slots, key=st.sampled_from(KEYS), epoch=st.integers(0, 40))
    def somebody_says_what_does_not_count(self, slot: str, key: str, epoch: int) -> None:
        hold = self.holds.get(key)
        current = hold is not None and (hold.slot, hold.epoch) == (slot, epoch)
        if not current:
            assert not self.plan.started(slot, key, epoch)
            assert not self.plan.failed(slot, key, epoch, "late")
        if not (current and hold is not None and hold.revoking):
            assert not self.plan.stopped(slot, key, epoch)

    @rule(key=st.sampled_from(KEYS))
    def a_holder_says_stopped_unasked(self, key: str) -> None:
        hold = self.holds.get(key)
        if hold is not None and not hold.revoking:
            assert not self.plan.stopped(hold.slot, key, hold.epoch)

    @rule(key=st.sampled_from(KEYS))
    def a_key_fails(self, key: str) -> None:
        hold = self.holds.get(key)
        if hold is not None:
            assert self.plan.failed(hold.slot, key, hold.epoch, "why")
            self.holds[key] = Hold(
                slot=hold.slot, epoch=hold.epoch, started=hold.started, revoked_at=hold.revoked_at, problem="why"
            )

    @rule(late_s=st.floats(1, 9))
    def the_pool_was_stalled(self, late_s: float) -> None:
        self.now += late_s
        self.plan.postpone(late_s)
        for key, hold in self.holds.items():
            if hold.revoked_at is not None:
                self.holds[key] = Hold(
                    slot=hold.slot,
                    epoch=hold.epoch,
                    started=hold.started,
                    revoked_at=hold.revoked_at + late_s,
                    problem=hold.problem,
                )

    @precondition(lambda self: self.homes and self.leads)
    @rule()
    def everything_settles_when_nothing_new_happens(self) -> None:
        for slot in SLOTS:
            if not self.workers[slot].taking:
                self.a_process_dies(slot)
                self.a_process_starts(slot)
        for _ in range(3 * len(KEYS)):
            self.the_pool_asks_for_steps()
            for slot in SLOTS:
                while self.workers[slot].inbox:
                    self.a_process_acts(slot)
                while self.workers[slot].outbox:
                    self.the_pool_hears(slot)
        assert self.homes == {key: slot for slot in SLOTS for key in self.workers[slot].running}

    @invariant()
    def a_key_runs_in_one_process_at_most(self) -> None:
        running = [key for worker in self.workers.values() for key in worker.running]
        assert len(running) == len(set(running))

    @invariant()
    def the_ledger_is_the_models(self) -> None:
        assert dict(self.plan.holds()) == self.holds == {key: self.plan.holder(key) for key in self.holds}
        assert self.plan.homes() == self.homes
        revokes = {key: hold.revoked_at for key, hold in self.holds.items() if hold.revoked_at is not None}
        assert (self.plan.leads, self.plan.revoking) == (self.leads, len(revokes))
        assert self.plan.oldest_revoke_at() == min(revokes.values(), default=None)
        late = {self.holds[key].slot for key, at in revokes.items() if self.now - at >= REVOKE_TIMEOUT_S}
        assert set(self.plan.overdue(self.now, REVOKE_TIMEOUT_S)) == late


TestPlan = PlanMachine.TestCase
TestPlan.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_slot_is_not_ready_again_before_its_death_is_known() -> None:
    plan = Plan()
    plan.lead(1)
    plan.want({"a": "w0"})
    plan.ready("w0")
    assert plan.steps(0.0) == [Grant(slot="w0", key="a", epoch=1)]
    with pytest.raises(ValueError, match="never reported dead"):
        plan.ready("w0")
    plan.dead("w0")
    plan.ready("w0")
    assert plan.steps(0.0) == [Grant(slot="w0", key="a", epoch=2)]


def test_a_plan_that_does_not_lead_yet_grants_nothing_and_forgets_nothing() -> None:
    plan = Plan()
    plan.want({"a": "w0", "b": "w1"})
    plan.ready("w0")
    plan.ready("w1")
    assert plan.steps(0.0) == []
    plan.dead("w1")
    plan.lead(1000)
    assert plan.steps(0.0) == [Grant(slot="w0", key="a", epoch=1000)]
    plan.ready("w1")
    assert plan.steps(0.0) == [Grant(slot="w1", key="b", epoch=1001)]


def test_a_plan_leads_once_and_its_epochs_begin_above_none() -> None:
    plan = Plan()
    with pytest.raises(ValueError, match="1 or more"):
        plan.lead(0)
    plan.lead(7)
    for again in (7, 8, 1):
        with pytest.raises(ValueError, match="next epoch is 7"):
            plan.lead(again)


def test_who_owes_an_acknowledgement_longest_is_overdue_first_and_a_stall_of_the_pool_is_forgiven() -> None:
    plan = Plan()
    plan.lead(1)
    plan.want({"a": "w0", "b": "w1", "c": "w0"})
    plan.ready("w0")
    plan.ready("w1")
    plan.steps(0.0)
    plan.want({"a": "w0", "c": "w0"})
    plan.steps(10.0)
    plan.want({})
    plan.steps(12.0)
    assert (plan.oldest_revoke_at(), plan.revoking) == (10.0, 3)
    assert plan.overdue(14.9, REVOKE_TIMEOUT_S) == []
    assert plan.overdue(15.0, REVOKE_TIMEOUT_S) == ["w1"]
    assert plan.overdue(17.0, REVOKE_TIMEOUT_S) == ["w1", "w0"]
    plan.postpone(3.0)
    assert plan.overdue(17.0, REVOKE_TIMEOUT_S) == []
    assert plan.overdue(18.0, REVOKE_TIMEOUT_S) == ["w1"]


def test_a_problem_is_kept_until_the_key_runs_and_words_from_another_grant_say_nothing() -> None:
    plan = Plan()
    plan.lead(5)
    plan.want({"a": "w0"})
    plan.ready("w0")
    plan.steps(0.0)
    assert not plan.failed("w0", "a", 4, "an earlier grant's")
    assert not plan.failed("w1", "a", 5, "another slot's")
    assert plan.failed("w0", "a", 5, "no such key today")
    assert plan.holder("a") == Hold(slot="w0", epoch=5, problem="no such key today")
    assert not plan.started("w0", "a", 6)
    assert plan.started("w0", "a", 5)
    assert plan.holder("a") == Hold(slot="w0", epoch=5, started=True)
    assert not plan.stopped("w0", "a", 5)
    plan.want({})
    plan.steps(1.0)
    assert plan.stopped("w0", "a", 5)
    assert plan.holder("a") is None
