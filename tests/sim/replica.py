"""One replica of khook on its machine: a supervisor, its workers, and the kubelet that starts it again.

Everything in it is the real code; what is simulated is what surrounds it: the launcher runs workers as tasks, the
transports know their machine, the channel is read by a third party.
"""

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from khook import settings
from khook.core.election import LeaseLimits
from khook.errors import LeaseLost, PoolGaveUp
from khook.kube.credentials import Credentials
from khook.seams import DEFAULT_TICKS, Ticks
from khook.supervisor.process import Supervisor
from khook.worker.process import Seams, serve
from shards import wire
from shards.launch import Channel, InProcessLauncher, Seat
from shards.member import PoolGone
from shards.policy import PoolLimits
from sim.history import Death, History, Hold, Stopped
from sim.network import AGENTS, API, Network
from sim.plan import Machine, WorldPlan
from sim.processes import MachineClock, Processes, outside

KEY: Final = "a-key-nobody-may-see"
RARE_TICKS: Final = Ticks(worker_s=15.0, health_s=10.0, files_s=600.0)
RARE_BEATS: Final = PoolLimits(heartbeat_s=12.0, heartbeat_timeout_s=36.0, look_s=20.0)
REAL_BEATS: Final = PoolLimits()
FRAIL: Final = {"crash_budget": 2, "crash_window_s": 300.0, "broken_for_s": 300.0, "probation_s": 20.0}
RARE_RENEWALS: Final = LeaseLimits(duration_s=60.0, renew_deadline_s=40.0, retry_s=12.0, poll_s=15.0)
REAL_RENEWALS: Final = LeaseLimits()
CREDENTIALS: Final = Credentials(server=f"http://{API}")
HOME: Final = "kagent-system"
"""Where khook runs and its Lease lies."""
CONTAINER_BACK_OFF_S: Final = 2.0
ORPHANS_LIVE_S: Final = 0.018
"""How long a worker may outlive its supervisor: the kernel's PDEATHSIG, at its slowest."""


@dataclass(slots=True)
class _Held:
    epoch: int
    number: int
    from_s: float


class Book:
    """Who holds what, as the channels say it."""

    def __init__(self, history: History, *, at_s: Callable[[], float], numbers: Iterator[int]) -> None:
        self._history = history
        self._numbers = numbers
        self._at_s = at_s
        self._held: dict[tuple[str, str], _Held] = {}
        self._stopped: dict[str, float] = {}

    def granted(self, process: str, namespace: str, epoch: int) -> None:
        self._held[process, namespace] = _Held(epoch, next(self._numbers), self._at_s())

    def let_go(self, process: str, namespace: str) -> None:
        held = self._held.pop((process, namespace), None)
        if held is not None:
            self._history.holds.append(
                Hold(
                    process=process,
                    namespace=namespace,
                    epoch=held.epoch,
                    number=held.number,
                    from_s=held.from_s,
                    until_s=self._at_s(),
                    until_number=next(self._numbers),
                )
            )

    def died(self, process: str) -> None:
        for holder, namespace in [key for key in self._held if key[0] == process]:
            self.let_go(holder, namespace)
        self.went_on(process)
        self._history.deaths.append(Death(at_s=self._at_s(), process=process))

    def stopped(self, process: str) -> None:
        self._stopped.setdefault(process, self._at_s())

    def went_on(self, process: str) -> None:
        since = self._stopped.pop(process, None)
        if since is not None:
            self._history.stopped.append(Stopped(process=process, from_s=since, until_s=self._at_s()))


class _Overheard:
    """A member's end of its channel, with somebody who listens."""

    def __init__(self, channel: Channel, *, process: str, book: Book) -> None:
        self._channel = channel
        self._process = process
        self._book = book

    def send(self, body: bytes) -> None:
        self._channel.send(body)
        if b"stopped" in body:
            match wire.decode_from_member(body):
                case wire.Stopped(key=key):
                    self._book.let_go(self._process, key)
                case _:
                    pass

    async def receive(self) -> bytes:
        body = await self._channel.receive()
        if b"grant" in body:
            match wire.decode_from_pool(body):
                case wire.Grant(key=key, epoch=epoch):
                    self._book.granted(self._process, key, epoch)
                case _:
                    pass
        return body

    async def flushed(self) -> None:
        await self._channel.flushed()

    def close(self) -> None:
        self._channel.close()


class Replica:
    def __init__(
        self,
        number: int,
        machine: Machine,
        *,
        plan: WorldPlan,
        network: Network,
        processes: Processes,
        chance: random.Random,
        book: Book,
        history: History,
    ) -> None:
        self.name = f"r{number}"
        self.supervisor: Supervisor | None = None
        self.process = ""
        self.workers: dict[str, str] = {}
        """The newest process of each slot."""
        self._machine = machine
        self._plan = plan
        self._network = network
        self._processes = processes
        self._chance = chance
        self._book = book
        self._history = history
        self._clock = MachineClock(processes.loop, skew=timedelta(seconds=machine.skew_s), rate=machine.rate)
        self._launcher: InProcessLauncher | None = None
        self._lives = 0
        self._life: asyncio.Task[None] | None = None
        self._wanted = True

    # What a kubelet does.

    def start(self) -> None:
        self._wanted = True
        if self._life is None or self._life.done():
            self._lives += 1
            with outside():
                self._life = asyncio.create_task(self._live(f"{self.name}.{self._lives}"))

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        self._wanted = False
        if self.supervisor is not None and self._life is not None:
            self.supervisor.stop()
            await asyncio.wait([self._life])

    def kill(self) -> None:
        """SIGKILL to the supervisor; the kernel sends it to the workers in its own time."""
        self._wanted = False
        if self._launcher is not None:
            for process in self._launcher.processes.values():
                delay_s = self._chance.uniform(0.0, ORPHANS_LIVE_S)
                with outside():
                    asyncio.get_running_loop().call_later(delay_s, process.signal, signal.SIGKILL)
        self._processes.end(self.process)
        if self._life is not None:
            self._life.cancel()

    @property
    def alive(self) -> bool:
        return self._life is not None and not self._life.done() and self._processes.alive(self.process)

    # Signals to parts of it.

    def kill_worker(self, process: str) -> None:
        for slot, name in self.workers.items():
            if name == process and self._launcher is not None:
                self._launcher.processes[slot].signal(signal.SIGKILL)

    def signal_worker(self, slot: int, number: signal.Signals) -> None:
        name = f"w{slot % self._plan.workers}"
        if self._launcher is not None and name in self._launcher.processes:
            self._launcher.processes[name].signal(number)

    def freeze(self, process: str) -> None:
        if self._processes.alive(process):
            self._processes.stop(process)
            self._book.stopped(process)

    def thaw(self, process: str) -> None:
        self._processes.go_on(process)
        self._book.went_on(process)

    def all_processes(self) -> list[str]:
        return [self.process, *self.workers.values()]

    def worker(self, slot: int) -> str:
        return self.workers.get(f"w{slot % self._plan.workers}", "")

    # Its life.

    async def _live(self, process: str) -> None:
        self._processes.begin(process, rate=self._machine.rate)
        self.process, self.workers = process, {}
        self._launcher = InProcessLauncher(
            self._work, on_kill=lambda slot: self._processes.end(self.workers[slot]), first_pid=1000 * self._lives
        )
        try:
            self.supervisor = self._make_supervisor(process)
            await self.supervisor.run()
        except asyncio.CancelledError:
            raise
        except LeaseLost:
            pass
        except Exception as error:  # noqa: BLE001 - whatever ends khook is a fact for the checkers
            if not (self._plan.frail and isinstance(error, PoolGaveUp)):
                self._history.errors.append(f"{process}: {error!r}")
        finally:
            self.supervisor = None
            self._processes.end(process)
            for worker in self._launcher.processes.values():
                worker.signal(signal.SIGKILL)
            if self._wanted:
                with outside():
                    asyncio.get_running_loop().call_later(CONTAINER_BACK_OFF_S, self._start_again)

    def _start_again(self) -> None:
        if self._wanted:
            self.start()

    def _make_supervisor(self, process: str) -> Supervisor:
        plan = self._plan
        return Supervisor(
            settings=_SETTINGS.of(plan, self.name),
            credentials=CREDENTIALS,
            load_credentials=_load,
            launcher=self._launcher,  # type: ignore[arg-type]
            clock=self._clock,
            randomness=random.Random(self._chance.getrandbits(64)),
            transports=self._network.transports(process=process, replica=self.name),
            instance=self.name,
            ticks=DEFAULT_TICKS if plan.real_ticks else RARE_TICKS,
            pool_limits=_limits(plan),
            lease_limits=REAL_RENEWALS if plan.real_ticks else RARE_RENEWALS,
        )

    async def _work(self, seat: Seat) -> None:
        process = self.workers[seat.slot] = f"{self.process}.{seat.slot}.{seat.pid}"
        self._processes.begin(process, rate=self._machine.rate)
        heard = _Overheard(seat.channel, process=process, book=self._book)
        seams = Seams(
            clock=self._clock,
            randomness=random.Random(self._chance.getrandbits(64)),
            transports=self._network.transports(process=process, replica=self.name),
            configure_log=lambda *_: None,
            ticks=DEFAULT_TICKS if self._plan.real_ticks else RARE_TICKS,
        )
        try:
            await serve(replace(seat, channel=heard), seams=seams)
        except (asyncio.CancelledError, PoolGone):
            raise
        except Exception as error:
            if self._processes.alive(process):
                self._history.errors.append(f"{process}: {error!r}")
            raise
        finally:
            self._processes.end(process)


def _limits(plan: WorldPlan) -> PoolLimits:
    limits = REAL_BEATS if plan.real_ticks else RARE_BEATS
    return replace(limits, **FRAIL) if plan.frail else limits  # type: ignore[arg-type]


async def _load() -> Credentials:
    return CREDENTIALS


class _Settings:
    """Reading them costs milliseconds, and worlds differ in few."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], settings.Settings] = {}

    def of(self, plan: WorldPlan, name: str) -> settings.Settings:
        environ = {
            "KAGENT_BASE_URL": f"http://{AGENTS}",
            "KAGENT_API_KEY": KEY,
            "KAGENT_PROTOCOL": "execute" if plan.speaks == "execute" else "auto",
            "KHOOK_WORKERS": str(plan.workers),
            "KHOOK_CALLS_PER_AGENT": str(plan.calls_per_agent),
            "LEADER_ELECTION": "true" if plan.election else "false",
            "POD_NAMESPACE": HOME,
            "KHOOK_REDELIVER_FOR": f"{plan.redeliver_for_s}s",
            "KHOOK_CALLS_PER_HOOK_HOUR": str(plan.calls_an_hour),
            "KHOOK_RUN_DEADLINE": f"{plan.run_deadline_s}s",
        }
        key = (repr(sorted(environ.items())), name)
        if key not in self._known:
            self._known[key] = settings.load(environ)
        return self._known[key]


_SETTINGS: Final = _Settings()
