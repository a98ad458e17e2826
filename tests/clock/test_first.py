from support.cluster import rows
from support.objects import crash_looping, entry, event, hook, pod, running
from support.world import World, play


def test_one_event_becomes_one_call() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        await world.cluster.hook(hook("h", entry("pod-restart"), namespace="shop"))
        await world.start()
        web = await world.cluster.pod(pod("web-1", namespace="shop"), running(now=world.now()))
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=world.now()))
        runs = await world.called(1)
        assert runs[0].prompt == "pod-restart of web-1 in shop: BackOff: Back-off restarting failed container app"
        row = rows(await world.cluster.get_hook("shop", "h"))[0]
        assert row["call"]["state"] == "Completed"

    play(story)
