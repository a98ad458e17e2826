"""Until when a member may act outwardly: what fences a worker whose supervisor is no longer the leader.

The pool says "so many seconds more" in its welcome and in each reply to a beat; they count from when the member *sent*
the hello or the beat that is answered, never from the answer's arrival, so that an answer that was long on its way
permits nothing it should not. The latest beat's answer wins, also when it shortens. A permission ends by the clock
alone: no message is needed for it. Knows nothing of leases, nor of what is permitted.
"""

import asyncio
from collections import OrderedDict
from typing import Final

from shards.launch import Clock

HELLO: Final = -1
"""The hello's place among the beats' sequence numbers: before the first."""
MAX_UNANSWERED: Final = 128
"""Beats whose sending is remembered. What is older than this many beats is answered too late to count."""


class Permission:
    """One member's. `until_at` is monotonic; infinite while there is no limit."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.until_at = float("-inf")
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._renewed = asyncio.Event()

    @property
    def holds(self) -> bool:
        return self._clock.monotonic() < self.until_at

    async def wait(self) -> None:
        """Returns when it holds. It may lapse again before the caller acts: look at `holds` right before acting."""
        while not self.holds:
            await self._renewed.wait()

    def sent(self, sequence: int) -> None:
        """The beat (or `HELLO`) is being sent now."""
        self._sent_at[sequence] = self._clock.monotonic()
        if len(self._sent_at) > MAX_UNANSWERED:
            self._sent_at.popitem(last=False)

    def answered(self, sequence: int, permission_s: float | None) -> None:
        """The pool's word about what was sent as `sequence`. A word about an earlier one than the last says nothing."""
        sent_at = self._sent_at.get(sequence)
        if sent_at is None:
            return
        while self._sent_at and next(iter(self._sent_at)) <= sequence:
            self._sent_at.popitem(last=False)
        self.until_at = float("inf") if permission_s is None else sent_at + permission_s
        # Those who wait now look again; those who come later wait for the next answer.
        self._renewed.set()
        self._renewed = asyncio.Event()
