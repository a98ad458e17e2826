"""Parked calls: who is next, who is overdue, who has to leave, against a model that sorts all of them each time."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from khook.core.parking import Parked, Parking, ParkReason
from khook.core.signal import Namespace

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)


def a_call(ticket: str, *, claimed_s: int = 0, agent: str = "kagent/a", namespace: str = "shop") -> Parked[str]:
    claimed_time = START + timedelta(seconds=claimed_s)
    return Parked(
        ticket=ticket,
        agent=agent,
        namespace=Namespace(namespace),
        reason=ParkReason.BREAKER,
        claimed_time=claimed_time,
        until_time=claimed_time + timedelta(minutes=15),
    )


def test_the_oldest_claim_of_an_agent_goes_first_whenever_it_was_parked() -> None:
    parking = Parking[str]()
    for ticket, claimed_s, agent in [("new", 5, "a"), ("old", 1, "a"), ("other", 0, "b")]:
        parking.park(a_call(ticket, claimed_s=claimed_s, agent=agent))
    assert parking.oldest("a") == "old"
    left = parking.leave("old")
    assert left is not None
    assert left.ticket == "old"
    assert (parking.oldest("a"), parking.oldest("b"), parking.oldest("c")) == ("new", "other", None)
    assert parking.leave("old") is None


def test_a_call_that_failed_as_the_probe_lets_the_others_try() -> None:
    parking = Parking[str]()
    parking.park(a_call("breaks its agent", claimed_s=0))
    parking.park(a_call("harmless", claimed_s=9))
    parking.park(replace(a_call("breaks its agent", claimed_s=0), probes=1))
    assert parking.oldest("kagent/a") == "harmless"


def test_who_waits_for_a_key_is_not_sent_when_its_agent_is_back() -> None:
    parking = Parking[str]()
    refused = replace(a_call("refused", claimed_s=3), reason=ParkReason.UNAUTHORIZED)
    parking.park(refused)
    parking.park(replace(refused, ticket="refused before", claimed_time=START))
    assert (parking.oldest("kagent/a"), parking.agents) == (None, ())
    assert parking.waiting_for(ParkReason.UNAUTHORIZED) == ["refused before", "refused"]
    assert parking.waiting_for(ParkReason.OUTAGE) == []


def test_when_full_the_one_whose_incident_had_most_calls_leaves_even_the_newcomer() -> None:
    parking = Parking[str](most=2)
    assert parking.park(a_call("first call of a one-shot")) is None
    assert parking.park(replace(a_call("third call of a crash loop"), calls_before=2)) is None
    assert parking.park(replace(a_call("second call", claimed_s=1), calls_before=1)) == "third call of a crash loop"
    assert parking.park(replace(a_call("ninth call", claimed_s=2), calls_before=8)) == "ninth call"
    assert len(parking) == 2


def test_one_tenants_storm_pushes_out_its_own_newest_calls() -> None:
    parking = Parking[str](most=3)
    parking.park(a_call("storm 1", claimed_s=1))
    parking.park(a_call("storm 2", claimed_s=2))
    parking.park(a_call("single", claimed_s=8, namespace="other"))
    assert parking.park(a_call("storm 3", claimed_s=3)) == "storm 3"
    assert parking.park(a_call("storm 0", claimed_s=0)) == "storm 2"
    assert "single" in parking


def test_what_has_waited_long_enough_is_due_and_stays_until_it_leaves() -> None:
    parking = Parking[str]()
    assert parking.next_end_time is None
    parking.park(a_call("later", claimed_s=60))
    parking.park(a_call("first", claimed_s=0))
    end = START + timedelta(minutes=15)
    assert parking.next_end_time == end
    assert parking.due(end - timedelta(microseconds=1)) == []
    assert parking.due(end) == ["first"] == parking.due(end)
    assert parking.due(end + timedelta(minutes=1)) == ["first", "later"]


TICKETS = [f"call-{n}" for n in range(8)]
AGENTS = ["kagent/a", "kagent/b"]


class Parkings(RuleBasedStateMachine):
    MOST = 5

    def __init__(self) -> None:
        super().__init__()
        self.parking = Parking[str](most=self.MOST)
        self.told: list[Parked[str]] = []

    def told_of(self, ticket: str) -> Parked[str] | None:
        return next((parked for parked in self.told if parked.ticket == ticket), None)

    @rule(
        ticket=st.sampled_from(TICKETS),
        agent=st.sampled_from(AGENTS),
        namespace=st.sampled_from(["shop", "bank", "docs"]),
        reason=st.sampled_from(ParkReason),
        claimed_s=st.integers(0, 2),
        waits_s=st.integers(0, 3),
        calls_before=st.integers(0, 2),
        probes=st.integers(0, 1),
    )
    def a_call_is_parked(
        self,
        ticket: str,
        agent: str,
        namespace: str,
        reason: ParkReason,
        claimed_s: int,
        waits_s: int,
        calls_before: int,
        probes: int,
    ) -> None:
        parked = replace(
            a_call(ticket, claimed_s=claimed_s, agent=agent, namespace=namespace),
            reason=reason,
            until_time=START + timedelta(seconds=claimed_s + waits_s),
            calls_before=calls_before,
            probes=probes,
        )
        self.told = [*(other for other in self.told if other.ticket != ticket), parked]
        expected = self.who_leaves() if len(self.told) > self.MOST else None
        assert self.parking.park(parked) == expected
        self.told = [parked for parked in self.told if parked.ticket != expected]

    def who_leaves(self) -> str:
        """Most calls before; then the namespace with most parked; then the latest claim, of these the last parked."""
        most_calls = max(parked.calls_before for parked in self.told)
        places = [parked.namespace for parked in self.told]
        candidates = [parked for parked in self.told if parked.calls_before == most_calls]
        widest = max(places.count(parked.namespace) for parked in candidates)
        candidates = [parked for parked in candidates if places.count(parked.namespace) == widest]
        latest = max(parked.claimed_time for parked in candidates)
        return [parked.ticket for parked in candidates if parked.claimed_time == latest][-1]

    @rule(ticket=st.sampled_from(TICKETS))
    def a_call_leaves(self, ticket: str) -> None:
        assert self.parking.leave(ticket) == self.told_of(ticket)
        self.told = [parked for parked in self.told if parked.ticket != ticket]

    @rule(agent=st.sampled_from(AGENTS))
    def an_agent_is_back(self, agent: str) -> None:
        """All its calls leave, oldest first."""
        mine = [p for p in self.told if p.agent == agent and p.reason is not ParkReason.UNAUTHORIZED]
        for parked in sorted(mine, key=lambda p: (p.probes, p.claimed_time)):
            assert self.parking.oldest(agent) == parked.ticket
            self.a_call_leaves(parked.ticket)
        assert self.parking.oldest(agent) is None

    @invariant()
    def it_is_as_told(self) -> None:
        assert len(self.parking) == len(self.told) <= self.MOST
        for ticket in TICKETS:
            assert self.parking.get(ticket) == self.told_of(ticket)
            assert (ticket in self.parking) is (self.told_of(ticket) is not None)
        reasons = [parked.reason for parked in self.told]
        assert self.parking.counts == {reason: reasons.count(reason) for reason in ParkReason}
        asked = {parked.agent for parked in self.told if parked.reason is not ParkReason.UNAUTHORIZED}
        assert set(self.parking.agents) == asked
        by_agent = Counter((parked.agent, parked.reason) for parked in self.told)
        assert by_agent == {(a, r): n for a, counts in self.parking.by_agent().items() for r, n in counts.items()}
        for reason in ParkReason:
            waiting = sorted((p for p in self.told if p.reason is reason), key=lambda p: p.claimed_time)
            assert self.parking.waiting_for(reason) == [parked.ticket for parked in waiting]

    @invariant()
    def those_are_due_whose_time_is_over(self) -> None:
        ends = sorted(self.told, key=lambda parked: parked.until_time)
        assert self.parking.next_end_time == (ends[0].until_time if ends else None)
        for second in range(6):
            now = START + timedelta(seconds=second)
            assert self.parking.due(now) == [parked.ticket for parked in ends if parked.until_time <= now]


Parkings.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_any_order_of_parking_and_leaving = Parkings.TestCase
