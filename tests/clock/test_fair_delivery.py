"""One agent that hangs, or one tenant's storm, and what the others feel of it: nothing."""

from datetime import datetime

import pytest
from support.objects import entry, hook
from support.world import World, play

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.kagent import Fault, FaultKind, Run, Speaks, Step

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
BACK_OFF = ("BackOff", "Back-off restarting failed container app")
CALLS = 50
AGENT_S = 0.05
WRITE_S = 0.02


def slow_writes(world: World) -> None:
    """So that there is something to measure: a status write takes 20 ms."""

    def status_patch(call: ApiCall) -> bool:
        return (call.verb, call.resource) == ("patch", "hooks/status")

    world.api.fault(status_patch, delay_s=WRITE_S, times=None)


def named(agent: str, speaks: Speaks) -> str:
    return agent if speaks is Speaks.EXECUTE else f"kagent/{agent}"


def p99(latencies: list[float]) -> float:
    assert len(latencies) == CALLS
    return sorted(latencies)[-1]


def run_about(world: World, pod: str) -> Run | None:
    return next((run for run in world.agents.runs if run.context["resourceName"] == pod), None)


async def latencies(world: World, agent: str, *, namespace: str, prefix: str) -> list[float]:
    """From each of the pods' Events to its run, the Events 0.3 s apart."""
    said: dict[str, datetime] = {}
    for number in range(CALLS):
        name = f"{prefix}-{number}"
        meta = {"metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}"}}
        said[name] = world.now()
        await world.says(*BACK_OFF, of=meta)
        await world.after(0.3)
    await world.after(60)
    found = {run.context["resourceName"]: run for run in world.agents.runs if run.agent == agent}
    return [(found[name].time - time).total_seconds() for name, time in said.items()]


async def measured(world: World, speaks: Speaks, *, namespace: str, hangs: bool, same_hook: bool) -> float:
    """The p99 of calls to the agent `well`, beside 30 calls to one that hangs or is well too."""
    bad, well = named("bad", speaks), named("well", speaks)
    kind = Fault(kind=FaultKind.HANG) if hangs else Fault(kind=FaultKind.SLOW, seconds=AGENT_S)
    world.agents.set_faults(bad, [kind])
    world.agents.set_faults(well, [Fault(kind=FaultKind.SLOW, seconds=AGENT_S)])
    slow_writes(world)
    await world.cluster.namespace("shop")
    if same_hook:
        entries = entry("probe-failed", "bad"), entry("pod-restart", "well")
        await world.cluster.hook(hook("h", *entries, namespace="shop"))
    else:
        if namespace != "shop":
            await world.cluster.namespace(namespace)
        await world.cluster.hook(hook("bad", entry("probe-failed", "bad"), namespace="shop"))
        await world.cluster.hook(hook("well", entry("pod-restart", "well"), namespace=namespace))
    await world.start()
    for number in range(30):
        await world.says(*PROBE, of=await world.well(f"bad-{number}"))
    await world.after(2)
    return p99(await latencies(world, well, namespace=namespace, prefix="web"))


@pytest.mark.parametrize(
    ("speaks", "where"),
    [
        (Speaks.A2A, "another namespace"),
        (Speaks.EXECUTE, "the same namespace"),
        (Speaks.EXECUTE, "the same Hook"),
        (Speaks.A2A, "the same Hook"),
    ],
)
def test_one_hung_agent_leaves_the_calls_of_others_at_their_baseline(speaks: Speaks, where: str) -> None:
    worst: dict[bool, float] = {}
    namespace = "store" if where == "another namespace" else "shop"

    def measure(hangs: bool) -> None:
        async def story(world: World) -> None:
            worst[hangs] = await measured(
                world, speaks, namespace=namespace, hangs=hangs, same_hook=where == "the same Hook"
            )

        # So few places that 30 hung calls would hold them all, were it not for the bound of their agent.
        play(story, speaks=speaks, environ={"KHOOK_WORKERS": "1", "KHOOK_CALLS_PER_WORKER": "16"})

    measure(False)
    measure(True)
    assert 0 < worst[False] < 0.2
    assert worst[True] <= 2 * worst[False]


@pytest.mark.parametrize("step", [Step.SESSION, Step.LIST])
def test_an_agent_whose_kagent_hangs_before_or_after_the_send_holds_up_no_other(step: Step) -> None:
    async def story(world: World) -> None:
        faults = [Fault(kind=FaultKind.HANG, on=step)]
        if step is Step.LIST:
            faults.append(Fault(kind=FaultKind.DROP))
        world.agents.set_faults("kagent/bad", faults)
        await world.begin(entry("probe-failed", "bad"), entry("pod-restart", "well"))
        for number in range(30):
            await world.says(*PROBE, of=await world.well(f"bad-{number}"))
        await world.after(2)
        assert p99(await latencies(world, "kagent/well", namespace="shop", prefix="web")) < 0.2

    play(story, speaks=Speaks.A2A)


@pytest.mark.parametrize("speaks", [Speaks.EXECUTE, Speaks.A2A])
def test_a_storm_of_500_incidents_delays_another_tenants_call_to_the_same_agent_by_a_round_at_most(
    speaks: Speaks,
) -> None:
    async def story(world: World) -> None:
        agent = named("agent", speaks)
        world.agents.set_faults(agent, [Fault(kind=FaultKind.SLOW, seconds=AGENT_S)])
        for name in ("noisy", "quiet"):
            await world.cluster.namespace(name)
            await world.cluster.hook(hook("h", entry("pod-restart"), namespace=name))
        await world.start()
        for number in range(500):
            meta = {"metadata": {"name": f"web-{number}", "namespace": "noisy", "uid": f"uid-{number}"}}
            await world.says(*BACK_OFF, of=meta)
        await world.until(lambda: len(world.agents.runs) >= 16)
        said = world.now()
        await world.says(*BACK_OFF, of={"metadata": {"name": "one", "namespace": "quiet", "uid": "uid-one"}})
        await world.until(lambda: run_about(world, "one") is not None)
        run = run_about(world, "one")
        assert run is not None
        assert len(world.agents.runs) < 100
        # At most until the next of the eight places is free, and one call of the noisy namespace's before it.
        assert (run.time - said).total_seconds() <= 2 * AGENT_S + 0.01

    play(story, speaks=speaks, environ={"KHOOK_WORKERS": "1"})


def test_a_queue_before_an_agent_that_turns_out_to_hang_is_parked_and_not_sent_call_by_call() -> None:
    """Each send to it takes its 30 s: 200 calls, eight at a time, would knock for a quarter of an hour."""

    async def story(world: World) -> None:
        world.agents.set_faults("kagent/agent", [Fault(kind=FaultKind.HANG, on=Step.SESSION)])
        await world.begin(entry("pod-restart"))
        for number in range(200):
            meta = {"metadata": {"name": f"web-{number}", "namespace": "shop", "uid": f"uid-{number}"}}
            await world.says(*BACK_OFF, of=meta)
        await world.after(110)
        # Eight, those that stepped into their places before the fifth had failed, and one probe.
        assert world.agents.requests[Step.SESSION] <= 8 + 5 + 1
        world.agents.set_faults("kagent/agent", [])
        await world.until(lambda: len(world.agents.runs) == 200)
        await world.after(30)
        assert {row["call"]["state"] for row in await world.rows()} == {"Completed"}
        assert len(world.agents.runs) == 200

    play(story, speaks=Speaks.A2A)
