"""R6: khook is told to stop with SIGTERM under load; how it ends, how long that takes, what was lost or sent twice."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.pool.family import all_ended_s, descendants, pidfds
from bench.pool.stage import evenly, staged
from bench.pool.troubles import Troubles
from bench.pool.verdict import Row, counted, timed

GRACE_S: Final = 20.0
"""KHOOK_DRAIN's default."""
PER_SECOND: Final = 20.0
BEFORE_S: Final = 1.5
AFTER_S: Final = 0.5
"""Signals that come when nobody is there: the next khook finds them in its lists."""
WORKERS: Final = 2
NAMESPACES_EACH: Final = 8


@dataclass(slots=True)
class Stops:
    stopped_s: list[float] = field(default_factory=list)
    """From each SIGTERM to the exit."""
    badly: list[int] = field(default_factory=list)
    """For each stop: an exit code that is not 0, workers that did not end in order and by themselves, orphans."""
    lost: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    """For each stop, counted after the next start."""
    resent: int = 0
    """Requests for a call beyond its first: a drain leaves none whose end nobody saw."""


async def observe(
    *,
    times: int,
    per_second: float = PER_SECOND,
    namespaces_each: int = NAMESPACES_EACH,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Stops:
    """So many stops and starts while signals go on."""
    found = Stops()
    async with staged(workers=WORKERS) as stage:
        namespaces = evenly(workers=WORKERS, each=namespaces_each)
        await stage.hooks(namespaces)
        troubles = Troubles(stage, namespaces)
        await stage.start()
        for number in range(times):
            before = troubles.judged()
            async with troubles.steadily(per_second=per_second):
                await asyncio.sleep(BEFORE_S)
                with pidfds(descendants(stage.khook.pid)) as handles:
                    told_at = time.monotonic()
                    code = await stage.khook.stop()
                    found.stopped_s.append(time.monotonic() - told_at)
                    left = all_ended_s(handles, since_at=time.monotonic(), within_s=1.0) is None
                ends = stage.khook.worker_ends()
                found.badly.append(int(code != 0) + int(left) + WORKERS - ends.count("exit 0"))
                await asyncio.sleep(AFTER_S)
            await stage.start()
            await troubles.settle()
            after = troubles.judged()
            found.lost.append(after.lost)
            found.repeated.append(after.repeated - before.repeated)
            progress(number + 1, times)
        sends = Counter(attempt.call_id for attempt in stage.kagent.attempts)
        found.resent = sum(count - 1 for count in sends.values())
    return found


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(times=4, progress=progress)
    return [
        timed("R6", f"SIGTERM at {PER_SECOND:g} signals/s → exit", found.stopped_s, most_s=GRACE_S),
        counted("R6", "exits that were not 0, of any process, and orphans", found.badly),
        counted("R6", "calls lost", found.lost),
        counted("R6", "calls repeated", found.repeated),
        counted("R6", "requests sent twice", [found.resent]),
    ]
