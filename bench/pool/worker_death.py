"""R2: a worker is killed with SIGKILL; how long nobody watches its namespaces, and what its death leaves behind.

Every kill is a slot's first death in its khook: what is measured is one crash with the first back-off (0.1 s) in it,
not a crash loop, whose back-off grows on purpose. So a khook with many slots is killed one slot after the other, and
then a fresh one is started.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.pool.family import family, settled_family
from bench.pool.stage import Stage, evenly, staged
from bench.pool.verdict import Row, counted, timed

GIVE_UP_S: Final = 30.0


@dataclass(slots=True)
class Deaths:
    watched_again_s: list[float] = field(default_factory=list)
    """From each kill to the opening of the last watch of all namespaces of that worker."""
    moved: list[int] = field(default_factory=list)
    """For each khook: namespaces that another slot has than before."""
    leaked: list[int] = field(default_factory=list)
    """For each khook: descriptors, processes and zombies more than before its kills."""


async def observe(
    *, khooks: int, workers: int, namespaces_each: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> Deaths:
    """Kill each worker of so many khooks once."""
    found = Deaths()
    async with staged(workers=workers) as stage:
        await stage.hooks(evenly(workers=workers, each=namespaces_each))
        for number in range(khooks):
            await stage.start()
            owned, before = stage.khook.owned(), family(stage.khook.pid)
            for slot in owned:
                found.watched_again_s.append(await _killed(stage, slot, owned[slot]))
                progress(len(found.watched_again_s), khooks * workers)
            after = await settled_family(stage.khook.pid, before=before)
            found.leaked.append(after.grown(before))
            found.moved.append(_moved(owned, stage.khook.owned()))
            if number + 1 < khooks:
                await stage.khook.kill()
    return found


async def _killed(stage: Stage, slot: str, namespaces: list[str]) -> float:
    pid = stage.khook.told().pids[slot]
    killed_at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return await stage.watches.watched_s(namespaces, since_at=killed_at, within_s=GIVE_UP_S)


def _moved(before: dict[str, list[str]], after: dict[str, list[str]]) -> int:
    return sum(len(set(namespaces) - set(after[slot])) for slot, namespaces in before.items())


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(khooks=4, workers=16, namespaces_each=16, progress=progress)
    return [
        timed("R2", "kill -9 of a worker → its 16 namespaces watched", found.watched_again_s, p50_s=0.25, p99_s=1.0),
        counted("R2", "namespaces that changed their slot", found.moved),
        counted("R2", "descriptors, processes, zombies more than before", found.leaked),
    ]
