"""One id leads from a line of the log to the Hook's status, its Kubernetes Events and kagent's own records."""

import io

import orjson
import pytest
from support.objects import Json, entry
from support.world import World, play

from khook import log
from khook.kube.audit import CALL_ID_ANNOTATION
from khook.sandbox.kagent import ANY_AGENT, Behaviour, Fault, FaultKind, Speaks

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


def call_id_of(said: Json) -> str:
    return str(said["metadata"]["annotations"][CALL_ID_ANNOTATION])


@pytest.mark.parametrize("speaks", [Speaks.A2A, Speaks.EXECUTE])
def test_a_call_has_one_id_in_log_status_kubernetes_event_and_kagent(speaks: Speaks) -> None:
    logged = io.StringIO()

    async def story(world: World) -> None:
        log.configure("info", "json", stream=logged, strict=True)
        await world.begin(entry("probe-failed"))
        await world.says(*PROBE, of=await world.well())
        await world.after(30)
        call_id = (await world.call())["id"]
        assert [run.call_id for run in world.agents.runs] == [call_id]
        assert [call_id_of(said) for said in await world.audit("AgentCalled")] == [call_id]
        lines = [orjson.loads(line) for line in logged.getvalue().splitlines()]
        called = [line for line in lines if line["event"] == "agent called"]
        assert [(line["logger"], line["call_id"]) for line in called] == [("kagent-api", call_id)]

    play(story, speaks=speaks, behaviour=Behaviour(run_s=5))


def test_what_is_said_of_a_later_call_too_has_the_id_that_the_status_has() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(ANY_AGENT, [Fault(kind=FaultKind.NOT_FOUND)])
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.says(*PROBE, of=web)
        await world.after(30)
        first = (await world.call())["id"]
        assert [call_id_of(said) for said in await world.audit("AgentCallFailed")] == [first]
        await world.after(60)
        await world.says(*PROBE, of=web)
        await world.after(30)
        second = (await world.call())["id"]
        assert second != first
        assert [(said["count"], call_id_of(said)) for said in await world.audit("AgentCallFailed")] == [(2, second)]

    play(story, speaks=Speaks.EXECUTE)
