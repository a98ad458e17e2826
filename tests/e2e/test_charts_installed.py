"""The charts on a real API server: installed by the README's commands, admitted by Pod Security, and enough for khook.

`khook run` gets what a pod of the chart would have and nothing else: the Deployment's variables, a token of the
chart's service account, the mounted secret. So a verb that is missing in the chart shows here. The kubelet's part is
played: there is none. In a pod the token lies in a directory that no test may write to, so it is named by a
kubeconfig instead.
"""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from support.charts import EVERYTHING, NAME, NAMESPACE, Shell, environment, rendered
from support.cluster import Cluster, rows
from support.installation import KEY, Agents, admin, fresh_name, now
from support.khook_process import KhookProcess
from support.kube_tools import kube_tool
from support.objects import Json, crash_looping, entry, hook, pod, running
from support.real_apiserver import REPOSITORY, RealApiServer, find_binaries
from support.secret_volume import SecretVolume

from khook.api.crd import crd
from khook.kube.lease import LEASE_NAME

pytestmark = pytest.mark.envtest

INSTALL_CRDS: Final = """
helm install kagent-hook-crds ./charts/kagent-hook-crds \
  --namespace kagent-system \
  --create-namespace
"""
INSTALL_CONTROLLER: Final = """
helm install kagent-hook-controller ./charts/kagent-hook-controller \
  --namespace kagent-system \
  --create-namespace
"""
POLL_S: Final = 0.05
WITHIN_S: Final = 40.0


@pytest.fixture(scope="module")
def server() -> Iterator[RealApiServer]:
    """Its own: the charts' objects are the cluster's, not a namespace's."""
    kube_tool("helm")
    binaries = find_binaries()
    assert binaries is not None
    made = RealApiServer(binaries)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def shell(server: RealApiServer, tmp_path: Path) -> Iterator[Shell]:
    """A terminal, and a cluster in which nothing of khook is installed."""
    terminal = Shell(server.write_kubeconfig(tmp_path / "admin"))
    yield terminal
    for release in json.loads(terminal.run("helm list -A -o json")):
        terminal.run(f"helm uninstall {release['name']} -n {release['namespace']}")
    terminal.run("kubectl delete crd hooks.kagent.dev --ignore-not-found")
    terminal.run(f"kubectl delete lease {LEASE_NAME} -n {NAMESPACE} --ignore-not-found")
    terminal.run(f"kubectl delete secret kagent-credentials -n {NAMESPACE} --ignore-not-found")


@pytest.fixture
def agents() -> Iterator[Agents]:
    made = Agents()
    made.start()
    try:
        yield made
    finally:
        made.stop()


class InPod:
    """`khook run` as a pod of the installed Deployment has it."""

    def __init__(self, shell: Shell, server: RealApiServer, folder: Path, *, namespace: str = NAMESPACE) -> None:
        self._shell = shell
        self._namespace = namespace
        deployment = shell.json(f"kubectl get deployment {NAME} -n {namespace}")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
        token = folder / "token"
        token.write_text(shell.run(f"kubectl create token {account} -n {namespace}").strip())
        user = {"tokenFile": str(token)}
        (folder / "secret").mkdir()
        (folder / "metrics").mkdir()
        self._volume = SecretVolume(folder / "secret")
        environ = environment(container, [], namespace=namespace) | {
            "KAGENT_CREDENTIALS_DIR": str(folder / "secret"),
            "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
            "METRICS_PORT": "0",
            "HEALTH_PORT": "0",
            "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
        }
        kubeconfig = server.write_kubeconfig(folder / "kubeconfig", user=user)
        self.khook = KhookProcess(kubeconfig=kubeconfig, base_url="", api_key="", environ=environ)

    def sync_secret(self) -> None:
        """What the kubelet does within a minute: the optional secret of the cluster becomes files."""
        data = self._shell.json(f"kubectl get secret kagent-credentials -n {self._namespace}")["data"]
        self._volume.write(**{key.replace("-", "_"): base64.b64decode(text).decode() for key, text in data.items()})

    async def reasons(self) -> list[str]:
        """Why it is not ready."""
        _, body = await self.khook.readyz()
        return list(body["reasons"])


@asynccontextmanager
async def running_khook(in_pod: InPod, *, until_ready: bool = True) -> AsyncIterator[KhookProcess]:
    """Started, and stopped in order at the end."""
    try:
        await in_pod.khook.start(until_ready=until_ready)
        yield in_pod.khook
        assert await in_pod.khook.stop() == 0
    finally:
        await in_pod.khook.close()


async def until(holds: Any, *, within_s: float = WITHIN_S) -> None:
    """Wait until the coroutine function says so."""
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(POLL_S)


def make_secret(shell: Shell, agents: Agents, namespace: str = NAMESPACE) -> None:
    shell.run(f"""
        kubectl create secret generic kagent-credentials -n {namespace} \
          --from-literal=api-key={KEY} \
          --from-literal=base-url={agents.url}
    """)


def refusals(khook: KhookProcess) -> list[Json]:
    """What the log says of requests that RBAC did not allow."""
    return [line for line in khook.log() if line.get("cause") == "forbidden" or line.get("status") == 403]


async def crash(cluster: Cluster, namespace: str, name: str = "web-1") -> None:
    """A container of this pod, which ran well, is in CrashLoopBackOff."""
    web = await cluster.pod(pod(name, namespace=namespace), running(now=now()))
    await cluster.pod_status(web, crash_looping(now=now()))


def test_the_charts_service_account_is_enough_for_khook(
    server: RealApiServer, shell: Shell, agents: Agents, tmp_path: Path
) -> None:
    """From an installation without a secret to a call and its traces on the Hook: status, Events, and the Lease."""
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    in_pod = InPod(shell, server, tmp_path)

    async def story(cluster: Cluster, namespace: str) -> None:
        await cluster.namespace(namespace)
        await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))
        async with running_khook(in_pod) as khook:
            _, body = await khook.readyz()
            assert body["agentAccess"]["command"].startswith(
                f"kubectl create secret generic kagent-credentials -n {NAMESPACE}"
            )
            make_secret(shell, agents)
            in_pod.sync_secret()
            await crash(cluster, namespace)
            await until(lambda: called(1))
            # A label moves the version under khook, so that its next write has to read the Hook again.
            shell.run(f"kubectl label hook h -n {namespace} team=shop")
            await crash(cluster, namespace, "web-2")
            await until(lambda: called(2))
            await until(lambda: said(cluster, namespace))
            lease = shell.json(f"kubectl get lease {LEASE_NAME} -n {NAMESPACE}")
            assert lease["spec"]["holderIdentity"].startswith("khook-0_")
            assert refusals(khook) == []
        lease = shell.json(f"kubectl get lease {LEASE_NAME} -n {NAMESPACE}")
        assert not lease["spec"].get("holderIdentity")

    async def called(count: int) -> bool:
        return len(agents.kagent.runs) == count

    async def said(cluster: Cluster, namespace: str) -> bool:
        """Both calls have ended, and the Events on the Hook say that they were made."""
        ended = [row["call"]["state"] for row in rows(await cluster.get_hook(namespace, "h"))]
        reasons = [one["reason"] for one in await cluster.events_on(namespace, "h")]
        return ended == ["Completed", "Completed"] and reasons.count("AgentCalled") == 2

    asyncio.run(in_cluster(server, story))


async def in_cluster(server: RealApiServer, story: Any) -> None:
    async with admin(server) as http:
        await story(Cluster(http), fresh_name("charts"))


def test_roles_in_the_watched_namespaces_are_enough(
    server: RealApiServer, shell: Shell, agents: Agents, tmp_path: Path
) -> None:
    """Nothing is granted cluster-wide, so the first cluster-wide request would be refused; none is made."""
    mine, also_mine, foreign = (fresh_name(name) for name in ("mine", "also-mine", "foreign"))
    for name in (mine, also_mine, foreign):
        shell.run(f"kubectl create namespace {name}")
    shell.run(f"{INSTALL_CRDS} {INSTALL_CONTROLLER.rstrip()} --set watch.namespaces='{{{mine},{also_mine}}}'")
    account = f"system:serviceaccount:{NAMESPACE}:{NAME}"
    assert shell.run(f"kubectl auth can-i list hooks -A --as={account} || true").strip() == "no"
    in_pod = InPod(shell, server, tmp_path)

    async def story(cluster: Cluster, _: str) -> None:
        for name in (mine, also_mine, foreign):
            await cluster.hook(hook("h", entry("pod-restart"), namespace=name))
        make_secret(shell, agents)
        in_pod.sync_secret()
        async with running_khook(in_pod) as khook:
            for name in (foreign, mine, also_mine):
                await crash(cluster, name)
            await until(called)
            assert refusals(khook) == []

    async def called() -> bool:
        return sorted(run.context["namespace"] for run in agents.kagent.runs) == sorted([mine, also_mine])

    asyncio.run(in_cluster(server, story))


def test_the_controller_may_be_installed_before_the_crd(server: RealApiServer, shell: Shell, tmp_path: Path) -> None:
    shell.run(INSTALL_CONTROLLER)
    in_pod = InPod(shell, server, tmp_path)

    async def story(_: Cluster, __: str) -> None:
        async with running_khook(in_pod, until_ready=False) as khook:
            await until(missing)
            assert "install kagent-hook-crds first" in khook.log_file.read_text()
            shell.run(INSTALL_CRDS)
            await khook.until_ready()

    async def missing() -> bool:
        return await in_pod.reasons() == ["the cluster does not know Hooks: install kagent-hook-crds first"]

    asyncio.run(in_cluster(server, story))


def test_every_object_is_admitted_where_pod_security_is_restricted(shell: Shell) -> None:
    """There is no kubelet and no controller, so the pod that the Deployment stands for is created by hand."""
    namespace = fresh_name("restricted")
    shell.run(f"kubectl create namespace {namespace}")
    shell.run(f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=restricted")
    theirs = [one for one in rendered(EVERYTHING) if one["apiVersion"] != "monitoring.coreos.com/v1"]
    for one in theirs:
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = namespace
    (deployment,) = (one for one in theirs if one["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    in_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-pod"} | template["metadata"]}
    in_pod |= {"spec": template["spec"]}
    try:
        said = shell.run("kubectl create --validate=strict -f -", stdin=yaml.safe_dump_all(theirs))
        assert len(said.splitlines()) == len(theirs)
        create_pod = f"kubectl create --validate=strict -n {namespace} -f -"
        shell.run(create_pod, stdin=yaml.safe_dump(in_pod))
        del template["spec"]["securityContext"]["seccompProfile"]
        in_pod["metadata"]["name"] = "a-laxer-pod"
        assert "violates PodSecurity" in shell.fails(create_pod, stdin=yaml.safe_dump(in_pod))
    finally:
        shell.run(f"kubectl delete clusterrole,clusterrolebinding {NAME} --ignore-not-found")
        shell.run(f"kubectl delete deployment,pod --all -n {namespace} --grace-period=0 --force")


def test_commands_of_the_guide_work_on_the_installation(shell: Shell) -> None:
    """Permissions asked for, debug logging, another memory limit: each as it is written there."""
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    can_i = "kubectl auth can-i get events --as=system:serviceaccount:kagent-system:kagent-hook-controller"
    assert shell.run(can_i).strip() == "yes"
    shell.run("kubectl set env deployment/kagent-hook-controller -n kagent-system LOG_LEVEL=debug")
    patch = (
        '{"spec":{"template":{"spec":{"containers":[{"name":"manager","resources":{"limits":{"memory":"512Mi"}}}]}}}}'
    )
    shell.run(f"kubectl patch deployment -n kagent-system kagent-hook-controller -p '{patch}'")
    deployment = shell.json(f"kubectl get deployment {NAME} -n {NAMESPACE}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert environment(container, [])["LOG_LEVEL"] == "debug"
    assert container["resources"]["limits"] == {"memory": "512Mi"}


def test_what_make_deploys_it_undeploys_and_hooks_stay(shell: Shell) -> None:
    namespace = fresh_name("kept")
    shell.run("make deploy HELM_ARGS='--set shards.workers=3'")
    shell.run(f"kubectl create namespace {namespace}")
    shell.run("kubectl create -f -", stdin=yaml.safe_dump(hook("h", entry("pod-restart"), namespace=namespace)))
    shell.run("make deploy")
    shell.run("make undeploy")
    assert shell.json("helm list -A") == []
    assert shell.run(f"kubectl get hooks -n {namespace} -o name").strip() == "hook.kagent.dev/h"
    shell.run("make undeploy && make deploy")


@pytest.mark.parametrize("way", [0, 1])
def test_a_crd_that_another_chart_left_is_taken_over(shell: Shell, way: int) -> None:
    """Helm refuses what it does not own; the commands of the chart's README hand it over, and our schema comes."""
    old = crd()
    old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].pop("status")
    shell.run("kubectl create -f -", stdin=yaml.safe_dump(old))
    assert "invalid ownership metadata" in shell.fails(INSTALL_CRDS)
    readme = (REPOSITORY / "charts" / "kagent-hook-crds" / "README.md").read_text(encoding="utf-8")
    ways = re.findall(r"```bash\n(.*?)```", readme.partition("## Take over")[2], re.DOTALL)
    assert len(ways) == 2
    shell.run(ways[way])
    found = shell.json("kubectl get crd hooks.kagent.dev")
    assert found["spec"]["versions"] == crd()["spec"]["versions"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
