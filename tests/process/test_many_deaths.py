"""Deaths by the dozen: a slot that crashes in a loop, and metrics files that two hundred killed workers wrote."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from process.pool_worker import KEYS, Record, all_started, make_launcher, make_pool, until

from bench.pool.family import family, settled_family
from bench.pool.metrics_kills import went_back
from shards.forkserver import ForkserverLauncher
from shards.policy import Phase
from shards.pool import Pool

ROOT = Path(__file__).parents[2]
CRASH_BUDGET = 10


@pytest.fixture(scope="module")
def launcher() -> ForkserverLauncher:
    return make_launcher()


def test_a_crash_loop_ends_at_its_budget_and_the_other_slot_does_not_notice(launcher: ForkserverLauncher) -> None:
    record = Record()

    async def scene() -> None:
        pool = make_pool(launcher, record, crash_budget=CRASH_BUDGET, backoff_first_s=0.02, backoff_max_s=0.05)
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        try:
            await until(lambda: all_started(pool))
            calm, before = pool.view().slots["w1"], family(os.getpid())
            await crash(pool, "w0")
            assert Counter(record.deaths) == {("w0", "SIGKILL"): CRASH_BUDGET}
            assert pool.view().slots["w0"].restarts == CRASH_BUDGET - 1
            await until(lambda: all_started(pool))
            after = pool.view().slots["w1"]
            assert set(after.keys) == set(KEYS)
            assert (after.pid, after.restarts) == (calm.pid, 0)
            assert started_by("w1", record) == Counter(KEYS.keys()), "what w1 had was not started again"
            assert "stop" not in {said.partition(" ")[0] for slot, said in record.asked_ if slot == "w1"}
            left = await settled_family(os.getpid(), before=before)
            assert (left.zombies, left.living, left.fds < before.fds) == (0, before.living - 1, True)
        finally:
            await pool.stop(drain_s=2.0)
            await running

    asyncio.run(scene())


async def crash(pool: Pool, slot: str) -> None:
    """Kill the slot's process whenever it has one, until it is broken."""
    while pool.view().slots[slot].state is not Phase.BROKEN:
        seen = pool.view().slots[slot]
        if seen.state is Phase.RUNNING and seen.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(seen.pid, signal.SIGKILL)
        await asyncio.sleep(0.002)


def started_by(slot: str, record: Record) -> Counter[str]:
    """How often it started each key."""
    return Counter(said.partition(" ")[2] for who, said in record.asked_ if who == slot and said.startswith("start "))


def test_two_hundred_killed_workers_leave_the_files_as_they_were_and_no_counter_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.pool.metrics_kills", "--kills", "200"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert (found["kills"], found["files_more"], found["backwards"], found["leaked"]) == (200, 0, 0, 0)
    assert found["scrapes"] > 20
    assert found["counted"] > 1000, "there was something to lose"


def test_a_counter_that_is_less_or_gone_is_seen() -> None:
    before = {"a_total": 2.0, "b_total": 1.0, "c_total": 3.0}
    assert went_back(before, {"a_total": 2.0, "b_total": 2.0, "c_total": 3.0, "d_total": 1.0}) == 0
    assert went_back(before, {"a_total": 1.5, "b_total": 1.0}) == 2
