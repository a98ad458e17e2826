"""What fires on a real cluster, and what does not: `khook run` with two workers, judged by the agents' record."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from support.cluster import Cluster
from support.installation import Installation, fresh_name, now
from support.objects import (
    Json,
    container_status,
    crash_looping,
    entry,
    event,
    hook,
    pod,
    restarted,
    rfc3339,
    running,
    scheduling_event,
    terminated,
    unschedulable,
)

Scene = Callable[[Cluster, str], Awaitable[None]]

ALL_TYPES = tuple(entry(kind, f"{kind}-agent") for kind in ("pod-restart", "pod-pending", "oom-kill", "probe-failed"))


async def _pod(cluster: Cluster, namespace: str, status: Json, name: str = "web-1") -> Json:
    return await cluster.pod(pod(name, namespace=namespace), status)


# Each fires once: (scene, agent, prompt).


async def back_off(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    await cluster.event(event("BackOff", "Back-off restarting failed container app in pod web-1", of=web, now=now()))


async def image_pull_back_off(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, {"phase": "Pending"})
    message = 'Back-off pulling image "registry.example/app:1"'
    await cluster.event(event("BackOff", message, of=web, now=now(), type="Normal"))


async def failed_scheduling(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, {"phase": "Pending"})
    await cluster.event(scheduling_event(of=web, now=now()))


async def readiness(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now(), ready=False))
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    await cluster.event(event("Unhealthy", message, of=web, now=now()))


async def restart_without_event(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    await cluster.pod_status(web, restarted(now=now()))


async def exit_137_without_oom(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    await cluster.pod_status(web, restarted(now=now(), exit_code=137))


async def oom_in_pod_status(cluster: Cluster, namespace: str) -> None:
    """In a crash loop, with its Events, and both kinds of entry in the Hook: the oom-kill agent alone."""
    web = await _pod(cluster, namespace, running(now=now()))
    await cluster.pod_status(web, crash_looping(now=now(), reason="OOMKilled", exit_code=137))
    await cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=now()))
    await asyncio.sleep(1)
    await cluster.pod_status(web, crash_looping(now=now(), reason="OOMKilled", exit_code=137, restarts=2))


FIRES: dict[str, tuple[Scene, str, str]] = {
    "BackOff": (
        back_off,
        "pod-restart",
        "pod-restart of web-1 in {ns}: BackOff: Back-off restarting failed container app in pod web-1",
    ),
    "image-pull BackOff of type Normal": (
        image_pull_back_off,
        "pod-pending",
        'pod-pending of web-1 in {ns}: BackOff: Back-off pulling image "registry.example/app:1"',
    ),
    "FailedScheduling through events.k8s.io": (
        failed_scheduling,
        "pod-pending",
        "pod-pending of web-1 in {ns}: FailedScheduling: 0/3 nodes are available: 3 Insufficient cpu.",
    ),
    "Unhealthy readiness": (
        readiness,
        "probe-failed",
        "probe-failed of web-1 in {ns}: Unhealthy: Readiness probe failed: HTTP probe failed with statuscode: 503",
    ),
    "a restartCount that rises without any Event": (
        restart_without_event,
        "pod-restart",
        "pod-restart of web-1 in {ns}: Error: Container app has restarted, restart count 1",
    ),
    "exit code 137 without OOMKilled": (
        exit_137_without_oom,
        "pod-restart",
        "pod-restart of web-1 in {ns}: Error: Container app has restarted, restart count 1",
    ),
    "an OOM kill seen only in pod status": (
        oom_in_pod_status,
        "oom-kill",
        "oom-kill of web-1 in {ns}: OOMKilled: Container app was OOM killed: memory limit 64Mi, exit code 137",
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_fires_once_with_the_right_prompt(khook: Installation, name: str) -> None:
    scene, kind, prompt = FIRES[name]

    async def story() -> None:
        namespace = fresh_name("fires")
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("all", *ALL_TYPES, namespace=namespace))
            await scene(cluster, namespace)
            await khook.called(namespace, 1)
            await witnessed(khook, cluster, namespace, calls=2)
        run = khook.agents.runs(namespace)[0]
        assert run.agent == f"kagent/{kind}-agent"
        assert run.prompt.startswith(prompt.format(ns=namespace))
        assert run.context["eventName"] == kind
        assert run.context["resourceName"] == "web-1"

    asyncio.run(story())


async def witnessed(khook: Installation, cluster: Cluster, namespace: str, *, calls: int) -> None:
    """A signal that fires, later on the same streams: when its call has arrived, what came before it has been judged.

    It comes as pod status and as an Event, and past the 2 s for which a pod-status fire may wait.
    """
    await asyncio.sleep(2.2)
    witness = await _pod(cluster, namespace, running(now=now()), name="witness")
    await cluster.pod_status(witness, crash_looping(now=now()))
    await cluster.event(event("BackOff", "Back-off restarting failed container app", of=witness, now=now()))
    runs = await khook.called(namespace, calls)
    assert runs[-1].context["resourceName"] == "witness"


# None of these fires.


async def harmless(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    for reason, message in {
        "Scheduled": "Successfully assigned web-1 to node-1",
        "Pulled": 'Container image "registry.example/app:1" already present on machine',
        "Started": "Started container app",
        "Killing": "Stopping container app",
    }.items():
        await cluster.event(event(reason, message, of=web, now=now(), type="Normal"))


async def startup_probe(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now(), ready=False))
    await cluster.event(event("Unhealthy", "Startup probe failed: connection refused", of=web, now=now()))


async def failed_mount_on_a_running_pod(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    message = 'MountVolume.SetUp failed for volume "config" : configmap "config" not found'
    await cluster.event(event("FailedMount", message, of=web, now=now(), container=None))


async def gated(cluster: Cluster, namespace: str) -> None:
    body = pod("web-1", namespace=namespace)
    body["spec"]["schedulingGates"] = [{"name": "example.com/hold"}]
    created = await cluster.pod(body)
    await cluster.pod_status(created, unschedulable(now=now(), reason="SchedulingGated"))


async def our_own_event(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    component = "kagent-hook-controller"
    await cluster.event(event("BackOff", "Back-off restarting", of=web, now=now(), component=component))


async def other_kinds(cluster: Cluster, namespace: str) -> None:
    web = await _pod(cluster, namespace, running(now=now()))
    other = event("BackOff", "Back-off restarting", of=web, now=now(), container=None)
    other["involvedObject"]["kind"] = "Node"
    await cluster.event(other)


SILENT: dict[str, Scene] = {
    "Scheduled, Pulled, Started and Killing of a container that stops": harmless,
    "a startup probe": startup_probe,
    "FailedMount on a running pod": failed_mount_on_a_running_pod,
    "a gated pod": gated,
    "an Event of our own": our_own_event,
    "an Event about something else than a pod": other_kinds,
}


@pytest.mark.parametrize("name", SILENT)
def test_stays_silent(khook: Installation, name: str) -> None:
    async def story() -> None:
        namespace = fresh_name("silent")
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("all", *ALL_TYPES, namespace=namespace))
            await SILENT[name](cluster, namespace)
            await witnessed(khook, cluster, namespace, calls=1)

    asyncio.run(story())


def test_a_listed_signal_of_sixteen_minutes_ago_is_history(khook: Installation) -> None:
    async def story() -> None:
        namespace = fresh_name("history")
        old = now() - timedelta(minutes=16)
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            # An Event's creationTimestamp is the server's, so on a real one only a pod can be that old.
            await _pod(cluster, namespace, restarted(now=old))
            recent = await _pod(cluster, namespace, running(now=now()), name="recent")
            await cluster.event(event("Unhealthy", "Liveness probe failed: timeout", of=recent, now=now()))
            await cluster.hook(hook("all", *ALL_TYPES, namespace=namespace))
            runs = await khook.called(namespace, 1)
            assert runs[0].context["resourceName"] == "recent"
            await witnessed(khook, cluster, namespace, calls=2)

    asyncio.run(story())


def test_an_init_container_that_is_oom_killed_fires(khook: Installation) -> None:
    async def story() -> None:
        namespace = fresh_name("init")
        body = pod("web-1", namespace=namespace)
        body["spec"]["initContainers"] = [{"name": "migrate", "image": "registry.example/app:1"}]
        state = {"terminated": terminated(reason="OOMKilled", exit_code=137, now=now())}
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("all", *ALL_TYPES, namespace=namespace))
            status = {
                "phase": "Pending",
                "initContainerStatuses": [container_status("migrate", ready=False, restarts=0, state=state)],
                "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(now())}],
            }
            await cluster.pod(body, status)
            runs = await khook.called(namespace, 1)
            assert runs[0].agent == "kagent/oom-kill-agent"

    asyncio.run(story())
