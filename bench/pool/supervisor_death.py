"""R3: the supervisor is killed with SIGKILL; how long anything that it started lives, and what the next khook repeats.

Workers are idle, in the middle of a storm of signals with calls in flight, or stopped so that they can do nothing
about it. Each next khook is told of every incident again, inside their windows, and may call nobody for them.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bench.pool.family import all_ended_s, descendants, pidfds
from bench.pool.stage import Stage, evenly, staged
from bench.pool.troubles import Troubles
from bench.pool.verdict import Row, counted, timed

GIVE_UP_S: Final = 5.0
STORM: Final = 100
"""Incidents at once: more than two workers judge, claim and call in the moment that they are given."""
STORM_S: Final = 0.15
WORKERS: Final = 2
NAMESPACES_EACH: Final = 4


class While(StrEnum):
    """What the workers are doing when it happens."""

    IDLE = "idle"
    BUSY = "busy"
    STOPPED = "stopped"


@dataclass(slots=True)
class Deaths:
    outlived_s: dict[While, list[float]] = field(default_factory=dict)
    """From each kill to the end of the last process below that supervisor."""
    orphans: list[int] = field(default_factory=list)
    """For each kill: processes that were still alive after a long while."""
    lost: list[int] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    """For each next khook: calls for incidents that had been called."""


async def observe(
    *,
    times: int,
    states: tuple[While, ...] = tuple(While),
    storm: int = STORM,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Deaths:
    """Kill so many supervisors in each of these states."""
    found = Deaths()
    async with staged(workers=WORKERS) as stage:
        namespaces = evenly(workers=WORKERS, each=NAMESPACES_EACH)
        await stage.hooks(namespaces)
        troubles = Troubles(stage, namespaces)
        await stage.start()
        for _ in range(times):
            for state in states:
                await _one(stage, troubles, state, storm=storm, found=found)
                progress(len(found.lost), times * len(states))
    return found


async def _one(stage: Stage, troubles: Troubles, state: While, *, storm: int, found: Deaths) -> None:
    before = troubles.judged().repeated
    await troubles.settle()
    telling = await _brought_to(state, stage, troubles, storm=storm)
    with pidfds(descendants(stage.khook.pid)) as ends:
        struck_at = time.monotonic()
        stage.khook.strike()
        outlived_s = all_ended_s(ends, since_at=struck_at, within_s=GIVE_UP_S)
        for end in ends:  # an orphan is counted, not kept
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
    found.orphans.append(int(outlived_s is None))
    found.outlived_s.setdefault(state, []).append(GIVE_UP_S if outlived_s is None else outlived_s)
    await stage.khook.kill()
    await asyncio.gather(*telling)
    await stage.start()
    await troubles.tell_again()
    await troubles.settle()
    judged = troubles.judged()
    found.lost.append(judged.lost)
    found.repeated.append(judged.repeated - before)


async def _brought_to(state: While, stage: Stage, troubles: Troubles, *, storm: int) -> "list[asyncio.Task[object]]":
    """What is still being told when the state is reached."""
    match state:
        case While.IDLE:
            return []
        case While.BUSY:
            names = [troubles.namespaces[number % len(troubles.namespaces)] for number in range(storm)]
            telling: list[asyncio.Task[object]] = [asyncio.create_task(troubles.tell(name)) for name in names]
            await asyncio.sleep(STORM_S)
            return telling
        case While.STOPPED:
            for pid in stage.khook.told().pids.values():
                os.kill(pid, signal.SIGSTOP)
            return []


async def measure(progress: Callable[[int, int], None]) -> list[Row]:
    found = await observe(times=3, progress=progress)
    return [
        *(
            timed("R3", f"kill -9 of the supervisor, workers {state} → none alive", samples, most_s=0.1)
            for state, samples in found.outlived_s.items()
        ),
        counted("R3", "calls repeated after a restart", found.repeated),
        counted("R3", "calls lost", found.lost),
    ]
