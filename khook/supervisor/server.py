"""The supervisor's HTTP: `/metrics` on one port, `/healthz` and `/readyz` on the other.

One scrape is made at a time and kept for a second, so that an eager scraper cannot load the loop that also
supervises. Bodies are counts and reasons.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from aiohttp import web

SCRAPE_KEPT_S: Final = 1.0
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Scrapes:
    """The metrics directory, read in a thread: one reader at a time."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self._exposition = exposition
        self._lock = asyncio.Lock()
        self._body = b""
        self._read_at = float("-inf")

    async def read(self) -> bytes:
        async with self._lock:
            now_at = asyncio.get_running_loop().time()
            if now_at - self._read_at >= SCRAPE_KEPT_S:
                self._body = await asyncio.to_thread(self._exposition)
                self._read_at = asyncio.get_running_loop().time()
            return self._body


class Servers:
    """Both listeners; `ready()` gives the verdict and the body."""

    def __init__(self, *, exposition: Callable[[], bytes], ready: Callable[[], tuple[bool, dict[str, Any]]]) -> None:
        self._scrapes = Scrapes(exposition)
        self._ready = ready
        self._runners: list[web.AppRunner] = []

    async def start(self, *, metrics_port: int, health_port: int, host: str = "0.0.0.0") -> tuple[int, int]:  # noqa: S104 - a pod's probes and scrapes come from outside
        """Listen; returns the two ports (an asked-for 0 is any free one)."""
        metrics = await self._listen(host, metrics_port, {"/metrics": self._metrics})
        health = await self._listen(host, health_port, {"/healthz": self._healthz, "/readyz": self._readyz})
        return metrics, health

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(
        self, host: str, port: int, routes: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]]
    ) -> int:
        app = web.Application()
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._scrapes.read(), headers={"Content-Type": CONTENT_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        # The loop that supervises is the loop that answers: an answer is the proof.
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready, body = self._ready()
        return web.Response(
            status=200 if ready else 503, body=orjson.dumps(body), headers={"Content-Type": "application/json"}
        )
