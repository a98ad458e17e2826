"""A cluster in which the charts are installed, and the kubelet's part of it: there is none.

`InPod` is `khook run` as a pod of the installed Deployment has it and with nothing else: the Deployment's variables, a
token of the chart's service account, the mounted secret. In a pod the token lies in a directory that no test may write
to, so it is named by a kubeconfig instead. What the service account asked the API server for, and whether it was
allowed, is read from the server's own audit log.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from support.charts import NAME, NAMESPACE, Shell, environment
from support.cluster import Cluster
from support.installation import admin
from support.khook_process import KhookProcess
from support.real_apiserver import RealApiServer
from support.secret_volume import SecretVolume

POLL_S: Final = 0.05
WITHIN_S: Final = 40.0
ACCOUNT: Final = f"system:serviceaccount:{NAMESPACE}:{NAME}"
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
_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request to the API server, without the name of what it was about."""

    verb: str
    resource: str
    namespace: str
    allowed: bool


class AuditedCluster:
    """A real API server that writes down what service accounts ask for."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        policy = folder / "audit-policy.yaml"
        policy.write_text(yaml.safe_dump(_POLICY))
        self._log = folder / "audit.log"
        arguments = (f"--audit-policy-file={policy}", f"--audit-log-path={self._log}")
        self.server = RealApiServer(binaries, extra_args=arguments)
        self._read_from = 0

    def asked(self) -> set[Asked]:
        """By the chart's service account, since the last `forget`."""
        text = self._log.read_text()[self._read_from :] if self._log.exists() else ""
        lines = (json.loads(line) for line in text.splitlines())
        return {_asked(line) for line in lines if line["user"]["username"] == ACCOUNT and "objectRef" in line}

    def forget(self) -> None:
        self._read_from = len(self._log.read_text()) if self._log.exists() else 0


def _asked(line: dict[str, Any]) -> Asked:
    about = line["objectRef"]
    part = f"/{about['subresource']}" if "subresource" in about else ""
    return Asked(
        verb=line["verb"],
        resource=f"{about['resource']}{part}",
        namespace=about.get("namespace", ""),
        allowed=line["annotations"]["authorization.k8s.io/decision"] == "allow",
    )


def play(audited: AuditedCluster, story: Callable[[Cluster], Awaitable[None]]) -> None:
    """A story on the cluster, as its administrator."""

    async def on_the_cluster() -> None:
        async with admin(audited.server) as http:
            await story(Cluster(http))

    asyncio.run(on_the_cluster())


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await holds():
            await asyncio.sleep(POLL_S)


class InPod:
    """`khook`, once it is `running`."""

    def __init__(self, shell: Shell, server: RealApiServer, folder: Path) -> None:
        self._shell = shell
        deployment = shell.json(f"kubectl get deployment {NAME} -n {NAMESPACE}")
        template = deployment["spec"]["template"]["spec"]
        (container,) = template["containers"]
        token = folder / "token"
        token.write_text(shell.run(f"kubectl create token {template['serviceAccountName']} -n {NAMESPACE}").strip())
        (folder / "secret").mkdir()
        (folder / "metrics").mkdir()
        self._secret = SecretVolume(folder / "secret")
        mounted = {"KAGENT_CREDENTIALS_DIR": "secret", "PROMETHEUS_MULTIPROC_DIR": "metrics"}
        ports = {"METRICS_PORT": "0", "HEALTH_PORT": "0", "KHOOK_STATUS_ADDRESS": "127.0.0.1:0"}
        environ = environment(container, []) | ports | {name: str(folder / to) for name, to in mounted.items()}
        kubeconfig = server.write_kubeconfig(folder / "kubeconfig", user={"tokenFile": str(token)})
        self.khook = KhookProcess(kubeconfig=kubeconfig, base_url="", api_key="", environ=environ)

    def sync_secret(self) -> None:
        """What the kubelet does within a minute: the optional secret of the cluster becomes files."""
        data = self._shell.json(f"kubectl get secret kagent-credentials -n {NAMESPACE}")["data"]
        self._secret.write(**{key.replace("-", "_"): base64.b64decode(text).decode() for key, text in data.items()})

    @asynccontextmanager
    async def running(self, *, until_ready: bool = True) -> AsyncIterator[KhookProcess]:
        """Started, and stopped in order at the end."""
        try:
            await self.khook.start(until_ready=until_ready)
            yield self.khook
            assert await self.khook.stop() == 0
        finally:
            await self.khook.close()
