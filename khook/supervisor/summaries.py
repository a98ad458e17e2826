"""Asks the workers what they have when somebody reads the status, and waits for a moment until they have told.

A worker that has not answered the last question is not asked the next: a stuck one gathers no questions, and its
answer counts whenever it comes. Knows nothing of who reads, nor of what a summary holds. One `gather` at a time.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from khook import messages
from khook.summary import WorkerSummary

WITHIN_S: Final = 1.0
"""A worker answers in milliseconds; one whose loop stands still for longer is shown as silent."""
QUESTION: Final = messages.encode(messages.TellSummary())


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came, by slot, and which slots were asked and did not answer in time."""

    summaries: Mapping[str, WorkerSummary]
    silent: tuple[str, ...] = ()


NOTHING: Final = Told(summaries={})


class Summaries:
    def __init__(self, *, tell: Callable[[str, bytes], bool]) -> None:
        """`tell` sends to a slot's worker; False where there is none that could answer."""
        self._tell = tell
        self._asked: set[str] = set()
        self._told: dict[str, WorkerSummary] = {}
        self._news = asyncio.Event()

    async def gather(self, slots: Iterable[str]) -> Told:
        self._told = {}
        for slot in slots:
            if slot not in self._asked and self._tell(slot, QUESTION):
                self._asked.add(slot)
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN_S):
                while self._asked:
                    self._news.clear()
                    await self._news.wait()
        return Told(summaries=self._told, silent=tuple(sorted(self._asked)))

    def came(self, slot: str, summary: WorkerSummary) -> None:
        self._told[slot] = summary
        self._done(slot)

    def died(self, slot: str) -> None:
        """It will not answer; what it told is still what stands in the Hooks' statuses."""
        self._done(slot)

    def _done(self, slot: str) -> None:
        self._asked.discard(slot)
        self._news.set()
