"""An API server that is away, compacts, ends watches or takes other credentials: nothing lost, nothing repeated."""

from collections.abc import Iterable

from support.objects import Json, crash_looping, entry, hook
from support.world import API, World, play

from khook.errors import SettingsError
from khook.kube.credentials import Credentials

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
BACK_OFF = ("BackOff", "Back-off restarting failed container app")


async def pods(world: World, numbers: Iterable[int]) -> list[Json]:
    return [await world.well(f"web-{number}") for number in numbers]


def told(world: World) -> list[str]:
    """The pods that agents were called about, each as often as it was."""
    return sorted(run.context["resourceName"] for run in world.agents.runs)


def names(webs: list[Json]) -> list[str]:
    return sorted(web["metadata"]["name"] for web in webs)


def test_a_rotated_token_costs_no_signal() -> None:
    async def story(world: World) -> None:
        world.api.tokens = frozenset({"first", "test"})
        world.http.headers["authorization"] = "Bearer test"
        world.credentials = Credentials(server=API, token="first")
        world.supervisor = world._new_supervisor()
        await world.begin(entry("probe-failed"))
        webs = await pods(world, range(6))
        await world.says(*PROBE, of=webs[0])
        await world.called(1)

        world.credentials = Credentials(server=API, token="second")
        world.api.tokens = frozenset({"second", "test"})
        await world.says(*PROBE, of=webs[1])  # its claim meets the 401
        await world.after(20)
        world.api.end_watches()
        for web in webs[2:]:
            await world.says(*PROBE, of=web)
            await world.after(5)
        await world.called(6)
        assert told(world) == names(webs)
        # One 401 was enough: what is loaded after it goes to everybody.
        assert sum(count for (_, _, code), count in world.api.answers.items() if code == 401) == 1
        assert world.is_ready()

    play(story)


def test_credentials_that_could_not_be_read_once_are_read_again_at_the_next_401() -> None:
    async def story(world: World) -> None:
        world.api.tokens = frozenset({"first", "test"})
        world.http.headers["authorization"] = "Bearer test"
        world.credentials = Credentials(server=API, token="first")
        world.supervisor = world._new_supervisor()
        await world.begin(entry("probe-failed"))
        (web,) = await pods(world, [1])
        world.api.tokens = frozenset({"second", "test"})
        world.credentials = SettingsError(["KUBECONFIG: half written"])
        world.api.cut_connections()
        await world.after(20)
        world.credentials = Credentials(server=API, token="second")
        await world.says(*PROBE, of=web)
        await world.called(1)
        assert world.restarts() == 0

    play(story)


def test_while_no_credentials_are_taken_khook_waits_and_then_tells_what_happened() -> None:
    async def story(world: World) -> None:
        world.api.tokens = frozenset({"first", "test"})
        world.http.headers["authorization"] = "Bearer test"
        world.credentials = Credentials(server=API, token="first")
        world.supervisor = world._new_supervisor()
        await world.begin(entry("probe-failed"))
        webs = await pods(world, range(3))
        world.api.tokens = frozenset({"second", "test"})
        world.api.cut_connections()
        for web in webs:
            await world.says(*PROBE, of=web)
        await world.after(120)
        assert world.agents.attempts == []
        assert not world.is_ready()
        world.credentials = Credentials(server=API, token="second")
        await world.until(world.is_ready)
        await world.called(3)
        assert told(world) == names(webs)

    play(story)


def test_an_api_server_that_is_away_for_30_s_loses_and_repeats_nothing() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"), entry("pod-restart"))
        webs = await pods(world, range(8))
        for web in webs[:2]:
            await world.says(*PROBE, of=web)
        await world.cluster.pod_status(webs[2], crash_looping(now=world.now()))
        await world.called(3)
        await world.says(*PROBE, of=webs[3])  # its call is under way when the server goes
        world.api.stop()
        await world.after(30)
        world.api.start()
        await world.says(*PROBE, of=webs[4])
        await world.cluster.pod_status(webs[5], crash_looping(now=world.now()))
        await world.after(60)
        for web in webs[6:]:
            await world.says(*PROBE, of=web)
        await world.called(8)
        assert told(world) == names(webs)
        assert len(world.agents.attempts) == 8
        assert world.is_ready()

    play(story)


def test_an_api_server_that_is_away_for_ten_minutes_finds_everything_again_within_40_s() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        webs = await pods(world, range(2))
        await world.says(*PROBE, of=webs[0])
        await world.called(1)
        world.api.stop()
        await world.after(600)
        assert not world.is_ready()
        world.api.start()
        await world.says(*PROBE, of=webs[1])
        since = world.now()
        await world.until(lambda: len(world.agents.runs) == 2)
        assert (world.now() - since).total_seconds() <= 40
        await world.until(world.is_ready)

    play(story)


def gone_answers(world: World, resource: str) -> int:
    return world.api.answers["watch", resource, 410]


def test_compactions_under_ended_watches_lose_and_repeat_nothing() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("quiet")
        await world.cluster.hook(hook("h", entry("probe-failed"), namespace="quiet"))
        await world.begin(entry("probe-failed"), entry("pod-restart"))
        webs = await pods(world, range(30))
        for number, web in enumerate(webs):
            if number % 2:
                await world.says(*PROBE, of=web)
            else:
                await world.cluster.pod_status(web, crash_looping(now=world.now()))
            if number % 3 == 0:
                world.store.compact()
                world.store.restart_caches()
                world.api.cut_connections()
            await world.after(7)
        await world.after(60)
        assert told(world) == names(webs)
        assert len(world.agents.attempts) == 30
        for resource in ("pods", "events", "hooks"):
            assert gone_answers(world, resource) >= 5
        assert world.is_ready()

    play(story)


def test_watches_that_end_every_ten_seconds_lose_and_repeat_nothing_and_list_nothing_again() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"), entry("pod-restart"))
        lists = {name: world.api.requests["list", name] for name in ("pods", "events")}
        webs = await pods(world, range(30))
        ended = 0
        for number, web in enumerate(webs):
            ended += world.api.end_watches()
            if number % 2:
                await world.says(*PROBE, of=web)
            else:
                await world.cluster.pod_status(web, crash_looping(now=world.now()))
            await world.after(10)
        await world.after(10)
        assert told(world) == names(webs)
        assert len(world.agents.attempts) == 30
        assert ended >= 80
        assert {name: world.api.requests["list", name] for name in ("pods", "events")} == lists

    play(story)


def test_a_pod_deleted_while_its_namespace_could_not_be_watched_is_gone() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.called(1)
        undo = world.api.refuse(lambda call: call.resource == "pods" and call.verb in ("list", "watch"))
        world.api.cut_connections(lambda call: call.resource == "pods")
        await world.cluster.delete_pod(web)
        world.store.restart_caches()  # the watch cannot go on: 410, and a new list
        undo()
        await world.after(130)
        (row,) = await world.rows()
        assert row["status"] == "resolved"

    play(story)


def test_edits_made_while_hooks_could_not_be_watched_are_followed() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        undo = world.api.refuse(lambda call: call.resource == "hooks" and call.namespace is None)
        world.api.cut_connections(lambda call: call.resource == "hooks")
        await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": [entry("probe-failed")]}})
        world.store.restart_caches()
        await world.after(20)
        undo()
        await world.after(40)
        await world.says(*BACK_OFF, of=web)
        await world.says(*PROBE, of=web)
        (run,) = await world.called(1)
        assert run.context["eventName"] == "probe-failed"

    play(story)
