"""The Hook's status as khook's memory: claims that get lost, other writers, an older CRD, and how little is written."""

from copy import deepcopy
from datetime import datetime, timedelta

import pytest
from support.objects import Json, entry, hook, pod, running
from support.world import World, play

from khook.api.crd import crd
from khook.core.incident import EntryId, LastSignal, Row, RowStatus
from khook.core.rows import MAX_ROWS
from khook.core.signal import EventType, PodUid
from khook.core.status import render
from khook.sandbox.api_routes import ApiCall
from khook.sandbox.exchange import Response
from khook.sandbox.kagent import Fault, FaultKind

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
SEED_ROW = ("eventType", "resourceName", "firstSeen", "lastSeen", "status")
STATUS = "/apis/kagent.dev/v1alpha2/namespaces/shop/hooks/h/status"
MERGE = {"content-type": "application/merge-patch+json"}


def status_patch(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("patch", "hooks/status")


async def quiet(world: World) -> Json:
    """A pod in a world in which everything that there was to write has been written."""
    await world.begin(entry("probe-failed"))
    web = await world.well()
    await world.after(5)
    return web


def older_crd(*, conditions: bool) -> Json:
    """The CRD as the first controller installed it; some builds of it knew conditions."""
    older = deepcopy(crd())
    status = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    rows = status["properties"]["activeEvents"]["items"]
    rows["properties"] = {name: rows["properties"][name] for name in SEED_ROW}
    if not conditions:
        del status["properties"]["conditions"]
    return older


def full_status(now: datetime) -> Json:
    """As many rows as a Hook may hold, all over, and remembered for another minute."""
    ended = now - timedelta(minutes=14)
    rows = [
        Row(
            entry=EntryId("of-another-time"),
            event_type=EventType.PROBE_FAILED,
            resource_kind="Pod",
            resource_name=f"web-{number}",
            agent="shop/agent",
            pod_uid=PodUid(f"uid-{number}"),
            first_seen=ended,
            last_seen=ended,
            status=RowStatus.RESOLVED,
            resolved_time=ended,
            count=1,
            last_signal=LastSignal(pod_uid=PodUid(f"uid-{number}"), raw_time=ended),
            facts=None,
            call=None,
        )
        for number in range(1000, 1000 + MAX_ROWS)
    ]
    return render(rows, [], last_updated=ended)


def test_a_claim_whose_answer_is_lost_is_written_again_under_its_id_and_runs_once() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        world.api.fault(status_patch, lose_answer=True, times=1)
        await world.says(*PROBE, of=web)
        await world.after(0.1)
        claimed = (await world.call())["id"]
        assert world.agents.attempts == []
        (run,) = await world.called(1)
        assert run.call_id == claimed
        assert (await world.call())["id"] == claimed

    play(story)


def test_a_claim_that_cannot_be_written_waits_for_the_api_server() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        undo = world.api.refuse(status_patch)
        await world.says(*PROBE, of=web)
        await world.after(300)
        assert world.agents.attempts == []
        undo()
        await world.called(1)

    play(story)


def test_a_forbidden_status_ends_the_claim_and_shows_that_once_it_can_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        world.api.forbid(verb="patch", resource="hooks/status")
        await world.says(*PROBE, of=web)
        await world.after(14)
        assert await world.audit("AgentCallFailed") == []
        await world.after(3)
        (said,) = await world.audit("AgentCallFailed")
        assert "refused the Hook's status" in said["message"]
        for number in range(5):
            await world.says(*PROBE, of=web, name=f"probe-{number}")
            await world.after(5)
        assert world.agents.attempts == []
        world.api.allow_all()
        await world.after(31)
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Failed", "ClaimRefused")

    play(story)
    assert capsys.readouterr().err.count("hook status refused") == 1


def test_a_status_that_somebody_else_wrote_to_is_written_again_from_memory() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.called(1)
        before = await world.rows()
        theirs: Json = {"status": {"activeEvents": []}}
        await world.cluster.request("PATCH", STATUS, theirs, headers=MERGE)
        assert await world.rows() == []
        await world.says(*PROBE, of=web)
        await world.after(5)
        (row,) = await world.rows()
        assert row["call"] == before[0]["call"]
        assert row["count"] == 2
        assert len(world.agents.attempts) == 1

    play(story)


def test_a_conflict_in_the_middle_of_a_claim_costs_another_write_and_no_other_call() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.cluster.request("PATCH", STATUS, {"status": None}, headers=MERGE)
        await world.says(*PROBE, of=web)
        await world.called(1)
        assert world.api.answers["patch", "hooks/status", 409] == 1
        assert (await world.call())["state"] == "Completed"

    play(story)


def test_a_condition_that_somebody_else_adds_later_stays() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        conditions = (await world.get_hook())["status"]["conditions"]
        theirs = conditions[0] | {"type": "Reviewed"}
        await world.cluster.request("PATCH", STATUS, {"status": {"conditions": [*conditions, theirs]}}, headers=MERGE)
        await world.says(*PROBE, of=web)
        await world.called(1)
        assert theirs in (await world.get_hook())["status"]["conditions"]

    play(story)


def test_a_full_hook_says_so_for_as_long_as_it_is() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        await world.cluster.hook(hook("h", entry("probe-failed"), namespace="shop"))
        await world.cluster.request("PATCH", STATUS, {"status": full_status(world.now())}, headers=MERGE)
        await world.start()
        await world.says(*PROBE, of=await world.well())
        await world.after(5)
        assert "full: " in (await world.ready_condition())["message"]
        assert len(await world.audit("CallsSuppressed")) == 1
        await world.at(70)  # by now its rows are not needed any more
        await world.says(*PROBE, of=await world.well("web-2"))
        await world.called(1)
        assert "full: " not in (await world.ready_condition())["message"]

    play(story)


def test_a_hook_deleted_and_made_again_during_a_claim_is_another_hook() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        world.api.fault(status_patch, delay_s=1)
        await world.says(*PROBE, of=web)
        await world.after(0.5)
        spec = (await world.get_hook())["spec"]
        await world.cluster.delete_hook("shop", "h")
        made = {"apiVersion": "kagent.dev/v1alpha2", "kind": "Hook", "spec": spec}
        await world.cluster.hook(made | {"metadata": {"name": "h", "namespace": "shop"}})
        (run,) = await world.called(1)  # the new Hook's own: it sees what happened in the last 15 min
        assert (await world.call())["id"] == run.call_id

    play(story)


def test_an_older_crd_that_prunes_our_fields_lets_no_call_through_and_is_named() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.after(10)
        assert world.agents.attempts == []
        condition = await world.ready_condition()
        assert (condition["status"], condition["reason"]) == ("False", "CRDOutdated")
        assert "kagent-hook-crds" in condition["message"]

    play(story, hook_crd=older_crd(conditions=True))


def test_an_older_crd_without_conditions_is_named_in_a_kubernetes_event() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.after(120)
        assert world.agents.attempts == []
        (said,) = await world.audit("AgentCallFailed")
        assert "upgrade kagent-hook-crds" in said["message"]
        await world.says(*PROBE, of=web)
        await world.after(10)
        assert world.agents.attempts == []

    play(story, hook_crd=older_crd(conditions=False))


def test_after_the_crd_was_upgraded_calls_go_out() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.after(70)
        name = crd()["metadata"]["name"]
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        await world.cluster.request("PATCH", path, {"spec": crd()["spec"]}, headers=MERGE)
        await world.says(*PROBE, of=web)
        await world.called(1)
        assert (await world.ready_condition())["status"] == "True"

    play(story, hook_crd=older_crd(conditions=True))


def test_repeats_cost_one_write_a_second_however_many_they_are() -> None:
    async def story(world: World) -> None:
        webs = [await quiet(world), *[await world.well(f"web-{number}") for number in range(2, 21)]]
        for web in webs:
            await world.says(*PROBE, of=web)
        await world.called(20)
        before = world.status_writes
        for number in range(200):
            await world.says(*PROBE, of=webs[number % 20], name=f"repeat-{number}")
            await world.after(0.05)
        await world.after(2)
        assert 8 <= world.status_writes - before <= 12
        assert [row["count"] for row in await world.rows()] == [11] * 20
        assert len(world.agents.attempts) == 20

    play(story)


def test_nothing_is_written_while_nothing_changes() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.called(1)
        await world.after(200)  # resolved by now
        before = world.status_writes
        await world.after(600)
        await world.restart()
        await world.after(60)
        assert world.status_writes == before

    play(story)


def test_claims_that_come_together_share_a_write() -> None:
    async def story(world: World) -> None:
        await quiet(world)
        webs = [await world.well(f"web-{number}") for number in range(2, 22)]
        before = world.status_writes
        world.api.fault(status_patch, delay_s=0.2, times=None)
        for web in webs:
            await world.says(*PROBE, of=web)
        await world.called(20)
        assert world.status_writes - before <= 8

    play(story)


def test_an_answer_that_nobody_expects_takes_the_worker_down_and_its_successor_calls() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        world.api.fail_next(status_patch, Response(status=200, body=b"{}"))
        await world.says(*PROBE, of=web)
        await world.called(1)
        assert world.restarts() == 1
        assert (await world.call())["state"] == "Completed"

    play(story)


def test_a_hook_whose_status_is_forbidden_holds_up_no_other_namespaces_call_to_its_agent() -> None:
    async def story(world: World) -> None:
        for name in ("bad", "good"):
            await world.cluster.namespace(name)
            await world.cluster.hook(hook("h", entry("probe-failed"), namespace=name))
        world.api.forbid(verb="patch", resource="hooks/status", namespace="bad")
        await world.start()
        well = running(now=world.now())
        bad = [await world.cluster.pod(pod(f"web-{number}", namespace="bad"), well) for number in range(40)]
        good = await world.cluster.pod(pod("web", namespace="good"), well)
        await world.after(5)
        for web in bad:
            await world.says(*PROBE, of=web)
        await world.after(0.2)
        await world.says(*PROBE, of=good)
        await world.after(1)
        assert [run.context["namespace"] for run in world.agents.runs] == ["good"]

    play(story, environ={"KHOOK_WORKERS": "1"})


@pytest.mark.parametrize("away_s", [10, 14, 18, 22])
def test_the_last_write_does_not_wait_for_a_back_off(away_s: float) -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.SLOW, seconds=3)])
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.after(1)
        undo = world.api.refuse(status_patch)
        await world.after(away_s)
        undo()
        await world.after(0.2)
        await world.stop()
        assert (await world.call())["state"] == "Completed"
        await world.restart()
        await world.after(10)
        assert len(world.agents.attempts) == 1

    play(story)


def test_a_404_that_comes_once_silences_no_hook() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        world.api.fail_next(status_patch, Response(status=404, body=b"404 page not found"))
        await world.says(*PROBE, of=web)
        await world.called(1)
        await world.says(*PROBE, of=await world.well("web-2"))
        await world.called(2)
        assert len(await world.rows()) == 2

    play(story)


def test_a_hook_that_is_gone_is_not_waited_for_at_a_stop() -> None:
    async def story(world: World) -> None:
        web = await quiet(world)
        await world.says(*PROBE, of=web)
        await world.called(1)
        world.api.stall(lambda call: call.resource == "hooks")  # khook hears nothing of it but its own 404
        await world.cluster.delete_hook("shop", "h")
        await world.says(*PROBE, of=web)
        await world.after(3)
        assert world.api.answers["patch", "hooks/status", 404] == 1
        assert await world.seconds_to_stop() < 0.5

    play(story)
