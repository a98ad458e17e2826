"""A storm on a real cluster: whatever made the pods is asked about once, whoever dies and whatever is forbidden."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import pytest
from support.cluster import Cluster, rows
from support.installation import WITHOUT_OWNERS, Installation, fresh_name, now
from support.objects import Json, crash_looping, entry, hook, pod, running, workload

from khook.sandbox.kagent_record import Run

GROUPED: Final = entry("pod-restart", groupBy="Owner")
REPLICAS: Final = 50
NAMED_MOST: Final = 20
CRASH_OVER_S: Final = 10.0
"""Twice as long as a group's call waits for more of its pods: half of the storm comes after it."""
SHOWN_WITHIN_S: Final = 20.0

Story = Callable[[Cluster, str], Awaitable[None]]


def in_a_namespace(khook: Installation, story: Story) -> None:
    """One whose pods khook watches, with a Hook that groups restarts by owner."""

    async def life() -> None:
        namespace = fresh_name("storm")
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("h", GROUPED, namespace=namespace))
            async with asyncio.timeout(SHOWN_WITHIN_S):
                while namespace not in khook.khook.owners():
                    await asyncio.sleep(0.05)
            await story(cluster, namespace)

    asyncio.run(life())


async def deployment(cluster: Cluster, namespace: str) -> Json:
    """The ReplicaSet that it has made."""
    made = await cluster.workload(workload("apps/v1", "Deployment", "web", namespace=namespace))
    return await cluster.workload(workload("apps/v1", "ReplicaSet", "web-7d4b9c", namespace=namespace, owner=made))


async def replicas(cluster: Cluster, owner: Json, count: int, *, name: str = "web") -> list[Json]:
    namespace = owner["metadata"]["namespace"]
    made = [pod(f"{name}-{number}", namespace=namespace, owner=owner) for number in range(count)]
    return [await cluster.pod(one, running(now=now())) for one in made]


async def crash(cluster: Cluster, pods: Sequence[Json], *, over_s: float = 0.0) -> None:
    """One after the other, evenly over this time."""
    for one in pods:
        await cluster.pod_status(one, crash_looping(now=now()))
        await asyncio.sleep(over_s / len(pods))


async def shown(cluster: Cluster, namespace: str, wanted: Callable[[Json], bool]) -> Json:
    """The only row, once it is so."""
    async with asyncio.timeout(SHOWN_WITHIN_S):
        while True:
            found = rows(await cluster.get_hook(namespace, "h"))
            if found and wanted(found[0]):
                (row,) = found
                return row
            await asyncio.sleep(0.05)


def resources(found: Sequence[Json]) -> list[tuple[str, str]]:
    return sorted((row["resourceKind"], row["resourceName"]) for row in found)


def named(run: Run) -> list[str]:
    """The pods that a prompt names."""
    return re.findall(r"^- ([a-z0-9-]+)", run.prompt, re.MULTILINE)


def names(pods: Sequence[Json]) -> list[str]:
    return [one["metadata"]["name"] for one in pods]


def test_fifty_replicas_that_crash_together_are_one_call_that_names_twenty_and_the_count(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        pods = await replicas(cluster, await deployment(cluster, namespace), REPLICAS)
        await crash(cluster, pods)
        (run,) = await khook.called(namespace, 1)
        assert named(run) == names(pods)[:NAMED_MOST]
        assert f"\n{REPLICAS} pods failed:\n" in run.prompt
        assert f"\nand {REPLICAS - NAMED_MOST} more\n" in run.prompt
        row = await shown(cluster, namespace, lambda row: row["count"] == REPLICAS)
        assert resources([row]) == [("Deployment", "web")]

    in_a_namespace(khook, story)


def test_fifty_replicas_that_crash_one_by_one_are_one_call_and_all_of_them_count(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        pods = await replicas(cluster, await deployment(cluster, namespace), REPLICAS)
        await crash(cluster, pods, over_s=CRASH_OVER_S)
        await shown(cluster, namespace, lambda row: row["count"] == REPLICAS)
        (run,) = await khook.called(namespace, 1)
        assert named(run) == names(pods)[: len(named(run))]

    in_a_namespace(khook, story)


def test_owners_of_one_name_are_told_apart_by_kind_and_jobs_are_their_cron_jobs(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        stateful = await cluster.workload(workload("apps/v1", "StatefulSet", "web", namespace=namespace))
        cron = await cluster.workload(workload("batch/v1", "CronJob", "nightly", namespace=namespace))
        pods = [
            *await replicas(cluster, await deployment(cluster, namespace), 2),
            *await replicas(cluster, stateful, 2, name="db"),
        ]
        for run in ("nightly-1", "nightly-2"):
            job = await cluster.workload(workload("batch/v1", "Job", run, namespace=namespace, owner=cron))
            pods += await replicas(cluster, job, 1, name=run)
        await crash(cluster, pods)
        runs = await khook.called(namespace, 3)
        assert sorted(map(named, runs)) == [["db-0", "db-1"], ["nightly-1-0", "nightly-2-0"], ["web-0", "web-1"]]
        found = rows(await cluster.get_hook(namespace, "h"))
        assert resources(found) == [("CronJob", "nightly"), ("Deployment", "web"), ("StatefulSet", "web")]

    in_a_namespace(khook, story)


def test_a_worker_killed_while_a_group_gathers_leaves_one_call_that_names_all_pods(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        pods = await replicas(cluster, await deployment(cluster, namespace), 10)
        await crash(cluster, pods[:4])
        row = await shown(cluster, namespace, lambda row: row["facts"]["podCount"] == 4)
        assert row["call"]["reason"] == "Grouping"
        khook.khook.kill_worker(khook.khook.owners()[namespace])
        await crash(cluster, pods[4:], over_s=2.0)  # its successor is there before the last of them
        (run,) = await khook.called(namespace, 1)
        assert sorted(named(run)) == names(pods)
        (row,) = rows(await cluster.get_hook(namespace, "h"))
        assert row["call"]["id"] == run.call_id

    in_a_namespace(khook, story)


@pytest.mark.parametrize("khook", [WITHOUT_OWNERS], ids=["no right to read owners"], indirect=True)
def test_where_owners_may_not_be_read_the_direct_controller_stands_in(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        pods = await replicas(cluster, await deployment(cluster, namespace), 3)
        await crash(cluster, pods)
        (run,) = await khook.called(namespace, 1)
        assert named(run) == names(pods)
        assert resources(rows(await cluster.get_hook(namespace, "h"))) == [("ReplicaSet", "web-7d4b9c")]
        assert [line["status"] for line in khook.khook.log() if line["event"] == "owners may not be read"] == [403]

    in_a_namespace(khook, story)
