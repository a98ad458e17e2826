"""The worker's end: says hello, beats from the event loop itself, starts what is granted, stops what is revoked.

Knows the pool's messages and nothing of what a key is for; that is `Work`. Invariants: `Stopped` is sent only after
`Work.stop` returned, and no start of that key is running then; beats go on while keys start and stop; once the
channel is gone nothing is drained, because another process may own the keys already. A key whose start raises is
tried again here, with back-off, until it starts or is revoked; the pool is told each time.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from shards import wire
from shards.launch import ChannelClosed, ChannelFull, Clock, Seat
from shards.permission import HELLO, Permission

_T = TypeVar("_T")

STARTS_AT_ONCE: Final = 32
"""Enough to hide the round trips of a start, few enough not to storm what all starts talk to."""
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
DRAIN_GRACE_S: Final = 1.0
"""What a drain may overrun before it is cut; less than the pool's patience, so that the exit code tells."""
MAX_PROBLEM_CHARS: Final = 500


class Work(Protocol):
    """What the member's user supplies. What any of it raises ends the process, but for `start` and `stop`.

    Who inherits it may leave out what it has no use for, but for these two.
    """

    async def welcome(self, payload: bytes) -> None:
        """What the owner hands a new member. Returns before the first `start`; `told` may be called meanwhile."""

    @abstractmethod
    async def start(self, key: str, epoch: int) -> None:
        """Returns when the key runs. May be cancelled by a revoke, then `stop` follows; may raise, then comes again."""

    @abstractmethod
    async def stop(self, key: str, epoch: int) -> None:
        """Returns when nothing of the key runs and all is flushed, also after a start that never finished. If it
        raises, the revoke stays unacknowledged and the pool kills the process."""

    def told(self, payload: bytes) -> None:
        """A message from the owner; may come before the start it concerns has returned, or begun."""

    def report(self) -> bytes:
        """The payload of the next heartbeat; small, and at once."""
        return b""

    async def drain(self, drain_s: float) -> None:
        """Finish or record what is in flight and flush everything, within `drain_s`. No start runs any more,
        a stop may."""


class PoolGone(Exception):
    """The channel ended: the pool is dead or has given up on this process, which must end at once."""


@dataclass(slots=True, kw_only=True)
class _Held:
    epoch: int
    task: asyncio.Task[None]
    stopping: bool = False


class Member:
    """One process's membership. `drain_s` is for a SIGTERM sent to this process itself; the pool's stop brings its own.

    `run` returns after a drain, and raises PoolGone, TimeoutError (the drain overran), WireError, or what `Work`
    raised.
    """

    def __init__(self, seat: Seat, *, work: Work, clock: Clock, drain_s: float = 20.0) -> None:
        self._seat = seat
        self._channel = seat.channel
        self._work = work
        self._clock = clock
        self._drain_s = drain_s
        self.permission = Permission(clock)
        """Until when `Work` may act outwardly."""
        self._held: dict[str, _Held] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE)
        self._welcomed = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], None] = {}
        loop = asyncio.get_running_loop()
        self._leave: asyncio.Future[float] = loop.create_future()
        """Its result is the drain time, once it is time to go."""
        self._broken: asyncio.Future[None] = loop.create_future()
        """Its exception is why nothing is left to save."""

    async def run(self) -> None:
        self._seat.on_terminate(self.leave)
        hello = wire.Hello(
            protocol=wire.PROTOCOL,
            slot=self._seat.slot,
            pid=self._seat.pid,
            preload_problem=self._seat.preload_problem,
        )
        try:
            self.permission.sent(HELLO)
            self._send(hello)
            self._spawn(self._receive())
            drain_s = await self._unless_broken(self._leave)
            await self._unless_broken(asyncio.ensure_future(self._drain(drain_s)))
        finally:
            while self._tasks:
                await _cancelled(list(self._tasks))
            if self._broken.done():
                self._broken.exception()  # raised above, or too late to matter: either way it was seen

    def ask(self, payload: bytes) -> None:
        """A message to the pool's owner, who may answer by `told`."""
        self._send(wire.Ask(payload=payload))

    def leave(self) -> None:
        """Drain and exit; the pool starts a successor. What SIGTERM to this process does."""
        if not self._leave.done():
            self._send(wire.Leaving(drain_s=self._drain_s))
            self._leave.set_result(self._drain_s)

    def _send(self, message: wire.FromMember) -> None:
        try:
            self._channel.send(wire.encode(message))
        except (ChannelClosed, ChannelFull) as error:
            self._break(PoolGone(repr(error)))

    def _break(self, error: BaseException) -> None:
        if not self._broken.done():
            self._broken.set_exception(error)

    async def _unless_broken(self, awaited: "asyncio.Future[_T]") -> _T:
        either: list[asyncio.Future[Any]] = [awaited, self._broken]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not awaited.done():
                self._broken.result()
            return awaited.result()
        finally:
            if not awaited.done():
                await _cancelled([awaited])

    async def _drain(self, drain_s: float) -> None:
        await _cancelled([held.task for held in self._held.values() if not held.stopping])
        async with asyncio.timeout(drain_s + DRAIN_GRACE_S):
            if self._welcomed.is_set():  # else nothing was ever started
                await self._work.drain(drain_s)
            await self._channel.flushed()

    async def _receive(self) -> None:
        try:
            while True:
                self._heard(wire.decode_from_pool(await self._channel.receive()))
        except ChannelClosed:
            self._break(PoolGone("the channel ended"))

    def _heard(self, message: wire.FromPool) -> None:
        match message:
            case wire.Welcome(heartbeat_s=heartbeat_s, permission_s=permission_s, payload=payload):
                self.permission.answered(HELLO, permission_s)
                self._spawn(self._beat(heartbeat_s))
                self._spawn(self._be_welcomed(payload))
            case wire.Grant(key=key, epoch=epoch):
                self._granted(key, epoch)
            case wire.Revoke(key=key, epoch=epoch):
                self._revoked(key, epoch)
            case wire.Tell(payload=payload):
                self._work.told(payload)
            case wire.Stop(drain_s=drain_s):
                if not self._leave.done():
                    self._leave.set_result(drain_s)
            case wire.HeartbeatReply(sequence=sequence, permission_s=permission_s):
                self.permission.answered(sequence, permission_s)

    async def _be_welcomed(self, payload: bytes) -> None:
        await self._work.welcome(payload)
        self._welcomed.set()

    async def _beat(self, heartbeat_s: float) -> None:
        sequence = 0
        due_at = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            report = self._work.report()
            self.permission.sent(sequence)
            self._send(wire.Heartbeat(sequence=sequence, lag_s=max(0.0, now - due_at), report=report))
            sequence += 1
            due_at = now + heartbeat_s
            await asyncio.sleep(heartbeat_s)

    def _granted(self, key: str, epoch: int) -> None:
        if self._leave.done():
            return  # on the way out: the pool grants it to the successor
        if key in self._held:
            raise wire.WireError(f"{key!r} was granted while it is held")
        self._held[key] = _Held(epoch=epoch, task=self._spawn(self._start(key, epoch)))

    async def _start(self, key: str, epoch: int) -> None:
        await self._welcomed.wait()
        retry_s = RETRY_FIRST_S
        while True:
            try:
                async with self._starts:
                    await self._work.start(key, epoch)
            except Exception as error:  # noqa: BLE001 - a task guard: one key must not take the others down
                self._send(wire.Failed(key=key, epoch=epoch, problem=_problem(error)))
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, RETRY_MAX_S)
            else:
                self._send(wire.Started(key=key, epoch=epoch))
                return

    def _revoked(self, key: str, epoch: int) -> None:
        held = self._held.get(key)
        if held is None:  # never taken up: nothing of it runs here
            self._send(wire.Stopped(key=key, epoch=epoch))
        elif held.epoch == epoch and not held.stopping:
            held.stopping = True
            self._spawn(self._stop(key, held))

    async def _stop(self, key: str, held: _Held) -> None:
        await _cancelled([held.task])
        try:
            await self._work.stop(key, held.epoch)
        except Exception as error:  # noqa: BLE001 - a task guard: the pool ends this process for it, in its own time
            self._send(wire.Failed(key=key, epoch=held.epoch, problem=_problem(error)))
            return
        del self._held[key]
        self._send(wire.Stopped(key=key, epoch=held.epoch))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)


async def _cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Returns when all of them have ended, whatever they did on their way out."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _problem(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_PROBLEM_CHARS]
