"""Puts a `Service` where HTTP clients look for one: behind a real loopback socket, or in memory behind httpx.

`serve` is aiohttp.web: keep-alive, chunked streams, cut connections where the service refuses or hangs up.
`InMemoryTransports` is the `Transports` seam without sockets: the same faults arrive as the httpx errors that a
client of the real thing sees, and read timeouts hold for the answer and between two chunks. It needs nothing of the
event loop but timers, so it runs on a virtual-time loop.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import parse_qsl

import httpx
from aiohttp import web

from khook.sandbox.exchange import HangUp, Refuse, Request, Response, Service

# aiohttp cancels the handler in the next turn of the loop; this only bounds the wait for it.
CANCELLED_WITHIN_S: Final = 5.0


class Served:
    """A service that listens. `close` ends open streams cleanly and at once, then stops listening."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._streams: dict[int, asyncio.Task[object]] = {}
        self._closing = False
        self._runner = web.ServerRunner(
            web.Server(self._handle, handler_cancellation=True, access_log=None), shutdown_timeout=1.0
        )
        self.url = ""

    async def open(self, host: str, port: int) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        self._closing = True
        for task in list(self._streams.values()):
            task.cancel()
        await self._runner.cleanup()

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        request = Request(
            method=incoming.method,
            path=incoming.path,
            query=dict(incoming.query),
            headers={name.lower(): value for name, value in incoming.headers.items()},
            body=await incoming.read(),
        )
        try:
            response = await self._service.handle(request)
        except (Refuse, HangUp):
            return await _cut(incoming)
        if isinstance(response.body, bytes):
            return web.Response(status=response.status, headers=response.headers, body=response.body)
        return await self._stream(incoming, response, response.body)

    async def _stream(
        self, incoming: web.BaseRequest, response: Response, body: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        outgoing = web.StreamResponse(status=response.status, headers=response.headers)
        outgoing.enable_chunked_encoding()
        task = asyncio.current_task()
        assert task is not None
        self._streams[id(task)] = task
        try:
            await outgoing.prepare(incoming)
            async for chunk in body:
                await outgoing.write(chunk)
        except HangUp:
            return await _cut(incoming)
        except ConnectionResetError:
            return outgoing  # the client is gone, as clients go: that is no error of the server's
        except asyncio.CancelledError:
            if not self._closing:
                raise
            task.uncancel()
        finally:
            del self._streams[id(task)]
            await _closed(body)
        with suppress(ConnectionResetError):  # as above
            await outgoing.write_eof()
        return outgoing


async def _cut(incoming: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection; its loss cancels this handler (`handler_cancellation`), so nothing more is written."""
    if incoming.transport is not None:
        incoming.transport.abort()
    await asyncio.sleep(CANCELLED_WITHIN_S)
    raise ConnectionResetError("cut by the service")


async def _closed(body: AsyncIterator[bytes]) -> None:
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


async def serve(service: Service, *, host: str = "127.0.0.1", port: int = 0) -> Served:
    """Listen until `close`; port 0 takes a free one, `url` says which."""
    served = Served(service)
    await served.open(host, port)
    return served


class InMemoryTransports:
    """`khook.seams.Transports` to services by origin (`http://api:80`, the port may be left out).

    The mapping is looked at anew for each request: a test may add and remove services while clients run.
    """

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services

    def streaming(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        return InMemoryTransport(self._services)

    def exact(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        return InMemoryTransport(self._services)


class InMemoryTransport(httpx.AsyncBaseTransport):
    """One request at a time straight into a `Service`."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        service = self._service(request)
        incoming = Request(
            method=request.method,
            path=request.url.path,
            query=dict(parse_qsl(request.url.query.decode("ascii"), keep_blank_values=True)),
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw},
            body=await request.aread(),
        )
        read_timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
        if (trace := request.extensions.get("trace")) is not None:
            # httpcore's word for it: the whole request has left, from here on silence may be an agent at work.
            await trace("http11.send_request_body.complete", {})
        try:
            async with _read_timeout(request, read_timeout_s):
                response = await service.handle(incoming)
        except Refuse as fault:
            raise httpx.ConnectError("All connection attempts failed", request=request) from fault
        except HangUp as fault:
            message = "Server disconnected without sending a response."
            raise httpx.RemoteProtocolError(message, request=request) from fault
        if isinstance(response.body, bytes):
            return httpx.Response(response.status, headers=response.headers, content=response.body)
        stream = _Chunks(response.body, request=request, read_timeout_s=read_timeout_s)
        return httpx.Response(response.status, headers=response.headers, stream=stream)

    def _service(self, request: httpx.Request) -> Service:
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        for origin in (f"{url.scheme}://{url.host}:{port}", f"{url.scheme}://{url.host}"):
            if origin in self._services:
                return self._services[origin]
        raise httpx.ConnectError(f"nobody listens at {url.scheme}://{url.host}:{port}", request=request)


class _Chunks(httpx.AsyncByteStream):
    """A streamed body; a cut arrives as httpx reports it for a chunked answer without its last chunk."""

    def __init__(self, body: AsyncIterator[bytes], *, request: httpx.Request, read_timeout_s: float | None) -> None:
        self._body = body
        self._request = request
        self._read_timeout_s = read_timeout_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with _read_timeout(self._request, self._read_timeout_s):
                    chunk = await anext(self._body)
            except StopAsyncIteration:
                return
            except HangUp as fault:
                message = "peer closed connection without sending complete message body (incomplete chunked read)"
                raise httpx.RemoteProtocolError(message, request=self._request) from fault
            yield chunk

    async def aclose(self) -> None:
        await _closed(self._body)


@asynccontextmanager
async def _read_timeout(request: httpx.Request, timeout_s: float | None) -> AsyncIterator[None]:
    """`timeout_s` of silence is an httpx.ReadTimeout; a TimeoutError from inside stays what it is."""
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise httpx.ReadTimeout("", request=request) from error
