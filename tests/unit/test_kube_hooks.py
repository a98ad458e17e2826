"""Reading Hooks and writing their status, on the embedded API server with the generated CRD."""

import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.objects import entry, hook

from khook.api.crd import crd
from khook.errors import Conflict, KubeError, NotFound
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.hooks import HookRef, Hooks
from khook.kube.resources import HOOK_PAGE_SIZE
from khook.sandbox import virtual_time
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Response
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock


class World:
    def __init__(self) -> None:
        self.store = Store(randomness=random.Random(1), now=START)
        self.api = ApiServer(self.store, clock=VirtualClock())
        self.store.create(
            self.store.kind("apiextensions.k8s.io", "v1", "customresourcedefinitions"), None, crd(), now=START
        )
        self.kind = self.store.kind("kagent.dev", "v1alpha2", "hooks")
        self.hooks = Hooks(
            KubeClient(
                credentials=Credentials(server="http://api"),
                transports=InMemoryTransports({"http://api": self.api}),
                clock=VirtualClock(),
            )
        )

    def create(self, name: str) -> tuple[HookRef, str]:
        stored = self.store.create(self.kind, "default", hook(name, entry("oom-kill"), namespace="default"), now=START)
        metadata = stored["metadata"]
        return HookRef(namespace="default", name=name, uid=metadata["uid"]), metadata["resourceVersion"]


def play(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await test(World())

    virtual_time.run(main())


def test_all_hooks_of_a_namespace_are_listed_whole_over_several_pages() -> None:
    async def test(world: World) -> None:
        names = [f"hook-{n:03}" for n in range(2 * HOOK_PAGE_SIZE + 1)]
        for name in names:
            world.create(name)
        hooks = await world.hooks.list("default")
        assert [one["metadata"]["name"] for one in hooks] == names
        assert hooks[0]["spec"]["eventConfigurations"][0]["eventType"] == "oom-kill"
        assert world.api.requests[("list", "hooks")] == 3

    play(test)


def test_a_status_is_merged_and_the_stored_hook_returned() -> None:
    async def test(world: World) -> None:
        ref, version = world.create("hook")
        stored = await world.hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:30:00Z"})
        assert stored["status"]["lastUpdated"] == "2024-01-15T10:30:00Z"
        assert stored == await world.hooks.get(ref)
        again = await world.hooks.patch_status(ref, stored["metadata"]["resourceVersion"], {"lastUpdated": None})
        assert "lastUpdated" not in again.get("status", {})

    play(test)


def test_a_status_computed_from_an_older_version_is_a_conflict() -> None:
    async def test(world: World) -> None:
        ref, version = world.create("hook")
        await world.hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:30:00Z"})
        with pytest.raises(Conflict):
            await world.hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:31:00Z"})

    play(test)


def test_a_status_never_reaches_another_hook_that_has_the_name_now() -> None:
    async def test(world: World) -> None:
        ref, version = world.create("hook")
        world.store.delete(world.kind, "default", "hook", now=START)
        with pytest.raises(NotFound):
            await world.hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:30:00Z"})
        world.create("hook")
        with pytest.raises(Conflict):
            await world.hooks.patch_status(ref, version, {"lastUpdated": "2024-01-15T10:30:00Z"})

    play(test)


def test_a_hook_that_cannot_be_read_fails_the_list_instead_of_being_forgotten() -> None:
    async def test(world: World) -> None:
        page = b'{"metadata":{"resourceVersion":"5"},"items":[{},"not a hook"]}'
        world.api.fail_next(lambda call: True, Response(status=200, body=page))
        with pytest.raises(KubeError):
            await world.hooks.list("default")

    play(test)
