"""R4: workers are stopped with SIGSTOP for a minute; when they are replaced, and what they do when they wake.

Signals go on meanwhile, so calls are in flight in a worker that freezes and a frozen worker's share of the signals
waits for its successor. Each is frozen at another moment between two heartbeats.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.pool.family import ended, family, pidfds, settled_family
from bench.pool.stage import Stage, evenly, staged
from bench.pool.troubles import Troubles
from bench.pool.verdict import Row, counted, timed

HEARTBEAT_TIMEOUT_S: Final = 10.0
"""KHOOK_HEARTBEAT_TIMEOUT's default."""
FROZEN_S: Final = 60.0
BEAT_S: Final = 1.0
GIVE_UP_S: Final = 30.0
NAMESPACES_EACH: Final = 4
PER_SECOND: Final = 5.0
AWAKE_S: Final = 2.0
"""Time for calls that a woken worker would make."""


@dataclass(slots=True)
class Freezes:
    replaced_s: list[float] = field(default_factory=list)
    """From each SIGSTOP to the opening of the last watch of that worker's namespaces by its successor."""
    woken: int = 0
    """Frozen workers that lived when they were told to go on."""
    lost: int = 0
    repeated: int = 0
    leaked: int = 0


async def observe(
    *,
    workers: int,
    frozen: int,
    frozen_s: float = FROZEN_S,
    heartbeat_timeout_s: float = HEARTBEAT_TIMEOUT_S,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Freezes:
    """Freeze so many of the workers, each for that long."""
    found = Freezes()
    async with staged(workers=workers, environ={"KHOOK_HEARTBEAT_TIMEOUT": f"{heartbeat_timeout_s:g}s"}) as stage:
        namespaces = evenly(workers=workers, each=NAMESPACES_EACH)
        await stage.hooks(namespaces)
        await stage.start()
        before = family(stage.khook.pid)
        troubles = Troubles(stage, namespaces)
        async with troubles.steadily(per_second=PER_SECOND):
            slots = sorted(stage.khook.told().pids)[:frozen]
            ticking = asyncio.create_task(_tick(frozen_s, progress))
            await asyncio.gather(*(_frozen(stage, slot, frozen_s=frozen_s, found=found) for slot in slots))
            await asyncio.sleep(AWAKE_S)
            ticking.cancel()
        await troubles.settle()
        found.lost, found.repeated = troubles.judged().lost, troubles.judged().repeated
        found.leaked = (await settled_family(stage.khook.pid, before=before)).grown(before)
    return found


async def _frozen(stage: Stage, slot: str, *, frozen_s: float, found: Freezes) -> None:
    await asyncio.sleep(BEAT_S * (1 + random.random()))
    told = stage.khook.told()
    pid, namespaces = told.pids[slot], told.namespaces(slot)
    with pidfds([pid]) as (end,):
        stopped_at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        found.replaced_s.append(
            await stage.watches.watched_s(namespaces, since_at=stopped_at, within_s=GIVE_UP_S + frozen_s)
        )
        await asyncio.sleep(max(0.0, stopped_at + frozen_s - time.monotonic()))
        if not ended(end):
            found.woken += 1
            signal.pidfd_send_signal(end, signal.SIGCONT)


async def _tick(seconds: float, progress: Callable[[int, int], None]) -> None:
    for second in range(int(seconds)):
        progress(second, int(seconds))
        await asyncio.sleep(1.0)


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(workers=8, frozen=4, progress=progress)
    limit_s = HEARTBEAT_TIMEOUT_S + 1.0
    return [
        timed("R4", "SIGSTOP of a worker for 60 s → replaced", found.replaced_s, most_s=limit_s),
        counted("R4", "frozen workers that woke", [found.woken]),
        counted("R4", "calls repeated", [found.repeated]),
        counted("R4", "calls lost", [found.lost]),
        counted("R4", "descriptors, processes, zombies more than before", [found.leaked]),
    ]
