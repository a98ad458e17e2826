"""Clocks that are wrong: khook's own, and those of nodes. Durations hold, and nothing is told twice or not at all."""

from datetime import datetime, timedelta

import pytest
from support.objects import crash_looping, entry, hook, restarted, running
from support.world import World, play

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
HOUR = timedelta(hours=1)


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_khooks_own_clock_may_be_an_hour_off(skew: timedelta) -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        old, young = await world.well("old"), await world.well("young")
        await world.says(*PROBE, of=old)
        await world.after(2 * 60)
        await world.says(*PROBE, of=young)
        await world.after(14 * 60)
        await world.cluster.hook(hook("h", entry("probe-failed", cooldown="1m"), namespace="shop"))
        await world.start()
        (run,) = await world.called(1)
        assert run.context["resourceName"] == "young"
        (row,) = await world.rows()
        accepted = datetime.fromisoformat(row["call"]["acceptedTime"])
        assert abs(accepted - run.time) <= timedelta(seconds=2)
        await world.restart()
        await world.says(*PROBE, of=young)
        await world.after(30)
        assert len(world.agents.attempts) == 1
        await world.after(30)
        await world.says(*PROBE, of=young)
        await world.called(2)
        await world.after(125)
        assert {row["status"] for row in await world.rows()} == {"resolved"}

    play(story, skew=skew)


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_nodes_clock_may_be_an_hour_off(skew: timedelta) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), entry("probe-failed"))
        web = await world.well()
        await world.after(5)
        for number in range(1, 7):  # restarts 2 min apart: the sixth is the first after the window
            theirs = world.now() + skew
            await world.cluster.pod_status(web, crash_looping(now=theirs, restarts=number))
            await world.says(*PROBE, of=web, now=theirs, name=f"probe-{number}")
            await world.after(60)
            await world.cluster.pod_status(web, restarted(now=theirs, restarts=number))
            await world.after(65)
        assert [run.context["eventName"] for run in world.agents.runs[:2]] == ["probe-failed", "pod-restart"]
        assert len(world.agents.runs) == 4
        await world.restart()
        await world.after(60)
        assert len(world.agents.runs) == 4

    play(story)


def test_an_incident_goes_on_while_signals_come_from_a_node_whose_clock_is_an_hour_behind() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        for number in range(10):
            await world.says(*PROBE, of=web, now=world.now() - HOUR, name=f"probe-{number}")
            await world.after(5)
            await world.cluster.pod_status(web, running(now=world.now()))
            await world.after(25)
        assert await world.audit("IncidentResolved") == []
        (row,) = await world.rows()
        assert row["status"] == "firing"

    play(story)
