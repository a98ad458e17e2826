"""khook installed on a real API server: the server, the agents it calls, and `khook run` with two workers.

The agents live in a thread of their own, so that a test may block, be slow or kill what it likes; their record is
what tests judge by. Tests share one API server and keep to namespaces of their own. khook may do anything there, or
what `RULES` grant its service account.
"""

import asyncio
import itertools
import ssl
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx

from khook.api.crd import crd
from khook.sandbox.http import serve
from khook.sandbox.kagent import Behaviour, Kagent, Run, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.seams import SystemClock
from support.cluster import Cluster
from support.khook_process import KhookProcess
from support.objects import Json
from support.real_apiserver import RealApiServer

KEY: Final = "a-key-nobody-may-see"
CALL_WITHIN_S: Final = 20.0
POLL_S: Final = 0.02
RUN_S: Final = 0.5
"""How long an agent works: over at the first look."""
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
_numbers = itertools.count(1)


def _may(group: str, resources: str, *verbs: str) -> Json:
    return {"apiGroups": [group], "resources": [resources], "verbs": list(verbs)}


RULES: Final[tuple[Json, ...]] = (
    _may("kagent.dev", "hooks", "get", "list", "watch"),
    _may("kagent.dev", "hooks/status", "patch"),
    _may("", "pods", "get", "list", "watch"),
    _may("", "events", "list", "watch", "create", "patch"),
    _may("apps", "replicasets", "get"),
    _may("batch", "jobs", "get"),
)
"""All that khook needs, without leader election."""
WITHOUT_OWNERS: Final = tuple(rule for rule in RULES if rule["apiGroups"] not in (["apps"], ["batch"]))
"""As before it looked owners up."""


def now() -> datetime:
    return datetime.now(UTC)


class Agents:
    """The embedded agents behind a real socket, served by a thread: a kagent, with `execute` beside it.

    What they were asked names them `namespace/name`; over `execute`, as the Hook does.
    """

    def __init__(self) -> None:
        self.kagent = Kagent(api_key=KEY, speaks=Speaks.BOTH, behaviour=Behaviour(run_s=RUN_S))
        self.url = ""
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        served = await serve(KagentService(self.kagent, clock=SystemClock()))
        self.url = served.url
        self._started.set()
        await self._stop.wait()
        await served.close()

    def runs(self, namespace: str) -> list[Run]:
        """What was accepted about one namespace, oldest first."""
        return [run for run in list(self.kagent.runs) if run.context["namespace"] == namespace]


class Installation:
    """One khook on one API server."""

    def __init__(
        self,
        server: RealApiServer,
        *,
        folder: Path,
        environ: Mapping[str, str],
        url: str | None = None,
        user: Json | None = None,
    ) -> None:
        self.server = server
        self.agents = Agents()
        self._kubeconfig = folder / "kubeconfig"
        server.write_kubeconfig(self._kubeconfig, url=url, user=user)
        self._environ = environ

    def start_agents(self) -> None:
        self.agents.start()
        self.khook = KhookProcess(
            kubeconfig=self._kubeconfig, base_url=self.agents.url, api_key=KEY, environ=self._environ
        )

    @asynccontextmanager
    async def cluster(self) -> AsyncIterator[Cluster]:
        async with admin(self.server) as http:
            yield Cluster(http)

    async def called(self, namespace: str, count: int, *, within_s: float = CALL_WITHIN_S) -> list[Run]:
        """Wait until this many calls about the namespace were accepted; one too many fails."""
        async with asyncio.timeout(within_s):
            while len(self.agents.runs(namespace)) < count:
                await asyncio.sleep(POLL_S)
        runs = self.agents.runs(namespace)
        assert len(runs) == count, [run.context for run in runs]
        return runs


def fresh_name(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


@asynccontextmanager
async def admin(server: RealApiServer) -> AsyncIterator[httpx.AsyncClient]:
    tls = ssl.create_default_context(cafile=str(server.ca_file))
    headers = {"authorization": f"Bearer {server.token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, verify=tls, trust_env=False) as http:
        yield http


async def service_account(server: RealApiServer, rules: Sequence[Json] = RULES) -> Json:
    """A service account that may do this in the whole cluster, as a user of a kubeconfig."""
    account = {"name": fresh_name("khook"), "namespace": "default"}
    role = {"name": account["name"]}
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    async with admin(server) as http:
        cluster = Cluster(http)
        await cluster.request("POST", accounts, {"metadata": account})
        await cluster.request("POST", f"{RBAC}/clusterroles", {"metadata": role, "rules": list(rules)})
        binding = {
            "metadata": role,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"} | role,
            "subjects": [{"kind": "ServiceAccount"} | account],
        }
        await cluster.request("POST", f"{RBAC}/clusterrolebindings", binding)
        issued = await cluster.request("POST", f"{accounts}/{account['name']}/token", {"spec": {}})
    return {"token": issued["status"]["token"]}


async def install_crd(server: RealApiServer, hook_crd: Json | None = None) -> None:
    """Create or replace the Hook CRD, and wait until it is served."""
    wanted = hook_crd or crd()
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    async with admin(server) as http:
        cluster = Cluster(http)
        answer = await http.get(f"{path}/hooks.kagent.dev")
        if answer.status_code == 404:
            await cluster.crd(wanted)
        else:
            await cluster.request(
                "PATCH",
                f"{path}/hooks.kagent.dev",
                {"spec": wanted["spec"]},
                headers={"content-type": "application/merge-patch+json"},
            )
        async with asyncio.timeout(20):
            while (await http.get("/apis/kagent.dev/v1alpha2/hooks")).status_code != 200:
                await asyncio.sleep(POLL_S)


@contextmanager
def installed(
    server: RealApiServer,
    *,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    url: str | None = None,
    user: Json | None = None,
    hook_crd: Json | None = None,
) -> Iterator[Installation]:
    """khook running and ready; stopped, with its Hooks deleted, at the end."""
    installation = Installation(server, folder=folder, environ=environ or {}, url=url, user=user)
    installation.start_agents()
    try:
        asyncio.run(install_crd(server, hook_crd))
        asyncio.run(installation.khook.start())
        yield installation
    finally:
        asyncio.run(installation.khook.close())
        installation.agents.stop()
        asyncio.run(delete_hooks(server))


async def delete_hooks(server: RealApiServer) -> None:
    async with admin(server) as http:
        listed = (await http.get("/apis/kagent.dev/v1alpha2/hooks")).json()
        for hook in listed["items"]:
            meta = hook["metadata"]
            await http.delete(f"/apis/kagent.dev/v1alpha2/namespaces/{meta['namespace']}/hooks/{meta['name']}")
