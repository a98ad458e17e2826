"""What a new Hook, a new entry or an edited one sees of what was there before."""

from typing import Any

from support.objects import Json, crash_looping, entry, hook, rfc3339
from support.world import World, play

from khook.sandbox.api_routes import ApiCall

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
BACK_OFF = ("BackOff", "Back-off restarting failed container app")


def lists_events(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("list", "events")


async def edit(world: World, *entries: Json, **spec: Any) -> None:
    await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": list(entries)} | spec})
    await world.after(10)


async def a_namespace_with_a_past(world: World) -> None:
    """A crash 20 min ago, another 10 min ago; probes failed 20 min and 10 min ago. All of it is there to be listed."""
    await world.begin(entry("pod-pending"))
    webs = [await world.well(f"web-{number}", labels={"app": f"web-{number}"}) for number in range(4)]
    await world.cluster.pod_status(webs[0], crash_looping(now=world.now()))
    await world.says(*PROBE, of=webs[1])
    await world.after(10 * 60)
    await world.cluster.pod_status(webs[2], crash_looping(now=world.now()))
    await world.says(*PROBE, of=webs[3])
    await world.after(10 * 60)


def told(world: World) -> list[tuple[str, str]]:
    return sorted((run.context["eventName"], run.context["resourceName"]) for run in world.agents.runs)


YOUNG = [("pod-restart", "web-2"), ("probe-failed", "web-3")]


def test_a_new_hook_in_an_old_namespace_sees_the_last_15_minutes_once() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        await world.cluster.hook(hook("new", entry("pod-restart"), entry("probe-failed"), namespace="shop"))
        await world.after(60)
        assert told(world) == YOUNG
        assert len(world.agents.attempts) == 2

    play(story)


def test_a_first_hook_sees_the_last_15_minutes_once() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        await world.cluster.delete_hook("shop", "h")
        await world.after(10)
        await world.cluster.hook(hook("new", entry("pod-restart"), entry("probe-failed"), namespace="shop"))
        await world.after(60)
        assert told(world) == YOUNG
        await world.restart()
        await world.after(60)
        assert len(world.agents.attempts) == 2

    play(story)


def test_a_new_entry_sees_the_last_15_minutes_and_the_others_are_not_asked_again() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        await edit(world, entry("pod-pending"), entry("pod-restart"))
        assert told(world) == YOUNG[:1]
        await edit(world, entry("probe-failed"), entry("pod-pending"), entry("pod-restart"))
        assert told(world) == YOUNG
        assert len(world.agents.attempts) == 2

    play(story)


def test_a_widened_selector_sees_the_last_15_minutes() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        await edit(world, entry("pod-restart", selector={"matchLabels": {"app": "other"}}))
        assert told(world) == []
        chosen = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["other", "web-2", "web-0"]}]}
        await edit(world, entry("pod-restart", selector=chosen))
        assert told(world) == YOUNG[:1]

    play(story)


def test_the_look_of_a_new_entry_is_tried_until_the_api_server_answers() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        undo = world.api.refuse(lambda call: call.verb == "list" and call.resource in ("pods", "events"))
        await edit(world, entry("pod-restart"), entry("probe-failed"))
        await world.after(20)
        assert told(world) == []
        undo()
        await world.after(40)
        assert told(world) == YOUNG

    play(story)


def test_an_edited_prompt_a_longer_cooldown_and_another_order_fire_nothing_again() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), entry("probe-failed"))
        web = await world.well()
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.says(*PROBE, of=web)
        await world.called(2)
        other = {"prompt": "Look into {{.ResourceName}}.", "cooldown": "20m"}
        await edit(world, entry("probe-failed", **other), entry("pod-restart", **other))
        await edit(world, entry("pod-restart", **other), entry("probe-failed", **other))
        await world.after(60)
        assert len(world.agents.attempts) == 2
        assert len(await world.rows()) == 2
        await world.after(20 * 60)
        await world.says(*BACK_OFF, of=web)
        assert (await world.called(3))[2].prompt.startswith("Look into web-1.")

    play(story)


def test_a_call_that_was_not_sent_goes_with_its_entry() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), entry("probe-failed"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(0.5)
        await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": [entry("probe-failed")]}})
        await world.after(10)
        assert world.agents.attempts == []
        assert await world.rows() == []

    play(story)


def test_a_listed_signal_that_last_happened_16_minutes_ago_is_history_and_14_minutes_ago_is_told() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        old, young = await world.well("old"), await world.well("young")
        first = await world.says(*PROBE, of=old)
        await world.after(2 * 60)
        await world.says(*PROBE, of=young)
        await world.after(14 * 60)
        await world.cluster.hook(hook("h", entry("probe-failed"), namespace="shop"))
        await world.start()
        (run,) = await world.called(1)
        assert run.context["resourceName"] == "young"
        # The same Event, patched: its creation is as old as before, and it has happened now.
        await world.cluster.repeat_event(first, count=2, time=rfc3339(world.now()))
        await world.called(2)

    play(story)


def test_edits_during_a_second_look_share_the_next_one() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        undo = world.api.refuse(lists_events)
        before = world.api.requests["list", "pods"]
        for number in range(5):
            agents = [f"agent-{one}" for one in range(number + 1)]
            await edit(world, *[entry("probe-failed", agent) for agent in agents])
        undo()
        await world.after(60)
        assert sorted(run.agent for run in world.agents.runs) == agents
        assert world.api.requests["list", "pods"] - before == 2

    play(story)


def test_nothing_is_looked_at_for_a_hook_that_is_gone() -> None:
    async def story(world: World) -> None:
        await a_namespace_with_a_past(world)
        undo = world.api.refuse(lists_events)
        await world.cluster.hook(hook("new", entry("probe-failed"), namespace="shop"))
        await world.after(20)
        await world.cluster.delete_hook("shop", "new")
        await world.after(40)
        asked = world.api.requests["list", "events"]
        undo()
        await world.after(60)
        assert world.api.requests["list", "events"] == asked
        assert world.agents.attempts == []

    play(story)
