"""The pool with real processes and real signals: deaths, hangs, orphans, drains."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from process.pool_worker import KEYS, SLOTS, Record, all_started, make_launcher, make_pool, state_of, until

from shards.forkserver import ForkserverLauncher
from shards.policy import Phase, PoolLimits
from shards.pool import Pool, PoolBroken
from shards.ring import Ring

Story = Callable[[Pool, Record], Awaitable[None]]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def launcher() -> ForkserverLauncher:
    return make_launcher()


def play(launcher: ForkserverLauncher, story: Story, **limits: Any) -> Record:
    """Start two workers, wait for all keys, tell the story, stop; a death may never be announced too early."""
    record = Record()

    async def scene() -> None:
        pool = make_pool(launcher, record, **limits)
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        try:
            await until(lambda: all_started(pool) or running.done())
            note_pids(pool, record)
            await story(pool, record)
        finally:
            await pool.stop(drain_s=2.0)
            await running

    asyncio.run(scene())
    assert record.alive_at_death == []
    return record


def note_pids(pool: Pool, record: Record) -> dict[str, int]:
    record.pids = {slot: seen.pid for slot, seen in pool.view().slots.items() if seen.pid is not None}
    return record.pids


def owners(pool: Pool) -> dict[str, str | None]:
    return {key: seen.slot for key, seen in pool.view().keys.items()}


def test_workers_beat_and_drain_when_the_pool_stops(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        await until(lambda: record.reports == {"w0": b"report of w0", "w1": b"report of w1"})

    record = play(launcher, story)
    assert sorted(record.deaths) == [("w0", "exit 0"), ("w1", "exit 0")]
    assert sorted(slot for slot, said in record.asked_ if said == "drained") == ["w0", "w1"]


def test_a_killed_worker_is_replaced_in_its_slot_with_the_same_keys(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        before, first_pids = owners(pool), dict(record.pids)
        os.kill(first_pids["w1"], signal.SIGKILL)
        await until(lambda: bool(record.deaths))
        await until(lambda: all_started(pool))
        assert record.deaths == [("w1", "SIGKILL")]
        assert owners(pool) == before
        assert note_pids(pool, record)["w1"] != first_pids["w1"]
        assert record.pids["w0"] == first_pids["w0"]
        assert pool.view().slots["w1"].restarts == 1

    play(launcher, story)


def test_a_stopped_worker_is_replaced_after_the_heartbeat_timeout(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        before = owners(pool)
        os.kill(record.pids["w0"], signal.SIGSTOP)
        stopped_at = time.monotonic()
        await until(lambda: bool(record.deaths))
        assert 0.8 <= time.monotonic() - stopped_at <= 1.0 + 1.0
        assert record.deaths == [("w0", "SIGKILL")]
        await until(lambda: all_started(pool))
        assert owners(pool) == before
        assert ("w0", "SIGABRT") in [
            (values["slot"], values["signal"]) for event, values in record.logged if event == "worker was signalled"
        ]
        note_pids(pool, record)

    play(launcher, story, heartbeat_s=0.1, heartbeat_timeout_s=1.0)


def test_sigterm_to_a_worker_drains_it_and_a_successor_follows(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        before = owners(pool)
        os.kill(record.pids["w0"], signal.SIGTERM)
        await until(lambda: bool(record.deaths))
        assert record.deaths == [("w0", "exit 0")]
        assert ("w0", "drained") in record.asked_
        await until(lambda: all_started(pool))
        assert owners(pool) == before
        note_pids(pool, record)

    play(launcher, story)


def test_the_death_of_the_forkserver_takes_its_workers_and_the_pool_comes_back(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        before = owners(pool)
        server = parent_of(record.pids["w0"])
        assert server not in (os.getpid(), 1)
        os.kill(server, signal.SIGKILL)
        await until(lambda: len(record.deaths) == 2)
        await until(lambda: all_started(pool))
        assert owners(pool) == before
        assert parent_of(note_pids(pool, record)["w0"]) not in (server, os.getpid(), 1)

    play(launcher, story)


def test_workers_that_die_often_leave_no_file_descriptors(launcher: ForkserverLauncher) -> None:
    counts: list[int] = []

    async def story(pool: Pool, record: Record) -> None:
        for death in range(1, 7):
            os.kill(record.pids["w1"], signal.SIGKILL)
            await until(lambda death=death: len(record.deaths) == death)  # type: ignore[misc]
            await until(lambda: all_started(pool))
            note_pids(pool, record)
            counts.append(len(list(Path("/proc/self/fd").iterdir())))

    play(launcher, story, backoff_max_s=0.1)
    assert len(set(counts)) == 1, counts


def test_a_broken_slots_keys_go_to_the_others_and_come_back(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        at_home = {key: Ring(SLOTS).owner(key) for key in KEYS}
        assert set(at_home.values()) == set(owners(pool).values()) == {"w0", "w1"}
        first_pid = record.pids["w0"]
        while pool.view().slots["w1"].state is not Phase.BROKEN:  # a slow machine may need more than the budget
            if (pid := pool.view().slots["w1"].pid) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)
        await until(lambda: all_started(pool))
        assert set(owners(pool).values()) == {"w0"}
        await until(lambda: pool.view().slots["w1"].on_probation)
        await until(lambda: pool.view().slots["w1"].state is Phase.RUNNING)
        pool.want(KEYS)
        assert set(owners(pool).values()) == {"w0"}
        await until(lambda: not pool.view().slots["w1"].on_probation)
        pool.want(KEYS)
        await until(lambda: owners(pool) == at_home and all_started(pool))
        assert note_pids(pool, record)["w0"] == first_pid

    limits = {"crash_budget": 3, "crash_window_s": 2.0, "broken_for_s": 2.0, "probation_s": 2.0}
    play(launcher, story, **limits, backoff_max_s=0.1)


def test_an_aborted_pool_is_dead_at_once_and_drains_nothing(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        with watched(list(record.pids.values())) as all_gone:
            await pool.abort()
            assert all_gone()
        assert {seen.state for seen in pool.view().slots.values()} == {Phase.STOPPED}

    record = play(launcher, story)
    assert sorted(record.deaths) == [("w0", "SIGKILL"), ("w1", "SIGKILL")]
    assert "drained" not in [said for _, said in record.asked_]


def test_a_worker_that_slept_past_its_permission_knows_it_when_it_wakes(launcher: ForkserverLauncher) -> None:
    async def story(pool: Pool, record: Record) -> None:
        async def answer() -> str:
            heard = len(record.asked_)
            pool.tell_slot("w0", b"may I")
            await until(lambda: len(record.asked_) > heard)
            return record.asked_[-1][1]

        assert await answer() == "may"  # the welcome set no limit
        record.permitted_s = 1.0
        record.reports.clear()
        await until(lambda: "w0" in record.reports)
        await answer()  # so the answer to that beat, sent before, has arrived
        os.kill(record.pids["w0"], signal.SIGSTOP)
        await until(lambda: state_of(record.pids["w0"]) == "T")
        asked = asyncio.create_task(answer())
        await asyncio.sleep(1.5)
        os.kill(record.pids["w0"], signal.SIGCONT)
        assert await asked == "may not", "no word from the pool was needed for it"
        while await answer() != "may":
            await asyncio.sleep(0.05)

    play(launcher, story, heartbeat_s=0.1)


def test_a_preload_that_did_not_happen_is_refused(launcher: ForkserverLauncher) -> None:
    from process import pool_worker

    other = ForkserverLauncher(pool_worker.entry, preload_modules=["no_such_module"])

    async def scene() -> None:
        record = Record()
        pool = make_pool(other, record, crash_budget=2)
        with pytest.raises(PoolBroken):
            await pool.run()
        problems = [str(values["problem"]) for event, values in record.logged if event == "worker was condemned"]
        assert problems
        assert all("not preloaded: no_such_module" in problem for problem in problems)

    asyncio.run(scene())


def test_the_server_is_started_before_the_loop_or_not_at_all(launcher: ForkserverLauncher) -> None:
    async def scene() -> None:
        with pytest.raises(RuntimeError, match="before the event loop"):
            launcher.ensure_running()

    asyncio.run(scene())


# a whole pool in a process of its own


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Starts the program; gives it and every process below it."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str) -> tuple[subprocess.Popen[str], list[int]]:
        program = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/process/pool_worker.py"), *args],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(program)
        assert program.stdout is not None
        began = json.loads(program.stdout.readline())
        assert began["facts"] == {"loop": "uvloop", "main": None, "marker": None}, "uvloop, and no second __main__"
        below = [*children_of(program.pid), *began["workers"]]
        assert len(below) == 4, "a forkserver, a resource tracker and two workers"
        return program, below

    yield begin
    for program in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)  # what the test failed to see gone must not hold the pipes open
        program.communicate()


def test_nothing_outlives_a_killed_supervisor(start: Any) -> None:
    program, below = start()
    os.kill(below[-1], signal.SIGSTOP)  # even a worker that can do nothing about it
    with watched(below) as all_gone:
        program.kill()
        assert all_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_drains_every_worker(start: Any, number: signal.Signals) -> None:
    program, below = start()
    with watched(below) as all_gone:
        os.killpg(program.pid, number)
        output, _ = program.communicate(timeout=10)
        assert all_gone()
    drained, ended = map(json.loads, output.splitlines())
    assert sorted(drained["drained"]) == ["w0", "w1"]
    assert sorted(ended["deaths"]) == [["w0", "exit 0"], ["w1", "exit 0"]]
    assert program.returncode == 0


def test_a_spinning_worker_prints_its_stack_before_it_is_killed(start: Any) -> None:
    program, _ = start("spin")
    output, errors = program.communicate(timeout=15)
    assert json.loads(output.splitlines()[-1])["deaths"][0] == ["w1", "SIGABRT"]
    assert "in spin" in errors
    assert program.returncode == 0


def test_a_supervisor_that_inherits_orphans_reaps_them(start: Any) -> None:
    program, below = start("subreaper")
    workers = below[-2:]
    server = parent_of(workers[0])
    os.kill(server, signal.SIGKILL)
    deadline_at = time.monotonic() + 5
    while left := [pid for pid in (server, *workers) if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline_at, f"still zombies: {left}"
        time.sleep(0.01)
    program.terminate()
    output, _ = program.communicate(timeout=10)
    assert program.returncode == 0
    assert json.loads(output.splitlines()[-1])["zombies"] == []


@contextlib.contextmanager
def watched(pids: list[int]) -> Iterator[Callable[[], bool]]:
    """Gives a question: are they all gone, within 5 s?"""
    ends = [os.pidfd_open(pid) for pid in pids]
    deadline_at = time.monotonic() + 5
    try:
        yield lambda: all(select.select([end], [], [], max(0.0, deadline_at - time.monotonic()))[0] for end in ends)
    finally:
        for end in ends:
            os.close(end)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="3 heartbeats"):
        PoolLimits(heartbeat_s=1.0, heartbeat_timeout_s=2.0)
