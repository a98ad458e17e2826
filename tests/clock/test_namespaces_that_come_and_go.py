"""Namespaces gain their first Hook and lose their last one, often in a burst: who owns them follows."""

from support.objects import entry, hook
from support.world import World, play

BACK_OFF = ("BackOff", "Back-off restarting failed container app in pod web-1_shop(uid)")


def test_a_hook_that_is_deleted_and_made_again_in_one_moment_is_a_new_hook() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart", "old"))
        web = await world.well()
        await world.after(5)
        await world.cluster.delete_hook("shop", "h")
        await world.cluster.hook(hook("h", entry("pod-restart", "new"), namespace="shop"))
        await world.after(5)
        await world.says(*BACK_OFF, of=web)
        (run,) = await world.called(1)
        assert run.agent == "new"

    play(story)


def test_a_burst_of_new_namespaces_is_owned_within_a_moment() -> None:
    async def story(world: World) -> None:
        await world.start()
        names = [f"team-{number}" for number in range(50)]
        for name in names:
            await world.cluster.namespace(name)
            await world.cluster.hook(hook("h", entry("pod-restart"), namespace=name))
        await world.after(1)
        assert {world.owner(name) for name in names} == {"w0", "w1"}
        for name in names:
            await world.cluster.delete_hook(name, "h")
        await world.after(1)
        assert {world.owner(name) for name in names} == {None}

    play(story)


def test_the_leader_its_slots_and_deaf_namespaces_are_counted() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await world.after(2)
        assert world.metric('kagent_hook_role{role="leader"}') == 1.0
        assert world.metric('kagent_hook_role{role="standby"}') == 0.0
        assert world.metric('kagent_hook_slots{state="running"}') == 2.0
        assert world.metric('kagent_hook_namespaces{state="live"}') == 1.0
        world.api.fault(lambda call: call.resource == "pods", delay_s=3600, times=None)
        world.api.end_watches()
        await world.after(200)
        assert world.metric('kagent_hook_namespaces{state="live"}') == 0.0
        assert world.metric('kagent_hook_namespaces{state="deaf"}') == 1.0

    play(story)
