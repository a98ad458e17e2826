"""Calls to a kagent: a session, one message, and its run followed to the end, whatever that is."""

import pytest
from support.objects import Json, entry
from support.world import World, play

from khook.core.prompt import instructions
from khook.sandbox.kagent import Behaviour, Fault, FaultKind, Speaks, Step

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
AGENT = "kagent/agent"
FAILED = 'kagent_hook_calls_failed_total{reason="%s"}'


async def one_call(world: World, *faults: Fault, **fields: str) -> Json:
    """The pod that an agent with these faults has just been told of."""
    world.agents.set_faults(AGENT, faults)
    await world.begin(entry("probe-failed", **fields))
    web = await world.well()
    await world.says(*PROBE, of=web)
    await world.until(lambda: len(world.agents.attempts) >= 1)
    return web


async def nothing_is_sent_again(world: World, web: Json) -> None:
    """Not by itself, and not for a signal within the window."""
    sent = len(world.agents.attempts)
    await world.says(*PROBE, of=web)
    await world.after(60)
    assert len(world.agents.attempts) == sent


def test_a_run_is_followed_to_its_end_and_its_result_is_on_the_hook() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(1)
        call = await world.call()
        assert (call["state"], call["protocol"]) == ("Accepted", "a2a")
        assert call["taskId"] == world.agents.runs[0].task_id
        await world.after(30)
        call = await world.call()
        assert (call["state"], call["result"]) == ("Completed", "more memory")
        (run,) = world.agents.runs
        assert (run.call_id, run.context["resourceName"]) == (call["id"], "web-1")
        assert "web-1" in instructions(run.prompt)
        assert len(await world.audit("AgentCalled")) == 1
        polled = world.agents.requests[Step.POLL]
        await world.after(300)
        assert world.agents.requests[Step.POLL] == polled

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(run_s=20, said="more memory"))


def test_an_agent_that_answers_with_a_message_has_no_run_to_follow() -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=FaultKind.MESSAGE))
        await world.after(30)
        call = await world.call()
        assert (call["state"], call["result"]) == ("Completed", "looking into it")
        assert world.agents.requests[Step.POLL] == 0

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize(
    ("kind", "reason", "words", "after_s"),
    [
        (FaultKind.FAILED, "RunFailed", "the run failed", 30),
        (FaultKind.INPUT_REQUIRED, "InputRequired", "waits for a person's answer in kagent", 30),
        (FaultKind.ENDLESS, "RunDeadline", "did not end in time", 605),
        (FaultKind.LOST, "RunLost", "kagent knows nothing of the run any more", 60),
    ],
)
def test_a_run_that_ends_badly_is_visible_and_never_sent_again(
    kind: FaultKind, reason: str, words: str, after_s: float
) -> None:
    async def story(world: World) -> None:
        counted = world.metric(FAILED % reason)
        web = await one_call(world, Fault(kind=kind), cooldown="30m")
        await world.after(after_s)
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", reason)
        assert words in call["error"]
        assert call["acceptedTime"]
        (said,) = await world.audit("AgentCallFailed")
        assert said["type"] == "Warning"
        assert reason in said["message"]
        assert words in said["message"]
        assert world.metric(FAILED % reason) == counted + 1
        await nothing_is_sent_again(world, web)
        # Nobody answers for a person either: one message was all that the agent ever got.
        assert world.agents.requests[Step.SEND] == 1
        await world.restart()
        await nothing_is_sent_again(world, web)

    play(story, speaks=Speaks.A2A)


def test_a_run_is_given_its_ten_minutes_and_no_more() -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=FaultKind.ENDLESS))
        await world.after(595)
        assert (await world.call())["state"] == "Accepted"
        await world.after(10)
        assert (await world.call())["reason"] == "RunDeadline"

    play(story, speaks=Speaks.A2A)


def test_a_run_that_outlasts_the_cooldown_is_in_flight_and_has_no_second_call() -> None:
    in_flight = 'kagent_hook_events_total{event_type="probe-failed",verdict="in_flight"}'

    async def story(world: World) -> None:
        before = world.metric(in_flight)
        web = await one_call(world, cooldown="1m")
        for _ in range(5):
            await world.after(60)
            await world.says(*PROBE, of=web)
        await world.after(5)
        assert world.metric(in_flight) == before + 5
        assert len(world.agents.attempts) == 1
        (row,) = await world.rows()
        assert (row["count"], row["call"]["state"]) == (6, "Accepted")
        await world.after(150)
        assert (await world.call())["state"] == "Completed"
        await world.says(*PROBE, of=web)
        await world.called(2)

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(run_s=400))


@pytest.mark.parametrize("how", ["stopped", "crashed", "its worker killed"])
def test_a_restart_in_the_middle_of_a_run_goes_on_polling_and_repeats_nothing(how: str) -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(20)
        polled = world.agents.requests[Step.POLL]
        match how:
            case "stopped":
                assert await world.seconds_to_stop() < 3
                await world.restart()
            case "crashed":
                await world.crash()
            case _:
                world.kill_worker("shop")
        await world.after(150)
        assert world.agents.requests[Step.POLL] > polled
        assert world.agents.requests[Step.SEND] == 1
        assert world.agents.requests[Step.SESSION] == 1
        call = await world.call()
        assert (call["state"], call["result"]) == ("Completed", "looking into it")
        assert len(await world.audit("AgentCalled")) == 1

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(run_s=120))


def test_an_agent_that_is_away_while_its_run_is_polled_loses_nothing() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        world.agents.set_faults(AGENT, [Fault(kind=FaultKind.REFUSE, on=None)])
        await world.after(120)
        assert (await world.call())["state"] == "Accepted"
        world.agents.set_faults(AGENT, [])
        await world.after(60)
        assert (await world.call())["state"] == "Completed"
        assert world.agents.requests[Step.SEND] == 1

    play(story, speaks=Speaks.A2A)


def test_a_slow_poll_does_not_hold_up_other_calls() -> None:
    async def story(world: World) -> None:
        hanging = Fault(kind=FaultKind.HANG, on=Step.POLL)
        await one_call(world, hanging)
        for number in range(20):
            await world.says(*PROBE, of=await world.well(f"more-{number}"))
        said = world.now()
        await world.until(lambda: len(world.agents.runs) == 21)
        assert (world.agents.runs[-1].time - said).total_seconds() < 1

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=FaultKind.INTERNAL, times=1, runs=True),
        Fault(kind=FaultKind.ERROR_RPC, times=1, runs=True, late_s=3),
        Fault(kind=FaultKind.BAD_GATEWAY, times=1, runs=True),
        Fault(kind=FaultKind.GATEWAY_TIMEOUT, times=1, runs=True, late_s=3),
        Fault(kind=FaultKind.CUT_OFF, times=1, runs=True, late_s=3),
        Fault(kind=FaultKind.DROP, times=1, late_s=9),
        Fault(kind=FaultKind.HANG, times=1),
        Fault(kind=FaultKind.SLOW, seconds=60, times=1),
    ],
    ids=lambda fault: f"{fault.kind} {fault.late_s:.0f}",
)
def test_an_agent_that_took_the_call_and_did_not_say_so_has_one_run(fault: Fault) -> None:
    async def story(world: World) -> None:
        await one_call(world, fault)
        await world.after(120)
        assert len(world.agents.runs) == 1
        assert world.agents.requests[Step.SEND] == 1
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize(
    "kind", [FaultKind.INTERNAL, FaultKind.BAD_GATEWAY, FaultKind.CUT_OFF, FaultKind.GATEWAY_TIMEOUT, FaultKind.CUT]
)
def test_an_agent_that_did_not_take_the_call_and_did_not_say_so_is_asked_again_after_ten_seconds(
    kind: FaultKind,
) -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=kind, times=1))
        (run,) = await world.called(1)
        first, second = world.agents.attempts
        assert 10 <= (second.time - first.time).total_seconds() < 12
        assert first.call_id == second.call_id == run.call_id

    play(story, speaks=Speaks.A2A)


def test_while_kagents_database_is_down_nothing_is_sent_blindly() -> None:
    """The send may have been taken and nobody can be asked: the attempts are used up, and the call waits."""

    async def story(world: World) -> None:
        await one_call(world, Fault(kind=FaultKind.DROP, times=1), Fault(kind=FaultKind.DATABASE, on=Step.LIST))
        await world.after(60)
        assert world.agents.requests[Step.SEND] == 1
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Parked")
        world.agents.set_faults(AGENT, [])
        await world.after(300)
        assert len(world.agents.runs) == 1
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=Speaks.A2A)


def test_a_call_that_was_taken_is_found_out_even_when_its_time_to_wait_is_over() -> None:
    async def story(world: World) -> None:
        await one_call(
            world, Fault(kind=FaultKind.DROP, times=1), Fault(kind=FaultKind.DATABASE, on=Step.LIST, times=2)
        )
        await world.after(60)
        assert world.agents.requests[Step.SEND] == 1
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=Speaks.A2A, environ={"KHOOK_REDELIVER_FOR": "0s"})


def test_an_unknown_agent_is_asked_for_once_and_named() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(AGENT, [Fault(kind=FaultKind.NOT_FOUND, on=Step.SESSION)])
        await world.begin(entry("probe-failed"))
        await world.says(*PROBE, of=await world.well())
        await world.after(60)
        assert world.agents.requests[Step.SESSION] == 1
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", "AgentNotFound")
        condition = await world.ready_condition()
        assert (condition["status"], condition["reason"]) == ("False", "AgentNotFound")

    play(story, speaks=Speaks.A2A)


def test_a_controller_that_has_just_started_and_knows_no_agents_yet_is_asked_again_slowly() -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=FaultKind.NOT_FOUND, times=2))
        await world.after(40)
        first, second, third = world.agents.attempts
        assert (second.time - first.time).total_seconds() == pytest.approx(15, abs=1)
        assert (third.time - second.time).total_seconds() == pytest.approx(15, abs=1)
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=Speaks.A2A)


def test_a_kagent_of_the_next_wire_is_spoken_to_on_it_from_the_first_call_to_the_end_of_the_run() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(10)
        assert (await world.call())["state"] == "Completed"
        assert [attempt.end for attempt in world.agents.attempts] == ["400", "200"]
        await world.says(*PROBE, of=await world.well("web-2"))
        await world.called(2)
        assert [attempt.end for attempt in world.agents.attempts] == ["400", "200", "200"]
        world.agents.set_faults(AGENT, [Fault(kind=FaultKind.DROP, times=1)])
        await world.says(*PROBE, of=await world.well("web-3"))
        await world.after(60)
        assert len(world.agents.runs) == 3
        assert {row["call"]["state"] for row in await world.rows()} == {"Completed"}

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(wires=("1.0",)))


def test_a_kagent_without_the_session_route_is_sent_to_all_the_same() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(10)
        assert (await world.call())["state"] == "Completed"
        assert len(world.agents.runs) == 1

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(session_routes=False))


@pytest.mark.parametrize("kind", [FaultKind.HANG, FaultKind.SLOW])
def test_a_stop_in_the_middle_of_a_send_leaves_it_calling_and_the_next_owner_finds_its_run(kind: FaultKind) -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=kind, seconds=25, times=1, late_s=3))
        assert await world.seconds_to_stop() <= 22
        call = await world.call()
        assert call["state"] == "Calling"
        await world.restart()
        await world.after(60)
        assert len(world.agents.runs) == 1
        assert world.agents.requests[Step.SEND] == 1
        found = await world.call()
        assert (found["id"], found["state"]) == (call["id"], "Completed")

    play(story, speaks=Speaks.A2A)


def test_a_stop_in_the_middle_of_a_send_that_never_arrived_is_sent_by_the_next_owner() -> None:
    async def story(world: World) -> None:
        await one_call(world, Fault(kind=FaultKind.INTERNAL))
        await world.after(1)
        await world.stop()
        assert (await world.call())["state"] == "Calling"
        world.agents.set_faults(AGENT, [])
        await world.restart()
        back = world.now()
        (run,) = await world.called(1)
        assert (run.time - back).total_seconds() < 15

    play(story, speaks=Speaks.A2A)
