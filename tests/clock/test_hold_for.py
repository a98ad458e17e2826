"""`holdFor`: what passes by itself in time calls nobody, what lasts is called once, whatever crashes meanwhile."""

from datetime import timedelta

import pytest
from support.objects import Json, crash_looping, entry, event, hook, pod, rfc3339, running, scheduled, unschedulable
from support.world import World, play

from khook.sandbox.api_routes import ApiCall

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
PENDING = entry("pod-pending", holdFor="2m")
PROBED = entry("probe-failed", holdFor="2m")
HELD = 'kagent_hook_events_total{event_type="pod-pending",verdict="held"}'


async def pending(world: World, name: str = "web-1", owner: Json | None = None) -> Json:
    made = pod(name, namespace="shop", owner=owner)
    return await world.cluster.pod(made, unschedulable(now=world.now()))


def told_of_pods(call: ApiCall) -> bool:
    return call.resource == "pods" and call.verb in ("watch", "list")


async def not_ready(world: World, one: Json) -> None:
    await world.cluster.pod_status(one, running(now=world.now(), ready=False))


def test_a_pending_pod_that_is_ready_after_90_seconds_calls_nobody() -> None:
    async def story(world: World) -> None:
        held = world.metric(HELD)
        await world.begin(PENDING)
        one = await pending(world)
        await world.after(90)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(10 * 60)
        assert not world.agents.attempts
        assert await world.rows() == []
        assert world.metric(HELD) == held + 1

    play(story)


def test_a_pending_pod_that_stays_so_is_called_when_the_time_is_over() -> None:
    async def story(world: World) -> None:
        await world.begin(PENDING)
        await pending(world)
        since = world.now()
        (run,) = await world.called(1)
        assert (run.time - since).total_seconds() == pytest.approx(120, abs=2)
        await world.after(30 * 60)
        await world.called(1)

    play(story)


def test_a_pod_that_waits_for_its_init_container_is_not_pending_for_good() -> None:
    async def story(world: World) -> None:
        await world.begin(PENDING)
        one = await world.cluster.pod(pod("web-1", namespace="shop"), scheduled(now=world.now()))
        await world.after(70)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(10 * 60)
        assert not world.agents.attempts

    play(story)


def test_a_probe_that_fails_while_a_pod_warms_up_calls_nobody() -> None:
    async def story(world: World) -> None:
        await world.begin(PROBED)
        one = await world.well()
        await not_ready(world, one)
        for _ in range(8):
            await world.says(*PROBE, of=one)
            await world.after(10)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(10 * 60)
        assert not world.agents.attempts

    play(story)


def test_a_probe_that_fails_on_and_on_is_called_once_with_its_newest_words() -> None:
    async def story(world: World) -> None:
        await world.begin(PROBED)
        one = await world.well()
        await world.says(*PROBE, of=one)
        since = world.now()
        await world.after(20)
        await not_ready(world, one)
        for _ in range(11):
            await world.after(10)
            await world.says("Unhealthy", "Readiness probe failed: connection refused", of=one)
        (run,) = await world.called(1)
        assert (run.time - since).total_seconds() == pytest.approx(120, abs=2)
        assert "connection refused" in run.prompt

    play(story)


def test_a_pod_that_recovers_in_between_begins_anew() -> None:
    async def story(world: World) -> None:
        await world.begin(PROBED)
        one = await world.well()
        for _ in range(4):
            await not_ready(world, one)
            await world.says(*PROBE, of=one)
            await world.after(100)
            await world.cluster.pod_status(one, running(now=world.now()))
            await world.after(15)
        assert not world.agents.attempts

    play(story)


@pytest.mark.parametrize("name", ["probe-failed", "pod-pending"])
def test_a_crash_neither_forgets_what_is_held_nor_begins_it_anew(name: str) -> None:
    async def story(world: World) -> None:
        await world.begin(PROBED, PENDING)
        if name == "pod-pending":
            await pending(world)
        else:
            one = await world.well()
            await not_ready(world, one)
            await world.says(*PROBE, of=one)
        since = world.now()
        for _ in range(3):
            await world.after(30)
            world.kill_worker("shop")
        (run,) = await world.called(1)
        assert (run.time - since).total_seconds() == pytest.approx(120, abs=2)

    play(story)


def test_an_old_event_that_a_list_shows_is_held_from_when_its_pod_became_not_ready() -> None:
    """A probe that has failed now and then for an hour, and a pod that is not Ready since a minute ago."""

    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        one = await world.well()
        hour_ago = rfc3339(world.now())
        await world.after(59 * 60)
        since = world.now()
        await not_ready(world, one)
        await world.after(60)
        said = event(*PROBE, of=one, now=world.now(), count=40) | {"firstTimestamp": hour_ago}
        await world.cluster.event(said)
        await world.cluster.hook(hook("h", PROBED, namespace="shop"))
        await world.start()
        (run,) = await world.called(1)
        assert (run.time - since).total_seconds() == pytest.approx(120, abs=3)

    play(story)


@pytest.mark.parametrize("killed_when", ["well", "unwell again"])
def test_an_event_of_trouble_that_passed_does_not_shorten_the_next_hold(killed_when: str) -> None:
    """Nobody saw the recovery: who has the namespace now lists an Event that is older than the pod's trouble."""

    async def story(world: World) -> None:
        await world.begin(PROBED)
        one = await world.well()
        await not_ready(world, one)
        await world.says(*PROBE, of=one)
        await world.after(60)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(30)
        if killed_when == "well":
            world.kill_worker("shop")
        await world.after(30)
        await not_ready(world, one)
        since = world.now()
        await world.says(*PROBE, of=one)
        await world.after(10)
        if killed_when == "unwell again":
            world.kill_worker("shop")
        (run,) = await world.called(1)
        assert (run.time - since).total_seconds() == pytest.approx(120, abs=3)

    play(story)


def test_what_is_held_goes_with_its_pod_and_with_its_entry() -> None:
    async def story(world: World) -> None:
        await world.begin(PENDING)
        one = await pending(world)
        await pending(world, "web-2")
        await world.after(60)
        await world.cluster.delete_pod(one)
        await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": [PROBED]}})
        await world.after(10 * 60)
        assert not world.agents.attempts

    play(story)


def test_entries_with_and_without_a_hold_go_their_own_ways() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending", agent="at-once"), entry("pod-pending", agent="later", holdFor="5m"))
        await pending(world)
        await world.after(30)
        assert [run.agent for run in world.agents.runs] == ["at-once"]
        await world.after(5 * 60)
        assert [run.agent for run in world.agents.runs] == ["at-once", "later"]

    play(story)


def test_pods_of_one_owner_that_stay_pending_are_one_call() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending", holdFor="1m", groupBy="Owner"))
        owner = await world.deployment()
        pods = [await pending(world, f"web-{number}", owner) for number in range(6)]
        await world.after(30)
        for one in pods[:3]:
            await world.cluster.pod_status(one, running(now=world.now()))
        (run,) = await world.called(1)
        assert [f"web-{number}" for number in range(6) if f"web-{number}" in run.prompt] == ["web-3", "web-4", "web-5"]

    play(story)


def test_nothing_is_let_go_while_nobody_tells_of_the_pods() -> None:
    async def story(world: World) -> None:
        await world.begin(PENDING)
        one = await pending(world)
        await world.after(60)
        undo = world.api.refuse(told_of_pods)
        world.api.cut_connections(told_of_pods)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(5 * 60)
        undo()
        await world.after(5 * 60)
        assert not world.agents.attempts

    play(story)


def test_an_event_that_overtakes_the_line_of_a_recovery_is_trouble_of_its_own() -> None:
    """Nobody tells of the pods: one recovers and fails again, and only its Events come."""

    async def story(world: World) -> None:
        await world.begin(PROBED)
        one = await world.well()
        await not_ready(world, one)
        await world.says(*PROBE, of=one)
        await world.after(30)
        undo = world.api.refuse(told_of_pods)
        world.api.cut_connections(told_of_pods)
        await world.cluster.pod_status(one, running(now=world.now()))
        await world.after(5)
        await not_ready(world, one)
        await world.says(*PROBE, of=one)
        since = world.now()
        await world.after(10)
        undo()
        (run,) = await world.called(1)
        assert 118 <= (run.time - since).total_seconds() <= 125

    play(story)


def test_a_restart_is_never_held() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"), PENDING)
        one = await world.well()
        await world.cluster.pod_status(one, crash_looping(now=world.now()))
        await world.until(lambda: len(world.agents.runs) == 1, within=timedelta(seconds=5))

    play(story)
