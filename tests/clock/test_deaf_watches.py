"""No silent deafness: a namespace without a live watch makes khook not ready, and only for as long as that lasts."""

from collections.abc import Callable

from support.objects import crash_looping, entry, hook, pod, running, scheduled
from support.world import World, play

from khook.sandbox.api_routes import ApiCall


def watches(resource: str) -> Callable[[ApiCall], bool]:
    return lambda call: call.verb == "watch" and call.resource == resource


async def not_ready_after(world: World) -> float:
    """Seconds from now until `/readyz` would say no."""
    since = world.now()
    await world.until(lambda: not world.is_ready())
    return (world.now() - since).total_seconds()


def test_a_pods_watch_that_stalls_and_cannot_reconnect_is_not_ready_90_s_after_its_last_line() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await world.well()
        world.api.stall(watches("pods"))
        undo = world.api.refuse(lambda call: call.resource == "pods")
        assert 88 <= await not_ready_after(world) <= 92
        assert world.supervisor.ready()[1]["deafCount"] == 1
        await world.after(120)
        assert not world.is_ready()
        undo()
        world.api.unstall()
        await world.until(world.is_ready)

    play(story)


def test_an_events_watch_that_cannot_be_opened_is_not_ready_90_s_after_it_was_last_open() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        undo = world.api.refuse(watches("events"))
        world.api.cut_connections(watches("events"))
        assert 88 <= await not_ready_after(world) <= 92
        undo()
        await world.until(world.is_ready)

    play(story)


def test_an_events_watch_that_could_never_be_opened_counts_from_the_start_of_its_namespace() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        undo = world.api.refuse(lambda call: call.resource == "events" and call.namespace == "late")
        await world.cluster.namespace("late")
        await world.cluster.hook(hook("h", entry("pod-restart"), namespace="late"))
        assert 88 <= await not_ready_after(world) <= 92
        undo()
        await world.until(world.is_ready)

    play(story)


def test_a_watch_on_hooks_that_stalls_and_cannot_reconnect_is_not_ready_90_s_after_its_last_line() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        world.api.stall(watches("hooks"))
        undo = world.api.refuse(watches("hooks"))
        assert 88 <= await not_ready_after(world) <= 92
        undo()
        world.api.unstall()
        await world.until(world.is_ready)

    play(story)


def test_what_happened_while_deaf_is_told_afterwards() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        world.api.stall(watches("pods"))
        undo = world.api.refuse(lambda call: call.resource == "pods")
        await not_ready_after(world)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        undo()
        world.api.unstall()
        await world.until(world.is_ready)
        await world.called(1)

    play(story)


def test_quiet_namespaces_stay_ready() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        for _ in range(60):
            await world.after(20)
            assert world.is_ready(), world.supervisor.ready()

    play(story)


async def condition(world: World, namespace: str) -> tuple[str, str]:
    found = await world.ready_condition(namespace)
    return found["status"], found["reason"]


async def two_namespaces(world: World) -> None:
    await world.cluster.namespace("other")
    await world.cluster.hook(hook("h", entry("pod-restart"), namespace="other"))
    await world.begin(entry("pod-restart"))


def forget_watches(world: World, namespace: str) -> None:
    world.api.cut_connections(lambda call: call.namespace == namespace)


def test_a_forbidden_namespace_is_reported_on_its_hooks_and_not_counted() -> None:
    async def story(world: World) -> None:
        await two_namespaces(world)
        world.api.forbid(verb="watch", resource="events", namespace="other")
        forget_watches(world, "other")
        await world.after(200)
        ready, body = world.supervisor.ready()
        assert ready
        assert body["forbidden"] == ["other"]
        assert await condition(world, "other") == ("False", "WatchForbidden")
        assert await condition(world, "shop") == ("True", "HookConfigured")
        assert world.metric('kagent_hook_watch_forbidden{resource="events"}') == 1
        world.api.allow_all()
        await world.after(40)
        assert await condition(world, "other") == ("True", "HookConfigured")
        assert world.supervisor.ready()[1]["forbidden"] == []
        assert world.metric('kagent_hook_watch_forbidden{resource="events"}') == 0

    play(story, environ={"KHOOK_WORKERS": "1"})


def test_a_namespace_that_was_forbidden_from_the_start_says_so_on_its_hooks() -> None:
    async def story(world: World) -> None:
        world.api.forbid(resource="pods", namespace="other")
        await two_namespaces(world)
        await world.after(5)
        assert world.is_ready()
        assert await condition(world, "other") == ("False", "WatchForbidden")
        world.api.allow_all()
        await world.after(40)
        assert await condition(world, "other") == ("True", "HookConfigured")

    play(story)


def test_when_every_namespace_is_forbidden_khook_is_not_ready() -> None:
    async def story(world: World) -> None:
        await two_namespaces(world)
        for namespace in ("shop", "other"):
            world.api.forbid(resource="pods", namespace=namespace)
            forget_watches(world, namespace)
        await world.until(lambda: not world.is_ready())
        assert world.supervisor.ready()[1]["reasons"] == ["every namespace is forbidden (RBAC)"]
        world.api.allow_all()
        await world.until(world.is_ready)

    play(story)


def test_a_pod_that_started_well_while_nobody_watched_was_never_stuck() -> None:
    """A watch that goes on shows its past first: Pending, created long ago, and only then that it runs."""

    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        world.api.stall(watches("pods"))
        undo = world.api.refuse(watches("pods"))
        world.api.cut_connections(watches("pods"))
        await world.well()
        await world.after(75)
        undo()
        world.api.unstall()
        await world.until(world.is_ready)
        await world.after(60)
        assert world.agents.attempts == []

    play(story)


def test_a_pod_that_got_well_while_nobody_watched_does_not_become_stuck_meanwhile() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        web = await world.cluster.pod(pod("web-1", namespace="shop"), scheduled(now=world.now()))
        await world.after(10)
        undo = world.api.refuse(watches("pods"))
        world.api.cut_connections(watches("pods"))
        await world.after(10)
        await world.cluster.pod_status(web, running(now=world.now()))
        await world.after(80)
        assert world.agents.attempts == []
        undo()
        await world.after(120)
        assert world.agents.attempts == []

    play(story)


def test_a_pod_that_is_still_stuck_when_the_watch_is_back_is_told_then() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        await world.cluster.pod(pod("web-1", namespace="shop"), scheduled(now=world.now()))
        await world.after(10)
        undo = world.api.refuse(watches("pods"))
        world.api.cut_connections(watches("pods"))
        await world.after(100)
        undo()
        (run,) = await world.called(1)
        assert run.context["eventName"] == "pod-pending"

    play(story)
