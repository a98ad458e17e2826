"""What the status says of incidents, calls and agents: asked of the workers when somebody reads it, and only then."""

import asyncio

from support.objects import Json, crash_looping, entry, running
from support.world import World, play

from khook.sandbox.kagent import ANY_AGENT, Fault, FaultKind

PROBE = ("Unhealthy", "Readiness probe failed: <script>alert(document.domain)</script>")


async def fails(world: World, name: str = "web-1") -> Json:
    web = await world.well(name)
    await world.says(*PROBE, of=web)
    return web


def test_an_incident_is_shown_with_its_call_and_without_what_the_event_said() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.called(1)
        said = await world.status()
        (shown,) = said["incidents"]
        (row,) = await world.rows()
        call = row["call"]
        assert shown == {
            "namespace": "shop",
            "hook": "h",
            "eventType": "probe-failed",
            "resourceKind": "Pod",
            "resourceName": "web-1",
            "agent": "kagent/agent",
            "status": "firing",
            "firstSeen": row["firstSeen"],
            "lastSeen": row["lastSeen"],
            "resolvedTime": None,
            "count": 1,
            "call": {
                "id": call["id"],
                "state": "Completed",
                "reason": None,
                "protocol": "execute",
                "attempts": 1,
                "claimedTime": call["claimedTime"],
                "endedTime": call["endedTime"],
                "error": "",
            },
        }
        assert (said["totals"]["hooks"], said["totals"]["firing"], said["totals"]["calls"]) == (1, 1, {"Completed": 1})
        assert said["agents"] == [
            {"agent": "kagent/agent", "calls": {"Completed": 1}, "breakers": [], "parked": {}},
        ]
        assert "script" not in str(said)
        assert "readiness" not in str(said).lower()

    play(story)


def test_calls_that_wait_are_shown_with_why_and_their_agents_breaker() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(ANY_AGENT, [Fault(kind=FaultKind.REFUSE, on=None)])
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.after(15)
        said = await world.status()
        (held,) = said["heldBack"]
        assert (held["reason"], held["hook"], held["agent"], held["calls"]) == ("Parked", "h", "kagent/agent", 1)
        (agent,) = said["agents"]
        assert (agent["parked"], agent["calls"]) == ({"outage": 1}, {"Pending": 1})
        (breaker,) = agent["breakers"]
        assert (breaker["slot"], breaker["state"]) == (world.owner("shop"), "open")
        assert 0 < breaker["retryInSeconds"] < 30
        assert said["hooksInTrouble"] == [{"namespace": "shop", "hook": "h", "reason": "KagentAPIError"}]

    play(story)


def test_a_suspended_hook_and_its_unsent_calls_are_told_apart() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"), suspend=True)
        await fails(world)
        await world.after(5)
        said = await world.status()
        assert [(one["reason"], one["calls"]) for one in said["heldBack"]] == [("Suspended", 1)]
        assert said["totals"]["suspendedHooks"] == 1

    play(story)


def test_calls_that_wait_for_a_budget_or_for_their_group_are_told_by_hook() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"), entry("pod-restart", groupBy="Owner"))
        grouped = await world.well("api-1", owner=await world.deployment())
        await world.cluster.pod_status(grouped, crash_looping(now=world.now()))
        await world.after(0.5)
        for number in range(3):
            await fails(world, f"web-{number}")
        await world.after(2)  # a group is waited for longer
        said = await world.status()
        held = [(one["reason"], one["namespace"], one["hook"], one["calls"]) for one in said["heldBack"]]
        assert held == [("Budget", "shop", "h", 2), ("Grouping", "shop", "h", 1)]
        assert said["totals"]["calls"] == {"Completed": 1, "Pending/Budget": 2, "Pending/Grouping": 1}
        assert ("Deployment", "web") in {(one["resourceKind"], one["resourceName"]) for one in said["incidents"]}

    play(story, environ={"KHOOK_CALLS_PER_HOOK_HOUR": "2"})


def test_signals_that_wait_for_their_trouble_to_last_are_counted() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", holdFor="2m"))
        web = await fails(world)
        await world.cluster.pod_status(web, running(now=world.now(), ready=False))
        await world.after(5)
        said = await world.status()
        assert (said["totals"]["heldSignals"], said["totals"]["firing"]) == (1, 0)

    play(story)


def test_a_worker_that_died_is_not_waited_for_and_its_successor_tells_the_same() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.called(1)
        before = (await world.status())["incidents"]
        asking = asyncio.create_task(world.status())
        await asyncio.sleep(0)  # the question is on its way
        world.kill_worker("shop")
        assert (await asking)["silentSlots"] == []
        await world.until(world.is_ready)
        await world.after(2)
        assert (await world.status())["incidents"] == before

    play(story)
