"""A worker that does nothing but count, half of its time: for deaths in the middle of an increment.

It counts with khook's own metrics, in its slot's files.
"""

import asyncio
import socket
from typing import Final

from khook import metrics
from shards.forkserver import serve
from shards.launch import Seat
from shards.member import Member
from shards.system import SystemClock

COUNTS_A_TURN: Final = 20
PAUSE_S: Final = 0.001
"""About as long as a turn's counts: it shall not starve those that watch it."""
CALL_S: Final = 0.05


class Counting:
    """`shards.member.Work`: every key counts."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def welcome(self, payload: bytes) -> None:
        pass

    async def start(self, key: str, epoch: int) -> None:
        self._tasks[key] = asyncio.create_task(_count())

    async def stop(self, key: str, epoch: int) -> None:
        if (task := self._tasks.pop(key, None)) is not None:
            task.cancel()

    def told(self, payload: bytes) -> None:
        pass

    def report(self) -> bytes:
        return b""

    async def drain(self, drain_s: float) -> None:
        for key in list(self._tasks):
            await self.stop(key, 0)


async def _count() -> None:
    while True:
        for _ in range(COUNTS_A_TURN):
            metrics.EVENTS.judged("pod-restart", "fire")
            metrics.CALLS.called("a2a", "accepted", CALL_S)
        metrics.active_events("pod-restart", 1)
        metrics.breakers("open", 1)
        await asyncio.sleep(PAUSE_S)


async def _live(seat: Seat) -> None:
    await Member(seat, work=Counting(), clock=SystemClock()).run()


def work(slot: str, channel: socket.socket) -> None:
    """`shards.forkserver.Entry`."""
    metrics.bind_slot(slot)
    serve(slot, channel, _live)
