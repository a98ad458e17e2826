"""khook in one process and virtual time: the real supervisor and workers, an embedded API server and agents.

Everything shares one injected clock, nothing touches a socket, and a minute costs milliseconds. Use as

    def test_...() -> None:
        async def story(world: World) -> None: ...
        play(story)
"""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import httpx
import orjson

from khook import log, metrics, settings
from khook.api.crd import crd
from khook.errors import KhookError
from khook.kube.credentials import Credentials
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Service
from khook.sandbox.http import InMemoryTransport, InMemoryTransports
from khook.sandbox.kagent import Behaviour, Kagent, Run, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock, run
from khook.supervisor.process import Supervisor
from khook.supervisor.status_document import encode
from khook.worker.process import Seams, serve
from shards.launch import InProcessLauncher, Seat
from support.cluster import Cluster, ready, rows
from support.objects import Json, event, hook, pod, running, workload

API = "http://api"
AGENTS = "http://agents"
KEY = "a-key-nobody-may-see"


_PROCESS: ContextVar[str] = ContextVar("process", default="")


class Processes:
    """Which tasks belong to which process, so that the death of one ends all that it had under way, and no more."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        make = loop.get_task_factory()
        assert make is not None
        self._make: Any = make
        self._tasks: dict[str, list[asyncio.Task[Any]]] = {}
        self._dead: set[str] = set()
        loop.set_task_factory(self._started)

    def begin(self, name: str) -> None:
        """The running task, and all that it and its children start from here on, are this process's."""
        _PROCESS.set(name)
        self._tasks[name] = []

    def end(self, name: str) -> None:
        """What is under way ends where it is; what a timer would still start ends before it begins."""
        self._dead.add(name)
        for task in self._tasks.pop(name, ()):
            task.cancel()

    def _started(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        task = self._make(loop, coro, **kwargs)
        name = _PROCESS.get()
        if name in self._dead:
            task.cancel()
        elif name in self._tasks:
            self._tasks[name].append(task)
            task.add_done_callback(lambda done: self._forget(name, done))
        return task

    def _forget(self, name: str, task: asyncio.Task[Any]) -> None:
        if task in (tasks := self._tasks.get(name, [])):
            tasks.remove(task)


class World:
    """`cluster` is what users and kubelets do, `agents` what was called, `supervisor` khook itself."""

    def __init__(
        self,
        *,
        environ: dict[str, str],
        hook_crd: Json,
        seed: int,
        skew: timedelta,
        speaks: Speaks,
        behaviour: Behaviour | None,
    ) -> None:
        self.clock = VirtualClock()
        self._khooks_clock = VirtualClock(skew=skew)
        self._chance = random.Random(seed)
        self.store = Store(randomness=random.Random(seed), now=self.clock.now())
        self.api = ApiServer(self.store, clock=self.clock)
        self.agents = Kagent(api_key=KEY, speaks=speaks, behaviour=behaviour)
        self.services: dict[str, Service] = {API: self.api, AGENTS: KagentService(self.agents, clock=self.clock)}
        """Who answers at which address; looked at anew for each request."""
        self.transports = InMemoryTransports(self.services)
        self.http = httpx.AsyncClient(transport=InMemoryTransport(self.services), base_url=API)
        self.cluster = Cluster(self.http)
        self._crd = hook_crd
        self._environ = {
            "KAGENT_BASE_URL": AGENTS,
            "KAGENT_API_KEY": KEY,
            "KAGENT_PROTOCOL": "execute" if speaks is Speaks.EXECUTE else "auto",
            "KHOOK_WORKERS": "2",
            "LEADER_ELECTION": "false",
        } | environ
        self.credentials: Credentials | KhookError | Callable[[], Credentials] = Credentials(server=API)
        """What khook is given, told or issued whenever it loads its credentials."""
        self.load_s = 0.0
        """How long a load takes, after the one at the start."""
        self.loads = 0
        self._processes = Processes()
        self._names: dict[str, str] = {}
        self._starts = 0
        self.launcher = InProcessLauncher(self._serve, on_kill=lambda slot: self._processes.end(self._names[slot]))
        self.supervisor = self._new_supervisor()
        self._running: asyncio.Task[None] | None = None

    def _new_supervisor(self) -> Supervisor:
        return Supervisor(
            settings=settings.load(self._environ),
            credentials=self._given(),
            load_credentials=self._load_credentials,
            launcher=self.launcher,
            clock=self._khooks_clock,
            randomness=random.Random(self._chance.getrandbits(64)),
            transports=self.transports,
            instance="khook-0",
        )

    async def _load_credentials(self) -> Credentials:
        self.loads += 1
        await asyncio.sleep(self.load_s)
        return self._given()

    def _given(self) -> Credentials:
        if isinstance(self.credentials, KhookError):
            raise self.credentials
        return self.credentials if isinstance(self.credentials, Credentials) else self.credentials()

    async def _serve(self, seat: Seat) -> None:
        name = self._names[seat.slot] = f"{seat.slot}-{seat.pid}"
        self._processes.begin(name)
        try:
            await self._work(seat)
        finally:
            self._processes.end(name)

    async def _work(self, seat: Seat) -> None:
        chance = random.Random(self._chance.getrandbits(64))
        seams = Seams(
            clock=self._khooks_clock, randomness=chance, transports=self.transports, configure_log=lambda *_: None
        )
        await serve(seat, seams=seams)

    async def prepare(self) -> None:
        await self.cluster.crd(self._crd)

    async def start(self) -> None:
        """Start khook and wait until it is ready."""
        self.launch()
        await self.until(self.is_ready)

    async def begin(self, *entries: Json, **spec: Any) -> None:
        """Hook `h` with these entries in the namespace `shop`, and khook running."""
        await self.cluster.namespace("shop")
        await self.cluster.hook(hook("h", *entries, namespace="shop", **spec))
        await self.start()

    async def well(
        self, name: str = "web-1", labels: dict[str, str] | None = None, *, owner: Json | None = None
    ) -> Json:
        """A pod in `shop` that runs and is Ready."""
        return await self.cluster.pod(pod(name, namespace="shop", labels=labels, owner=owner), running(now=self.now()))

    async def deployment(self, name: str = "web") -> Json:
        """A Deployment in `shop`; the ReplicaSet that its pods name."""
        made = await self.cluster.workload(workload("apps/v1", "Deployment", name, namespace="shop"))
        replica_set = workload("apps/v1", "ReplicaSet", f"{name}-7d4b9c", namespace="shop", owner=made)
        return await self.cluster.workload(replica_set)

    async def says(self, reason: str, message: str, *, of: Json, **fields: Any) -> Json:
        """A kubelet's Event about a pod, now."""
        return await self.cluster.event(event(reason, message, of=of, **({"now": self.now()} | fields)))

    def launch(self) -> None:
        """Start khook."""
        self._starts += 1
        self._running = asyncio.create_task(self._supervise(f"khook-{self._starts}"))

    async def _supervise(self, name: str) -> None:
        self._processes.begin(name)
        try:
            await self.supervisor.run()
        finally:
            self._processes.end(name)

    def is_ready(self) -> bool:
        return self.supervisor.ready()[0]

    async def status(self) -> Any:
        """`/status.json`, as it arrives."""
        return orjson.loads(encode(await self.supervisor.status()))

    async def stop(self) -> None:
        if self._running is not None:
            self.supervisor.stop()
            await self._running
            self._running = None

    async def restart(self) -> None:
        await self.stop()
        self.supervisor = self._new_supervisor()
        await self.start()

    def kill_worker(self, namespace: str) -> str:
        """SIGKILL to the worker that owns the namespace; its slot."""
        slot = self.owner(namespace)
        assert slot is not None, f"nobody owns {namespace}"
        self.launcher.processes[slot].signal(signal.SIGKILL)
        return slot

    async def crash(self) -> None:
        """SIGKILL to khook's supervisor and workers at once, then a new start."""
        for process in self.launcher.processes.values():
            process.signal(signal.SIGKILL)
        self._processes.end(f"khook-{self._starts}")
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        self.supervisor = self._new_supervisor()
        await self.start()

    def owner(self, namespace: str) -> str | None:
        """The slot that holds the namespace now."""
        view = self.supervisor.view().keys.get(namespace)
        return None if view is None else view.slot

    def ends(self) -> set[str | None]:
        """How the slots' last processes ended."""
        return {slot.last_death for slot in self.supervisor.view().slots.values()}

    def restarts(self) -> int:
        return sum(slot.restarts for slot in self.supervisor.view().slots.values())

    async def seconds_to_stop(self) -> float:
        since = asyncio.get_running_loop().time()
        await self.stop()
        return asyncio.get_running_loop().time() - since

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

    async def get_hook(self, namespace: str = "shop", name: str = "h") -> Json:
        return await self.cluster.get_hook(namespace, name)

    async def rows(self, namespace: str = "shop", name: str = "h") -> list[Json]:
        return rows(await self.get_hook(namespace, name))

    async def call(self, namespace: str = "shop", name: str = "h") -> Json:
        """The call of the Hook's one row."""
        (row,) = await self.rows(namespace, name)
        found: Json = row["call"]
        return found

    async def ready_condition(self, namespace: str = "shop", name: str = "h") -> Json:
        return ready(await self.get_hook(namespace, name))

    async def audit(self, reason: str, namespace: str = "shop", name: str = "h") -> list[Json]:
        """The Kubernetes Events on the Hook with this reason."""
        return [event for event in await self.cluster.events_on(namespace, name) if event["reason"] == reason]

    @property
    def status_writes(self) -> int:
        return self.api.requests[("patch", "hooks/status")]

    @staticmethod
    def metric(name: str) -> float:
        """One sample by its name with labels, as the exposition writes it; 0 where there is none."""
        lines = (line.rpartition(" ") for line in metrics.exposition().decode().splitlines())
        return next((float(value) for found, _, value in lines if found == name), 0.0)


def play(
    story: Callable[[World], Awaitable[None]],
    *,
    environ: dict[str, str] | None = None,
    hook_crd: Json | None = None,
    start: datetime = START,
    seed: int = 1,
    skew: timedelta = timedelta(0),
    speaks: Speaks = Speaks.EXECUTE,
    behaviour: Behaviour | None = None,
) -> None:
    """Run a story in a world of its own; khook is stopped at its end and must stop cleanly.

    `skew`: how far khook's wall clock is ahead of everybody else's. `speaks` and `behaviour`: what kind of kagent it
    has; one that speaks `execute` alone is told to khook, any other is found out.
    """

    async def life() -> None:
        world = World(
            environ=environ or {},
            hook_crd=hook_crd or crd(),
            seed=seed,
            skew=skew,
            speaks=speaks,
            behaviour=behaviour,
        )
        await world.prepare()
        await story(world)
        await world.stop()
        await world.http.aclose()

    log.configure("warn", "text", strict=True)
    run(life(), start=start)
