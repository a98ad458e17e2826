"""The embedded API server in virtual time, through httpx: bookmarks by the minute, and every switch for a fault."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from khook.sandbox.api_routes import ApiCall
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import HangUp, Response
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.kinds import PODS
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock, run

Json = dict[str, Any]
MERGE = {"content-type": "application/merge-patch+json"}
POD: Json = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}


def patches(call: ApiCall) -> bool:
    return call.verb == "patch"


def in_virtual_time(test: Callable[[ApiServer, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def world() -> None:
        api = ApiServer(Store(randomness=random.Random(1), now=START), clock=VirtualClock())
        transport = InMemoryTransports({"http://api": api}).exact(tls=None)
        async with httpx.AsyncClient(transport=transport, base_url="http://api", timeout=10) as client:
            await test(api, client)

    run(world())


@asynccontextmanager
async def watching(client: httpx.AsyncClient, path: str, **params: str) -> AsyncIterator[AsyncIterator[Json]]:
    query = {"watch": "1"} | params
    async with client.stream("GET", path, params=query, timeout=httpx.Timeout(10, read=100)) as answer:
        assert answer.status_code == 200
        yield (orjson.loads(line) async for line in answer.aiter_lines())


def test_pods_get_a_bookmark_a_minute_and_events_none() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        start = str(api.store.revision)
        api.store.create(PODS, "kube-system", POD, now=START)
        asked = {"resourceVersion": start, "allowWatchBookmarks": "true", "timeoutSeconds": "130"}
        found = []
        async with watching(client, "/api/v1/namespaces/default/pods", **asked) as lines:
            async for line in lines:
                found.append((line["type"], loop.time()))
        assert found == [("BOOKMARK", 60.0), ("BOOKMARK", 120.0), ("BOOKMARK", 128.0)]
        quiet = asked | {"timeoutSeconds": "90"}
        async with watching(client, "/api/v1/namespaces/default/events", **quiet) as lines:
            assert [line async for line in lines] == []
        assert loop.time() == 130.0 + 90.0
        assert api.watch_ends == {"pods": 1, "events": 1}

    in_virtual_time(test)


def test_a_stalled_watch_says_nothing_until_the_reader_gives_up() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        loop = asyncio.get_running_loop()
        async with watching(client, "/api/v1/pods", resourceVersion=str(api.store.revision)) as lines:
            api.stall()
            api.store.create(PODS, "default", POD, now=START)
            with pytest.raises(httpx.ReadTimeout):
                await anext(lines)
        assert loop.time() == 100.0
        assert api.open_watches == []

    in_virtual_time(test)


def test_an_unstalled_watch_catches_up() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        api.stall()
        async with watching(client, "/api/v1/pods", resourceVersion=str(api.store.revision)) as lines:
            api.store.create(PODS, "default", POD, now=START)
            asyncio.get_running_loop().call_later(50, api.unstall)
            assert (await anext(lines))["type"] == "ADDED"
        assert asyncio.get_running_loop().time() == 50.0

    in_virtual_time(test)


def test_a_lost_answer_was_carried_out() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        api.store.create(PODS, "default", POD, now=START)
        api.fault(patches, lose_answer=True)
        body = {"status": {"phase": "Running"}}
        path = "/api/v1/namespaces/default/pods/p/status"
        with pytest.raises(httpx.RemoteProtocolError):
            await client.patch(path, json=body, headers=MERGE)
        assert (await client.get(path)).json()["status"]["phase"] == "Running"
        assert (await client.patch(path, json=body, headers=MERGE)).status_code == 200

    in_virtual_time(test)


def test_a_fault_hits_as_often_as_it_says_and_only_what_fits() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        api.fail_next(lambda call: call.resource == "pods", Response(status=503, headers={"retry-after": "7"}), times=2)
        codes = [
            (await client.get(path)).status_code for path in ("/api/v1/pods", "/api/v1/events", *["/api/v1/pods"] * 2)
        ]
        assert codes == [503, 200, 503, 200]
        assert api.answers[("list", "pods", 503)] == 2
        assert api.requests == {("list", "pods"): 3, ("list", "events"): 1}

    in_virtual_time(test)


def test_a_slow_answer_is_a_read_timeout_and_is_never_given() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        api.store.create(PODS, "default", POD, now=START)
        api.fault(patches, delay_s=60)
        with pytest.raises(httpx.ReadTimeout):
            await client.patch(
                "/api/v1/namespaces/default/pods/p", json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE
            )
        assert asyncio.get_running_loop().time() == 10.0

    in_virtual_time(test)


def test_refused_hung_up_and_cut_are_different_errors() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        undo = api.refuse(lambda call: True)
        with pytest.raises(httpx.ConnectError):
            await client.get("/api/v1/pods")
        undo()
        api.fail_next(lambda call: True, HangUp())
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            await client.get("/api/v1/pods")
        async with watching(client, "/api/v1/pods") as lines:
            assert api.cut_connections() == 1
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                await anext(lines)

    in_virtual_time(test)


def test_a_stopped_server_refuses_and_comes_back_with_its_data() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        api.store.create(PODS, "default", POD, now=START)
        api.stop()
        with pytest.raises(httpx.ConnectError):
            await client.get("/readyz")
        api.start()
        assert len((await client.get("/api/v1/pods")).json()["items"]) == 1

    in_virtual_time(test)


def test_tokens_and_grants_are_asked_at_the_start_of_a_watch_and_not_again() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        async with watching(client, "/api/v1/pods", resourceVersion=str(api.store.revision)) as lines:
            api.tokens = frozenset({"good"})
            api.forbid(verb="watch", resource="pods", namespace="default")
            api.store.create(PODS, "default", POD, now=START)
            assert (await anext(lines))["type"] == "ADDED"
        good = {"authorization": "Bearer good"}
        namespaced = "/api/v1/namespaces/default/pods?watch=1&timeoutSeconds=1"
        assert (await client.get("/api/v1/pods")).status_code == 401
        assert (await client.get("/api/v1/pods", headers=good)).status_code == 200
        assert (await client.get(namespaced, headers=good)).status_code == 403
        assert (await client.get("/api/v1/pods?watch=1&timeoutSeconds=1", headers=good)).status_code == 200
        assert (await client.get("/readyz")).status_code == 200

    in_virtual_time(test)


def test_a_watch_whose_answer_was_never_read_is_forgotten() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/api/v1/pods", params={"watch": "1"}):
            assert len(api.open_watches) == 1
        assert api.open_watches == []

    in_virtual_time(test)


def test_watches_can_be_ended_cleanly_after_what_came() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        async with watching(client, "/api/v1/pods", resourceVersion=str(api.store.revision)) as lines:
            api.store.create(PODS, "default", POD, now=START)
            assert api.end_watches() == 1
            assert [line["type"] async for line in lines] == ["ADDED"]

    in_virtual_time(test)


def test_the_date_header_is_the_clocks() -> None:
    async def test(api: ApiServer, client: httpx.AsyncClient) -> None:
        assert (await client.get("/readyz")).headers["date"] == "Mon, 15 Jan 2024 10:30:00 GMT"

    in_virtual_time(test)
