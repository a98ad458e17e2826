"""Each checker sees the fault that it is for, in a history made by hand, and nothing where nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sim.checkers import CHECKERS, check
from sim.history import (
    Act,
    AttemptFact,
    Death,
    Disturbance,
    EntryLife,
    History,
    Hold,
    RowFact,
    RunFact,
    Stream,
    Told,
)
from sim.plan import EntryPlan, HookPlan, Machine, Trouble, WorldPlan

AGENT = "kagent/a0"
KEY = ("uid-1", "pod-restart", AGENT, "p0")
WORKER = "r0.1.w0.1000"
OTHER = "r0.1.w1.1001"


def plan(**fields: Any) -> WorldPlan:
    entry = EntryPlan(event_type="pod-restart", agent="a0", cooldown_s=60)
    values: dict[str, Any] = {
        "seed": 1,
        "workers": 2,
        "election": False,
        "machines": (Machine(),),
        "speaks": "a2a",
        "honours_keys": True,
        "real_ticks": False,
        "frail": False,
        "latency": False,
        "calls_per_agent": 8,
        "run_s": 2.0,
        "redeliver_for_s": 900,
        "run_deadline_s": 600,
        "hooks": (HookPlan(namespace="n0", name="h", entries=(entry,)),),
        "edits": (),
        "pods": (),
        "tells": (),
        "faults": (),
    }
    return WorldPlan(**(values | fields))


class Made:
    """A history of one Hook with one entry; numbers are given as things are added."""

    def __init__(self, **fields: Any) -> None:
        self.history = History(plan=plan(**fields))
        self.history.end_s = 1800.0
        self.history.end.owners = {"n0": ["r0.w0"]}
        self.history.end.wanted = ["n0"]
        self._number = 0
        life = EntryLife(
            hook="n0/h",
            uid="uid-1",
            event_type="pod-restart",
            agent=AGENT,
            cooldown_s=60.0,
            label="",
            from_s=0.0,
        )
        self.history.entries.append(life)
        self.holds(WORKER, 0.5, 1800.0, epoch=1)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def told(self, at_s: float, **fields: Any) -> None:
        told = Told(at_s=at_s, namespace="n0", pod="p0", label="shop", trouble=Trouble.CRASH, is_event=False)
        self.history.told.append(replace(told, **fields))

    def holds(self, process: str, from_s: float, until_s: float, *, epoch: int) -> None:
        hold = Hold(
            process=process,
            namespace="n0",
            epoch=epoch,
            number=self._next(),
            from_s=from_s,
            until_s=until_s,
            until_number=10**9,
        )
        self.history.holds.append(hold)

    def row(self, at_s: float, call: str, state: str, reason: str = "", **fields: Any) -> None:
        row = RowFact(
            at_s=at_s,
            key=KEY,
            call_id=call,
            state=state,
            reason=reason,
            firing=True,
            number=self._next(),
            claimed_s=at_s,
            accepted_s=None,
            ended_s=None,
        )
        self.history.rows.append(replace(row, **fields))

    def act(self, at_s: float, what: str, *, process: str = WORKER, call: str = "") -> None:
        namespace = "n0" if what == "status" else ""
        self.history.acts.append(
            Act(at_s=at_s, process=process, what=what, namespace=namespace, call_id=call, number=self._next())
        )

    def run(self, at_s: float, call: str, **fields: Any) -> None:
        run = RunFact(
            at_s=at_s, agent=AGENT, call_id=call, event_type="pod-restart", pod="p0", namespace="n0", protocol="a2a"
        )
        self.history.runs.append(replace(run, **fields))
        self.history.attempts.append(AttemptFact(at_s=at_s, agent=AGENT, call_id=call, end="200"))

    def call(self, at_s: float, call: str, *, process: str = WORKER) -> None:
        """Claimed, sent and accepted, as it should be."""
        self.row(at_s, call, "Pending", "Queued")
        self.row(at_s, call, "Calling", claimed_s=at_s)
        self.act(at_s, "send", process=process, call=call)
        self.run(at_s, call)
        self.row(at_s + 0.1, call, "Accepted", claimed_s=at_s, accepted_s=at_s)
        self.row(at_s + 3, call, "Completed", claimed_s=at_s, accepted_s=at_s)

    def fault(self, from_s: float, until_s: float, *, felt_s: float = 60.0, agent: str = "") -> None:
        self.history.disturbances.append(
            Disturbance(from_s=from_s, until_s=until_s, felt_until_s=until_s + felt_s, what="made up", agent=agent)
        )

    def wrong(self, checker: str) -> list[str]:
        return CHECKERS[checker](self.history)


def well() -> Made:
    made = Made()
    made.told(100.0)
    made.call(102.0, "c1")
    made.told(130.0)
    made.told(170.0)
    made.call(172.0, "c2")
    return made


def test_a_history_in_which_all_went_well_has_nothing_wrong_with_it() -> None:
    assert check(well().history) == []


def test_a_defect_of_khook_is_seen() -> None:
    made = well()
    made.history.errors.append("worker: KeyError('x')")
    assert made.wrong("sound")


def behind_a_breaker(*, redeliver_for_s: int, failed_after_s: float = 0.05) -> list[str]:
    """An agent's outage fails one call; the next one, long after, fails too."""
    made = Made()
    made.history.plan = replace(made.history.plan, redeliver_for_s=redeliver_for_s)
    made.fault(100.0, 110.0, agent=AGENT)
    made.told(101.0)
    made.row(102.0, "c1", "Pending", "Queued")
    made.row(108.0, "c1", "Failed", "Unreachable", claimed_s=102.0)
    made.told(600.0)
    made.row(602.0, "c2", "Pending", "Queued")
    made.row(602.0 + failed_after_s, "c2", "Failed", "Unreachable", claimed_s=602.0)
    return made.wrong("justified")


def test_a_failure_long_after_the_outage_has_no_cause() -> None:
    assert len(behind_a_breaker(redeliver_for_s=900)) == 1
    assert len(behind_a_breaker(redeliver_for_s=0, failed_after_s=6.0)) == 1


def test_without_parking_an_open_breaker_is_cause_enough_to_fail_at_once() -> None:
    assert behind_a_breaker(redeliver_for_s=0) == []


# no_lost


def test_a_signal_that_nobody_was_called_for_is_lost() -> None:
    made = well()
    made.told(400.0)
    assert len(made.wrong("no_lost")) == 1


def test_a_signal_after_the_window_is_not_a_repeat() -> None:
    made = Made()
    made.told(100.0)
    made.call(102.0, "c1")
    made.told(165.0)
    assert len(made.wrong("no_lost")) == 1


def test_a_signal_that_was_answered_late_is_lost_unless_a_fault_excuses_it() -> None:
    made = Made()
    made.told(100.0)
    made.call(150.0, "c1")
    assert made.wrong("no_lost")
    made.fault(99.0, 105.0)
    assert not made.wrong("no_lost")


def test_a_failure_is_an_answer_as_long_as_it_mutes() -> None:
    made = Made()
    made.told(100.0)
    made.row(100.0, "c1", "Pending", "Queued")
    made.row(105.0, "c1", "Failed", "Unreachable", claimed_s=100.0)
    made.told(150.0)
    assert not made.wrong("no_lost")
    made.told(190.0)
    assert len(made.wrong("no_lost")) == 1


def test_a_call_that_stays_parked_is_no_answer() -> None:
    made = Made()
    made.told(100.0)
    made.row(100.0, "c1", "Pending", "Parked")
    assert made.wrong("no_lost")


def test_nothing_is_due_while_a_hook_is_suspended_or_after_its_entry_went() -> None:
    made = Made()
    made.told(100.0)
    life = made.history.entries[0]
    life.suspended.append((90.0, 200.0))
    assert not made.wrong("no_lost")
    life.suspended.clear()
    life.until_s = 105.0
    assert not made.wrong("no_lost")


def test_a_state_that_was_gone_before_anybody_could_look_is_not_due() -> None:
    made = Made()
    made.fault(90.0, 150.0)
    made.told(100.0, until_s=140.0)
    assert not made.wrong("no_lost")
    made.told(100.0)
    assert made.wrong("no_lost")


def test_an_entry_that_comes_later_is_told_what_still_stands() -> None:
    made = Made()
    made.history.entries[0].from_s = 300.0
    made.told(100.0)
    assert made.wrong("no_lost")
    made.call(302.0, "c1")
    assert not made.wrong("no_lost")


# justified


def test_a_call_that_nobody_told_anything_for_is_seen() -> None:
    made = well()
    made.call(600.0, "c3")
    assert len(made.wrong("justified")) == 1


def test_a_run_of_a_call_that_no_status_named_is_seen() -> None:
    made = well()
    made.run(500.0, "c9")
    assert made.wrong("justified")


def test_a_failure_without_a_cause_is_seen() -> None:
    made = Made()
    made.told(100.0)
    made.row(100.0, "c1", "Pending", "Queued")
    made.row(105.0, "c1", "Failed", "Unreachable", claimed_s=100.0)
    assert made.wrong("justified")
    made.fault(99.0, 101.0, agent="kagent/a1")
    assert made.wrong("justified")
    made.fault(99.0, 101.0, agent=AGENT)
    assert not made.wrong("justified")


def test_a_call_to_another_agent_than_its_claim_says_is_seen() -> None:
    made = Made()
    made.told(100.0)
    made.call(102.0, "c1")
    made.history.runs[0] = replace(made.history.runs[0], agent="kagent/a1")
    assert made.wrong("justified")


# claimed


def test_a_send_before_its_claim_is_seen() -> None:
    made = Made()
    made.row(100.0, "c1", "Pending", "Queued")
    made.act(100.0, "send", call="c1")
    made.row(100.0, "c1", "Calling")
    assert made.wrong("claimed")


def test_a_send_of_a_call_that_has_ended_is_seen() -> None:
    made = well()
    made.act(300.0, "send", call="c1")
    assert made.wrong("claimed")


# window


def test_two_calls_within_a_window_are_seen() -> None:
    made = Made()
    made.told(100.0)
    made.call(102.0, "c1")
    made.call(150.0, "c2")
    assert made.wrong("window")


def test_one_call_that_ran_twice_is_seen() -> None:
    made = well()
    made.run(110.0, "c1")
    assert made.wrong("window")


def test_a_break_over_execute_excuses_one_repetition_and_no_more() -> None:
    made = Made(speaks="execute", honours_keys=False)
    made.told(100.0)
    made.call(102.0, "c1")
    made.run(104.0, "c1")
    assert made.wrong("window")
    made.history.deaths.append(Death(at_s=103.0, process=WORKER))
    assert not made.wrong("window")
    made.run(105.0, "c1")
    assert made.wrong("window")


# single_owner


def test_two_owners_at_once_are_seen() -> None:
    made = well()
    made.holds(OTHER, 900.0, 1800.0, epoch=2)
    assert made.wrong("single_owner")


@pytest.mark.parametrize("what", ["status", "send"])
def test_an_act_of_one_who_does_not_hold_the_namespace_is_seen(what: str) -> None:
    made = well()
    made.act(300.0, what, process=OTHER, call="c1")
    assert made.wrong("single_owner")


def test_an_act_of_a_leader_that_was_replaced_is_seen() -> None:
    """Its own hold goes on, for it does not know: the namespace was granted by another since."""
    made = Made(machines=(Machine(), Machine()), election=True)
    made.holds("r1.1.w0.1000", 500.0, 1800.0, epoch=2)
    assert not made.wrong("single_owner")
    made.act(501.0, "status")
    assert made.wrong("single_owner")


def test_an_epoch_that_does_not_grow_is_seen() -> None:
    made = Made(machines=(Machine(), Machine()), election=True)
    made.history.holds[0] = replace(made.history.holds[0], until_s=100.0)
    made.holds("r1.1.w0.1000", 200.0, 1800.0, epoch=1)
    assert made.wrong("single_owner")


def test_a_watch_that_outlives_its_hold_is_seen() -> None:
    made = Made()
    made.history.holds[0] = replace(made.history.holds[0], until_s=100.0, until_number=50)
    stream = Stream(process=WORKER, namespace="n0", resource="pods", from_s=1.0, until_s=100.0, until_number=49)
    made.history.streams.append(stream)
    assert not made.wrong("single_owner")
    made.history.streams.append(replace(stream, until_number=51))
    assert made.wrong("single_owner")
    made.history.deaths.append(Death(at_s=100.0, process=WORKER))
    assert not made.wrong("single_owner")


def test_a_status_written_after_the_word_that_all_has_stopped_is_seen() -> None:
    made = Made()
    made.history.holds[0] = replace(made.history.holds[0], until_s=100.0, until_number=2)
    made.row(99.0, "c1", "Pending", "Queued")
    made.act(100.0, "status")
    assert made.wrong("single_owner")


# fair


def test_anothers_hung_agent_is_no_excuse() -> None:
    made = Made()
    made.told(100.0)
    made.call(150.0, "c1")
    made.fault(99.0, 145.0, agent="kagent/a1")
    assert not made.wrong("no_lost")
    assert made.wrong("fair")


def test_ones_own_hung_agent_is() -> None:
    made = Made()
    made.told(100.0)
    made.call(150.0, "c1")
    made.fault(99.0, 145.0, agent=AGENT)
    assert not made.wrong("fair")


# bounded


def test_what_has_no_bound_is_seen() -> None:
    made = well()
    for _ in range(41):
        made.run(105.0, "c1")
    assert made.wrong("bounded")
    made = well()
    for _ in range(13):
        made.act(300.5, "status")
    assert made.wrong("bounded")
    for field, value in (("tasks", 401), ("streams", 4), ("rows", 501)):
        made = well()
        setattr(made.history.sizes, field, value)
        assert made.wrong("bounded"), field


# converges


def unready(made: Made) -> None:
    made.history.end.ready, made.history.end.why_not = False, "deaf"


def unowned(made: Made) -> None:
    made.history.end.owners = {}


def owned_twice(made: Made) -> None:
    made.history.end.owners = {"n0": ["r0.w0", "r1.w0"]}


def not_asked_for(made: Made) -> None:
    made.history.end.owners = {"n0": ["r0.w0"], "n9": ["r0.w0"]}


def unfinished(made: Made) -> None:
    made.history.end.rows[KEY] = {"call": {"id": "c2", "state": "Calling"}}


def unwritten(made: Made) -> None:
    made.row(400.0, "c2", "Failed", "Unreachable")


def does_not_stop(made: Made) -> None:
    made.history.end.stop_error = "not stopped"


def leaks(made: Made) -> None:
    made.history.end.tasks_left = ["Task-1"]


@pytest.mark.parametrize(
    "harm", [unready, unowned, owned_twice, not_asked_for, unfinished, unwritten, does_not_stop, leaks]
)
def test_an_end_that_is_none_is_seen(harm: Callable[[Made], None]) -> None:
    made = well()
    assert not made.wrong("converges")
    harm(made)
    assert len(made.wrong("converges")) == 1
