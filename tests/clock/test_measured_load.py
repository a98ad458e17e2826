"""What a namespace's watches bring becomes its rate, and its rate its weight for the pool."""

import asyncio
from math import exp

import pytest
from support.cluster import MERGE_PATCH
from support.objects import Json, entry, hook, pod, running
from support.world import World, play

from khook.supervisor.load import BASE_WEIGHT, TIME_CONSTANT_S
from khook.supervisor.process import BALANCE_S


async def chatter(world: World, busy: Json, *, every_s: float, for_s: float) -> None:
    """A pod whose object changes again and again: a line each."""
    meta = busy["metadata"]
    path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
    for number in range(round(for_s / every_s)):
        await world.cluster.request("PATCH", path, {"metadata": {"labels": {"n": str(number)}}}, headers=MERGE_PATCH)
        await asyncio.sleep(every_s)


async def two_namespaces(world: World) -> Json:
    """`shop` and `quiet` with a Hook each; the pod that will chatter."""
    for name in ("shop", "quiet"):
        await world.cluster.namespace(name)
        await world.cluster.hook(hook("h", entry("pod-restart"), namespace=name))
    await world.cluster.pod(pod("still", namespace="quiet"), running(now=world.now()))
    await world.start()
    return await world.well()


async def shown(world: World) -> dict[str, Json]:
    """The status document's namespaces by name."""
    said = await world.status()
    return {one["namespace"]: one for slot in said["slots"] for one in slot["namespaces"]}


def test_a_busy_namespace_shows_its_rate_after_a_while_and_a_quiet_one_none() -> None:
    async def story(world: World) -> None:
        busy = await two_namespaces(world)
        assert (await shown(world))["shop"]["linesPerSecond"] < 0.1
        await chatter(world, busy, every_s=1.0, for_s=2 * TIME_CONSTANT_S)
        rates = {name: one["linesPerSecond"] for name, one in (await shown(world)).items()}
        assert rates["shop"] == pytest.approx(1 - exp(-2), rel=0.05)
        assert rates["quiet"] < 0.01
        await world.after(2 * TIME_CONSTANT_S)
        assert (await shown(world))["shop"]["linesPerSecond"] == pytest.approx(rates["shop"] * exp(-2), rel=0.05)

    play(story)


def test_weights_reach_the_pool_within_a_minute() -> None:
    async def story(world: World) -> None:
        busy = await two_namespaces(world)
        before = {name: world.supervisor.view().keys[name].weight for name in ("shop", "quiet")}
        assert before == {"shop": BASE_WEIGHT, "quiet": BASE_WEIGHT}
        await chatter(world, busy, every_s=0.5, for_s=2 * BALANCE_S)
        keys = world.supervisor.view().keys
        assert keys["shop"].weight > BASE_WEIGHT + 0.2
        assert keys["quiet"].weight == pytest.approx(BASE_WEIGHT, abs=0.01)
        assert keys["shop"].weight == pytest.approx((await shown(world))["shop"]["weight"], abs=0.001)

    play(story)


def test_a_relist_and_a_killed_worker_are_no_load() -> None:
    """The pods that a start lists are no lines: else every rollout would look busy."""

    async def story(world: World) -> None:
        await two_namespaces(world)
        for number in range(60):
            await world.cluster.pod(pod(f"p-{number}", namespace="quiet"), running(now=world.now()))
        await world.after(2 * TIME_CONSTANT_S)
        settled = (await shown(world))["quiet"]["linesPerSecond"]
        world.kill_worker("quiet")
        await world.after(30)
        assert (await shown(world))["quiet"]["linesPerSecond"] <= settled

    play(story)


@pytest.mark.parametrize(("factor", "most"), [("10", 8), ("1.05", 6)])
def test_how_uneven_the_workers_may_be_is_the_setting(factor: str, most: int) -> None:
    """On the ring 8 of these 12 namespaces have one home and 4 the other."""

    async def story(world: World) -> None:
        names = [f"dept-{number}" for number in range(12)]
        for name in names:
            await world.cluster.namespace(name)
            await world.cluster.hook(hook("h", entry("pod-restart"), namespace=name))
        await world.start()
        said = await world.status()
        assert max(len(slot["namespaces"]) for slot in said["slots"]) == most
        assert said["ring"] == {"virtualNodes": 256, "maxLoadFactor": float(factor)}

    play(story, environ={"KHOOK_MAX_LOAD_FACTOR": factor})


def test_the_status_names_the_slot_and_the_epoch_of_every_namespace() -> None:
    async def story(world: World) -> None:
        await two_namespaces(world)
        said = await world.status()
        assert said["leading"] is True
        assert said["leader"]["identity"] == said["identity"] == "khook-0"
        owners = {one["namespace"]: slot["slot"] for slot in said["slots"] for one in slot["namespaces"]}
        assert owners == {name: world.owner(name) for name in ("shop", "quiet")}
        assert all(one["started"] and one["epoch"] > 0 for one in (await shown(world)).values())
        await world.cluster.delete_hook("quiet", "h")
        await world.until(lambda: set(world.supervisor.view().keys) == {"shop"})
        assert set(await shown(world)) == {"shop"}

    play(story)
