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
    IncidentKey,
    RowFact,
    RunFact,
    Spell,
    Stream,
    Told,
)
from sim.plan import EntryPlan, HookPlan, Machine, PodPlan, Trouble, WorldPlan

AGENT = "kagent/a0"
KEY = ("uid-1", "pod-restart", AGENT, "p0")
OWNER, CONTROLLER = "Deployment/web", "ReplicaSet/web-a"
GROUP = ("uid-1", "pod-restart", AGENT, OWNER)
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

    def call(self, at_s: float, call: str, *, process: str = WORKER, key: IncidentKey = KEY) -> None:
        """Claimed, sent and accepted, as it should be."""
        self.row(at_s, call, "Pending", "Queued", key=key)
        self.row(at_s, call, "Calling", claimed_s=at_s, key=key)
        self.act(at_s, "send", process=process, call=call)
        self.run(at_s, call, pod=key[3])
        self.row(at_s + 0.1, call, "Accepted", claimed_s=at_s, accepted_s=at_s, key=key)
        self.row(at_s + 3, call, "Completed", claimed_s=at_s, accepted_s=at_s, key=key)

    def group_call(self, at_s: float, call: str, *named: str, wait_s: float = 5.0, key: IncidentKey = GROUP) -> None:
        """A group's, which names these pods."""
        self.row(at_s, call, "Pending", "Grouping", key=key)
        self.row(at_s + wait_s, call, "Calling", claimed_s=at_s, key=key)
        self.act(at_s + wait_s, "send", call=call)
        self.run(at_s + wait_s, call, pod=named[0], named=named)
        self.row(at_s + wait_s, call, "Accepted", claimed_s=at_s, accepted_s=at_s + wait_s, key=key)

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


# groups


def grouped() -> Made:
    """Three pods of one Deployment fail together, and a fourth a little later."""
    made = Made(pods=tuple(member(f"p{number}") for number in range(4)))
    made.history.entries[0].groups = True
    for number in range(3):
        made.told(100.0 + number, pod=f"p{number}", owner=OWNER, controller=CONTROLLER)
    made.told(110.0, pod="p3", owner=OWNER, controller=CONTROLLER)
    return made


def member(name: str) -> PodPlan:
    return PodPlan(namespace="n0", name=name, label="shop", trouble=Trouble.CRASH, controller=CONTROLLER, owner=OWNER)


def test_one_call_that_names_its_pods_is_what_a_group_wants() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2")
    assert check(made.history) == []


def test_a_call_for_a_pod_of_an_owner_is_seen() -> None:
    made = grouped()
    made.call(100.0, "c1")
    assert made.wrong("groups")
    assert made.wrong("no_lost"), "and is no answer for its owner"


def test_two_calls_for_one_storm_are_seen() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2")
    made.group_call(110.0, "c2", "p3")
    assert made.wrong("window")


def test_a_controller_stands_in_only_where_its_owner_was_hidden() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2", key=(*GROUP[:3], CONTROLLER))
    assert made.wrong("groups")
    assert made.wrong("no_lost")
    hidden = Disturbance(from_s=95.0, until_s=99.0, felt_until_s=105.0, what="owners hidden")
    made.history.disturbances.append(hidden)
    assert check(made.history) == []


def test_a_call_that_is_about_nobodys_owner_is_seen() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2", key=(*GROUP[:3], "Deployment/other"))
    assert made.wrong("groups")


def test_an_entry_that_does_not_group_calls_about_pods() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2")
    made.history.entries[0].groups = False
    assert made.wrong("groups")


def test_a_group_that_is_sent_too_soon_leaves_pods_out() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", wait_s=4.0)
    assert made.wrong("groups")


def test_a_group_that_is_not_waited_for_is_seen() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", wait_s=0.5)
    assert made.wrong("groups")


def test_a_pod_that_did_not_fail_and_is_named_is_seen() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2", "p3")
    assert made.wrong("groups")


def test_a_pod_that_failed_before_the_last_call_is_named_by_the_next_only_if_it_is_not_well() -> None:
    made = grouped()
    made.group_call(100.0, "c1", "p0", "p1", "p2")
    made.told(400.0, owner=OWNER, controller=CONTROLLER)
    made.group_call(400.0, "c2", "p0", "p1")
    assert len(made.wrong("groups")) == 1
    made.history.told[1] = replace(made.history.told[1], spell=Spell(from_s=101.0))
    assert not made.wrong("groups")


# budget


def spending(*, calls_an_hour: int) -> Made:
    """Six pods fail one after the other: each is an incident."""
    made = Made(calls_an_hour=calls_an_hour)
    for number in range(6):
        made.told(100.0 + number, pod=f"p{number}")
    return made


def paid(made: Made, at_s: float, number: int) -> None:
    made.call(at_s, f"c{number}", key=(*KEY[:3], f"p{number}"))


def waits(made: Made, at_s: float, number: int) -> None:
    made.row(at_s, f"c{number}", "Pending", "Budget", key=(*KEY[:3], f"p{number}"))


def test_a_call_that_waits_for_its_budget_is_an_answer_and_no_failure() -> None:
    made = spending(calls_an_hour=4)
    for number in range(4):
        paid(made, 100.0 + number, number)
    for number in (4, 5):
        waits(made, 104.0 + number, number)
    paid(made, 1010.0, 4)  # 900 s later there is one more
    made.row(1700.0, "c5", "Failed", "Budget", key=(*KEY[:3], "p5"))
    assert check(made.history) == []


def test_more_calls_than_an_hour_has_are_seen() -> None:
    made = spending(calls_an_hour=4)
    for number in range(5):
        paid(made, 100.0 + number, number)
    assert len(made.wrong("budget")) == 1


def test_a_new_owner_that_forgets_what_was_spent_is_seen() -> None:
    made = spending(calls_an_hour=4)
    for number in range(4):
        paid(made, 100.0 + number, number)
    made.history.holds[0] = replace(made.history.holds[0], until_s=104.0)
    made.holds(OTHER, 104.0, 1800.0, epoch=2)
    paid(made, 105.0, 4)
    assert len(made.wrong("budget")) == 1


def test_a_new_owner_knows_of_no_call_whose_row_is_gone() -> None:
    made = spending(calls_an_hour=4)
    for number in range(4):
        paid(made, 100.0 + number, number)
        made.row(104.0, "", "", key=(*KEY[:3], f"p{number}"))
    made.holds(OTHER, 104.5, 1800.0, epoch=2)
    paid(made, 105.0, 4)
    assert not made.wrong("budget")


def test_a_call_that_waits_though_there_is_one_is_seen() -> None:
    made = spending(calls_an_hour=8)
    paid(made, 100.0, 0)
    waits(made, 101.0, 1)
    assert len(made.wrong("budget")) == 1
    made.fault(99.0, 1790.0)
    assert not made.wrong("budget")


def test_a_failure_for_a_budget_that_nobody_waited_for_is_seen() -> None:
    made = spending(calls_an_hour=8)
    made.row(101.0, "c0", "Pending", "Queued")
    made.row(102.0, "c0", "Failed", "Budget")
    assert made.wrong("justified")


# holds


def held(*, from_s: float, until_s: float = float("inf")) -> Made:
    """An entry that holds for a minute, and a pod that was unwell in between."""
    made = Made()
    made.history.entries[0].hold_s = 60.0
    made.told(from_s, spell=Spell(from_s=from_s, until_s=until_s))
    return made


def test_trouble_that_lasts_is_called_when_its_time_is_over() -> None:
    made = held(from_s=100.0)
    assert made.wrong("no_lost")
    made.call(165.0, "c1")
    assert check(made.history) == []


def test_a_call_before_its_time_is_seen() -> None:
    made = held(from_s=100.0)
    made.call(140.0, "c1")
    assert made.wrong("holds")


def test_trouble_that_passed_in_time_is_not_due_and_a_call_for_it_is_seen() -> None:
    made = held(from_s=100.0, until_s=150.0)
    assert not made.wrong("no_lost")
    made.call(165.0, "c1")
    assert made.wrong("holds")


def test_a_recovery_that_nobody_could_see_excuses_a_call() -> None:
    made = held(from_s=100.0, until_s=150.0)
    made.call(165.0, "c1")
    made.fault(140.0, 145.0)
    assert not made.wrong("holds")


def test_a_pod_that_was_well_is_nothing_to_hold() -> None:
    made = Made()
    made.history.entries[0].hold_s = 60.0
    made.told(100.0)
    made.call(165.0, "c1")
    assert made.wrong("holds")


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
