"""Many worlds, on several processes: which seeds fail, with what, and what they cost."""

import gc
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sim.checkers import check
from sim.draw import draw
from sim.life import live

CHUNK: Final = 4
"""Seeds handed to a process at once: few enough that a failure stops the others soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seed: int
    violations: tuple[str, ...]
    cpu_s: float
    told: int
    runs: int
    faults: int


def one(seed: int) -> Outcome:
    began_s = time.process_time()
    plan = draw(seed)
    history, _ = live(plan)
    return Outcome(
        seed=seed,
        violations=tuple(check(history)),
        cpu_s=time.process_time() - began_s,
        told=len(history.told),
        runs=len(history.runs),
        faults=len(plan.faults),
    )


def many(seeds: Sequence[int], *, jobs: int) -> Iterator[Outcome]:
    """In the order of the seeds. Close it to stop."""
    if jobs <= 1:
        settle()
        yield from map(one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=settle) as pool:
        yield from pool.imap(one, seeds, chunksize=CHUNK)


def settle() -> None:
    """What is there before the first world need not be looked at between worlds."""
    gc.collect()
    gc.freeze()
