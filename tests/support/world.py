"""khook in one process and virtual time: the real supervisor and workers, an embedded API server and agents.

Everything shares one injected clock, nothing touches a socket, and a minute costs milliseconds. Use as

    def test_...() -> None:
        async def story(world: World) -> None: ...
        play(story)
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import httpx

from khook import log, settings
from khook.api.crd import crd
from khook.kube.credentials import Credentials
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Service
from khook.sandbox.http import InMemoryTransport, InMemoryTransports
from khook.sandbox.kagent import Kagent, Run
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock, run
from khook.supervisor.process import Supervisor
from khook.worker.process import Seams, serve
from shards.launch import InProcessLauncher, Seat
from support.cluster import Cluster
from support.objects import Json

API = "http://api"
AGENTS = "http://agents"
KEY = "a-key-nobody-may-see"


class World:
    """`cluster` is what users and kubelets do, `agents` what was called, `supervisor` khook itself."""

    def __init__(self, *, environ: dict[str, str], hook_crd: Json, seed: int) -> None:
        self.clock = VirtualClock()
        self._chance = random.Random(seed)
        self.store = Store(randomness=random.Random(seed), now=self.clock.now())
        self.api = ApiServer(self.store, clock=self.clock)
        self.agents = Kagent(api_key=KEY)
        services: dict[str, Service] = {API: self.api, AGENTS: KagentService(self.agents, clock=self.clock)}
        self.transports = InMemoryTransports(services)
        self.http = httpx.AsyncClient(transport=InMemoryTransport(services), base_url=API)
        self.cluster = Cluster(self.http)
        self._crd = hook_crd
        self._environ = {"KAGENT_BASE_URL": AGENTS, "KAGENT_API_KEY": KEY, "KHOOK_WORKERS": "2"} | environ
        self.launcher = InProcessLauncher(self._serve)
        self.supervisor = self._new_supervisor()
        self._running: asyncio.Task[None] | None = None

    def _new_supervisor(self) -> Supervisor:
        return Supervisor(
            settings=settings.load(self._environ),
            load_credentials=lambda: Credentials(server=API),
            launcher=self.launcher,
            clock=self.clock,
            randomness=random.Random(self._chance.getrandbits(64)),
            transports=self.transports,
            instance="khook-0",
        )

    async def _serve(self, seat: Seat) -> None:
        chance = random.Random(self._chance.getrandbits(64))
        seams = Seams(
            clock=self.clock, randomness=chance, transports=self.transports, configure_log=lambda level, format: None
        )
        await serve(seat, seams=seams)

    async def prepare(self) -> None:
        await self.cluster.crd(self._crd)

    async def start(self) -> None:
        """Start khook and wait until it is ready."""
        self._running = asyncio.create_task(self.supervisor.run())
        await self.until(lambda: self.supervisor.ready()[0])

    async def stop(self) -> None:
        if self._running is not None:
            self.supervisor.stop()
            await self._running
            self._running = None

    async def restart(self) -> None:
        await self.stop()
        self.supervisor = self._new_supervisor()
        await self.start()

    def now(self) -> datetime:
        return self.clock.now()

    async def at(self, seconds: float) -> None:
        """Sleep until this many seconds after the start of the world."""
        await asyncio.sleep(max(0.0, seconds - asyncio.get_running_loop().time()))

    async def after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def until(self, holds: Callable[[], bool], *, within: timedelta = timedelta(minutes=3)) -> None:
        """Let time pass until it holds; fails after `within`."""
        async with asyncio.timeout(within.total_seconds()):
            while not holds():
                await asyncio.sleep(0.1)

    async def called(self, count: int) -> list[Run]:
        """Wait until this many calls were accepted, and a little longer for one too many."""
        await self.until(lambda: len(self.agents.runs) >= count)
        await self.after(5)
        assert len(self.agents.runs) == count, [run.context for run in self.agents.runs]
        return self.agents.runs


def play(
    story: Callable[[World], Awaitable[None]],
    *,
    environ: dict[str, str] | None = None,
    hook_crd: Json | None = None,
    start: datetime = START,
    seed: int = 1,
) -> None:
    """Run a story in a world of its own; khook is stopped at its end and must stop cleanly."""

    async def life() -> None:
        world = World(environ=environ or {}, hook_crd=hook_crd or crd(), seed=seed)
        await world.prepare()
        await story(world)
        await world.stop()
        await world.http.aclose()

    log.configure("warn", "text", strict=True)
    run(life(), start=start)
