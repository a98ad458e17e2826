"""The seam between a pool and the processes it runs: launcher, process, channel, seat.

A `Launcher` fills a slot with a process and hands back the pool's end; the code in the process gets a `Seat`, the
member's end. Two launchers exist: real processes (`shards.forkserver`), and `InProcessLauncher` here, which runs
each member as an asyncio task over an in-memory channel: no socket, no thread, no clock, so it also runs on a loop
in virtual time. Whoever is written against this seam cannot tell which it has.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import Final, Protocol

from shards.wire import MAX_MESSAGE_BYTES, WireError

MAX_QUEUED_BYTES: Final = 4 * MAX_MESSAGE_BYTES
"""What may wait for a peer that does not read: ten thousand grants are 0.5 MiB, the rest is the peer's fault."""


class Clock(Protocol):
    def monotonic(self) -> float: ...


class LaunchFailed(Exception):
    """No process came of it; counts as a death of the slot."""


class ChannelClosed(Exception):
    """The other end is gone, or this one was closed."""


class ChannelFull(Exception):
    """The peer does not read: `MAX_QUEUED_BYTES` wait for it."""


class Channel(Protocol):
    """Whole messages (bytes), in order, both ways."""

    def send(self, body: bytes) -> None:
        """Queue a message; never waits. Raises ChannelClosed, ChannelFull."""
        ...

    async def receive(self) -> bytes:
        """The next message. Raises ChannelClosed at the end, WireError for what is not a frame."""
        ...

    async def flushed(self) -> None:
        """Returns when all that was sent has left this process. Raises ChannelClosed."""
        ...

    def close(self) -> None: ...


class Process(Protocol):
    """One process in a slot. `pid` is what the operating system, or the simulation, calls it."""

    @property
    def pid(self) -> int: ...

    @property
    def channel(self) -> Channel: ...

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is dead."""
        ...

    async def exited(self) -> str:
        """Returns how it ended ("exit 0", "SIGKILL") when it is gone for certain, and not before."""
        ...


class Launcher(Protocol):
    async def launch(self, slot: str) -> Process:
        """Raises LaunchFailed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What the code in a slot's process is given."""

    slot: str
    pid: int
    channel: Channel
    on_terminate: Callable[[Callable[[], None]], None]
    """Registers what SIGTERM does; until then it kills."""
    preload_problem: str = ""


Serve = Callable[[Seat], Awaitable[None]]
"""The whole life of a process in a slot. It ends the process when it returns or raises."""


class MemoryChannel:
    """One end of an in-memory channel; make two with `memory_channels`."""

    def __init__(self) -> None:
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._peer: MemoryChannel | None = None

    def join(self, peer: "MemoryChannel") -> None:
        self._peer = peer

    def send(self, body: bytes) -> None:
        if len(body) > MAX_MESSAGE_BYTES:
            raise WireError(f"a frame of {len(body)} bytes, {MAX_MESSAGE_BYTES} are allowed")
        if self._closed or self._peer is None or self._peer._closed:
            raise ChannelClosed
        if self._peer._inbox_bytes + len(body) > MAX_QUEUED_BYTES:
            raise ChannelFull
        self._peer._deliver(body)

    def _deliver(self, body: bytes) -> None:
        self._inbox.append(body)
        self._inbox_bytes += len(body)
        self._arrived.set()

    async def receive(self) -> bytes:
        while not self._inbox:
            if self._closed or self._peer is None or self._peer._closed:
                raise ChannelClosed
            self._arrived.clear()
            await self._arrived.wait()
        body = self._inbox.popleft()
        self._inbox_bytes -= len(body)
        return body

    async def flushed(self) -> None:
        if self._closed:
            raise ChannelClosed

    def close(self) -> None:
        """What was sent before stays readable at the other end, as with a socket."""
        self._closed = True
        self._arrived.set()
        if self._peer is not None:
            self._peer._arrived.set()


def memory_channels() -> tuple[MemoryChannel, MemoryChannel]:
    one, other = MemoryChannel(), MemoryChannel()
    one.join(other)
    other.join(one)
    return one, other


class InProcessProcess:
    """A member as a task. SIGKILL closes its channel at once and cancels it; it is dead when the task has ended."""

    def __init__(self, *, slot: str, pid: int, serve: Serve, on_kill: Callable[[str], None] | None) -> None:
        self.pid = pid
        self.channel, self._far_end = memory_channels()
        self._slot = slot
        self._on_kill = on_kill
        self._terminate: Callable[[], None] | None = None
        self._killed_by = ""
        self._dead: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        seat = Seat(slot=slot, pid=pid, channel=self._far_end, on_terminate=self._set_terminate)
        self._task = asyncio.ensure_future(serve(seat))
        self._task.add_done_callback(self._bury)

    def signal(self, number: signal.Signals) -> None:
        if self._task.done() or self._killed_by:
            return
        if number is signal.SIGTERM and self._terminate is not None:
            self._terminate()
            return
        self._killed_by = number.name
        if self._on_kill is not None:
            self._on_kill(self._slot)
        self._far_end.close()
        self._task.cancel()

    async def exited(self) -> str:
        return await asyncio.shield(self._dead)

    def _set_terminate(self, handler: Callable[[], None]) -> None:
        self._terminate = handler

    def _bury(self, task: "asyncio.Future[None]") -> None:
        self._far_end.close()
        error = None if task.cancelled() else task.exception()
        ending = "exit 1: cancelled" if task.cancelled() else "exit 0" if error is None else f"exit 1: {error!r}"
        self._dead.set_result(self._killed_by or ending)


class InProcessLauncher:
    """Members as tasks of the running loop. `on_kill(slot)` lets a simulation cut what else the process had open."""

    def __init__(self, serve: Serve, *, on_kill: Callable[[str], None] | None = None, first_pid: int = 1000) -> None:
        self._serve = serve
        self._on_kill = on_kill
        self._pids = count(first_pid)
        self.processes: dict[str, InProcessProcess] = {}
        """The newest process of each slot, for a test that wants to harm it."""

    async def launch(self, slot: str) -> Process:
        process = InProcessProcess(slot=slot, pid=next(self._pids), serve=self._serve, on_kill=self._on_kill)
        self.processes[slot] = process
        return process
