"""R11: one slot's process is killed each time it comes back; how often it does, who gets its namespaces, and whether
anybody else notices.

The kills spend a crash budget: ten deaths in ten minutes break a slot. With the back-off doubling from 0.1 s that
takes 51 s, in which the other slot's namespaces are told of incidents and must be answered as ever.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench.pool.family import family, settled_family
from bench.pool.khook import KhookFailed
from bench.pool.stage import Stage, evenly, staged
from bench.pool.troubles import Troubles
from bench.pool.verdict import Row, counted, timed

WORKERS: Final = 2
NAMESPACES_EACH: Final = 16
DEATHS: Final = 10
"""`PoolLimits.crash_budget`."""
BACK_WITHIN_S: Final = 45.0
"""More than the longest back-off."""
REHOMED_WITHIN_S: Final = 30.0
STAYS_BROKEN_S: Final = 3.0
PER_SECOND: Final = 4.0
POLL_S: Final = 0.01


@dataclass(slots=True)
class CrashLoop:
    restarts: int = 0
    """Processes that filled the slot after its first."""
    rehomed_s: float = REHOMED_WITHIN_S
    """From the last death to the opening of the last watch of the slot's namespaces, by another slot."""
    answered_s: list[float] = field(default_factory=list)
    """Of the other slot's incidents: from telling to the call."""
    disturbed: int = 0
    """Watches of the other slot's namespaces that were opened again, and a process of its that is not the first."""
    lost: int = 0
    repeated: int = 0
    leaked: int = 0


async def observe(*, progress: Callable[[int, int], None] = lambda done, of: None) -> CrashLoop:
    """Kill slot w0's process until none comes back."""
    found = CrashLoop()
    async with staged(workers=WORKERS) as stage:
        await stage.hooks(evenly(workers=WORKERS, each=NAMESPACES_EACH))
        await stage.start()
        before, owned = family(stage.khook.pid), stage.khook.owned()
        doomed, calm = Troubles(stage, owned["w0"]), Troubles(stage, owned["w1"])
        openings, calm_pid = _openings(stage, owned["w1"]), stage.khook.told().pids["w1"]
        async with doomed.steadily(per_second=PER_SECOND / 2), calm.steadily(per_second=PER_SECOND):
            for death in range(1, DEATHS + 1):
                died_at = await _killed(stage, "w0", lives=death)
                progress(death, DEATHS)
            found.rehomed_s = await stage.watches.watched_s(owned["w0"], since_at=died_at, within_s=REHOMED_WITHIN_S)
            await asyncio.sleep(STAYS_BROKEN_S)
        told_meanwhile = len(calm.incidents)
        await doomed.settle()
        await calm.settle()
        told = stage.khook.told()
        found.restarts = told.lives["w0"] - 1
        found.answered_s = calm.answered_s(calm.incidents[:told_meanwhile])
        found.disturbed = _openings(stage, owned["w1"]) - openings + int(told.pids["w1"] != calm_pid)
        found.lost = doomed.judged().lost + calm.judged().lost
        found.repeated = doomed.judged().repeated + calm.judged().repeated
        found.leaked = (await settled_family(stage.khook.pid, before=before)).grown(before)
    return found


async def _killed(stage: Stage, slot: str, *, lives: int) -> float:
    """Kill the slot's process of this number as soon as it was welcomed; when. Raises KhookFailed if none came."""
    give_up_at = time.monotonic() + BACK_WITHIN_S
    while (told := stage.khook.told()).lives[slot] < lives:
        if time.monotonic() > give_up_at:
            raise KhookFailed(f"after {lives - 1} deaths no process came back into {slot}")
        await asyncio.sleep(POLL_S)
    killed_at = time.monotonic()
    os.kill(told.pids[slot], signal.SIGKILL)
    return killed_at


def _openings(stage: Stage, namespaces: list[str]) -> int:
    return sum(stage.watches.openings[namespace] for namespace in namespaces)


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(progress=progress)
    return [
        counted("R11", "restarts of a crash-looping worker in 10 min", [found.restarts], most=10),
        timed("R11", "tenth death → its 16 namespaces watched by another slot", [found.rehomed_s], most_s=1.0),
        timed("R11", "meanwhile: signal → call in the other slot", found.answered_s, p99_s=1.0),
        counted("R11", "watches and workers of the other slot lost", [found.disturbed]),
        counted("R11", "calls lost", [found.lost]),
        counted("R11", "calls repeated", [found.repeated]),
        counted("R11", "descriptors, processes, zombies more than before", [found.leaked]),
    ]
