"""A loopback proxy in front of a real API server: plain http towards khook, https towards the server.

It changes nothing but the query, by the rewrite it is given; so a test can end watches early in the one way that is
the server's own, by a lower `timeoutSeconds`. Bodies pass as they come. A server that refuses or cuts is passed on as
a cut, without a last chunk. `part` is a network that loses everything: nothing is refused, nothing arrives, until
`heal`. It runs in a thread of its own, so that a test may block.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp
from aiohttp import web

Query = dict[str, str]
Rewrite = Callable[[Query], Query]

_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
"""Each connection's own (RFC 9110 7.6.1); lengths are written anew."""
CLOSING_TURNS: Final = 3
"""An aborted TLS connection gives its socket back in one of the loop's next turns."""
_CANCELLED_WITHIN_S: Final = 5.0


def watches_end_after(seconds: int) -> Rewrite:
    """Every watch asks for `seconds` at most."""

    def rewrite(query: Query) -> Query:
        if "watch" not in query:
            return query
        return query | {"timeoutSeconds": str(min(seconds, int(query.get("timeoutSeconds", seconds))))}

    return rewrite


class Proxy:
    """`start`, use `url`, `stop`. `rewritten` counts the requests whose query was changed."""

    def __init__(self, target: str, *, tls: ssl.SSLContext, rewrite: Rewrite = lambda query: query) -> None:
        self.url = ""
        self.rewritten = 0
        self._target = target
        self._tls = tls
        self._rewrite = rewrite
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._whole = asyncio.Event()
        self._whole.set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def part(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.clear)

    def heal(self) -> None:
        self._loop.call_soon_threadsafe(self._whole.set)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as self._upstream:
            server = web.Server(self._pass, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(server, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()
            await connector.close(abort_ssl=True)  # a goodbye over TLS would take longer than the loop lives
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    async def _pass(self, incoming: web.BaseRequest) -> web.StreamResponse:
        query = dict(incoming.query)
        wanted = self._rewrite(query)
        self.rewritten += wanted != query
        await self._whole.wait()
        try:
            async with self._upstream.request(
                incoming.method,
                self._target + incoming.path,
                params=wanted,
                headers=_end_to_end(incoming.headers),
                data=await incoming.read() or None,
            ) as answer:
                await self._whole.wait()
                outgoing = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
                await outgoing.prepare(incoming)
                async for chunk in answer.content.iter_any():
                    await self._whole.wait()
                    await outgoing.write(chunk)
        except (aiohttp.ClientError, OSError):
            return await _cut(incoming)
        await outgoing.write_eof()
        return outgoing


async def _cut(incoming: web.BaseRequest) -> web.StreamResponse:
    """Drop the connection; its loss cancels this handler (`handler_cancellation`), so nothing more is written."""
    if incoming.transport is not None:
        incoming.transport.abort()
    await asyncio.sleep(_CANCELLED_WITHIN_S)
    raise ConnectionResetError("cut by the proxy")


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}
