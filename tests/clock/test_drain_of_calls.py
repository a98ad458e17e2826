"""A stop loses nothing and sends nothing twice."""

import asyncio

from support.objects import Json, crash_looping, entry, pod, scheduled
from support.world import World, play

from khook.sandbox.kagent import Fault, FaultKind

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


async def a_call_under_way(world: World, fault: Fault) -> Json:
    world.agents.set_faults("agent", [fault])
    await world.begin(entry("probe-failed"))
    web = await world.well()
    await world.says(*PROBE, of=web)
    await world.until(lambda: len(world.agents.attempts) == 1)
    return web


async def nothing_more_after_a_restart(world: World, web: Json) -> None:
    sent = len(world.agents.attempts)
    await world.restart()
    await world.says(*PROBE, of=web)
    await world.after(60)
    assert len(world.agents.attempts) == sent


def test_a_slow_call_ends_and_is_recorded_before_khook_does() -> None:
    async def story(world: World) -> None:
        web = await a_call_under_way(world, Fault(kind=FaultKind.SLOW, seconds=5, times=1))
        assert 4.5 <= await world.seconds_to_stop() < 7
        assert (await world.call())["state"] == "Completed"
        assert len(await world.audit("AgentCalled")) == 1
        await nothing_more_after_a_restart(world, web)

    play(story)


def test_a_call_that_hangs_is_recorded_as_taken_and_does_not_hold_up_the_stop() -> None:
    async def story(world: World) -> None:
        web = await a_call_under_way(world, Fault(kind=FaultKind.HANG, times=1))
        assert await world.seconds_to_stop() <= 20
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Accepted", "NoAnswer")
        (said,) = await world.audit("AgentCalled")
        assert "NoAnswer" in said["message"]
        await nothing_more_after_a_restart(world, web)

    play(story)


def test_a_stop_without_drain_time_still_writes_down_what_was_sent() -> None:
    async def story(world: World) -> None:
        web = await a_call_under_way(world, Fault(kind=FaultKind.HANG, times=1))
        assert await world.seconds_to_stop() <= 5
        assert (await world.call())["reason"] == "NoAnswer"
        await nothing_more_after_a_restart(world, web)

    play(story, environ={"KHOOK_DRAIN": "0s"})


def test_a_call_that_waits_for_its_next_attempt_is_sent_by_the_next_khook_under_its_id() -> None:
    async def story(world: World) -> None:
        await a_call_under_way(world, Fault(kind=FaultKind.UNAVAILABLE, times=1))
        await world.after(0.5)
        assert await world.seconds_to_stop() < 2
        call = await world.call()
        assert call["state"] == "Calling"
        assert world.agents.runs == []
        await world.restart()
        (run,) = await world.called(1)
        assert run.call_id == call["id"]

    play(story)


def test_a_call_that_waits_for_its_text_is_sent_by_the_next_khook() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(0.5)
        await world.stop()
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Queued")
        await world.restart()
        (run,) = await world.called(1)
        assert run.call_id == call["id"]

    play(story)


def test_an_event_that_waits_for_its_pods_line_is_told_by_the_next_khook() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), entry("oom-kill", "kills"))
        web = await world.well()
        await world.after(5)
        await world.says("BackOff", "Back-off restarting failed container app", of=web)
        await world.after(0.5)
        assert await world.rows() == []
        await world.restart()
        await world.called(1)

    play(story)


def test_signals_that_come_during_a_stop_are_told_by_the_next_khook() -> None:
    async def story(world: World) -> None:
        await a_call_under_way(world, Fault(kind=FaultKind.SLOW, seconds=5, times=1))
        stopping = asyncio.create_task(world.stop())
        await world.after(2)
        other = await world.well("web-2")
        await world.says(*PROBE, of=other)
        await stopping
        assert len(world.agents.runs) == 1
        await world.restart()
        await world.called(2)

    play(story)


def test_no_call_begins_during_a_stop() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("slow", [Fault(kind=FaultKind.SLOW, seconds=25)])
        await world.begin(entry("probe-failed", "slow"), entry("pod-pending", "stuck"))
        web = await world.well()
        await world.cluster.pod(pod("web-2", namespace="shop"), scheduled(now=world.now()))
        await world.after(48)
        await world.says(*PROBE, of=web)
        await world.after(1)
        # While the slow call ends, the other pod has been stuck for a minute.
        assert await world.seconds_to_stop() >= 15
        assert [attempt.agent for attempt in world.agents.attempts] == ["slow"]
        await world.restart()
        await world.until(lambda: [run.agent for run in world.agents.runs] == ["slow", "stuck"])

    play(story)


def test_khook_stops_in_time_while_the_api_server_is_away() -> None:
    async def story(world: World) -> None:
        web = await a_call_under_way(world, Fault(kind=FaultKind.HANG, times=1))
        world.api.stop()
        assert await world.seconds_to_stop() <= 22
        world.api.start()
        # It could not be written down, so it is asked again: under its id, and it runs once.
        await world.restart()
        await world.says(*PROBE, of=web)
        await world.after(60)
        assert len(world.agents.runs) == 1
        assert len({attempt.call_id for attempt in world.agents.attempts}) == 1

    play(story)
