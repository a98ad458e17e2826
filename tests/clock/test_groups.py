"""`groupBy: Owner`: all pods of a controller that fail together are one incident and one call."""

import re
from datetime import timedelta

import pytest
from support.objects import Json, crash_looping, entry, hook, pod, running, unschedulable, workload
from support.world import World, play

from khook.sandbox.exchange import Response
from khook.sandbox.kagent_record import Run

GROUPED = entry("pod-restart", groupBy="Owner")
BACK_OFF = ("BackOff", "Back-off restarting failed container app")
GROUP_WAIT_S = 5
NAMES = [f"web-{number}" for number in range(50)]


async def replicas(world: World, count: int, *, owner: Json, name: str = "web") -> list[Json]:
    return [await world.well(f"{name}-{number}", owner=owner) for number in range(count)]


async def crash(world: World, pods: list[Json], *, within_s: float = 0.0, restarts: int = 1) -> None:
    """One after the other, evenly over this time."""
    for one in pods:
        await world.cluster.pod_status(one, crash_looping(now=world.now(), restarts=restarts))
        await world.says(*BACK_OFF, of=one)
        await world.after(within_s / len(pods))


def named(run: Run, pod: str) -> bool:
    return re.search(rf"\b{pod}\b", run.prompt) is not None


def resources(found: list[Json]) -> list[tuple[str, str]]:
    return sorted((row["resourceKind"], row["resourceName"]) for row in found)


def test_fifty_replicas_that_crash_within_half_a_minute_are_one_call_that_names_twenty_and_the_count() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 50, owner=await world.deployment())
        await crash(world, pods[:30])
        (run,) = await world.called(1)
        await crash(world, pods[30:], within_s=30)
        assert await world.called(1) == [run]
        (row,) = await world.rows()
        assert (row["resourceKind"], row["resourceName"], row["count"]) == ("Deployment", "web", 50)
        assert [name for name in (f"web-{number}" for number in range(50)) if named(run, name)] == NAMES[:20]
        assert "30 pods" in run.prompt
        assert run.context["resourceName"] == "web-0"

    play(story)


def test_the_first_call_waits_for_the_group_and_shows_it() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 3, owner=await world.deployment())
        started_at = world.now()
        await crash(world, pods)
        await world.after(2)
        (row,) = await world.rows()
        assert (row["call"]["state"], row["call"]["reason"]) == ("Pending", "Grouping")
        assert [one["name"] for one in row["facts"]["pods"]] == ["web-0", "web-1", "web-2"]
        assert row["facts"]["podCount"] == 3
        assert not world.agents.runs
        await world.until(lambda: len(world.agents.runs) == 1)
        assert (world.now() - started_at).total_seconds() == pytest.approx(GROUP_WAIT_S, abs=0.5)

    play(story)


def test_owners_of_one_name_and_different_kind_are_two_incidents() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        stateful = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web", "uid": "s-1"}}
        pods = [
            *await replicas(world, 2, owner=await world.deployment("web")),
            *await replicas(world, 2, owner=stateful, name="db"),
        ]
        await crash(world, pods)
        await world.called(2)
        assert resources(await world.rows()) == [("Deployment", "web"), ("StatefulSet", "web")]

    play(story)


def test_a_job_is_looked_up_to_its_cron_job() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        cron = await world.cluster.workload(workload("batch/v1", "CronJob", "nightly", namespace="shop"))
        for number in range(2):
            job = workload("batch/v1", "Job", f"nightly-{number}", namespace="shop", owner=cron)
            owner = await world.cluster.workload(job)
            await crash(world, [await world.well(f"nightly-{number}-x", owner=owner)])
        await world.called(1)
        assert resources(await world.rows()) == [("CronJob", "nightly")]

    play(story)


def test_a_pod_without_a_controller_and_a_static_one_are_about_themselves() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "uid": "n-1"}}
        await crash(world, [await world.well("alone"), await world.well("mirror", owner=node)])
        await world.called(2)
        assert resources(await world.rows()) == [("Pod", "alone"), ("Pod", "mirror")]

    play(story)


def test_one_look_up_answers_for_all_pods_of_a_controller() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        await crash(world, await replicas(world, 20, owner=await world.deployment()))
        await world.called(1)
        assert world.api.requests[("get", "replicasets")] == 1

    play(story)


@pytest.mark.parametrize("status", [403, 503])
def test_where_the_owner_cannot_be_looked_up_the_direct_controller_stands_in(status: int) -> None:
    answer = Response(status=status, body=b'{"kind":"Status"}')

    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 5, owner=await world.deployment())
        world.api.fault(lambda call: call.resource == "replicasets", answer=answer, times=None)
        await crash(world, pods)
        await world.called(1)
        await crash(world, pods, restarts=2)
        await world.called(1)
        assert resources(await world.rows()) == [("ReplicaSet", "web-7d4b9c")]

    play(story)


def test_entries_that_do_not_group_do_not_wait_for_a_look_up() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart", agent="single"), GROUPED)
        pods = await replicas(world, 2, owner=await world.deployment())
        world.api.fault(lambda call: call.resource == "replicasets", delay_s=60, times=None)
        await crash(world, pods)
        await world.until(lambda: len(world.agents.runs) == 2, within=timedelta(seconds=3))
        assert {run.agent for run in world.agents.runs} == {"single"}

    play(story)


def test_a_worker_killed_inside_the_group_wait_leaves_one_call_that_names_all_pods() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 10, owner=await world.deployment())
        await crash(world, pods[:4])
        await world.until(lambda: bool(world.status_writes))
        await world.after(1.5)
        world.kill_worker("shop")
        await crash(world, pods[4:])
        (run,) = await world.called(1)
        assert all(f"web-{number}" in run.prompt for number in range(10))

    play(story)


def test_a_worker_killed_inside_the_group_wait_names_no_pod_that_failed_long_before() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 3, owner=await world.deployment())
        await crash(world, pods[:1])
        await world.after(6 * 60)
        await crash(world, pods[1:2])  # inside the window
        await world.called(1)
        await world.after(20 * 60)
        await crash(world, pods[2:])
        await world.after(2)
        world.kill_worker("shop")
        run = (await world.called(2))[-1]
        assert [name for name in NAMES[:3] if named(run, name)] == ["web-2"]

    play(story)


def test_a_group_resolves_when_the_last_of_its_pods_is_well() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 3, owner=await world.deployment())
        await crash(world, pods)
        await world.called(1)
        for one in pods[:2]:
            await world.cluster.pod_status(one, running(now=world.now(), restarts=1))
        await world.after(30 * 60)
        assert [row["status"] for row in await world.rows()] == ["firing"]
        await world.cluster.pod_status(pods[2], running(now=world.now(), restarts=1))
        await world.after(5)
        assert [row["status"] for row in await world.rows()] == ["resolved"]

    play(story)


def test_a_group_that_was_restored_does_not_resolve_before_the_owners_of_its_pods_are_known() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", groupBy="Owner"))
        pods = await replicas(world, 2, owner=await world.deployment())
        for one in pods:
            await world.cluster.pod_status(one, running(now=world.now(), ready=False))
            await world.says("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", of=one)
        await world.called(1)
        await world.after(20 * 60)
        await world.restart()
        await world.after(10 * 60)
        assert [row["status"] for row in await world.rows()] == ["firing"]

    play(story)


def test_a_restart_fires_no_group_again_inside_its_window() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        await crash(world, await replicas(world, 30, owner=await world.deployment()))
        await world.called(1)
        for _ in range(3):
            await world.restart()
            await world.after(30)
        await world.called(1)
        assert (await world.rows())[0]["count"] == 30

    play(story)


def test_a_group_is_called_again_after_its_cooldown() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 3, owner=await world.deployment())
        await crash(world, pods)
        await world.called(1)
        await world.after(9 * 60)
        await crash(world, pods, restarts=2)
        await world.called(1)
        await world.after(2 * 60)
        await crash(world, pods[1:], restarts=3)
        _, run = await world.called(2)
        assert run.context["resourceName"] == "web-1"
        assert "web-0" not in run.prompt

    play(story)


def test_a_selector_chooses_the_pods_of_a_group() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart", groupBy="Owner", selector={"matchLabels": {"track": "canary"}}))
        owner = await world.deployment()
        await crash(world, [await world.well("web-0", owner=owner)])
        canary = await world.well("web-1", {"track": "canary"}, owner=owner)
        await crash(world, [canary])
        (run,) = await world.called(1)
        assert run.context["resourceName"] == "web-1"
        assert "web-0" not in run.prompt

    play(story)


def test_pods_that_cannot_be_scheduled_are_one_incident_of_their_deployment() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-pending", groupBy="Owner"))
        owner = await world.deployment()
        for number in range(30):
            made = pod(f"web-{number}", namespace="shop", owner=owner)
            await world.cluster.pod(made, unschedulable(now=world.now()))
        await world.called(1)
        (row,) = await world.rows()
        assert (row["resourceKind"], row["count"]) == ("Deployment", 30)

    play(story)


def test_pods_of_a_group_that_fail_one_by_one_write_no_more_than_once_a_second() -> None:
    async def story(world: World) -> None:
        await world.begin(GROUPED)
        pods = await replicas(world, 40, owner=await world.deployment())
        before = world.status_writes
        await crash(world, pods, within_s=20)
        await world.called(1)
        assert world.status_writes - before <= 40

    play(story)


def test_the_time_of_a_listed_group_is_told_whatever_the_order_of_the_list() -> None:
    async def story(world: World) -> None:
        await world.cluster.namespace("shop")
        owner = await world.deployment()
        pods = await replicas(world, 5, owner=owner)
        for one in reversed(pods):  # listed by name: the newest comes first
            await world.cluster.pod_status(one, crash_looping(now=world.now()))
            await world.after(20)
        await world.cluster.hook(hook("h", GROUPED, namespace="shop"))
        await world.start()
        (run,) = await world.called(1)
        assert all(f"web-{number}" in run.prompt for number in range(5))

    play(story)
