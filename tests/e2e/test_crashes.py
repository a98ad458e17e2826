"""Processes that are killed under load, and one that is asked to stop: nothing lost, nothing repeated, nothing left.

Twenty signals a second over eight namespaces; the agents take 50 to 200 ms, so that calls are in flight whenever a
process dies. kagent runs whatever it is sent: a call that was in flight is asked after before it is sent again.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.cluster import rows
from support.installation import Installation, fresh_name
from support.khook_process import KhookProcess
from support.load import ENTRIES, Load
from support.processes import alive, descendants, with_environment

from khook.sandbox.kagent import Fault, FaultKind

NAMESPACES = 8
PER_SECOND = 20.0
ORPHANS_GONE_S = 1.0
BACK_S = 2.0
"""A killed worker's namespaces are started again within this long, of which 0.1 s are its slot's back-off."""
GRACE_S = 20.0
"""KHOOK_DRAIN's default."""
CALLED_WITHIN_S = 30.0


@pytest.fixture(autouse=True)
def slow_agents(khook: Installation) -> None:
    for number, one in enumerate(ENTRIES, start=1):
        khook.agents.kagent.set_faults(f"kagent/{one['agentId']}", [Fault(kind=FaultKind.SLOW, seconds=0.05 * number)])


def under_load(khook: Installation, story: Callable[[], Coroutine[Any, Any, None]], *, seconds: float) -> None:
    """Tell the story while signals come; at the end none is lost and none repeated."""

    async def life() -> None:
        async with khook.cluster() as cluster:
            load = Load(cluster, khook.agents, [fresh_name("crash") for _ in range(NAMESPACES)])
            await load.install()
            await until(lambda: set(khook.khook.owners()) >= set(load.namespaces), within_s=10)
            async with asyncio.TaskGroup() as group:
                group.create_task(load.run(per_second=PER_SECOND, seconds=seconds))
                group.create_task(story())
            await load.settled(within_s=CALLED_WITHIN_S)
            assert {run.protocol for run in khook.agents.kagent.runs} == {"a2a"}
            # Every answer was waited for, or asked for again.
            hooks = [await cluster.get_hook(namespace, "all") for namespace in load.namespaces]
            assert [row for found in hooks for row in rows(found) if row["call"].get("reason") == "NoAnswer"] == []

    asyncio.run(life())


async def until(fact: Callable[[], bool], *, within_s: float) -> float:
    """Wait for it; how long it took."""
    began_at = time.monotonic()
    async with asyncio.timeout(within_s):
        while not fact():
            await asyncio.sleep(0.03)
    return time.monotonic() - began_at


def starts(khook: KhookProcess) -> int:
    return sum(1 for line in khook.log() if line["event"] == "namespace started")


def test_a_killed_worker_and_a_killed_khook_lose_and_repeat_nothing(khook: Installation) -> None:
    process, agents = khook.khook, khook.agents.kagent

    async def story() -> None:
        await until(lambda: len(agents.runs) >= 30, within_s=30)
        await a_worker_is_killed(process)
        calls = len(agents.runs)
        await until(lambda: len(agents.runs) >= calls + 30, within_s=10)
        await khook_is_killed(process)
        await process.start(until_ready=False)

    under_load(khook, story, seconds=10.0)


async def a_worker_is_killed(khook: KhookProcess) -> None:
    """Its successor has the same slot and namespaces, and nobody else's change hands."""
    before, pids, started = khook.owners(), khook.worker_pids(), starts(khook)
    khook.kill_worker("w0")
    mine = Counter(before.values())["w0"]
    await until(lambda: starts(khook) == started + mine, within_s=BACK_S)
    assert khook.owners() == before
    after = khook.worker_pids()
    assert (after["w0"] != pids["w0"], after["w1"]) == (True, pids["w1"])
    assert not alive(pids["w0"])
    assert await khook.counted("kagent_hook_worker_restarts_total", slot="w0") == 1


async def khook_is_killed(khook: KhookProcess) -> None:
    """The supervisor is, and all that it started ends with it."""
    family = descendants(khook.pid)
    assert family >= set(khook.worker_pids().values())
    marked = f"KUBECONFIG={khook.kubeconfig}"
    assert with_environment(marked) >= family | {khook.pid}
    assert await khook.kill() == -signal.SIGKILL
    await until(lambda: not any(alive(pid) for pid in family), within_s=ORPHANS_GONE_S)
    assert with_environment(marked) == set()


def test_sigterm_under_load_loses_nothing_and_sends_nothing_twice(khook: Installation) -> None:
    process, agents = khook.khook, khook.agents.kagent
    before = len(agents.attempts)

    async def story() -> None:
        calls = len(agents.runs)
        await until(lambda: len(agents.runs) >= calls + 30, within_s=10)
        family = descendants(process.pid)
        async with asyncio.timeout(GRACE_S):
            assert await process.stop() == 0
        await until(lambda: not any(alive(pid) for pid in family), within_s=ORPHANS_GONE_S)
        await process.start(until_ready=False)

    under_load(khook, story, seconds=5.0)
    sends = Counter(attempt.call_id for attempt in agents.attempts[before:])
    assert max(sends.values()) == 1
