"""The life of an incident over minutes: resolved, fired again, suspended, stuck, forgotten."""

import pytest
from support.objects import Json, crash_looping, entry, pod, rfc3339, running, terminated, unschedulable
from support.world import World, play

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
MINUTE_S = 60


async def one_call(world: World, *entries: Json) -> Json:
    """A pod whose readiness probe failed, and the call about it."""
    await world.begin(*(entries or (entry("probe-failed"),)))
    web = await world.well()
    await world.says(*PROBE, of=web)
    await world.called(1)
    return web


async def status(world: World) -> str:
    (row,) = await world.rows()
    found: str = row["status"]
    return found


def test_an_incident_of_a_ready_pod_is_resolved_after_two_quiet_minutes_and_says_so() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(110)
        assert await status(world) == "firing"
        await world.after(15)
        (row,) = await world.rows()
        assert row["status"] == "resolved"
        assert "resolvedTime" in row
        (said,) = await world.audit("IncidentResolved")
        assert "web-1" in said["message"]

    play(story)


def test_an_incident_of_a_pod_that_is_not_ready_stays_open_however_quiet() -> None:
    async def story(world: World) -> None:
        web = await one_call(world)
        await world.cluster.pod_status(web, running(now=world.now(), ready=False))
        await world.after(30 * MINUTE_S)
        assert await status(world) == "firing"
        await world.cluster.pod_status(web, running(now=world.now()))
        await world.after(5)
        assert await status(world) == "resolved"

    play(story)


def test_an_incident_of_a_deleted_pod_is_resolved() -> None:
    async def story(world: World) -> None:
        web = await one_call(world)
        await world.cluster.pod_status(web, running(now=world.now(), ready=False))
        await world.cluster.delete_pod(web)
        await world.after(125)
        assert await status(world) == "resolved"

    play(story)


def test_a_resolved_incident_fires_again_without_a_call_inside_its_window() -> None:
    async def story(world: World) -> None:
        web = await one_call(world)
        await world.after(150)
        assert await status(world) == "resolved"
        await world.says(*PROBE, of=web)
        await world.after(5)
        (row,) = await world.rows()
        assert row["status"] == "firing"
        assert "resolvedTime" not in row
        assert len(world.agents.attempts) == 1
        await world.after(500)
        await world.says(*PROBE, of=web)
        await world.called(2)

    play(story)


def test_a_row_is_gone_once_nothing_can_need_it() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.after(16 * MINUTE_S)
        assert await status(world) == "resolved"
        await world.after(3 * MINUTE_S)
        assert await world.rows() == []

    play(story)


def test_the_rows_of_a_restarted_khook_resolve_and_expire_too() -> None:
    async def story(world: World) -> None:
        await one_call(world)
        await world.restart()
        await world.after(125)
        assert await status(world) == "resolved"
        await world.after(17 * MINUTE_S)
        assert await world.rows() == []

    play(story)


async def suspend(world: World, *, to: bool) -> None:
    await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": to}})
    await world.after(2)


def test_a_suspended_hook_goes_on_with_its_rows_and_calls_nobody() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"), suspend=True)
        web = await world.well()
        for number in range(5):
            await world.says(*PROBE, of=web, name=f"probe-{number}")
            await world.after(5)
        (row,) = await world.rows()
        assert (row["status"], row["count"]) == ("firing", 5)
        assert (row["call"]["state"], row["call"]["reason"]) == ("Pending", "Suspended")
        assert world.agents.attempts == []
        assert "suspended" in (await world.ready_condition())["message"]

        await suspend(world, to=False)
        await world.after(30)
        assert world.agents.attempts == []
        await world.says(*PROBE, of=web)
        await world.called(1)

    play(story)


def test_a_hook_suspended_while_its_call_waits_for_text_does_not_send_it() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.after(5)
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(0.5)
        await suspend(world, to=True)
        await world.after(30)
        assert world.agents.attempts == []
        assert (await world.call())["reason"] == "Suspended"

    play(story)


def test_a_state_that_lasts_is_told_when_its_hook_is_no_longer_suspended() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"), suspend=True)
        await world.cluster.pod(pod("big-1", namespace="shop"), unschedulable(now=world.now()))
        await world.after(30 * MINUTE_S)
        assert world.agents.attempts == []
        await suspend(world, to=False)
        (run,) = await world.called(1)
        assert "3 Insufficient cpu" in run.context["eventMessage"]

    play(story)


def test_a_state_that_lasts_is_told_after_a_restart_that_found_its_hook_unsuspended() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"), suspend=True)
        await world.cluster.pod(pod("big-1", namespace="shop"), unschedulable(now=world.now()))
        await world.after(60)
        await world.stop()
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": False}})
        await world.restart()
        await world.called(1)

    play(story)


def test_a_state_that_lasts_is_told_again_one_cooldown_after_a_call_that_nobody_took() -> None:
    async def story(world: World) -> None:
        world.agents.change_key("another-key")
        await world.begin(entry("pod-pending", cooldown="5m"))
        await world.cluster.pod(pod("big-1", namespace="shop"), unschedulable(now=world.now()))
        await world.after(60)
        assert (await world.call())["state"] == "Failed"
        world.agents.change_key("a-key-nobody-may-see")
        await world.after(230)
        assert world.agents.runs == []
        await world.after(20)
        await world.called(1)
        await world.after(20 * MINUTE_S)
        assert len(world.agents.runs) == 1

    play(story, environ={"KHOOK_REDELIVER_FOR": "0s"})


def test_a_state_that_lasts_while_its_call_is_parked_is_told_once() -> None:
    async def story(world: World) -> None:
        world.agents.change_key("another-key")
        await world.begin(entry("pod-pending", cooldown="1m"))
        await world.cluster.pod(pod("big-1", namespace="shop"), unschedulable(now=world.now()))
        await world.after(4 * MINUTE_S)
        assert [attempt.end for attempt in world.agents.attempts] == ["401"]
        world.agents.change_key("a-key-nobody-may-see")
        await world.after(20 * MINUTE_S)
        assert [attempt.end for attempt in world.agents.attempts] == ["401", "200"]

    play(story)


def pending(world: World, **fields: Json | list[Json]) -> Json:
    """Scheduled and accepted by its kubelet, and nothing more."""
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(world.now())}
    return {"phase": "Pending", "conditions": [scheduled], **fields}


def test_a_pod_pending_for_no_reason_is_told_after_a_minute() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        created = world.now()
        await world.cluster.pod(pod("stuck-1", namespace="shop"), pending(world))
        (run,) = await world.called(1)
        assert 60 <= (run.time - created).total_seconds() <= 65
        assert "names no reason" in run.context["eventMessage"]

    play(story)


def test_a_pod_that_starts_within_the_minute_is_nobodys_business() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        slow = await world.cluster.pod(pod("slow-1", namespace="shop"), pending(world))
        await world.after(55)
        await world.cluster.pod_status(slow, running(now=world.now()))
        await world.after(120)
        assert world.agents.attempts == []

    play(story)


@pytest.mark.parametrize("why", ["gated", "initializing"])
def test_a_pod_that_is_held_back_on_purpose_or_initializes_is_not_stuck(why: str) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending"))
        body = pod("slow-1", namespace="shop")
        if why == "gated":
            body["spec"]["schedulingGates"] = [{"name": "example.com/queue"}]
            gate = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
            now = {"phase": "Pending", "conditions": [gate | {"lastTransitionTime": rfc3339(world.now())}]}
        else:
            body["spec"]["initContainers"] = [{"name": "migrate", "image": "registry.example/migrate:1"}]
            state = {"running": {"startedAt": rfc3339(world.now())}}
            init: Json = {
                "name": "migrate",
                "image": "i",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": state,
            }
            now = pending(world, initContainerStatuses=[init])
        slow = await world.cluster.pod(body, now)
        await world.after(20 * MINUTE_S)
        assert world.agents.attempts == []
        if why == "initializing":  # its end starts the minute anew
            ended = {"terminated": terminated(reason="Completed", exit_code=0, now=world.now())}
            await world.cluster.pod_status(slow, now | {"initContainerStatuses": [init | {"state": ended}]})
            await world.after(50)
            assert world.agents.attempts == []
            await world.called(1)

    play(story)
