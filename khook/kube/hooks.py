"""Reading Hooks and writing their status.

A status patch carries the uid and the resourceVersion that it was computed from. What guards is the version: 409 when
somebody wrote in between, and when another object has the name now, because no two objects share one. (The uid is
for people who read audit logs: on a custom resource's status the API server ignores it, where on a built-in kind it
is a precondition; apiextensions-apiserver `customresource/status_strategy.go`.) Only the namespace's owner writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from khook.errors import KubeError
from khook.kube.client import KubeClient
from khook.kube.listing import list_into
from khook.kube.resources import HOOKS

HookObject: TypeAlias = dict[str, Any]
"""A Hook as the API server wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookRef:
    """Which Hook: by name for people and paths, by uid for what must not pass to a namesake."""

    namespace: str
    name: str
    uid: str

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Hooks:
    """The API server's Hooks. Every method raises KubeErrors and never retries."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def list(self, namespace: str) -> Sequence[HookObject]:
        """All Hooks of a namespace, consistent."""
        collector = _Collector()
        await list_into(
            collector, client=self._client, resource=HOOKS, namespace=namespace, skipped=collector.unreadable
        )
        return collector.hooks

    async def get(self, ref: HookRef) -> HookObject:
        """The Hook that has this name now; its uid may be another's."""
        return await self._client.get_object(HOOKS, ref.namespace, ref.name, HookObject)

    async def patch_status(self, ref: HookRef, resource_version: str, status: dict[str, Any]) -> HookObject:
        """Merge `status`; the Hook as stored. Raises Conflict when the version is not this one any more."""
        body = {"metadata": {"uid": ref.uid, "resourceVersion": resource_version}, "status": status}
        return await self._client.patch(f"{HOOKS.path(ref.namespace, ref.name)}/status", body)


@dataclass(slots=True)
class _Collector:
    hooks: list[HookObject] = field(default_factory=list)

    def list_started(self) -> None:
        self.hooks.clear()

    def listed(self, objects: Sequence[HookObject]) -> None:
        self.hooks.extend(objects)

    def list_ended(self) -> None:
        """All are there."""

    def unreadable(self, item: bytes) -> None:
        """A Hook that is no JSON object would be forgotten and its incidents fired again: better no answer."""
        raise KubeError(f"a listed Hook is not an object ({len(item)} bytes)")
