"""The budget of calls an hour that each Hook has: what it holds back is seen, and called when it can be."""

from collections import Counter
from datetime import timedelta

from support.objects import Json, crash_looping, entry, hook, running
from support.world import World, play

from khook.sandbox.kagent_faults import Fault, FaultKind

BACK_OFF = ("BackOff", "Back-off restarting failed container app")
SUPPRESSED = 'kagent_hook_calls_suppressed_total{reason="Budget"}'
FAILED = 'kagent_hook_calls_failed_total{reason="Budget"}'
WAITING = 'kagent_hook_parked_calls{reason="budget"}'
TEN_AN_HOUR = {"KHOOK_CALLS_PER_HOOK_HOUR": "10", "KHOOK_WORKERS": "1"}


async def crash(world: World, count: int, *, within_s: float, first: int = 0) -> list[Json]:
    """So many pods begin to crash, evenly over this time."""
    pods = []
    for number in range(first, first + count):
        pods.append(await world.well(f"web-{number}"))
        await world.cluster.pod_status(pods[-1], crash_looping(now=world.now()))
        await world.says(*BACK_OFF, of=pods[-1])
        await world.after(within_s / count)
    return pods


async def recover(world: World, pods: list[Json]) -> None:
    for one in pods:
        await world.cluster.pod_status(one, running(now=world.now(), restarts=1))


async def states(world: World) -> Counter[str]:
    return Counter(f"{row['call']['state']} {row['call'].get('reason', '')}".strip() for row in await world.rows())


def test_of_400_incidents_in_a_minute_300_are_called_and_the_rest_as_the_bucket_refills() -> None:
    async def story(world: World) -> None:
        suppressed = world.metric(SUPPRESSED)
        await world.begin(entry("pod-restart"))
        await crash(world, 400, within_s=60)
        await world.after(30)
        called = len(world.agents.runs)
        assert 300 <= called <= 308, "300, and one for each 12 s that have passed"
        assert await states(world) == {"Completed": called, "Pending Budget": 400 - called}
        assert world.metric(SUPPRESSED) - suppressed >= 400 - called
        assert world.metric(WAITING) == 400 - called
        assert "calls wait for this Hook's budget of 300 calls an hour" in (await world.ready_condition())["message"]
        (said,) = await world.audit("CallsSuppressed")
        assert "300 calls an hour" in said["message"]
        await world.after(10 * 60)
        assert len(world.agents.runs) - called in (50, 51), "one in 12 s"
        await world.after(15 * 60)
        assert len({run.context["resourceName"] for run in world.agents.runs}) == 400, "each once, and nobody twice"
        assert world.metric(WAITING) == 0
        assert "wait" not in (await world.ready_condition())["message"]

    play(story, environ={"KHOOK_WORKERS": "1"})


def test_who_waits_longest_is_called_first_and_newcomers_stand_behind() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await crash(world, 15, within_s=15)
        await world.after(8 * 60)
        await crash(world, 1, within_s=1, first=15)
        await world.after(40 * 60)
        assert [run.context["resourceName"] for run in world.agents.runs] == [f"web-{number}" for number in range(16)]

    play(story, environ=TEN_AN_HOUR)


def test_an_incident_that_is_over_before_its_call_is_a_failure_that_all_can_see() -> None:
    async def story(world: World) -> None:
        failed = world.metric(FAILED)
        await world.begin(entry("pod-restart"))
        pods = await crash(world, 12, within_s=12)
        await recover(world, pods)
        await world.after(4 * 60)
        assert await states(world) == {"Completed": 10, "Failed Budget": 2}
        assert {row["status"] for row in await world.rows()} == {"resolved"}
        assert world.metric(FAILED) == failed + 2
        (said,) = await world.audit("AgentCallFailed")
        assert (said["count"], said["type"]) == (2, "Warning")
        assert len(world.agents.runs) == 10
        await world.after(30 * 60)
        assert len(world.agents.runs) == 10, "nobody is called for what is over"

    play(story, environ=TEN_AN_HOUR)


def test_what_waits_survives_a_crash_and_a_crash_fills_no_bucket() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await crash(world, 14, within_s=14)
        await world.after(5)
        for _ in range(3):
            world.kill_worker("shop")
            await world.after(10)
        assert await states(world) == {"Completed": 10, "Pending Budget": 4}
        assert len(world.agents.runs) == 10
        await world.after(30 * 60)
        assert [run.context["resourceName"] for run in world.agents.runs] == [f"web-{number}" for number in range(14)]

    play(story, environ=TEN_AN_HOUR)


def test_a_call_is_charged_once_however_often_it_is_sent() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.REFUSE)])
        await world.begin(entry("pod-restart"))
        await crash(world, 10, within_s=5)
        await world.after(5 * 60)
        world.agents.set_faults("agent", [])
        await world.until(lambda: len(world.agents.runs) == 10, within=timedelta(minutes=10))
        assert len(world.agents.attempts) > 10

    play(story, environ=TEN_AN_HOUR)


def test_a_suspended_hook_spends_nothing_and_what_waited_is_suspended() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        pods = await crash(world, 12, within_s=12)
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": True}})
        await world.after(30)
        assert await states(world) == {"Completed": 10, "Pending Suspended": 2}
        assert world.metric(WAITING) == 0
        await world.after(20 * 60)
        assert len(world.agents.runs) == 10
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": False}})
        await world.after(5)
        for one in pods[10:]:
            await world.cluster.pod_status(one, crash_looping(now=world.now(), restarts=2))
        await world.called(12)

    play(story, environ=TEN_AN_HOUR)


def test_each_hook_has_a_budget_of_its_own() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await world.cluster.hook(hook("other", entry("pod-restart"), namespace="shop"))
        await world.after(5)
        await crash(world, 12, within_s=12)
        await world.called(20)

    play(story, environ=TEN_AN_HOUR)


def test_500_rows_are_kept_and_those_that_wait_for_the_budget_make_room_first() -> None:
    async def story(world: World) -> None:
        failed = world.metric(FAILED)
        await world.begin(entry("pod-restart"))
        await crash(world, 520, within_s=60)
        await world.after(30)
        rows = await world.rows()
        assert len(rows) == 500
        names = {row["resourceName"] for row in rows}
        assert {f"web-{number}" for number in range(500, 520)} <= names, "the newest are there"
        assert len([row for row in rows if row["call"]["state"] == "Completed"]) == 10, "and all that were called"
        assert world.metric(FAILED) == failed + 20

    play(story, environ=TEN_AN_HOUR)
