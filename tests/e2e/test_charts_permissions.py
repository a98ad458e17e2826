"""What the charts grant is what khook needs on the real API server: no less, and no more.

Less shows as a refusal in the server's audit log, more as a permission that khook never asked for.
"""

from pathlib import Path
from typing import Final

import pytest
from support.charts import NAMESPACE, Shell, rendered
from support.cluster import Cluster, ready, rows
from support.installation import KEY, Agents, fresh_name, now
from support.installed import ACCOUNT, INSTALL_CONTROLLER, INSTALL_CRDS, Asked, AuditedCluster, InPod, play, until
from support.objects import Json, crash_looping, entry, event, hook, pod, running, workload

from khook.kube.lease import LEASE_NAME

pytestmark = pytest.mark.envtest

BROKEN: Final = entry("oom-kill", prompt="{{.Nothing}}")
FOR_PEOPLE: Final = {("get", "events")}
"""khook only lists and watches them; the guide's `kubectl auth can-i get events` has to say yes."""


def make_secret(shell: Shell, agents: Agents) -> None:
    shell.run(f"""
        kubectl create secret generic kagent-credentials -n {NAMESPACE} \\
          --from-literal=api-key={KEY} \\
          --from-literal=base-url={agents.url}
    """)


async def crash(cluster: Cluster, namespace: str, name: str, *, owner: Json | None = None) -> None:
    """A container of this pod, which ran well, is in CrashLoopBackOff."""
    web = await cluster.pod(pod(name, namespace=namespace, owner=owner), running(now=now()))
    await cluster.pod_status(web, crash_looping(now=now()))


def granted() -> set[tuple[str, str]]:
    """Each verb and resource of every rule that the chart writes."""
    rules = [rule for one in rendered() if one["kind"] in ("ClusterRole", "Role") for rule in one["rules"]]
    return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}


def test_the_chart_grants_what_khook_asks_for_and_nothing_in_vain(
    audited: AuditedCluster, shell: Shell, agents: Agents, tmp_path: Path
) -> None:
    """From an installation without a secret to calls and their traces on the Hook: status, Events, and the Lease."""
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    namespace = fresh_name("charts")
    in_pod = InPod(shell, audited.server, tmp_path)

    async def story(cluster: Cluster) -> None:
        await cluster.namespace(namespace)
        await cluster.hook(hook("h", entry("pod-restart", groupBy="Owner"), namespace=namespace))
        replicas = await cluster.workload(workload("apps/v1", "ReplicaSet", "web", namespace=namespace))
        job = await cluster.workload(workload("batch/v1", "Job", "nightly", namespace=namespace))

        async def called(count: int) -> bool:
            assert len(agents.kagent.runs) <= count
            return len(agents.kagent.runs) == count

        async def said() -> bool:
            """Both calls have ended, and the Events on the Hook say that they were made."""
            ended = [row["call"]["state"] for row in rows(await cluster.get_hook(namespace, "h"))]
            reasons = [one["reason"] for one in await cluster.events_on(namespace, "h")]
            return ended == ["Completed", "Completed"] and reasons.count("AgentCalled") == 2

        async def looked_for_the_ghost() -> bool:
            return Asked(verb="get", resource="pods", namespace=namespace, allowed=True) in audited.asked()

        async def complained(times: int) -> bool:
            """One Event says how often the Hook was read and found broken in the same way."""
            events = await cluster.events_on(namespace, "h")
            counts = [one["count"] for one in events if one["reason"] == "InvalidConfiguration"]
            return len(counts) == 1 and counts[0] >= times

        async def mended() -> bool:
            return ready(await cluster.get_hook(namespace, "h")).get("reason") == "HookConfigured"

        async with in_pod.running() as khook:
            _, body = await khook.readyz()
            wanted = f"kubectl create secret generic kagent-credentials -n {NAMESPACE} --from-literal=api-key=..."
            assert body["agentAccess"]["command"] == wanted
            make_secret(shell, agents)
            in_pod.sync_secret()
            await crash(cluster, namespace, "web-1", owner=replicas)
            await until(lambda: called(1))
            # A label moves the version under khook, so that its next write has to read the Hook again.
            shell.run(f"kubectl label hook h -n {namespace} team=shop")
            await crash(cluster, namespace, "nightly-1", owner=job)
            await until(lambda: called(2))
            await until(said)
            ghost = {"metadata": {"name": "ghost", "namespace": namespace, "uid": "never-seen"}}
            await cluster.event(event("BackOff", "Back-off restarting failed container app", of=ghost, now=now()))
            await until(looked_for_the_ghost)
            good = {"eventConfigurations": [entry("pod-restart", groupBy="Owner")]}
            broken = {"eventConfigurations": [*good["eventConfigurations"], BROKEN]}
            for times in (1, 2):
                await cluster.patch_hook(namespace, "h", {"spec": broken})
                await until(lambda times=times: complained(times))  # type: ignore[misc]
                await cluster.patch_hook(namespace, "h", {"spec": good})
                await until(mended)  # else the next edit may be read together with this one
            lease = shell.json(f"kubectl get lease {LEASE_NAME} -n {NAMESPACE}")
            assert lease["spec"]["holderIdentity"].startswith("khook-0_")
        lease = shell.json(f"kubectl get lease {LEASE_NAME} -n {NAMESPACE}")
        assert not lease["spec"].get("holderIdentity")

    play(audited, story)
    asked = audited.asked()
    assert {one for one in asked if not one.allowed} == set()
    assert {(one.verb, one.resource) for one in asked} == granted() - FOR_PEOPLE


def test_roles_in_the_watched_namespaces_are_enough(
    audited: AuditedCluster, shell: Shell, agents: Agents, tmp_path: Path
) -> None:
    """Nothing is granted cluster-wide, and nothing is asked for there: the server would refuse it."""
    mine, also_mine, foreign = (fresh_name(name) for name in ("mine", "also-mine", "foreign"))
    for name in (mine, also_mine, foreign):
        shell.run(f"kubectl create namespace {name}")
    shell.run(f"{INSTALL_CRDS} {INSTALL_CONTROLLER.rstrip()} --set watch.namespaces='{{{mine},{also_mine}}}'")
    assert shell.run(f"kubectl auth can-i list hooks -A --as={ACCOUNT} || true").strip() == "no"
    in_pod = InPod(shell, audited.server, tmp_path)

    async def called() -> bool:
        return sorted(run.context["namespace"] for run in agents.kagent.runs) == sorted([mine, also_mine])

    async def story(cluster: Cluster) -> None:
        for name in (mine, also_mine, foreign):
            await cluster.hook(hook("h", entry("pod-restart"), namespace=name))
        make_secret(shell, agents)
        in_pod.sync_secret()
        async with in_pod.running():
            for name in (foreign, mine, also_mine):
                await crash(cluster, name, "web-1")
            await until(called)

    play(audited, story)
    asked = audited.asked()
    assert {one for one in asked if not one.allowed} == set()
    assert {one.namespace for one in asked} == {mine, also_mine, NAMESPACE}
    assert Asked(verb="list", resource="hooks", namespace=mine, allowed=True) in asked


def test_the_controller_may_be_installed_before_the_crd(audited: AuditedCluster, shell: Shell, tmp_path: Path) -> None:
    shell.run(INSTALL_CONTROLLER)
    in_pod = InPod(shell, audited.server, tmp_path)

    async def story(_: Cluster) -> None:
        async with in_pod.running(until_ready=False) as khook:
            await until(missing)
            assert "install kagent-hook-crds first" in khook.log_file.read_text()
            shell.run(INSTALL_CRDS)
            await khook.until_ready()

    async def missing() -> bool:
        _, body = await in_pod.khook.readyz()
        return bool(body["reasons"] == ["the cluster does not know Hooks: install kagent-hook-crds first"])

    play(audited, story)
