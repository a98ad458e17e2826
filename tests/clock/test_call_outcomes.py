"""What becomes of a call whose agent is not well: attempts, what the Hook shows, and what the next signal does."""

from itertools import pairwise

import pytest
from support.objects import Json, entry, hook
from support.world import World, play

from khook.sandbox.kagent import Fault, FaultKind

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
FAILED_METRIC = 'kagent_hook_api_calls_total{outcome="retry",protocol="execute"}'


async def one_probe_failure(world: World, *faults: Fault) -> Json:
    """The pod whose readiness probe has just failed, in a world whose agent has these faults."""
    world.agents.set_faults("agent", faults)
    await world.begin(entry("probe-failed"))
    web = await world.well()
    await world.says(*PROBE, of=web)
    return web


def seconds_between_attempts(world: World) -> list[float]:
    times = [attempt.time for attempt in world.agents.attempts]
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


def ends(world: World) -> list[str]:
    return [attempt.end for attempt in world.agents.attempts]


def test_two_503s_cost_two_waits_and_one_run() -> None:
    async def story(world: World) -> None:
        await one_probe_failure(world, Fault(kind=FaultKind.UNAVAILABLE, times=2))
        await world.called(1)
        assert ends(world) == ["503", "503", "200"]
        assert seconds_between_attempts(world) == [pytest.approx(2, rel=0.11), pytest.approx(4, rel=0.11)]
        call = await world.call()
        assert (call["state"], call["attempts"]) == ("Completed", 3)
        assert len({attempt.call_id for attempt in world.agents.attempts}) == 1

    play(story)


def test_three_failures_are_shown_and_wait_for_the_agent_and_fail_for_good_when_it_stays_away() -> None:
    async def story(world: World) -> None:
        retried = world.metric(FAILED_METRIC)
        await one_probe_failure(world, Fault(kind=FaultKind.ERROR))
        await world.after(10)
        assert ends(world) == ["500", "500", "500"]
        call = await world.call()
        assert (call["state"], call["reason"], call["attempts"]) == ("Pending", "Parked", 3)
        condition = await world.ready_condition()
        assert (condition["status"], condition["reason"]) == ("False", "KagentAPIError")
        (said,) = await world.audit("AgentCallParked")
        assert said["type"] == "Warning"
        assert "HTTP 500" in said["message"]
        assert world.metric(FAILED_METRIC) == retried + 3

        await world.after(15 * 60)
        failed = await world.call()
        assert (failed["id"], failed["state"], failed["reason"]) == (call["id"], "Failed", "Unreachable")
        assert failed["error"] == "agent kagent/agent: HTTP 500: the server failed"
        assert len(await world.audit("AgentCallFailed")) == 1
        assert world.agents.runs == []

    play(story)


def test_three_failures_without_redelivery_fail_for_good_and_do_not_mute_the_next_signal() -> None:
    async def story(world: World) -> None:
        web = await one_probe_failure(world, Fault(kind=FaultKind.ERROR, times=3))
        await world.after(10)
        assert world.agents.runs == []
        assert ends(world) == ["500", "500", "500"]
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", "Unreachable")
        assert call["error"] == "agent kagent/agent: HTTP 500: the server failed"
        (said,) = await world.audit("AgentCallFailed")
        assert said["type"] == "Warning"

        await world.after(30)  # within a minute of the failure
        await world.says(*PROBE, of=web)
        await world.after(5)
        assert world.agents.runs == []
        (row,) = await world.rows()
        assert (row["count"], row["call"]["id"]) == (2, call["id"])

        await world.after(30)
        await world.says(*PROBE, of=web)
        (run,) = await world.called(1)
        assert run.call_id != call["id"]
        assert (await world.ready_condition())["status"] == "True"

    play(story, environ={"KHOOK_REDELIVER_FOR": "0s"})


def test_an_unknown_agent_is_asked_once_and_named() -> None:
    async def story(world: World) -> None:
        await one_probe_failure(world, Fault(kind=FaultKind.NOT_FOUND))
        await world.after(20)
        assert ends(world) == ["404"]
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", "AgentNotFound")
        condition = await world.ready_condition()
        assert (condition["status"], condition["reason"]) == ("False", "AgentNotFound")
        assert "kagent/agent" in condition["message"]

    play(story)


def test_a_refused_key_is_tried_again_after_five_minutes_and_not_at_once() -> None:
    async def story(world: World) -> None:
        world.agents.change_key("another-key")
        await one_probe_failure(world)
        await world.after(20)
        assert ends(world) == ["401"]
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Parked")
        assert (await world.ready_condition())["reason"] == "KagentAPIError"
        world.agents.change_key("a-key-nobody-may-see")
        await world.after(270)
        assert ends(world) == ["401"]
        await world.called(1)
        assert ends(world) == ["401", "200"]
        assert (await world.call())["id"] == call["id"]
        assert (await world.ready_condition())["status"] == "True"

    play(story)


def test_retry_after_is_obeyed() -> None:
    async def story(world: World) -> None:
        await one_probe_failure(world, Fault(kind=FaultKind.BUSY, seconds=17, times=1))
        await world.until(lambda: len(world.agents.runs) == 1)
        assert ends(world) == ["429", "200"]
        assert seconds_between_attempts(world) == [pytest.approx(17, abs=0.1)]

    play(story)


def test_an_agent_that_works_longer_than_we_wait_was_asked_once_and_its_window_starts() -> None:
    async def story(world: World) -> None:
        web = await one_probe_failure(world, Fault(kind=FaultKind.SLOW, seconds=40))
        await world.after(29)
        assert (await world.call())["state"] == "Calling"
        await world.after(3)
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Accepted", "NoAnswer")
        await world.says(*PROBE, of=web)
        await world.after(60)
        assert ends(world) == ["200"]
        await world.called(1)
        assert len(await world.audit("AgentCalled")) == 1

    play(story, environ={"KAGENT_TIMEOUT": "30s"})


def test_a_connection_that_breaks_before_the_answer_is_repeated_under_its_key_and_runs_once() -> None:
    async def story(world: World) -> None:
        await one_probe_failure(world, Fault(kind=FaultKind.DROP, times=1))
        await world.called(1)
        assert ends(world) == ["hang up", "200"]
        assert world.agents.replayed == 1
        assert world.agents.differing == 0
        assert (await world.call())["state"] == "Completed"

    play(story)


def test_one_hanging_agent_does_not_hold_up_another() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("hangs", [Fault(kind=FaultKind.HANG)])
        await world.begin(entry("probe-failed", "hangs"), entry("pod-restart", "well"))
        webs = [await world.well(f"web-{number}") for number in range(12)]
        for web in webs:
            await world.says(*PROBE, of=web)
        await world.after(3)
        for web in webs:
            await world.says("BackOff", "Back-off restarting failed container app", of=web)
        said = world.now()
        await world.until(lambda: sum(run.agent == "well" for run in world.agents.runs) == 12)
        assert (world.now() - said).total_seconds() < 1
        assert sum(attempt.agent == "hangs" for attempt in world.agents.attempts) == 8

    play(story)


def test_a_hook_made_again_while_its_agent_hangs_sends_no_more_at_once_than_one_agent_may_hold() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.HANG)])
        await world.begin(entry("probe-failed"))
        for number in range(8):
            await world.says(*PROBE, of=await world.well(f"web-{number}"))
        await world.until(lambda: len(world.agents.attempts) == 8)
        await world.cluster.delete_hook("shop", "h")
        await world.cluster.hook(hook("h", entry("probe-failed"), namespace="shop"))
        await world.after(20)
        assert {row["call"]["state"] for row in await world.rows()} == {"Pending"}
        assert len(world.agents.attempts) == 8
        await world.until(lambda: len(world.agents.attempts) == 16)

    play(story)
