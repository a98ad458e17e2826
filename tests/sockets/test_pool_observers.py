"""What `make pool-figures` observes by: each observer is shown the fault that it is there to see."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from bench.pool.family import all_ended_s, ended, family, pidfds
from bench.pool.stage import Stage, evenly, staged
from bench.pool.troubles import Judged, Troubles
from khook.sandbox.kagent import Run
from shards.ring import Ring


def on_stage(test: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        async with staged(workers=1) as stage:
            await test(stage)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def watching(stage: Stage, namespace: str, resource: str) -> AsyncIterator[None]:
    headers = {"authorization": f"Bearer {stage.token}"}
    async with httpx.AsyncClient(base_url=stage.url, headers=headers, trust_env=False) as http:
        path = f"/api/v1/namespaces/{namespace}/{resource}"
        async with http.stream("GET", path, params={"watch": "true"}) as answer:
            assert answer.status_code == 200
            yield


def test_a_namespace_is_watched_when_both_its_watches_were_opened_since() -> None:
    async def test(stage: Stage) -> None:
        async with watching(stage, "a", "pods"):
            began_at = time.monotonic()
            with pytest.raises(TimeoutError, match="2 of 2"):
                await stage.watches.watched_s(["a"], since_at=began_at, within_s=0.1)
            async with watching(stage, "a", "pods"):
                with pytest.raises(TimeoutError, match="1 of 2"):
                    await stage.watches.watched_s(["a"], since_at=began_at, within_s=0.1)
                waiting = asyncio.create_task(stage.watches.watched_s(["a"], since_at=began_at, within_s=10))
                async with watching(stage, "a", "events"):
                    assert 0.2 <= await waiting <= time.monotonic() - began_at
            with pytest.raises(TimeoutError, match="of 4"):
                await stage.watches.watched_s(["a", "b"], since_at=began_at, within_s=0.1)

    on_stage(test)


def test_lost_and_repeated_calls_are_counted_by_incident() -> None:
    async def test(stage: Stage) -> None:
        await stage.hooks(["a"])
        troubles = Troubles(stage, ["a"])
        first, second = await troubles.tell("a"), await troubles.tell("a")
        assert troubles.judged() == Judged(lost=2, repeated=0)
        run = Run(
            agent="kagent/responder",
            call_id="1",
            prompt="",
            context={"namespace": "a", "resourceName": first.pod},
            time=stage.clock.now(),
        )
        stage.kagent.runs.append(run)
        assert troubles.judged() == Judged(lost=1, repeated=0)
        stage.kagent.runs.append(replace(run, call_id="2"))
        assert troubles.judged() == Judged(lost=1, repeated=1)
        stage.kagent.runs.append(replace(run, context={"namespace": "a", "resourceName": second.pod}))
        assert troubles.judged() == Judged(lost=0, repeated=1)
        assert len(troubles.answered_s()) == 2
        assert len(troubles.answered_s([first])) == 1
        await troubles.tell_again()
        assert [incident.count for incident in troubles.incidents] == [2, 2]
        assert troubles.judged() == Judged(lost=0, repeated=1), "told again is no new incident"

    on_stage(test)


def test_what_is_above_its_number_is_a_leak_and_a_zombie_always_is() -> None:
    before = family(os.getpid())
    assert before.grown(before) == 0
    assert replace(before, fds=before.fds - 1, living=before.living - 1).grown(before) == 0
    assert replace(before, fds=before.fds + 2, living=before.living + 1, zombies=3).grown(before) == 6


def test_a_child_that_nobody_reaped_is_a_zombie() -> None:
    before = family(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with pidfds([child.pid]) as (end,):
        assert not ended(end)
        assert family(os.getpid()).living == before.living + 1
        assert all_ended_s([end], since_at=time.monotonic(), within_s=0.05) is None
        struck_at = time.monotonic()
        child.kill()
        assert all_ended_s([end], since_at=struck_at, within_s=10.0) is not None
        assert ended(end)
    assert family(os.getpid()).zombies == before.zombies + 1
    child.wait()
    assert family(os.getpid()).zombies == before.zombies


def test_every_slot_has_as_many_namespaces_as_the_others() -> None:
    names = evenly(workers=3, each=5)
    ring = Ring(["w0", "w1", "w2"])
    assert len(set(names)) == 15
    assert {slot: [ring.owner(name) for name in names].count(slot) for slot in ring.slots} == {
        "w0": 5,
        "w1": 5,
        "w2": 5,
    }
