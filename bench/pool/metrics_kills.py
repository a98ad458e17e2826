"""The metrics directory while workers are killed with SIGKILL in the middle of counting: a program of its own.

It is a supervisor of counting workers, because only a process that is not running a loop yet may boot a forkserver.
All the while it scrapes: no sample of a counter may be less than it was, and no file may come that was not there when
every slot had counted once. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench.pool.counting_worker import work
from bench.pool.family import family, settled_family
from khook import metrics
from shards.forkserver import ForkserverLauncher
from shards.policy import Phase, PoolLimits
from shards.pool import Owner, Pool
from shards.system import StandardLog, SystemClock

SLOTS: Final = ("w0", "w1")
KEYS: Final = {f"key-{number}": 1.0 for number in range(4)}
SCRAPE_EVERY_S: Final = 0.05
COUNTS_WITHIN_S: Final = 30.0
POLL_S: Final = 0.002
LIVES_S: Final = 0.04
"""A killed worker had at most so long to count, drawn anew each time."""
LIMITS: Final = PoolLimits(backoff_first_s=0.01, backoff_max_s=0.01, crash_budget=1_000_000, heartbeat_timeout_s=30.0)
"""The back-off and the budget are another figure's; here as many deaths as can be are wanted."""
COUNTERS: Final = re.compile(r"^(\w+_(?:total|count|sum|bucket)\S*) (\S+)$", re.MULTILINE)


@dataclass(slots=True)
class Kills:
    kills: int = 0
    scrapes: int = 0
    counted: int = 0
    """Increments of one counter that the last scrape shows: that there was something to lose."""
    files: int = 0
    files_more: int = 0
    """Names of files that were seen and had not been there before the first kill."""
    backwards: int = 0
    """Samples of counters that were less than in the scrape before."""
    leaked: int = 0
    """Descriptors, processes and zombies more than before the first kill."""


class Scraper:
    """Compares each scrape with the one before."""

    def __init__(self, directory: Path, found: Kills) -> None:
        self._directory = directory
        self._found = found
        self._last: dict[str, float] = {}
        self.known_files: set[str] = set()

    def files(self) -> set[str]:
        return {entry.name for entry in self._directory.iterdir()}

    async def scrape(self) -> dict[str, float]:
        text = (await asyncio.to_thread(metrics.exposition)).decode()
        now = {name: float(value) for name, value in COUNTERS.findall(text)}
        self._found.backwards += went_back(self._last, now)
        self._found.scrapes += 1
        self._found.counted = int(now.get('kagent_hook_events_total{event_type="pod-restart",verdict="fire"}', 0))
        if self.known_files:
            self._found.files_more = max(self._found.files_more, len(self.files() - self.known_files))
        self._last = now
        return now

    async def run(self) -> None:
        while True:
            await self.scrape()
            await asyncio.sleep(SCRAPE_EVERY_S)


def went_back(before: dict[str, float], now: dict[str, float]) -> int:
    """How many counters show less than before, or are gone."""
    return sum(now.get(name, float("-inf")) < value for name, value in before.items())


class Counted(Owner):
    """Does at a death what khook's supervisor does."""

    def __init__(self) -> None:
        self.deaths = 0

    def reported(self, slot: str, report: bytes) -> None:
        pass

    def asked(self, slot: str, question: bytes) -> None:
        pass

    def died(self, slot: str, how: str) -> None:
        self.deaths += 1
        metrics.slot_died(slot)
        metrics.worker_restarted(slot)


async def kill_workers(launcher: ForkserverLauncher, directory: Path, *, kills: int) -> Kills:
    """Run a pool, kill its workers one after the other, stop it."""
    found, owner, randomness = Kills(), Counted(), random.Random(kills)
    pool = Pool(
        launcher=launcher,
        owner=owner,
        clock=SystemClock(),
        randomness=randomness,
        slots=SLOTS,
        limits=LIMITS,
        log=StandardLog(),
    )
    pool.lead(1)
    pool.want(KEYS)
    running = asyncio.create_task(pool.run())
    scraper = Scraper(directory, found)
    try:
        await _until(lambda: _all_started(pool))
        await _one_death_each(pool, owner)
        await _until(lambda: all(any(name.endswith(f"_{slot}.db") for name in scraper.files()) for slot in SLOTS))
        await asyncio.sleep(LIVES_S * 4)
        scraper.known_files, before = scraper.files(), family(os.getpid())
        found.files = len(scraper.known_files)
        scraping = asyncio.create_task(scraper.run())
        for _ in range(kills):
            await asyncio.sleep(LIVES_S * randomness.random())
            await _killed(pool, randomness.choice(SLOTS), owner)
        found.kills = kills
        scraping.cancel()
        await asyncio.wait([scraping])
        if not scraping.cancelled():
            scraping.result()
        await _until(lambda: _all_started(pool))
        await asyncio.sleep(LIVES_S * 4)
        await scraper.scrape()
        found.files_more += len(scraper.known_files - scraper.files())
        found.leaked = (await settled_family(os.getpid(), before=before)).grown(before)
    finally:
        await pool.stop(drain_s=2.0)
        await running
    return found


async def _one_death_each(pool: Pool, owner: Counted) -> None:
    """So that the supervisor, too, has counted once for each slot."""
    for slot in SLOTS:
        await _killed(pool, slot, owner)


async def _killed(pool: Pool, slot: str, owner: Counted) -> None:
    """Until the death was seen and a successor runs."""
    await _until(lambda: pool.view().slots[slot].state is Phase.RUNNING)
    pid, deaths = pool.view().slots[slot].pid, owner.deaths
    assert pid is not None, "a running slot has a process"
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: owner.deaths > deaths and pool.view().slots[slot].state is Phase.RUNNING)


def _all_started(pool: Pool) -> bool:
    keys = pool.view().keys
    return keys.keys() == KEYS.keys() and all(seen.started for seen in keys.values())


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(COUNTS_WITHIN_S):
        while not holds():
            await asyncio.sleep(POLL_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory(prefix="khook-pool-") as name:
        directory = metrics.prepare_directory(name)
        metrics.bind_slot("supervisor")
        launcher = ForkserverLauncher(work, preload_modules=[])
        launcher.ensure_running()
        found = asyncio.run(kill_workers(launcher, directory, kills=kills))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
