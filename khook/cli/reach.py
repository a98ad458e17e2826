"""The API server as a command for people reaches it: with the credentials that `khook run` would take, asked once.

Everything is read, nothing retried: who types a command sees what went wrong and types it again.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from khook import log
from khook.core.owner import ResourceRef
from khook.core.pods import PodFacts
from khook.core.signal import EventLine, PodLine
from khook.errors import Invalid, KhookError, KubeError, NotFound
from khook.kube.client import PAGE_LIMIT_BYTES, KubeClient
from khook.kube.credentials import Credentials
from khook.kube.hooks import HookObject, Hooks
from khook.kube.listing import list_into
from khook.kube.resources import EVENTS, HOOKS, PODS
from khook.kube.transports import NetworkTransports
from khook.seams import Clock, SystemClock, Transports
from khook.supervisor.credentials import load_beside_the_loop
from khook.worker.owners import Owners


class Cluster:
    """Raises KubeErrors."""

    def __init__(self, client: KubeClient, *, clock: Clock, namespace: str) -> None:
        self.client = client
        self.clock = clock
        self.namespace = namespace
        """The kubeconfig context's, or the service account's."""

    async def hooks(self, namespace: str | None) -> list[HookObject]:
        """Of one namespace, or of all."""
        if namespace is not None:
            return list(await Hooks(self.client).list(namespace))
        found = _All()
        await list_into(found, client=self.client, resource=HOOKS, namespace=None, skipped=lambda _: None)
        return found.objects

    async def pod(self, namespace: str, name: str) -> PodLine | None:
        """None: there is none of this name."""
        try:
            return await self.client.get_object(PODS, namespace, name, PodLine)
        except NotFound:
            return None

    async def events(self, namespace: str, pod: str) -> list[EventLine]:
        """What Kubernetes still says about the pod."""
        body = await self.client.get(
            EVENTS.path(namespace),
            params={"fieldSelector": f"involvedObject.kind=Pod,involvedObject.name={pod}"},
            limit_bytes=PAGE_LIMIT_BYTES,
        )
        try:
            return EVENTS.pages.decode(body).items or []
        except (msgspec.MsgspecError, ValueError) as error:
            raise Invalid(f"not a list of Events: {error}") from None

    async def owner(self, namespace: str, pod: PodFacts) -> ResourceRef:
        """As the worker finds it."""
        tasks: set[asyncio.Task[None]] = set()
        found: asyncio.Future[ResourceRef] = asyncio.get_running_loop().create_future()
        owners = Owners(
            namespace=namespace,
            client=self.client,
            clock=self.clock,
            randomness=random.Random(),  # noqa: S311 - of a back-off
            spawn=lambda work: tasks.add(asyncio.create_task(work)),
            log=log.get("khook"),
        )
        owners.find(pod, found.set_result)
        return await found


class _All:
    def __init__(self) -> None:
        self.objects: list[Any] = []

    def list_started(self) -> None:
        self.objects.clear()

    def listed(self, objects: Any) -> None:
        self.objects.extend(objects)

    def list_ended(self) -> None:
        """All are there."""


@asynccontextmanager
async def reached(
    environ: Mapping[str, str], *, credentials: Credentials | None = None, transports: Transports | None = None
) -> AsyncIterator[Cluster]:
    """Raises SettingsError where the credentials cannot be loaded. A KubeError inside says which server it was."""
    clock = SystemClock()
    credentials = credentials or await load_beside_the_loop(environ)
    client = KubeClient(credentials=credentials, transports=transports or NetworkTransports(), clock=clock)
    try:
        yield Cluster(client, clock=clock, namespace=credentials.namespace or "default")
    except KubeError as error:
        raise KhookError(f"the API server at {credentials.server}: {error}") from error
    finally:
        await client.aclose()
