"""Asking workers what they have: each once, for a second at most, and a stuck one not again before it has answered."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from khook.messages import TellSummary, decode_to_worker
from khook.sandbox.virtual_time import run
from khook.summary import WorkerSummary
from khook.supervisor.summaries import WITHIN_S, Summaries, Told


class Workers:
    """`answers`: after how many seconds each does; a slot without one never does."""

    def __init__(self, answers: dict[str, float], *, absent: frozenset[str] = frozenset()) -> None:
        self.answers = answers
        self.absent = absent
        self.asked: list[str] = []
        self.summaries = Summaries(tell=self.tell)

    def tell(self, slot: str, payload: bytes) -> bool:
        assert decode_to_worker(payload) == TellSummary()
        if slot in self.absent:
            return False
        self.asked.append(slot)
        if slot in self.answers:
            summary = WorkerSummary(hooks=len(self.asked))
            asyncio.get_running_loop().call_later(self.answers[slot], self.summaries.came, slot, summary)
        return True

    async def gather(self) -> tuple[Told, float]:
        """What was told, and after how many seconds."""
        since_at = asyncio.get_running_loop().time()
        told = await self.summaries.gather(("w0", "w1"))
        return told, asyncio.get_running_loop().time() - since_at


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()

    run(main())


def test_it_returns_as_soon_as_all_have_answered() -> None:
    async def story() -> None:
        workers = Workers({"w0": 0.01, "w1": 0.3})
        told, took_s = await workers.gather()
        assert (set(told.summaries), told.silent, workers.asked) == ({"w0", "w1"}, (), ["w0", "w1"])
        assert took_s == pytest.approx(0.3)

    play(story)


def test_a_stuck_worker_is_named_after_a_second_and_asked_again_only_after_its_answer() -> None:
    async def story() -> None:
        workers = Workers({"w0": 0.01, "w1": 2.5})
        for _ in range(2):
            told, took_s = await workers.gather()
            assert (set(told.summaries), told.silent) == ({"w0"}, ("w1",))
            assert took_s == pytest.approx(WITHIN_S)
        assert workers.asked == ["w0", "w1", "w0"]
        told, _ = await workers.gather()  # the answer to the first question comes now
        assert (set(told.summaries), told.silent) == ({"w0", "w1"}, ())
        await workers.gather()
        assert workers.asked[-1] == "w1"

    play(story)


def test_nobody_is_waited_for_who_is_not_there_or_has_died() -> None:
    async def story() -> None:
        absent = Workers({"w0": 0.01}, absent=frozenset({"w1"}))
        assert (await absent.gather())[0].silent == ()
        dying = Workers({"w0": 0.01})
        asyncio.get_running_loop().call_later(0.2, dying.summaries.died, "w1")
        told, took_s = await dying.gather()
        assert (set(told.summaries), told.silent) == ({"w0"}, ())
        assert took_s == pytest.approx(0.2)

    play(story)
