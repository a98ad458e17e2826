"""An Event needs its pod: what happens where the pod is not known, not there any more, or another one by now."""

import json

from support.objects import Json, entry, hook, pod, running
from support.world import World, play

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.exchange import Response

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
SELECTED = {"matchLabels": {"app": "web"}}


def pods_watch(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("watch", "pods")


def pod_gets(world: World) -> int:
    return world.api.requests["get", "pods"]


async def unseen_pod(world: World, labels: dict[str, str] | None = None) -> Json:
    """A pod whose line has not come yet: the watch on pods stands still."""
    await world.begin(entry("probe-failed", selector=SELECTED))
    world.api.stall(pods_watch)
    return await world.well(labels=labels)


def test_an_event_whose_pod_is_not_known_yet_is_judged_after_one_get() -> None:
    async def story(world: World) -> None:
        web = await unseen_pod(world, {"app": "web"})
        for number in range(5):
            await world.says(*PROBE, of=web, name=f"probe-{number}")
        await world.called(1)
        assert pod_gets(world) == 1

    play(story)


def test_events_wait_for_the_first_list_of_pods() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        for number in range(5):
            await world.says(*PROBE, of=await world.well(f"web-{number}", labels={"app": "web"}))
        world.api.fault(lambda call: (call.verb, call.resource) == ("list", "pods"), delay_s=5)
        await world.cluster.hook(hook("h", entry("probe-failed", selector=SELECTED), namespace="shop"))
        await world.start()
        await world.called(5)
        assert pod_gets(world) == 0

    play(story)


def test_the_labels_that_were_read_decide() -> None:
    async def story(world: World) -> None:
        web = await unseen_pod(world, {"app": "database"})
        await world.says(*PROBE, of=web)
        await world.after(20)
        assert pod_gets(world) == 1
        assert world.agents.attempts == []
        other = await world.well("web-2", labels={"app": "web"})
        await world.says(*PROBE, of=other)
        await world.called(1)

    play(story)


def test_a_get_that_fails_is_tried_until_it_is_answered() -> None:
    async def story(world: World) -> None:
        web = await unseen_pod(world, {"app": "web"})
        undo = world.api.refuse(lambda call: (call.verb, call.resource) == ("get", "pods"))
        await world.says(*PROBE, of=web)
        await world.after(10)
        assert world.agents.attempts == []
        undo()
        await world.called(1)

    play(story)


def test_an_event_of_a_pod_that_is_gone_fires_without_a_selector_and_not_with_one() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", "any"), entry("probe-failed", "chosen", selector=SELECTED))
        web = await world.well(labels={"app": "web"})
        await world.after(5)
        await world.cluster.delete_pod(web)
        await world.after(5)
        await world.says(*PROBE, of=web)
        (run,) = await world.called(1)
        assert run.agent == "any"

    play(story)


def test_an_event_of_a_pod_whose_name_another_one_has_now_is_not_judged_by_the_others_labels() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", "any"), entry("probe-failed", "chosen", selector=SELECTED))
        first = await world.well("db-0")
        await world.cluster.delete_pod(first)
        labels = {"app": "web"}
        await world.cluster.pod(pod("db-0", namespace="shop", labels=labels), running(now=world.now()))
        await world.after(5)
        await world.says(*PROBE, of=first)
        (run,) = await world.called(1)
        assert run.agent == "any"

    play(story)


def test_what_needs_a_pending_pod_says_nothing_of_one_that_is_gone() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending", "waits"), entry("probe-failed", "fails"))
        web = await world.well()
        await world.cluster.delete_pod(web)
        await world.after(5)
        silent = world.metric('kagent_hook_events_total{event_type="pod-pending",verdict="pod_gone"}')
        await world.says("FailedMount", 'MountVolume.SetUp failed for volume "data": not found', of=web)
        await world.says(*PROBE, of=web)
        (run,) = await world.called(1)
        assert run.agent == "fails"
        assert world.metric('kagent_hook_events_total{event_type="pod-pending",verdict="pod_gone"}') == silent + 1

    play(story)


def test_events_of_pods_that_may_not_be_read_fire_without_a_selector_and_none_is_kept_waiting() -> None:
    async def story(world: World) -> None:
        world.api.forbid(verb="get", resource="pods")
        await world.begin(entry("probe-failed", "any"), entry("probe-failed", "chosen", selector=SELECTED))
        for number in range(5):
            web = await world.well(f"web-{number}", labels={"app": "web"})
            await world.after(1)
            await world.cluster.delete_pod(web)
            await world.after(1)
            await world.says(*PROBE, of=web)
        runs = await world.called(5)
        assert {run.agent for run in runs} == {"any"}
        await world.after(600)
        assert pod_gets(world) == 5

    play(story)


def test_a_pod_whose_deletion_overtook_the_answer_about_it_is_gone() -> None:
    async def story(world: World) -> None:
        web = await unseen_pod(world, {"app": "web"})
        old = Response(status=200, body=json.dumps(web).encode(), headers={"content-type": "application/json"})
        world.api.fault(lambda call: (call.verb, call.resource) == ("get", "pods"), answer=old, delay_s=2)
        await world.says(*PROBE, of=web)
        await world.after(1)
        world.api.unstall()
        await world.cluster.delete_pod(web)
        await world.after(20)
        await world.says(*PROBE, of=web, name="another")
        await world.after(20)
        assert pod_gets(world) == 2
        assert world.agents.attempts == []

    play(story)
