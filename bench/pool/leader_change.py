"""A change of leader, by SIGTERM and by SIGKILL: how long nobody watches, and what the agents were asked meanwhile.

Two khooks and one Lease; the one that went is started again and stands by for the next change. What is timed is from
the signal to the opening of the last watch of all namespaces, as the API server sees it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from bench.pool.khook import Khook
from bench.pool.stage import Stage, evenly, staged
from bench.pool.troubles import Troubles
from bench.pool.verdict import Row, counted, timed

PER_SECOND: Final = 10.0
BEFORE_S: Final = 2.0
GIVE_UP_S: Final = 60.0
WORKERS: Final = 2
NAMESPACES_EACH: Final = 8
GRACEFUL_S: Final = 3.0
CRASH_S: Final = 20.0
"""The Lease stands still for 15 s before another takes it."""


@dataclass(slots=True)
class Changes:
    stopped_s: list[float] = field(default_factory=list)
    killed_s: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    """For each change."""
    resent: int = 0
    """Requests for a call beyond its first, over the graceful changes."""


async def observe(
    *, graceful: int, crashes: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> Changes:
    """So many changes of each kind, the graceful ones first."""
    found = Changes()
    async with _pair() as (stage, other):
        namespaces = evenly(workers=WORKERS, each=NAMESPACES_EACH)
        await stage.hooks(namespaces)
        troubles = Troubles(stage, namespaces)
        await stage.start()
        leader, standby = stage.khook, other
        for number in range(graceful + crashes):
            ends, times = (leader.stop, found.stopped_s) if number < graceful else (leader.kill, found.killed_s)
            await standby.start()
            before = troubles.judged()
            async with troubles.steadily(per_second=PER_SECOND):
                await asyncio.sleep(BEFORE_S)
                times.append(await _changed(stage, ends))
            await troubles.settle()
            after = troubles.judged()
            found.lost.append(after.lost)
            found.repeated.append(after.repeated - before.repeated)
            leader, standby = standby, leader
            if number + 1 == graceful:
                found.resent = sum(count - 1 for count in _sends(stage).values())
            progress(number + 1, graceful + crashes)
    return found


@asynccontextmanager
async def _pair() -> AsyncIterator[tuple[Stage, Khook]]:
    async with staged(workers=WORKERS, environ={"LEADER_ELECTION": "true", "POD_NAME": "khook-0"}) as stage:
        other = stage.replica("khook-1")
        try:
            yield stage, other
        finally:
            await other.close()


async def _changed(stage: Stage, end: Callable[[], Awaitable[int]]) -> float:
    told_at = time.monotonic()
    ending = asyncio.ensure_future(end())
    try:
        return await stage.watches.watched_s(stage.namespaces, since_at=told_at, within_s=GIVE_UP_S)
    finally:
        await ending


def _sends(stage: Stage) -> Counter[str]:
    return Counter(attempt.call_id for attempt in stage.kagent.attempts)


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(graceful=3, crashes=2, progress=progress)
    return [
        timed("leader", "SIGTERM of the leader → the standby watches all", found.stopped_s, most_s=GRACEFUL_S),
        timed("leader", "kill -9 of the leader → the standby watches all", found.killed_s, most_s=CRASH_S),
        counted("leader", "calls lost", found.lost),
        counted("leader", "calls repeated", found.repeated),
        counted("leader", "requests sent twice at a graceful change", [found.resent]),
    ]
