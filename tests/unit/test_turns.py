"""Turns: the exact next call against a model that looks at all that wait, and the fairness that follows from it."""

from collections import deque
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from khook.core.turns import Turns


def ask(turns: Turns[str], ticket: str, agent: str = "agent", namespace: str = "shop", hook: str = "hook") -> None:
    turns.ask(ticket, agent=agent, namespace=namespace, hook=hook)


def served(turns: Turns[str]) -> list[str]:
    """All in the order they start, each answered in the order it was sent."""
    order: list[str] = []
    under_way = deque(turns.take())
    while under_way:
        ticket = under_way.popleft()
        order.append(ticket)
        turns.done(ticket)
        under_way.extend(turns.take())
    return order


def test_10_000_calls_of_one_tenant_delay_anothers_single_call_by_one_round() -> None:
    turns = Turns[str](64, 8)
    for n in range(10_000):
        ask(turns, f"storm-{n}", hook=f"hook-{n % 3}")
    under_way = turns.take()
    assert len(under_way) == 8
    ask(turns, "single", namespace="bank")
    next_two: list[str] = []
    for ticket in under_way[:2]:
        turns.done(ticket)
        next_two += turns.take()
    assert "single" in next_two
    assert (turns.waiting, turns.started) == (9_991, 8)


def test_turns_go_round_namespaces_then_hooks_and_a_hooks_calls_in_order() -> None:
    turns = Turns[str](1, 1)
    for ticket in ["shop/a/1", "shop/a/2", "shop/a/3", "shop/b/1", "bank/c/1", "bank/c/2"]:
        namespace, hook, _ = ticket.split("/")
        ask(turns, ticket, namespace=namespace, hook=hook)
    assert served(turns) == ["shop/a/1", "bank/c/1", "shop/b/1", "bank/c/2", "shop/a/2", "shop/a/3"]


def test_a_hung_agent_holds_its_places_and_the_others_go_on() -> None:
    turns = Turns[str](64, 8)
    for n in range(100):
        ask(turns, f"hung-{n}", agent="hung")
    assert turns.take() == [f"hung-{n}" for n in range(8)]
    for n in range(100):
        ask(turns, f"well-{n}", agent="well")
    assert served(turns) == [f"well-{n}" for n in range(100)]


hangs = st.lists(st.integers(0, 34), max_size=300)


@given(asks=hangs, healthy=st.integers(1, 3))
def test_no_35_agents_that_hang_keep_a_healthy_one_waiting(asks: list[int], healthy: int) -> None:
    turns = Turns[str](64, 8)
    for n, agent in enumerate(asks):
        ask(turns, f"hung-{n}", agent=f"hung-{agent}")
        turns.take()
    for n in range(healthy):
        ask(turns, f"well-{n}", agent="well")
    assert served(turns) == [f"well-{n}" for n in range(healthy)]


def test_agents_that_hang_one_after_another_take_half_of_the_places_and_then_one_each() -> None:
    turns = Turns[str](64, 8)
    held = []
    for agent in range(37):
        for n in range(10):
            ask(turns, f"{agent}-{n}", agent=f"agent-{agent}")
        held.append(len(turns.take()))
    assert held == [8] * 4 + [1] * 32 + [0]


def test_agents_share_what_is_free_before_any_gets_a_second_place() -> None:
    turns = Turns[str](8, 4)
    for ticket in ["a1", "a2", "a3", "b1", "b2", "c1"]:
        ask(turns, ticket, agent=ticket[0])
    assert turns.take() == ["a1", "b1", "c1", "a2"]
    turns.done("b1")
    assert turns.take() == ["b2"]


@given(calls=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40))
def test_a_call_waits_for_its_place_times_the_hooks_beside_it(
    calls: list[tuple[int, int]],
) -> None:
    """Times the namespaces: it is among that many starts of its agent, whatever the others ask for."""
    turns = Turns[str](1, 1)
    for n, (namespace, hook) in enumerate(calls):
        ask(turns, str(n), namespace=f"ns-{namespace}", hook=f"hook-{hook}")
    namespaces = len({namespace for namespace, _ in calls})
    order = served(turns)
    assert sorted(order, key=int) == [str(n) for n in range(len(calls))]
    for n, (namespace, hook) in enumerate(calls):
        place = calls[: n + 1].count((namespace, hook))
        hooks = len({h for ns, h in calls if ns == namespace})
        assert order.index(str(n)) < place * hooks * namespaces


def test_a_ticket_has_one_place_and_who_withdraws_has_none() -> None:
    turns = Turns[str](2, 1)
    ask(turns, "one")
    with pytest.raises(ValueError, match="asked already"):
        ask(turns, "one")
    assert turns.take() == ["one"]
    with pytest.raises(ValueError, match="asked already"):
        ask(turns, "one")
    assert not turns.withdraw("one")
    ask(turns, "two")
    with pytest.raises(KeyError):
        turns.done("two")
    assert turns.withdraw("two")
    assert not turns.withdraw("two")
    turns.done("one")
    assert turns.take() == []
    with pytest.raises(KeyError):
        turns.done("one")


@pytest.mark.parametrize(("worker_limit", "agent_limit"), [(0, 0), (1, 0), (1, 2)])
def test_limits_that_contradict_each_other_are_refused(worker_limit: int, agent_limit: int) -> None:
    with pytest.raises(ValueError, match="places"):
        Turns[str](worker_limit, agent_limit)


@dataclass
class Told:
    agent: str
    namespace: str
    hook: str
    number: int

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The three lines it stands in: its agent's, its namespace's there, its Hook's there."""
        return (self.agent,), (self.agent, self.namespace), (self.agent, self.namespace, self.hook)


class AllTurns(RuleBasedStateMachine):
    """The model gives each line in which calls wait a stamp: when it was joined, last served, or an agent's share
    changed between none, some and all. The next call is the one with the smallest stamps."""

    @initialize(worker_limit=st.integers(1, 9), agent_limit=st.integers(1, 4))
    def limits(self, worker_limit: int, agent_limit: int) -> None:
        self.worker_limit, self.agent_limit = worker_limit, min(agent_limit, worker_limit)
        self.turns = Turns[int](self.worker_limit, self.agent_limit)
        self.number = 0
        self.waiting: dict[int, Told] = {}
        self.started: dict[int, str] = {}
        self.stamps: dict[tuple[str, ...], int] = {}

    def stamp(self) -> int:
        self.number += 1
        return self.number

    def held(self, agent: str) -> int:
        return list(self.started.values()).count(agent)

    def share(self, agent: str) -> str:
        held = self.held(agent)
        return "all" if held == self.agent_limit else "some" if held else "none"

    def forget_empty_lines(self) -> None:
        lines = {line for told in self.waiting.values() for line in told.lines}
        self.stamps = {line: stamp for line, stamp in self.stamps.items() if line in lines}

    def next(self) -> int | None:
        free = self.worker_limit - len(self.started)
        allowed = {"none": free > 0, "some": free > self.worker_limit // 2, "all": False}
        ready = [ticket for ticket, told in self.waiting.items() if allowed[self.share(told.agent)]]
        return min(ready, key=self.place, default=None)

    def place(self, ticket: int) -> tuple[object, ...]:
        told = self.waiting[ticket]
        return (self.held(told.agent) > 0, *(self.stamps[line] for line in told.lines), told.number)

    @rule(
        agent=st.sampled_from("abcde"),
        namespace=st.sampled_from(["shop", "bank", "docs"]),
        hook=st.sampled_from(["x", "y"]),
        times=st.integers(1, 3),
    )
    def calls_ask(self, agent: str, namespace: str, hook: str, times: int) -> None:
        for _ in range(times):
            ticket = self.stamp()
            self.turns.ask(ticket, agent=agent, namespace=namespace, hook=hook)
            self.waiting[ticket] = told = Told(agent, namespace, hook, ticket)
            for line in told.lines:
                self.stamps.setdefault(line, self.stamp())

    @rule()
    def places_are_given(self) -> None:
        expected: list[int] = []
        while (ticket := self.next()) is not None:
            expected.append(ticket)
            told = self.waiting.pop(ticket)
            self.started[ticket] = told.agent
            self.stamps.update({line: self.stamp() for line in told.lines})
            self.forget_empty_lines()
        assert self.turns.take() == expected

    @precondition(lambda self: self.started)
    @rule(data=st.data())
    def a_call_is_answered(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.started)))
        self.turns.done(ticket)
        agent = self.started[ticket]
        before = self.share(agent)
        del self.started[ticket]
        if (agent,) in self.stamps and self.share(agent) != before:
            self.stamps[agent,] = self.stamp()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_call_is_withdrawn(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.turns.withdraw(ticket)
        del self.waiting[ticket]
        self.forget_empty_lines()

    @invariant()
    def it_is_as_told(self) -> None:
        assert (self.turns.waiting, self.turns.started) == (len(self.waiting), len(self.started))

    def teardown(self) -> None:
        """Once the agents answer, every call gets its turn."""
        while self.waiting:
            for ticket in list(self.started):
                self.turns.done(ticket)
            self.started = dict.fromkeys(self.turns.take(), "")
            assert self.started
            self.waiting = {ticket: told for ticket, told in self.waiting.items() if ticket not in self.started}


AllTurns.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_any_order_of_asking_answering_and_withdrawing = AllTurns.TestCase
