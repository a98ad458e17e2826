"""A Hook CRD that drops khook's status fields, as the Go controller's does: no call, and it is said why.

A claim that the API server did not keep is no claim: after a crash nobody would know that the agent was asked.
"""

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from typing import Final

import pytest
from support.cluster import Cluster, ready, rows
from support.installation import Installation, fresh_name, install_crd, installed, now
from support.objects import Json, crash_looping, entry, event, hook, pod, running
from support.real_apiserver import RealApiServer

from khook.api.crd import crd

GO_FIELDS: Final = ("eventType", "resourceName", "firstSeen", "lastSeen", "status")
KEPT_WITHIN_S: Final = 20.0


def cut(*, conditions: bool) -> Json:
    """The CRD with the Go controller's status, and with conditions or without."""
    old = deepcopy(crd())
    for version in old["spec"]["versions"]:
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
        if not conditions:
            del status["conditions"]
        row = status["activeEvents"]["items"]
        row["properties"] = {name: row["properties"][name] for name in GO_FIELDS}
    return old


@pytest.fixture(scope="module")
def outdated(real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    try:
        folder = tmp_path_factory.mktemp("khook")
        with installed(real_apiserver, folder=folder, hook_crd=cut(conditions=True)) as installation:
            yield installation
    finally:
        asyncio.run(install_crd(real_apiserver))


async def replace_crd(khook: Installation, cluster: Cluster, hook_crd: Json, *, kept: str, dropped: str = "") -> None:
    """Install it, and wait until the API server prunes by it."""
    await install_crd(khook.server, hook_crd)
    namespace = fresh_name("probe")
    await cluster.namespace(namespace)
    await cluster.hook(hook("probe", entry("pod-restart"), namespace=namespace, suspend=True))
    path = f"/apis/kagent.dev/v1alpha2/namespaces/{namespace}/hooks/probe/status?dryRun=All"
    row = {"eventType": "pod-restart", "resourceName": "p", "status": "firing", "agent": "a"}
    row |= dict.fromkeys(("firstSeen", "lastSeen"), "2026-01-01T00:00:00Z")
    condition = {"type": "T", "status": "True", "reason": "R", "message": "", "lastTransitionTime": row["firstSeen"]}
    wish = {"status": {"activeEvents": [row], "conditions": [condition]}}
    async with asyncio.timeout(KEPT_WITHIN_S):
        while True:
            answer = await cluster.http.patch(path, json=wish, headers={"content-type": "application/merge-patch+json"})
            status = answer.raise_for_status().json()["status"]
            if kept in str(status) and (not dropped or dropped not in str(status)):
                return
            await asyncio.sleep(0.05)


async def fail(cluster: Cluster, namespace: str, name: str) -> None:
    """A pod in a crash loop, told as an Event and as pod status."""
    web = await cluster.pod(pod(name, namespace=namespace), running(now=now()))
    await cluster.event(event("BackOff", f"Back-off restarting {name}", of=web, now=now()))
    await cluster.pod_status(web, crash_looping(now=now()))


async def said(cluster: Cluster, namespace: str, about: str) -> Json:
    """The Kubernetes Event on the Hook that tells of a call that failed."""
    async with asyncio.timeout(10):
        while True:
            for found in await cluster.events_on(namespace, "h"):
                if found["reason"] == "AgentCallFailed" and about in found["message"]:
                    return found
            await asyncio.sleep(0.05)


def calls(found: Json) -> dict[str, str]:
    return {row["resourceName"]: row["call"]["state"] for row in rows(found) if "call" in row}


def test_no_agent_is_called_until_the_crd_keeps_what_is_written(outdated: Installation) -> None:
    async def story() -> None:
        async with outdated.cluster() as cluster:
            namespace = fresh_name("old")
            await cluster.namespace(namespace)
            await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))

            await fail(cluster, namespace, "web-1")
            assert "upgrade kagent-hook-crds" in (await said(cluster, namespace, "web-1"))["message"]
            async with asyncio.timeout(5):
                while (shown := ready(await cluster.get_hook(namespace, "h"))).get("reason") != "CRDOutdated":
                    await asyncio.sleep(0.05)
            assert shown["status"] == "False"
            assert "upgrade kagent-hook-crds" in shown["message"]

            await replace_crd(outdated, cluster, cut(conditions=False), kept="lastSeen", dropped="reason")
            await fail(cluster, namespace, "web-2")
            assert "upgrade kagent-hook-crds" in (await said(cluster, namespace, "web-2"))["message"]
            assert outdated.agents.kagent.attempts == []

            await replace_crd(outdated, cluster, crd(), kept="'agent'")
            await fail(cluster, namespace, "web-3")
            runs = await outdated.called(namespace, 1)
            assert runs[0].context["resourceName"] == "web-3"
            wanted = {"web-1": "Failed", "web-2": "Failed", "web-3": "Completed"}
            async with asyncio.timeout(5):
                while calls(found := await cluster.get_hook(namespace, "h")) != wanted:
                    await asyncio.sleep(0.05)
            assert ready(found)["status"] == "True"

    asyncio.run(story())
