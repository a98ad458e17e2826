"""The supervisor's HTTP: `/metrics` on one port, `/healthz` and `/readyz` on another, the status at an address.

Scrapes are made one at a time and kept for a second, so that an eager reader cannot load the loop that also
supervises. Bodies are counts, names and reasons. What cannot be listened on is a bad setting: all of it is said at
once.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web

from khook.address import Address
from khook.errors import SettingsError
from khook.supervisor.kept import Kept
from khook.supervisor.status_document import Status
from khook.supervisor.status_site import status_app

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON_TYPE: Final = "application/json"
EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - a pod's probes and scrapes come from outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the three listen; what was asked for as port 0 has its real one."""

    metrics_port: int
    health_port: int
    status_address: Address


class Servers:
    """The three listeners. `exposition()` reads the metrics directory, in a thread; `ready()` gives the verdict and the
    body; `status()` asks for the document."""

    def __init__(
        self,
        *,
        exposition: Callable[[], bytes],
        ready: Callable[[], tuple[bool, dict[str, Any]]],
        status: Callable[[], Awaitable[Status]],
    ) -> None:
        self._scrape = Kept(lambda: asyncio.to_thread(exposition))
        self._ready = ready
        self._status = status
        self._runners: list[web.AppRunner] = []

    async def start(
        self, *, metrics_port: int, health_port: int, status_address: Address, host: str = EVERYWHERE
    ) -> Listening:
        """Raises SettingsError with each that cannot be listened on, under its setting's name."""
        metrics_app, health_app = web.Application(), web.Application()
        metrics_app.router.add_get("/metrics", self._metrics)
        health_app.router.add_get("/healthz", self._healthz)
        health_app.router.add_get("/readyz", self._readyz)
        wanted = [
            ("METRICS_PORT", Address(host, metrics_port), metrics_app),
            ("HEALTH_PORT", Address(host, health_port), health_app),
            ("KHOOK_STATUS_ADDRESS", status_address, status_app(self._status, address=status_address)),
        ]
        bound, problems = [], []
        for name, address, app in wanted:
            try:
                bound.append(await self._listen(address, app))
            except OSError as error:
                problems.append(f"{name}: cannot listen on {address}: {_why(error)}; choose another, or 0 for any free")
        if problems:
            raise SettingsError(problems)
        metrics, health, status = bound
        return Listening(metrics_port=metrics, health_port=health, status_address=Address(status_address.host, status))

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def _listen(self, address: Address, app: web.Application) -> int:
        """The port. Raises OSError."""
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, address.host, address.port).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._scrape.read(), headers={"Content-Type": METRICS_TYPE})

    async def _healthz(self, _: web.Request) -> web.Response:
        # The loop that supervises is the loop that answers: an answer is the proof.
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        ready, body = self._ready()
        return web.Response(status=200 if ready else 503, body=orjson.dumps(body), headers={"Content-Type": JSON_TYPE})


def _why(error: OSError) -> str:
    """The system's words; asyncio puts the address into its own, and a resolver's numbers are negative."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error.strerror or error)
