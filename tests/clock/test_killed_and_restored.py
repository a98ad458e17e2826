"""Any process may die at any moment: what was told is not told again, what was not told is told."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from support.cluster import MERGE_PATCH
from support.objects import Json, crash_looping, entry, hook, unschedulable
from support.world import World, play

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.kagent import Behaviour, Fault, FaultKind, Speaks

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


def status_patch(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("patch", "hooks/status")


async def told_of_everything(world: World) -> None:
    """Four incidents of four types, each with its call."""
    await world.begin(entry("pod-restart"), entry("oom-kill"), entry("probe-failed"), entry("pod-pending"))
    restarts, kills, fails, waits = [await world.well(f"web-{number}") for number in range(4)]
    await world.cluster.pod_status(restarts, crash_looping(now=world.now()))
    await world.says("BackOff", "Back-off restarting failed container app", of=restarts)
    await world.cluster.pod_status(kills, crash_looping(now=world.now(), reason="OOMKilled", exit_code=137))
    await world.says(*PROBE, of=fails)
    await world.cluster.pod_status(waits, unschedulable(now=world.now()))
    await world.called(4)


@pytest.mark.parametrize("how", ["stopped", "killed", "its worker killed"])
def test_nothing_is_told_again_inside_its_window(how: str) -> None:
    async def story(world: World) -> None:
        await told_of_everything(world)
        await world.after(30)
        match how:
            case "stopped":
                await world.restart()
            case "killed":
                await world.crash()
            case _:
                world.kill_worker("shop")
        await world.after(120)
        assert world.is_ready()
        assert len(world.agents.attempts) == 4
        assert {row["count"] for row in await world.rows()} <= {1, 2}

    play(story)


def test_what_happens_while_khook_is_away_is_told_when_it_is_back() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), entry("probe-failed"))
        web = await world.well()
        await world.stop()
        await world.after(300)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.says(*PROBE, of=web)
        await world.after(300)
        await world.restart()
        await world.called(2)

    play(story)


async def killed_when(world: World, holds: Callable[[], bool]) -> None:
    """A probe failure; the worker dies at the very step at which it holds."""
    await world.begin(entry("probe-failed"))
    web = await world.well()
    await world.says(*PROBE, of=web)
    await world.until(holds)
    world.kill_worker("shop")


async def one_run(world: World) -> Json:
    """However often it was sent, it ran once; its call."""
    await world.called(1)
    await world.after(30)
    assert len(world.agents.runs) == 1
    assert world.agents.differing == 0
    return await world.call()


def test_killed_before_its_claim_was_written() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await world.after(5)
        world.api.fault(status_patch, delay_s=3)
        await world.says(*PROBE, of=await world.well())
        await world.after(1)
        assert await world.rows() == []
        world.kill_worker("shop")
        assert (await one_run(world))["state"] == "Completed"
        assert len(world.agents.attempts) == 1

    play(story)


def test_killed_after_its_claim_was_written_and_before_the_answer_to_that() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await world.after(5)

        def kill(call: ApiCall) -> bool:
            """The patch is carried out, and its writer is dead by then."""
            if status_patch(call) and b'"Calling"' in call.request.body:
                asyncio.get_running_loop().call_soon(world.kill_worker, "shop")
                return True
            return False

        world.api.fault(kill, lose_answer=True)
        await world.says(*PROBE, of=await world.well())
        call = await one_run(world)
        assert call["state"] == "Completed"
        assert len(world.agents.attempts) == 1

    play(story)


def test_killed_during_the_send() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.SLOW, seconds=5, times=1)])
        await killed_when(world, lambda: len(world.agents.attempts) == 1)
        call = await one_run(world)
        assert call["state"] == "Completed"
        assert [attempt.call_id for attempt in world.agents.attempts] == [call["id"]] * 2

    play(story)


def test_killed_after_the_answer_and_before_that_was_written() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await world.after(5)
        world.api.fault(lambda call: status_patch(call) and b'"Completed"' in call.request.body, delay_s=10)
        await world.says(*PROBE, of=await world.well())
        await world.until(lambda: len(world.agents.runs) == 1)
        await world.after(1)
        assert (await world.call())["state"] == "Calling"
        world.kill_worker("shop")
        call = await one_run(world)
        assert call["state"] == "Completed"
        assert [attempt.call_id for attempt in world.agents.attempts] == [call["id"]] * 2

    play(story)


@pytest.mark.parametrize("tenths", range(1, 30))
def test_killed_at_any_moment_of_a_slow_delivery(tenths: int) -> None:
    """Every write of a status takes 0.3 s, the agent 0.5 s: 3 s see it all, from the signal to the last write."""

    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.SLOW, seconds=0.5)])
        await world.begin(entry("pod-restart"))
        await world.after(5)
        world.api.fault(status_patch, delay_s=0.3, times=None)
        await world.cluster.pod_status(await world.well(), crash_looping(now=world.now()))
        await world.after(tenths / 10)
        world.kill_worker("shop")
        assert (await one_run(world))["state"] == "Completed"

    play(story)


def test_killed_while_a_call_waits_for_its_text() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(1)
        assert (await world.call())["state"] == "Pending"
        world.kill_worker("shop")
        assert (await one_run(world))["state"] == "Completed"

    play(story)


def test_killed_between_two_attempts() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.UNAVAILABLE, times=1)])
        await killed_when(world, lambda: len(world.agents.attempts) == 1)
        assert (await one_run(world))["state"] == "Completed"

    play(story)


def test_a_killed_workers_namespaces_come_back_in_its_slot_and_the_others_go_on() -> None:
    async def story(world: World) -> None:
        names = [f"team-{number}" for number in range(8)]
        for name in names:
            await world.cluster.namespace(name)
            await world.cluster.hook(hook("h", entry("probe-failed"), namespace=name))
        await world.start()
        before = {name: world.owner(name) for name in names}
        assert len(set(before.values())) == 2
        watched = world.api.requests.copy()
        slot = world.kill_worker("team-0")
        hers = [name for name in names if before[name] == slot]
        await world.until(lambda: {name: world.owner(name) for name in names} == before)
        await world.after(5)
        assert world.is_ready()
        again = {key: count - watched[key] for key, count in world.api.requests.items()}
        assert again["watch", "events"] == len(hers)
        assert again["list", "hooks"] == len(hers)
        assert world.supervisor.view().slots[slot].restarts == 1

    play(story)


def test_a_run_is_followed_by_the_protocol_of_its_claim_whatever_is_spoken_now() -> None:
    """khook is told to speak `execute` at its next start; the run was begun by `a2a`."""

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await world.says(*PROBE, of=await world.well())
        await world.until(lambda: len(world.agents.runs) == 1)
        await world.after(1)
        assert (await world.call())["state"] == "Accepted"
        await world.stop()
        world._environ["KAGENT_PROTOCOL"] = "execute"
        await world.restart()
        await world.after(60)
        assert len(world.agents.attempts) == 1
        call = await world.call()
        assert (call["state"], call["result"]) == ("Completed", "looking into it")

    play(story, speaks=Speaks.BOTH, behaviour=Behaviour(run_s=30))


def test_a_run_that_kagent_does_not_know_is_lost_and_not_sent_again() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        await world.says(*PROBE, of=await world.well())
        await world.called(1)
        await world.stop()
        (row,) = await world.rows()
        call = {name: value for name, value in row["call"].items() if name != "endedTime"}
        row["call"] = call | {"state": "Accepted", "taskId": "task-1", "protocol": "a2a"}
        path = "/apis/kagent.dev/v1alpha2/namespaces/shop/hooks/h/status"
        await world.cluster.request("PATCH", path, {"status": {"activeEvents": [row]}}, headers=MERGE_PATCH)
        await world.restart()
        await world.after(30)
        assert len(world.agents.attempts) == 1
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", "RunLost")
        (said,) = await world.audit("AgentCallFailed")
        assert "RunLost" in said["message"]

    play(story, speaks=Speaks.A2A)


def test_an_incident_of_a_node_whose_clock_starts_in_1970_is_remembered() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=datetime(1970, 1, 1, tzinfo=UTC)))
        await world.called(1)
        call = await world.call()
        await world.restart()
        await world.says("BackOff", "Back-off restarting failed container app", of=web)
        await world.after(30)
        assert await world.call() == call
        assert len(world.agents.attempts) == 1

    play(story)
