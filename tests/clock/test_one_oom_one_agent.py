"""Pod status and Events tell of one thing twice: the best text is taken, and an OOM kill has one agent."""

import pytest
from support.objects import Json, crash_looping, entry, restarted
from support.world import World, play

from khook.core.prompt import instructions

BACK_OFF = ("BackOff", "Back-off restarting failed container app in pod web-1_shop(uid)")
BOTH = (entry("pod-restart", "restarts"), entry("oom-kill", "kills"))


def oom_killed(world: World, *, restarts: int = 1) -> Json:
    """In CrashLoopBackOff after an OOM kill just now."""
    return crash_looping(now=world.now(), reason="OOMKilled", exit_code=137, restarts=restarts)


async def with_both_entries(world: World) -> Json:
    await world.begin(*BOTH)
    web = await world.well()
    await world.after(5)
    return web


def test_a_restart_seen_in_pod_status_waits_for_the_events_text() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(1.5)
        assert world.agents.attempts == []
        await world.says(*BACK_OFF, of=web)
        (run,) = await world.called(1)
        assert run.context["eventMessage"] == BACK_OFF[1]
        assert instructions(run.prompt).endswith(f"BackOff: {BACK_OFF[1]}")

    play(story)


def test_a_restart_without_any_event_is_told_after_two_seconds_in_the_pods_own_words() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, restarted(now=world.now()))
        happened = world.now()
        (run,) = await world.called(1)
        assert 2 <= (run.time - happened).total_seconds() < 2.2
        assert run.context["eventMessage"].startswith("Container app has restarted, restart count 1: last ended with")

    play(story)


def test_an_events_text_is_told_at_once() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.says(*BACK_OFF, of=web)
        happened = world.now()
        (run,) = await world.called(1)
        assert (run.time - happened).total_seconds() < 0.1

    play(story)


def test_an_oom_kill_is_told_at_once_for_no_event_will_say_it_better() -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        happened = world.now()
        await world.cluster.pod_status(web, oom_killed(world))
        (run,) = await world.called(1)
        assert (run.time - happened).total_seconds() < 0.5

    play(story)


def test_an_oom_kill_told_by_the_pod_first_calls_the_oom_kill_agent_alone() -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        for restarts in range(1, 4):
            await world.cluster.pod_status(web, oom_killed(world, restarts=restarts))
            await world.after(0.5)
            await world.says(*BACK_OFF, of=web)
            await world.after(20)
        (run,) = await world.called(1)
        assert run.agent == "kills"
        assert run.context["eventMessage"].startswith("Container app was OOM killed: memory limit 64Mi")
        assert [row["eventType"] for row in await world.rows()] == ["oom-kill"]

    play(story)


@pytest.mark.parametrize("lead_s", [0.1, 1.0, 1.9])
def test_an_oom_kill_told_by_an_event_up_to_two_seconds_before_the_pod_calls_the_oom_kill_agent_alone(
    lead_s: float,
) -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        await world.says(*BACK_OFF, of=web)
        await world.after(lead_s)
        await world.cluster.pod_status(web, oom_killed(world))
        (run,) = await world.called(1)
        assert run.agent == "kills"

    play(story)


def test_an_oom_kill_while_pods_cannot_be_watched_calls_the_oom_kill_agent_alone() -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        undo = world.api.refuse(lambda call: call.resource == "pods" and call.verb in ("list", "watch"))
        world.api.cut_connections(lambda call: call.resource == "pods")
        await world.cluster.pod_status(web, oom_killed(world))
        await world.says(*BACK_OFF, of=web)
        (run,) = await world.called(1)
        assert run.agent == "kills"
        undo()
        await world.after(60)
        assert len(world.agents.runs) == 1

    play(story)


def test_the_liveness_kill_of_a_container_is_a_restart_although_both_entries_are_there() -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        await world.says("Killing", "Container app failed liveness probe, will be restarted", of=web, type="Normal")
        (run,) = await world.called(1)
        assert run.agent == "restarts"

    play(story)


@pytest.mark.parametrize("pod_first", [True, False])
def test_a_restart_without_oom_calls_the_restart_agent_although_both_entries_are_there(pod_first: bool) -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        status = crash_looping(now=world.now(), exit_code=137, reason="Error")
        if pod_first:
            await world.cluster.pod_status(web, status)
        await world.says(*BACK_OFF, of=web)
        await world.after(0.3)
        if not pod_first:
            await world.cluster.pod_status(web, status)
        (run,) = await world.called(1)
        assert run.agent == "restarts"

    play(story)


def test_an_oom_kill_after_a_plain_crash_and_a_plain_crash_after_an_oom_kill_have_an_agent_each() -> None:
    async def story(world: World) -> None:
        web = await with_both_entries(world)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.says(*BACK_OFF, of=web)
        assert [run.agent for run in await world.called(1)] == ["restarts"]
        await world.after(10)
        await world.cluster.pod_status(web, restarted(now=world.now(), restarts=1))
        await world.after(10)
        await world.cluster.pod_status(web, oom_killed(world, restarts=2))
        await world.says(*BACK_OFF, of=web)
        assert [run.agent for run in await world.called(2)] == ["restarts", "kills"]

    play(story)


def test_where_the_oom_kill_entry_selects_other_pods_the_restart_entry_has_it() -> None:
    async def story(world: World) -> None:
        elsewhere = {"matchLabels": {"app": "database"}}
        await world.begin(entry("pod-restart", "restarts"), entry("oom-kill", "kills", selector=elsewhere))
        web = await world.well(labels={"app": "web"})
        await world.after(5)
        await world.cluster.pod_status(web, oom_killed(world))
        await world.says(*BACK_OFF, of=web)
        (run,) = await world.called(1)
        assert run.agent == "restarts"

    play(story)
