"""A pool in which a request costs the same whatever else is under way: each connection has a transport of its own.

httpcore looks at all its connections at each request and at each answer, asks the kernel about every idle one, and
counts them all once more for each of these; past `max_keepalive_connections` it closes whatever is idle. A hundred
Hooks whose statuses are written side by side made that a third of a worker's CPU. So here every httpcore pool holds
one connection, and the pools that are free lie on a stack: the one that was used last is used first.

What a request means is untouched: errors, timeouts, the age after which an idle connection is not trusted are those
of the transports that `make` makes. A request that fails, or is cancelled, takes its transport with it, so no place
can be lost.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import httpx


class OneEach(httpx.AsyncBaseTransport):
    """At most `most` requests at one time, the others wait for their turn; `most_idle` free connections are kept,
    for `idle_s` at most. Raises httpx.PoolTimeout when a turn does not come in the request's own pool timeout.
    """

    def __init__(
        self, make: Callable[[], httpx.AsyncBaseTransport], *, most: int, most_idle: int, idle_s: float
    ) -> None:
        self._make = make
        self._most_idle = most_idle
        self._idle_s = idle_s
        self._places = asyncio.Semaphore(most)
        self._busy: set[httpx.AsyncBaseTransport] = set()
        self._free: deque[tuple[float, httpx.AsyncBaseTransport]] = deque()
        """Since when, and which; the one that was used last is last."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await self._enter(request)
        transport: httpx.AsyncBaseTransport | None = None
        try:
            await self._close_old()
            transport = self._free.pop()[1] if self._free else self._make()
            self._busy.add(transport)
            response = await transport.handle_async_request(request)
        except BaseException:
            # Whether httpcore would ever give its connection out again is not worth knowing.
            self._left(transport)
            if transport is not None:
                await transport.aclose()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Stream(response.stream, ended=partial(self._ended, transport))
        return response

    async def aclose(self) -> None:
        """Also of what is under way, as httpcore does."""
        self._most_idle = 0
        transports = [*self._busy, *(free for _, free in self._free)]
        self._free.clear()
        for transport in transports:
            await transport.aclose()

    async def _enter(self, request: httpx.Request) -> None:
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._places.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use", request=request) from None

    async def _close_old(self) -> None:
        """httpcore would not trust them any more; their sockets are given back before anybody needs one."""
        old_at = asyncio.get_running_loop().time() - self._idle_s
        while self._free and self._free[0][0] <= old_at:
            await self._free.popleft()[1].aclose()

    async def _ended(self, transport: httpx.AsyncBaseTransport) -> None:
        self._left(transport)
        if len(self._free) < self._most_idle:
            self._free.append((asyncio.get_running_loop().time(), transport))
        else:
            await transport.aclose()

    def _left(self, transport: httpx.AsyncBaseTransport | None) -> None:
        if transport is not None:
            self._busy.discard(transport)
        self._places.release()


class _Stream(httpx.AsyncByteStream):
    """An answer's body; `ended` is called once, after it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, *, ended: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._ended = ended
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._stream)

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._stream.aclose()
        finally:
            await self._ended()
