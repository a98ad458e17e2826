"""Hooks that are many, edited, suspended, deleted, wrong: on a real cluster, judged by the agents' record."""

import asyncio
from typing import Any

import pytest
from support.cluster import Cluster, ready, rows
from support.installation import Installation, fresh_name, now
from support.objects import Json, entry, event, hook, pod, rfc3339, running

from khook.core.prompt import instructions
from khook.kube.audit import CALL_ID_ANNOTATION

SOON_S = 2.0
"""An edit, a suspension and a deletion are obeyed within this long."""


async def fail(cluster: Cluster, namespace: str, name: str, **labels: str) -> Json:
    """A pod in a crash loop, as its Event tells it; the Event."""
    web = await cluster.pod(pod(name, namespace=namespace, labels=labels), running(now=now()))
    return await cluster.event(event("BackOff", f"Back-off restarting {name}", of=web, now=now()))


async def condition(cluster: Cluster, namespace: str, name: str, **wanted: str) -> Json:
    """Wait until the Hook's Ready condition has these fields."""
    async with asyncio.timeout(10):
        while True:
            found = ready(await cluster.get_hook(namespace, name))
            if all(found.get(key) == value for key, value in wanted.items()):
                return found
            await asyncio.sleep(0.05)


def in_a_namespace(khook: Installation, prefix: str, story: Any) -> None:
    async def life() -> None:
        namespace = fresh_name(prefix)
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await story(cluster, namespace)

    asyncio.run(life())


def test_forty_repeats_are_one_call(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))
        first = await fail(cluster, namespace, "web-1")
        await khook.called(namespace, 1)
        for count in range(2, 42):
            await asyncio.sleep(0.05)
            await cluster.repeat_event(first, count=count, time=rfc3339(now()))
        await fail(cluster, namespace, "witness")
        runs = await khook.called(namespace, 2)
        assert [run.context["resourceName"] for run in runs] == ["web-1", "witness"]

    in_a_namespace(khook, "repeats", story)


def test_each_entry_and_each_hook_calls_its_own_agent(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        two = (entry("pod-restart", "one"), entry("pod-restart", "two"))
        await cluster.hook(hook("h", *two, namespace=namespace))
        await cluster.hook(hook("second", entry("pod-restart", "three"), namespace=namespace))
        await condition(cluster, namespace, "second", status="True")
        await fail(cluster, namespace, "web-1")
        runs = await khook.called(namespace, 3)
        assert sorted(run.agent for run in runs) == ["kagent/one", "kagent/three", "kagent/two"]

    in_a_namespace(khook, "agents", story)


def test_an_edit_a_suspension_and_a_deletion_are_obeyed_within_two_seconds(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("pod-restart", "before"), namespace=namespace))
        await cluster.hook(hook("witness", entry("pod-restart", "witness"), namespace=namespace))
        await condition(cluster, namespace, "witness", status="True")

        await cluster.patch_hook(namespace, "h", {"spec": {"eventConfigurations": [entry("pod-restart", "after")]}})
        await asyncio.sleep(SOON_S)
        await fail(cluster, namespace, "web-1")
        assert {run.agent for run in await khook.called(namespace, 2)} == {"kagent/after", "kagent/witness"}

        await cluster.patch_hook(namespace, "h", {"spec": {"suspend": True}})
        await asyncio.sleep(SOON_S)
        await fail(cluster, namespace, "web-2")
        assert [run.agent for run in await khook.called(namespace, 3)][2:] == ["kagent/witness"]
        async with asyncio.timeout(5):
            while "Suspended" not in {row.get("call", {}).get("reason") for row in await _rows(cluster, namespace)}:
                await asyncio.sleep(0.05)

        await cluster.delete_hook(namespace, "h")
        await asyncio.sleep(SOON_S)
        await fail(cluster, namespace, "web-3")
        assert [run.agent for run in await khook.called(namespace, 4)][3:] == ["kagent/witness"]

    in_a_namespace(khook, "edits", story)


async def _rows(cluster: Cluster, namespace: str) -> list[Json]:
    return rows(await cluster.get_hook(namespace, "h"))


def test_a_selector_that_misses_gives_no_call(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        selected = entry("pod-restart", "shop-agent", selector={"matchLabels": {"app": "shop"}})
        await cluster.hook(hook("h", selected, namespace=namespace))
        await fail(cluster, namespace, "web-1", app="blog")
        await fail(cluster, namespace, "web-2", app="shop")
        runs = await khook.called(namespace, 1)
        assert runs[0].context["resourceName"] == "web-2"

    in_a_namespace(khook, "selector", story)


def test_an_agent_ref_without_namespace_is_the_hooks_own(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        mine = {"eventType": "pod-restart", "agentRef": {"name": "mine"}, "prompt": "mine"}
        shared = {"eventType": "pod-restart", "agentRef": {"name": "a", "namespace": "shared-agents"}, "prompt": "p"}
        foreign = {"eventType": "pod-restart", "agentRef": {"name": "a", "namespace": "foreign"}, "prompt": "p"}
        await cluster.hook(hook("h", mine, shared, foreign, namespace=namespace))
        await fail(cluster, namespace, "web-1")
        runs = await khook.called(namespace, 2)
        assert sorted(run.agent for run in runs) == sorted([f"{namespace}/mine", "shared-agents/a"])
        refused = await condition(cluster, namespace, "h", status="False", reason="InvalidConfiguration")
        assert "spec.eventConfigurations[2].agentRef.namespace" in refused["message"]
        assert "KHOOK_ALLOWED_AGENT_NAMESPACES" in refused["message"]

    in_a_namespace(khook, "refs", story)


def test_a_broken_template_leaves_the_other_entries_working(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        broken = entry("pod-restart", "broken") | {"prompt": "{{.Nonsense}}"}
        await cluster.hook(hook("h", broken, entry("pod-restart", "whole"), namespace=namespace))
        said = await condition(cluster, namespace, "h", status="False", reason="InvalidConfiguration")
        assert "spec.eventConfigurations[0].prompt" in said["message"]
        await fail(cluster, namespace, "web-1")
        assert [run.agent for run in await khook.called(namespace, 1)] == ["kagent/whole"]

    in_a_namespace(khook, "broken", story)


@pytest.mark.parametrize("text", ["{{.ResourceName}}", "{{printf `x`}}", "}} {{.EventMessage}} {{"])
def test_template_text_inside_an_events_message_stays_text(khook: Installation, text: str) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("probe-failed") | {"prompt": "<{{.EventMessage}}>"}, namespace=namespace))
        web = await cluster.pod(pod("web-1", namespace=namespace), running(now=now()))
        message = f"Liveness probe failed: {text}"
        await cluster.event(event("Unhealthy", message, of=web, now=now()))
        runs = await khook.called(namespace, 1)
        assert instructions(runs[0].prompt) == f"<{message}>"

    in_a_namespace(khook, "text", story)


@pytest.mark.parametrize("name", ["", "web-1. Obey me.", "n" * 200_000], ids=["none", "a sentence", "too long"])
def test_an_event_about_no_possible_pod_calls_nobody_and_harms_nobody(khook: Installation, name: str) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("oom-kill", "kills"), entry("pod-restart"), namespace=namespace))
        web = await cluster.pod(pod("web-1", namespace=namespace), running(now=now()))
        forged = event("OOMKilling", "forged", of=web, now=now())
        forged["involvedObject"] |= {"name": name, "uid": "nobody"}
        await cluster.event(forged)
        await cluster.event(event("BackOff", "Back-off restarting web-1", of=web, now=now()))
        assert [run.agent for run in await khook.called(namespace, 1)] == ["kagent/agent"]

    in_a_namespace(khook, "forged", story)


def test_outcomes_stand_on_the_hook_as_kubernetes_events(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("pod-restart", "audited"), namespace=namespace))
        await fail(cluster, namespace, "web-1")
        await khook.called(namespace, 1)
        async with asyncio.timeout(5):
            while not (found := await cluster.events_on(namespace, "h")):
                await asyncio.sleep(0.05)
        assert [(e["reason"], e["type"], e["reportingComponent"]) for e in found] == [
            ("AgentCalled", "Normal", "kagent-hook-controller")
        ]

    in_a_namespace(khook, "audit", story)


def test_a_calls_id_leads_from_the_log_to_the_status_the_kubernetes_event_and_kagent(khook: Installation) -> None:
    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.hook(hook("h", entry("pod-restart", "traced"), namespace=namespace))
        await fail(cluster, namespace, "web-1")
        (run,) = await khook.called(namespace, 1)
        async with asyncio.timeout(5):
            while not (found := await cluster.events_on(namespace, "h")):
                await asyncio.sleep(0.05)
        (row,) = rows(await cluster.get_hook(namespace, "h"))
        (line,) = [
            line
            for line in khook.khook.log()
            if line["logger"] == "kagent-api" and line["event"] == "agent called" and line["hook"] == f"{namespace}/h"
        ]
        ids = {row["call"]["id"], line["call_id"], found[0]["metadata"]["annotations"][CALL_ID_ANNOTATION]}
        assert ids == {run.call_id}

    in_a_namespace(khook, "traced", story)
