"""A service behind a real loopback socket: faults arrive as broken connections, and closing is quick and clean."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import HangUp, Refuse, Request, Response
from khook.sandbox.http import Served, serve
from khook.sandbox.store import Store
from khook.seams import SystemClock


class Scripted:
    """Does what its path says."""

    async def handle(self, request: Request) -> Response:
        match request.path:
            case "/refuse":
                raise Refuse
            case "/hang-up":
                raise HangUp
            case "/cut":
                return Response(status=200, body=self._lines(cut=True))
            case "/forever":
                return Response(status=200, body=self._lines(cut=False))
            case "/flood":
                return Response(status=200, body=self._flood())
        echo = f"{request.method} {request.path} {dict(request.query)} {request.headers['x-a']} {request.body.decode()}"
        return Response(status=201, headers={"x-b": "c"}, body=echo.encode())

    async def _lines(self, *, cut: bool) -> AsyncIterator[bytes]:
        yield b"one\n"
        if cut:
            raise HangUp
        await asyncio.Event().wait()

    async def _flood(self) -> AsyncIterator[bytes]:
        """A line every few turns of the loop, so that one falls between a connection's end and the news of it."""
        for turns in itertools.cycle(range(1, 8)):
            yield b"one\n"
            for _ in range(turns):
                await asyncio.sleep(0)


def over_a_socket(test: Callable[[Served, httpx.AsyncClient], Awaitable[None]]) -> None:
    async def main() -> None:
        served = await serve(Scripted())
        try:
            async with httpx.AsyncClient(base_url=served.url, timeout=10, trust_env=False) as client:
                await test(served, client)
        finally:
            await served.close()

    asyncio.run(main())


def test_a_request_and_its_answer_arrive_whole() -> None:
    async def test(served: Served, client: httpx.AsyncClient) -> None:
        answer = await client.put("/a%2Fb?x=1&y=%3D", content=b"body", headers={"X-A": "head"})
        assert (answer.status_code, answer.headers["x-b"]) == (201, "c")
        assert answer.text == "PUT /a/b {'x': '1', 'y': '='} head body"

    over_a_socket(test)


@pytest.mark.parametrize("path", ["/refuse", "/hang-up"])
def test_a_connection_that_breaks_before_the_answer(path: str) -> None:
    async def test(served: Served, client: httpx.AsyncClient) -> None:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post(path, json={})

    over_a_socket(test)


def test_a_stream_that_is_cut_has_no_last_chunk() -> None:
    async def test(served: Served, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/cut") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "one"
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await anext(lines)

    over_a_socket(test)


def test_closing_ends_open_streams_cleanly_and_then_nobody_listens() -> None:
    async def test(served: Served, client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/forever") as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "one"
            async with asyncio.timeout(1):
                await served.close()
            assert [line async for line in lines] == []
        with pytest.raises(httpx.ConnectError):
            await client.get("/forever")

    over_a_socket(test)


def test_a_client_that_goes_in_mid_stream_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def test(served: Served, client: httpx.AsyncClient) -> None:
        for _ in range(30):
            async with client.stream("GET", "/flood") as answer:
                assert await anext(answer.aiter_lines()) == "one"

    over_a_socket(test)
    assert caplog.records == []


def test_a_silent_watch_is_forgotten_when_its_client_goes() -> None:
    async def main() -> None:
        clock = SystemClock()
        api = ApiServer(Store(randomness=random.Random(1), now=clock.now()), clock=clock)
        served = await serve(api)
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            async with client.stream("GET", "/api/v1/events", params={"watch": "1"}):
                assert len(api.open_watches) == 1
            async with asyncio.timeout(5):
                while api.open_watches:
                    await asyncio.sleep(0.01)
        await served.close()

    asyncio.run(main())
