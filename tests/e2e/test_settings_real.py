"""How `khook run` is told where things are: the Go controller's names, a service account, and what is wrong with it.

And which protocol to speak: the other modules leave that to kagent's answer, here it is `execute`.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.cluster import Cluster, rows
from support.installation import KEY, Agents, admin, fresh_name, install_crd, now
from support.khook_process import KhookProcess
from support.objects import entry, event, hook, pod, running
from support.real_apiserver import RealApiServer

from khook.errors import Unauthorized
from khook.kube.client import KubeClient
from khook.kube.credentials import decode, encode
from khook.kube.hooks import Hooks
from khook.kube.transports import NetworkTransports
from khook.sandbox.kagent import Fault, FaultKind
from khook.seams import SystemClock
from khook.supervisor.credentials import load_credentials


@pytest.mark.parametrize("alias", ["KAGENT_API_URL", "KAGENT_API_BASE_URL"])
def test_the_go_controllers_names_of_settings_work(real_apiserver: RealApiServer, tmp_path: Path, alias: str) -> None:
    """The address finds the agent; the timeout ends the wait for one that hangs."""
    agents = Agents()
    agents.start()
    agents.kagent.set_faults("agent", [Fault(kind=FaultKind.HANG)])
    environ = {
        "KAGENT_BASE_URL": "",
        alias: agents.url,
        "KAGENT_API_TIMEOUT": "700ms",
        "KAGENT_PROTOCOL": "execute",
    }
    kubeconfig = real_apiserver.write_kubeconfig(tmp_path / "kubeconfig")
    khook = KhookProcess(kubeconfig=kubeconfig, base_url=agents.url, api_key=KEY, environ=environ)

    async def story() -> None:
        await install_crd(real_apiserver)
        namespace = fresh_name("alias")
        async with admin(real_apiserver) as http:
            cluster = Cluster(http)
            await cluster.namespace(namespace)
            await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))
            web = await cluster.pod(pod("web-1", namespace=namespace), running(now=now()))
            await cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=now()))
            try:
                await khook.start()
                async with asyncio.timeout(10):
                    while not (sent := [line for line in khook.log() if line["event"] == "agent called"]):
                        await asyncio.sleep(0.05)
                assert await khook.stop() == 0
            finally:
                await khook.close()
            (row,) = rows(await cluster.get_hook(namespace, "h"))
            await cluster.delete_hook(namespace, "h")
        assert row["call"]["reason"] == "NoAnswer"
        assert 0.7 <= sent[0]["seconds"] < 2.0

    try:
        asyncio.run(story())
        (run,) = agents.kagent.runs
        assert (run.protocol, run.agent) == ("execute", "agent")
        assert run.context["eventMessage"] == "Back-off restarting failed container app"
    finally:
        agents.stop()


def test_a_service_account_reads_hooks_and_its_rotated_token_is_taken_from_the_file(
    real_apiserver: RealApiServer, tmp_path: Path
) -> None:
    """As in a pod, and as a worker has it: over the channel, with the token left in its file."""
    (tmp_path / "ca.crt").write_text(real_apiserver.ca_file.read_text())
    (tmp_path / "token").write_text("expired")
    address = urlsplit(real_apiserver.url)
    environ = {"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port)}
    loaded = load_credentials(environ, service_account=tmp_path)

    async def story() -> None:
        await install_crd(real_apiserver)
        client = KubeClient(
            credentials=decode(encode(loaded)), transports=NetworkTransports(), clock=SystemClock(), fresh=None
        )
        with pytest.raises(Unauthorized):
            await Hooks(client).list("default")
        (tmp_path / "token").write_text(real_apiserver.token)
        assert await Hooks(client).list("default") == []
        await client.aclose()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("environ", "lines"),
    [
        (
            {"KUBECONFIG": "/no/such/file", "KHOOK_DRAIN": "soon", "KHOOK_WORKRES": "2", "LEADER_ELECTION": "maybe"},
            ["KHOOK_DRAIN: ", "KHOOK_WORKRES: ", "LEADER_ELECTION: "],
        ),
        ({"KUBECONFIG": "/no/such/file"}, ["KUBECONFIG: "]),
        ({"KAGENT_CA_FILE": "/no/such/file", "KAGENT_BASE_URL": "https://kagent"}, ["KAGENT_CA_FILE: "]),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, ["/var/run/secrets/"]),
        ({"HOME": "/no/such/home"}, ["KUBECONFIG: "]),
    ],
)
def test_what_cannot_be_used_is_listed_a_line_each_and_ends_with_78(environ: dict[str, str], lines: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "khook", "run"],
        env={"PATH": os.environ["PATH"], "KAGENT_API_KEY": KEY, "METRICS_PORT": "0", "HEALTH_PORT": "0"} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stderr.splitlines()
    assert said[:1] == ["khook: these settings cannot be used:"]
    assert [line.strip()[: len(wanted)] for line, wanted in zip(said[1:], lines, strict=True)] == lines
    assert (done.returncode, done.stdout) == (78, "")


def test_a_namespace_for_the_lease_that_does_not_exist_is_one_line_and_78(
    real_apiserver: RealApiServer, tmp_path: Path
) -> None:
    environ = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(real_apiserver.write_kubeconfig(tmp_path / "kubeconfig")),
        "KAGENT_API_KEY": KEY,
        "POD_NAMESPACE": "nowhere",
        "METRICS_PORT": "0",
        "HEALTH_PORT": "0",
        "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "khook", "run"], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert said[0] == "khook: these settings cannot be used:"
    assert [line.strip() for line in said[1:]] == [
        "POD_NAMESPACE: the namespace 'nowhere', where the Lease of the leader election is kept, does not exist; "
        "name one that does, or run one replica with LEADER_ELECTION=false"
    ]
    assert done.returncode == 78
