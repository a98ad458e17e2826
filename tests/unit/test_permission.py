"""Permission: counted from the sending, ended by the clock alone, and nothing permits what was never answered."""

import asyncio

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from khook.sandbox.virtual_time import run
from shards.permission import HELLO, MAX_UNANSWERED, Permission


class Hands:
    """A clock that is set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


class PermissionMachine(RuleBasedStateMachine):
    """The model: every beat's sending is kept for ever, and the highest answered beat alone says until when."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Hands()
        self.permission = Permission(self.clock)
        self.sent_at: dict[int, float] = {}
        self.last: tuple[int, float | None] | None = None
        self.next = HELLO

    @rule(passed_s=st.sampled_from([0.0, 0.5, 3.0, 40.0]))
    def time_passes(self, passed_s: float) -> None:
        self.clock.now += passed_s

    @rule(beats=st.sampled_from([1, 1, 1, MAX_UNANSWERED - 1, MAX_UNANSWERED]))
    def beats_are_sent(self, beats: int) -> None:
        for _ in range(beats):
            self.permission.sent(self.next)
            self.sent_at[self.next] = self.clock.now
            self.next += 1

    @rule(
        back=st.sampled_from([0, 1, 2, 3, MAX_UNANSWERED, MAX_UNANSWERED + 1]),
        permission_s=st.sampled_from([None, 0.0, 1.0, 10.0]),
    )
    def a_beat_is_answered(self, back: int, permission_s: float | None) -> None:
        sequence = self.next - back
        self.permission.answered(sequence, permission_s)
        sent = HELLO <= sequence < self.next
        news = self.last is None or sequence > self.last[0]
        if sent and news and back <= MAX_UNANSWERED:
            self.last = (sequence, permission_s)

    @invariant()
    def it_holds_exactly_as_long_as_the_last_answer_says(self) -> None:
        if self.last is None:
            until_at = float("-inf")
        else:
            sequence, permission_s = self.last
            until_at = float("inf") if permission_s is None else self.sent_at[sequence] + permission_s
        assert until_at == self.permission.until_at
        assert self.permission.holds is (self.clock.now < until_at)


TestPermission = PermissionMachine.TestCase
TestPermission.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


class LoopClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


def test_it_lapses_with_no_message_at_all_and_whoever_waits_goes_on_with_the_next_answer() -> None:
    async def play() -> None:
        loop, permission = asyncio.get_running_loop(), Permission(LoopClock())
        passed: list[tuple[str, float]] = []

        async def pass_(name: str) -> None:
            await permission.wait()
            passed.append((name, loop.time() - began_at))

        began_at = loop.time()
        first = asyncio.create_task(pass_("first"))
        await asyncio.sleep(1.0)
        permission.sent(0)
        await asyncio.sleep(2.0)
        permission.answered(0, 5.0)  # until the sixth second, not the eighth
        await first
        await pass_("second")
        await asyncio.sleep(2.9)
        await pass_("third")
        await asyncio.sleep(0.2)
        assert not permission.holds
        others = [asyncio.create_task(pass_(name)) for name in ("fourth", "fifth")]
        await asyncio.sleep(60.0)
        assert len(passed) == 3
        permission.sent(1)
        permission.answered(1, 1.0)
        await asyncio.gather(*others)
        assert [(name, round(at, 3)) for name, at in passed] == [
            ("first", 3.0),
            ("second", 3.0),
            ("third", 5.9),
            ("fourth", 66.1),
            ("fifth", 66.1),
        ]

    run(play())


def test_an_answer_that_comes_when_its_time_is_over_lets_nobody_through() -> None:
    async def play() -> None:
        permission = Permission(LoopClock())
        waiting = asyncio.create_task(permission.wait())
        permission.sent(HELLO)
        await asyncio.sleep(10.0)
        permission.answered(HELLO, 10.0)
        await asyncio.sleep(1.0)
        assert not waiting.done()
        permission.sent(0)
        permission.answered(0, None)
        await waiting
        await asyncio.sleep(1e6)
        assert permission.holds

    run(play())


def test_nobody_polls_while_waiting() -> None:
    class Counting(Hands):
        looks = 0

        def monotonic(self) -> float:
            self.looks += 1
            return self.now

    async def play() -> None:
        clock = Counting()
        permission = Permission(clock)
        waiting = asyncio.create_task(permission.wait())
        await asyncio.sleep(3600.0)
        assert clock.looks == 1
        waiting.cancel()
        await asyncio.wait([waiting])

    run(play())
