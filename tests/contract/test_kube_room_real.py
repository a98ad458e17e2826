"""The room that speaks to Kubernetes, against a real kube-apiserver: what it relies on beyond the contract suite."""

import asyncio
import gc
import random
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.objects import entry, hook, pod
from support.real_apiserver import RealApiServer

from khook.api.crd import crd
from khook.errors import Conflict, Forbidden, NotFound, Unauthorized
from khook.kube.audit import AuditTrail, Reason
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.hooks import HookRef, Hooks
from khook.kube.resources import EVENTS, HOOKS, HOOKS_METADATA, PODS, Change, Resource
from khook.kube.transports import NetworkTransports
from khook.kube.watch import Watch
from khook.seams import SystemClock
from khook.supervisor.credentials import load_credentials

pytestmark = pytest.mark.envtest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WITHIN_S = 30.0


class World:
    """A namespace of its own, a client, and a sink that keeps what it hears."""

    def __init__(self, *, credentials: Credentials, namespace: str) -> None:
        self.namespace = namespace
        self.client = KubeClient(credentials=credentials, transports=NetworkTransports(), clock=SystemClock())
        self.said: list[tuple[str, str]] = []
        self.counts: Counter[str] = Counter()
        self._news = asyncio.Event()

    async def until(self, fits: Callable[[], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not fits():
                self._news.clear()
                await self._news.wait()

    def watch(self, resource: Resource[Any]) -> Watch[Any]:
        return Watch(
            client=self.client,
            resource=resource,
            namespace=self.namespace,
            sink=self,
            clock=SystemClock(),
            randomness=random.Random(1),
            log=self,
            counters=self,
        )

    async def create_hook(self, name: str) -> tuple[HookRef, str]:
        body = hook(name, entry("oom-kill"), namespace=self.namespace)
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    stored = await self.client.create(HOOKS.path(self.namespace), body)
                except NotFound:  # the CRD is not established yet
                    await asyncio.sleep(0.1)
                else:
                    break
        metadata = stored["metadata"]
        return HookRef(namespace=self.namespace, name=name, uid=metadata["uid"]), metadata["resourceVersion"]

    def list_started(self) -> None: ...

    def listed(self, objects: Sequence[Any]) -> None:
        for obj in objects:
            self._say("LISTED", obj.metadata.name)

    def list_ended(self) -> None:
        self._say("END", "")

    def line(self, change: Change, obj: Any) -> None:
        self._say(change, obj.metadata.name)

    def _say(self, what: str, name: str) -> None:
        self.said.append((what, name))
        self._news.set()

    def ended(self, resource: str, cause: str) -> None:
        self.counts[f"ended {cause}"] += 1
        self._news.set()

    def relisted(self, resource: str, cause: str) -> None:
        self.counts[f"relisted {cause}"] += 1
        self._news.set()

    def skipped(self, resource: str, cause: str) -> None:
        self.counts[f"skipped {cause}"] += 1

    def debug(self, event: str, **values: object) -> None: ...

    def warning(self, event: str, **values: object) -> None: ...


@pytest.fixture
def credentials(real_apiserver: RealApiServer, tmp_path: Path) -> Credentials:
    return load_credentials({"KUBECONFIG": str(real_apiserver.write_kubeconfig(tmp_path / "config"))})


def play(credentials: Credentials, namespace: str, test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = World(credentials=credentials, namespace=namespace)
        try:
            await world.client.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
            await test(world)
        finally:
            await world.client.aclose()

    asyncio.run(main())
    with warnings.catch_warnings():
        # Seen on a busy machine: asyncio leaves the transport of a TLS connection that was given up to the collector.
        # It is collected here, and not in whatever test comes next, where it would be an error.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def install_crd(world: World) -> None:
    try:
        await world.client.create(CRDS, crd())
    except Conflict:
        return


def test_pods_are_listed_and_watched(credentials: Credentials) -> None:
    async def test(world: World) -> None:
        await world.client.create(PODS.path(world.namespace), pod("before", namespace=world.namespace))
        running = asyncio.ensure_future(world.watch(PODS).run())
        await world.until(lambda: ("END", "") in world.said)
        await world.client.create(PODS.path(world.namespace), pod("after", namespace=world.namespace))
        await world.until(lambda: ("ADDED", "after") in world.said)
        assert world.said == [("LISTED", "before"), ("END", ""), ("ADDED", "after")]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(credentials, "kube-room-pods", test)


def test_a_compacted_events_watch_is_listed_again(credentials: Credentials, real_apiserver: RealApiServer) -> None:
    async def test(world: World) -> None:
        running = asyncio.ensure_future(world.watch(EVENTS).run())
        await world.until(lambda: ("END", "") in world.said)
        for name in ("a", "b"):
            await world.client.create(PODS.path(world.namespace), pod(name, namespace=world.namespace))
        real_apiserver.compact()
        real_apiserver.restart()
        await world.until(lambda: world.counts["relisted gone"] == 1)
        assert world.counts["ended gone"] == 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(credentials, "kube-room-gone", test)


def test_events_on_a_hook_are_created_and_patched(credentials: Credentials) -> None:
    async def test(world: World) -> None:
        await install_crd(world)
        ref, _ = await world.create_hook("audited")
        trail = AuditTrail(
            client=world.client, clock=SystemClock(), randomness=random.Random(1), instance="khook-0", log=world
        )
        for _ in range(2):
            trail.record(ref, Reason.AGENT_CALL_FAILED, "x" * 2000, warning=True)
            await trail.flush(SystemClock().monotonic() + WITHIN_S)
        body = await world.client.get(f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events")
        assert b'"reportingController":"kagent-hook-controller"' in body
        assert b'"deprecatedCount":2' in body

    play(credentials, "kube-room-audit", test)


def test_hooks_come_as_metadata_and_their_status_is_guarded(credentials: Credentials) -> None:
    async def test(world: World) -> None:
        await install_crd(world)
        ref, version = await world.create_hook("guarded")
        hooks = Hooks(world.client)
        running = asyncio.ensure_future(world.watch(HOOKS_METADATA).run())
        await world.until(lambda: ("LISTED", "guarded") in world.said)
        status = {"lastUpdated": "2024-01-15T10:30:00Z"}
        stored = await hooks.patch_status(ref, version, status)
        assert stored["status"] == status
        with pytest.raises(Conflict):
            await hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:31:00Z"})
        await world.until(lambda: ("MODIFIED", "guarded") in world.said)
        other = HookRef(namespace=ref.namespace, name=ref.name, uid="another")
        stored = await hooks.patch_status(other, stored["metadata"]["resourceVersion"], status)
        assert stored["metadata"]["uid"] == ref.uid, "the uid is no precondition here: the version alone guards"
        assert [one["metadata"]["name"] for one in await hooks.list(world.namespace)] == ["guarded"]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    play(credentials, "kube-room-hooks", test)


def test_strangers_are_unauthorized_and_users_without_a_role_forbidden(
    credentials: Credentials, real_apiserver: RealApiServer
) -> None:
    async def test(world: World) -> None:
        world.client.replace(Credentials(server=credentials.server, ca_pem=credentials.ca_pem, token="wrong"))
        with pytest.raises(Unauthorized):
            await world.client.get(PODS.path(world.namespace))
        user = real_apiserver.user_token
        world.client.replace(Credentials(server=credentials.server, ca_pem=credentials.ca_pem, token=user))
        with pytest.raises(Forbidden):
            await world.client.get(PODS.path(world.namespace))

    play(credentials, "kube-room-strangers", test)
