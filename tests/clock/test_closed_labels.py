"""Nothing is ever counted under a label that the documents do not list, whatever happens."""

from prometheus_client.parser import text_string_to_metric_families
from support.objects import crash_looping, entry
from support.world import World, play

from khook import metrics
from khook.sandbox.api_routes import ApiCall
from khook.sandbox.exchange import Response
from khook.sandbox.kagent import Fault, FaultKind, Speaks
from reference.metrics import LABELS

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


def counted() -> set[tuple[str, str, str]]:
    """Each label of each sample of ours: metric, label, value."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {
        (family.name + ("_total" if family.type == "counter" else ""), label, value)
        for family in families
        if not family.name.endswith("_created")  # only without files, as here: when a sample was first counted
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le"
    }


def is_a_watch(call: ApiCall) -> bool:
    return call.verb == "watch"


def test_calls_that_go_well_badly_and_not_at_all_count_under_known_labels_alone() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("kagent/agent", [Fault(kind=FaultKind.ERROR, times=1), Fault(kind=FaultKind.NOT_FOUND)])
        await world.begin(entry("probe-failed"), entry("pod-restart", agentId="other", groupBy="Owner"))
        await world.says(*PROBE, of=await world.well())
        crashing = await world.well("web-2")
        await world.cluster.pod_status(crashing, crash_looping(now=world.now()))
        world.api.fail_next(is_a_watch, Response(status=403, headers={}, body=b"{}"), times=2)
        await world.after(120)
        world.kill_worker("shop")
        await world.after(60)
        await world.says(*PROBE, of=crashing)
        await world.after(30)

        found = counted()
        assert ("kagent_hook_events_total", "verdict", "fire") in found
        assert {name for name, _, _ in found} >= {"kagent_hook_api_calls_total", "kagent_hook_worker_restarts_total"}
        assert {one for one in found if one[2] not in LABELS[one[0]][one[1]]} == set()

    play(story, speaks=Speaks.A2A)
