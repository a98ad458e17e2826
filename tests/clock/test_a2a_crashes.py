"""The worker dies at each step of a call to a kagent, which does not know a message when it sees it again: one run."""

import asyncio

import pytest
from support.objects import entry
from support.world import World, play

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.kagent import Behaviour, Fault, FaultKind, Speaks, Step

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
AGENT = "kagent/agent"


def status_patch(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("patch", "hooks/status")


async def a_probe_fails(world: World, *faults: Fault) -> None:
    """With everything written that there was to write before."""
    world.agents.set_faults(AGENT, faults)
    await world.begin(entry("probe-failed"))
    web = await world.well()
    await world.after(5)
    await world.says(*PROBE, of=web)


def killed_at(world: World, state: str, *, lose_answer: bool) -> None:
    """The worker dies at the very step in which the API server takes a status with this state."""

    def kill(call: ApiCall) -> bool:
        if status_patch(call) and f'"{state}"'.encode() in call.request.body:
            asyncio.get_running_loop().call_soon(world.kill_worker, "shop")
            return True
        return False

    world.api.fault(kill, lose_answer=lose_answer)


async def one_run(world: World, *, sends: int = 1) -> None:
    await world.called(1)
    await world.after(90)
    assert len(world.agents.runs) == 1
    assert world.agents.requests[Step.SEND] == sends
    call = await world.call()
    assert (call["state"], call["result"]) == ("Completed", "looking into it")
    assert call["id"] == world.agents.runs[0].call_id
    assert world.restarts() == 1


def test_killed_before_its_claim() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.after(5)
        world.api.fault(status_patch, delay_s=3)
        await world.says(*PROBE, of=web)
        await world.after(1)
        assert await world.rows() == []
        world.kill_worker("shop")
        await one_run(world)

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("state", ["Pending", "Calling"])
def test_killed_after_its_claim(state: str) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.after(5)
        killed_at(world, state, lose_answer=True)
        await world.says(*PROBE, of=web)
        await one_run(world)

    play(story, speaks=Speaks.A2A)


def test_killed_after_the_session() -> None:
    async def story(world: World) -> None:
        await a_probe_fails(world, Fault(kind=FaultKind.SLOW, on=Step.SESSION, seconds=2, times=1))
        await world.until(lambda: world.agents.requests[Step.SESSION] == 1)
        await world.after(1)
        assert (await world.call())["state"] == "Calling"
        world.kill_worker("shop")
        await one_run(world)

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=FaultKind.SLOW, seconds=5, times=1),
        Fault(kind=FaultKind.HANG, times=1, late_s=9),
        Fault(kind=FaultKind.FAILED, times=1),
    ],
    ids=lambda fault: fault.kind.value,
)
def test_killed_during_the_send(fault: Fault) -> None:
    async def story(world: World) -> None:
        await a_probe_fails(world, fault)
        await world.until(lambda: world.agents.requests[Step.SEND] == 1)
        world.kill_worker("shop")
        if fault.kind is not FaultKind.FAILED:
            await one_run(world)
            return
        await world.called(1)
        await world.after(90)
        assert world.agents.requests[Step.SEND] == 1
        assert (await world.call())["reason"] == "RunFailed"

    play(story, speaks=Speaks.A2A)


def test_killed_during_a_send_that_did_not_arrive() -> None:
    async def story(world: World) -> None:
        await a_probe_fails(world, Fault(kind=FaultKind.INTERNAL, times=1))
        await world.until(lambda: world.agents.requests[Step.SEND] == 1)
        world.kill_worker("shop")
        died = world.now()
        await one_run(world, sends=2)
        assert (world.agents.runs[0].time - died).total_seconds() >= 10

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("late_s", [0.0, 3.0, 9.0])
def test_killed_after_acceptance_with_the_task_visible_only_later(late_s: float) -> None:
    async def story(world: World) -> None:
        world.api.fault(lambda call: status_patch(call) and b'"Accepted"' in call.request.body, delay_s=1)
        await a_probe_fails(world, Fault(kind=FaultKind.SLOW, times=1, late_s=late_s))
        await world.until(lambda: len(world.agents.runs) == 1)
        world.kill_worker("shop")
        assert (await world.call())["state"] == "Calling"
        await one_run(world)

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("state", ["Accepted", "Completed"])
@pytest.mark.parametrize("taken", [True, False])
def test_killed_before_the_confirmation(state: str, taken: bool) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.after(5)
        if taken:
            killed_at(world, state, lose_answer=True)
        else:
            marker = f'"{state}"'.encode()
            world.api.fault(lambda call: status_patch(call) and marker in call.request.body, delay_s=10)
        await world.says(*PROBE, of=web)
        if not taken:
            await world.until(lambda: len(world.agents.runs) == 1)
            await world.after(4)
            world.kill_worker("shop")
        await one_run(world)

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("seconds", [1, 5, 11, 25])
def test_killed_while_its_doubt_lasts_or_while_it_is_parked(seconds: int) -> None:
    """The first send is taken, and its answer and its task are seen by nobody for a while."""

    async def story(world: World) -> None:
        await a_probe_fails(
            world, Fault(kind=FaultKind.DROP, times=1), Fault(kind=FaultKind.DATABASE, on=Step.LIST, times=3)
        )
        await world.after(seconds)
        world.kill_worker("shop")
        await one_run(world)

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("tenths", range(1, 40, 2))
def test_killed_at_any_moment_of_a_slow_delivery(tenths: int) -> None:
    """Each write of a status takes 0.3 s, each answer of kagent's 0.4 s, and its tasks are seen 3 s later."""

    async def story(world: World) -> None:
        slow = [Fault(kind=FaultKind.SLOW, seconds=0.4, on=step, late_s=3) for step in (Step.SESSION, Step.SEND)]
        world.api.fault(status_patch, delay_s=0.3, times=None)
        await a_probe_fails(world, *slow)
        await world.after(tenths / 10)
        world.kill_worker("shop")
        await one_run(world)

    play(story, speaks=Speaks.A2A, behaviour=Behaviour(run_s=1))


@pytest.mark.parametrize("tenths", [5, 10, 15, 20])
def test_killed_twice_it_is_still_one_run(tenths: int) -> None:
    async def story(world: World) -> None:
        await a_probe_fails(world, Fault(kind=FaultKind.SLOW, seconds=3, times=1, late_s=3))
        await world.until(lambda: world.agents.requests[Step.SEND] == 1)
        await world.crash()
        await world.after(tenths)
        await world.crash()
        await world.after(90)
        assert len(world.agents.runs) == 1
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=Speaks.A2A)
