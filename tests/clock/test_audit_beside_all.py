"""Kubernetes Events on a Hook are a trail: whatever happens to them, no worker ends of it."""

from support.objects import entry
from support.world import World, play

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.exchange import Response
from khook.sandbox.kagent import Fault, FaultKind

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


def written(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("create", "events") and b"kagent-hook-controller" in call.request.body


def test_a_stop_in_the_middle_of_writing_them_is_clean_and_writes_each_once() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.SLOW, seconds=3)])
        await world.begin(entry("probe-failed"))
        webs = [await world.well(f"web-{number}") for number in range(6)]
        await world.after(5)
        world.api.fault(written, delay_s=0.05, times=None)
        for web in webs:
            await world.says(*PROBE, of=web)
        await world.after(1)
        await world.stop()
        assert world.ends() == {"exit 0"}
        assert {row["call"]["state"] for row in await world.rows()} == {"Completed"}
        assert [said["count"] for said in await world.audit("AgentCalled")] == [1] * 6

    play(story)


def test_one_that_is_forbidden_while_it_is_said_again_ends_no_worker() -> None:
    async def story(world: World) -> None:
        forbidden = Response(status=403, body=b'{"kind":"Status","code":403}')
        world.api.fault(written, delay_s=5, answer=forbidden, times=None)
        broken = entry("oom-kill", prompt="{{nonsense")
        await world.begin(entry("probe-failed"), broken)
        for minutes in range(5, 8):
            await world.after(2)
            entries = [entry("probe-failed", cooldown=f"{minutes}m"), broken]
            await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": entries}})
        await world.after(20)
        assert world.restarts() == 0
        await world.says(*PROBE, of=await world.well())
        await world.called(1)

    play(story)
