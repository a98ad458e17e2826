"""The supervisor's loop: facts (exits, messages, timers, wishes) go into ring, plan and policy; actions come out.

Keeps a process in each slot and each wanted key with one of them. Decides nothing itself and never waits for a
process: a message is queued by the channel, and one that does not read is killed. What it promises rests on two
facts it takes from outside: `Process.exited` (only then is a key free, only then does a successor start) and the
member's `Stopped`. Nothing is kept on disk: a new pool starts from no holders, so its predecessor must be dead.
"""

import asyncio
import contextlib
import random
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shards import wire
from shards.launch import Channel, ChannelClosed, ChannelFull, Clock, Launcher, LaunchFailed, Process
from shards.plan import Grant, Plan, Revoke
from shards.policy import Action, Phase, PoolLimits, SlotPolicy, Why
from shards.ring import VIRTUAL_NODES, Ring
from shards.user import KeyView, Log, Owner, PoolBroken, PoolView, SlotView, key_view

__all__ = ["KeyView", "Log", "Owner", "Pool", "PoolBroken", "PoolView", "SlotView"]

MAX_SLEEP_S: Final = 1.0
"""The loop looks at the clock at least this often, so that a clock that runs unlike the loop's does no harm."""
MIN_SLEEP_S: Final = 0.001
"""A deadline that is nearer than a float can add to the time must not spin the loop."""
LATE_S: Final = 1.0
"""Woken later than this, the pool was itself stalled (stopped, starved), and forgives silence for as long."""
LAST_WORDS_S: Final = 1.0
"""How long a dead process's channel is read for what it still said."""
KILL_WAIT_S: Final = 5.0
"""How long an aborted or failed pool waits for the deaths of those it killed; one stuck in the kernel takes longer."""
MAX_PROBLEM_CHARS: Final = 500

_SIGNALS: Final = {
    Action.SIGTERM: signal.SIGTERM,
    Action.SIGABRT: signal.SIGABRT,
    Action.SIGKILL: signal.SIGKILL,
}


class _Place:
    """One slot and whatever fills it."""

    def __init__(self, slot: str, limits: PoolLimits) -> None:
        self.slot = slot
        self.policy = SlotPolicy(limits)
        self.process: Process | None = None
        self.life: asyncio.Task[None] | None = None
        self.launches = 0
        self.lag_s = 0.0
        self.last_death = ""

    def view(self, keys: Sequence[str]) -> SlotView:
        return SlotView(
            state=self.policy.phase,
            pid=self.process.pid if self.process is not None else None,
            restarts=max(0, self.launches - 1),
            keys=tuple(keys),
            lag_s=self.lag_s,
            last_death=self.last_death,
        )


class Pool:
    """Keeps `slots` filled and keys owned. Use one in one loop, call `run` once.

    `weights` in `want` are accepted and not used yet: every key counts the same.
    """

    def __init__(
        self,
        *,
        launcher: Launcher,
        owner: Owner,
        clock: Clock,
        randomness: random.Random,
        slots: Sequence[str],
        virtual_nodes: int = VIRTUAL_NODES,
        limits: PoolLimits,
        log: Log,
    ) -> None:
        if not slots:
            raise ValueError("a pool needs a slot")
        self._launcher = launcher
        self._owner = owner
        self._clock = clock
        self._randomness = randomness
        self._virtual_nodes = virtual_nodes
        self._limits = limits
        self._log = log
        self._ring = Ring(slots, virtual_nodes)
        self._plan = Plan()
        self._places = {slot: _Place(slot, limits) for slot in self._ring.slots}
        self._wake = asyncio.Event()
        self._running = False
        self._stop_drain_s: float | None = None
        self._aborted = False
        self._failure: Exception | None = None
        self._ended = asyncio.Event()

    # wishes

    def lead(self, first_epoch: int) -> None:
        """Begin to own: grants carry epochs from `first_epoch` on. Until then the pool keeps its processes warm and
        remembers what is wanted. Once. Raises ValueError the second time, and for an epoch below 1."""
        self._plan.lead(first_epoch)
        self._settle(self._clock.monotonic())

    def want(self, keys: Mapping[str, float]) -> None:
        """Exactly these keys shall be owned, each with a weight above 0."""
        homes = self._plan.homes()
        self._place_keys({key: homes.get(key) for key in keys})

    def tell(self, key: str, payload: bytes) -> bool:
        """A message to the key's owner; False if it has none, or is losing it."""
        hold = self._plan.holder(key)
        if hold is None or hold.revoking:
            return False
        return self._send(self._places[hold.slot], wire.Tell(payload=payload))

    def tell_slot(self, slot: str, payload: bytes) -> bool:
        """A message to the slot's member; False if it has none that was welcomed."""
        place = self._places[slot]
        welcomed = place.policy.phase in (Phase.RUNNING, Phase.STOPPING)
        return welcomed and self._send(place, wire.Tell(payload=payload))

    def tell_all(self, payload: bytes) -> None:
        for slot in self._places:
            self.tell_slot(slot, payload)

    def view(self) -> PoolView:
        holds, homes = self._plan.holds(), self._plan.homes()
        held_by: dict[str, list[str]] = {slot: [] for slot in self._places}
        for key, hold in holds.items():
            held_by[hold.slot].append(key)
        keys = {key: key_view(holds.get(key)) for key in dict.fromkeys([*homes, *holds])}
        return PoolView(slots={slot: place.view(held_by[slot]) for slot, place in self._places.items()}, keys=keys)

    async def run(self) -> None:
        """Until `stop` is done. Raises PoolBroken, or what `Owner` raised; no process is left alive either way."""
        self._running = True
        try:
            await self._keep()
        finally:
            self._running = False
            await self._bury_all()
            self._ended.set()

    async def stop(self, *, drain_s: float) -> None:
        """Members drain, then exit; returns when all are dead, `drain_s + limits.stop_overrun_s` later at worst."""
        self._stop_drain_s = drain_s
        now = self._clock.monotonic()
        for place in self._places.values():
            self._act(place, place.policy.stop(now, drain_s))
        self._wake.set()
        if self._running:
            await self._ended.wait()

    async def abort(self) -> None:
        """SIGKILL to every process now, no drain and no successor; `run` returns. Returns when all are dead, or after
        KILL_WAIT_S. For whoever may no longer own anything."""
        self._aborted = True
        for place in self._places.values():
            self._act(place, place.policy.abort())
        self._wake.set()
        if self._running:
            await self._ended.wait()

    # the loop

    async def _keep(self) -> None:
        while self._failure is None:
            if self._aborted:
                return
            now = self._clock.monotonic()
            self._turn(now)
            if all(place.policy.phase is Phase.BROKEN for place in self._places.values()):
                raise PoolBroken(f"all {len(self._places)} slots are broken")
            if all(place.policy.ended for place in self._places.values()):
                return
            await self._pause(now)
        raise self._failure

    def _turn(self, now: float) -> None:
        if self._stop_drain_s is None:  # else nobody waits for a key, and a drain is worth more than a revoke
            for slot in self._plan.overdue(now, self._limits.revoke_timeout_s):
                self._act(self._places[slot], self._places[slot].policy.condemn(now, Why.REVOKE_LATE))
        for place in self._places.values():
            while (action := place.policy.tick(now)) is not None:
                self._act(place, action)
        self._settle(now)

    async def _pause(self, now: float) -> None:
        deadlines = [place.policy.deadline_at for place in self._places.values()]
        revoke_at = self._plan.oldest_revoke_at()
        if revoke_at is not None:
            deadlines.append(revoke_at + self._limits.revoke_timeout_s)
        due_s = min([MAX_SLEEP_S, *(at - now for at in deadlines if at is not None and at > now)])
        wait_s = max(MIN_SLEEP_S, due_s)
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        late_s = self._clock.monotonic() - now - wait_s
        if late_s > LATE_S:
            self._log.warning("pool was stalled", late_s=round(late_s, 3))
            self._plan.postpone(late_s)
            for place in self._places.values():
                place.policy.postpone(late_s)

    def _settle(self, now: float) -> None:
        """Carry out what the plan wants done."""
        if self._stop_drain_s is not None or self._aborted:
            return  # each member drains what it has; nothing changes hands any more
        for step in self._plan.steps(now):
            match step:
                case Grant(slot=slot, key=key, epoch=epoch):
                    self._send(self._places[slot], wire.Grant(key=key, epoch=epoch))
                case Revoke(slot=slot, key=key, epoch=epoch):
                    self._send(self._places[slot], wire.Revoke(key=key, epoch=epoch))
                    self._wake.set()

    def _place_keys(self, homes: Mapping[str, str | None]) -> None:
        """Give a home on the ring to each key that has none, then hand over what that moves."""
        placed = {key: home or self._ring.owner(key) for key, home in homes.items()}
        self._plan.want({key: home for key, home in placed.items() if home is not None})
        self._settle(self._clock.monotonic())

    def _act(self, place: _Place, action: Action | None) -> None:
        match action:
            case None:
                pass
            case Action.START:
                place.launches += 1
                place.life = asyncio.get_running_loop().create_task(self._live(place))
            case Action.SEND_STOP:
                self._send(place, wire.Stop(drain_s=self._stop_drain_s or 0.0))
            case _:
                why = place.policy.why
                self._log.warning("worker was signalled", slot=place.slot, signal=action.value, why=why and why.value)
                if place.process is not None:
                    place.process.signal(_SIGNALS[action])

    def _send(self, place: _Place, message: wire.FromPool) -> bool:
        if place.process is None:
            return False
        try:
            place.process.channel.send(wire.encode(message))
        except ChannelClosed:
            return False
        except ChannelFull:
            self._condemn(place, Why.NOT_READING)
            return False
        return True

    def _condemn(self, place: _Place, why: Why, **values: Any) -> None:
        self._log.warning("worker was condemned", slot=place.slot, why=why.value, **values)
        self._act(place, place.policy.condemn(self._clock.monotonic(), why))
        self._wake.set()

    # one process's life

    async def _live(self, place: _Place) -> None:
        """From launch to burial. Guards the pool: what goes wrong here ends `run`, not silently this task."""
        try:
            self._buried(place, await self._launched(place))
        except Exception as error:  # noqa: BLE001 - a task guard: `run` raises it
            self._fail(error)
        finally:
            self._wake.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._wake.set()

    async def _launched(self, place: _Place) -> str:
        try:
            process = await self._launcher.launch(place.slot)
        except LaunchFailed as error:
            return f"not started: {error}"
        place.process = process
        if place.policy.phase is Phase.DOOMED:  # sentenced while it was being born
            process.signal(signal.SIGKILL)
        reading = asyncio.get_running_loop().create_task(self._read(place, process.channel))
        try:
            how = await process.exited()
            await asyncio.wait([reading], timeout=LAST_WORDS_S)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            process.channel.close()
        return how

    def _buried(self, place: _Place, how: str) -> None:
        now = self._clock.monotonic()
        why = place.policy.why
        place.process, place.last_death = None, how
        self._plan.dead(place.slot)
        place.policy.died(now, self._randomness.random())
        write = self._log.info if how == "exit 0" else self._log.warning
        write("worker ended", slot=place.slot, how=how, why=why and why.value, next=place.policy.phase.value)
        self._owner.died(place.slot, how)
        if place.policy.phase is Phase.BROKEN:
            self._log.error("slot is broken", slot=place.slot, deaths=self._limits.crash_budget)
            self._rehome()
        self._settle(now)

    def _rehome(self) -> None:
        """Keys of broken slots go to the others; keys of the others stay where they are."""
        left = [slot for slot, place in self._places.items() if place.policy.phase is not Phase.BROKEN]
        self._ring = Ring(left, self._virtual_nodes)
        self._place_keys({key: home if home in left else None for key, home in self._plan.homes().items()})

    async def _bury_all(self) -> None:
        lives = []
        for place in self._places.values():
            if place.process is not None:
                place.process.signal(signal.SIGKILL)
            if place.life is not None:
                lives.append(place.life)
                if place.process is None:
                    place.life.cancel()
        if lives:
            await asyncio.wait(lives, timeout=KILL_WAIT_S)

    # messages

    async def _read(self, place: _Place, channel: Channel) -> None:
        try:
            while True:
                self._heard(place, wire.decode_from_member(await channel.receive()))
        except ChannelClosed:
            place.policy.hung_up(self._clock.monotonic())
            self._wake.set()
        except wire.WireError as error:
            self._condemn(place, Why.BREACH, problem=str(error)[:MAX_PROBLEM_CHARS])
        except Exception as error:  # noqa: BLE001 - a task guard: `run` raises what `Owner` raised
            self._fail(error)

    def _heard(self, place: _Place, message: wire.FromMember) -> None:
        slot, now = place.slot, self._clock.monotonic()
        if isinstance(message, wire.Hello):
            self._greeted(place, message, now)
            return
        if place.policy.phase is Phase.STARTING:
            raise wire.WireError(f"{type(message).__name__} before the hello")
        match message:
            case wire.Heartbeat(sequence=sequence, lag_s=lag_s, report=report):
                place.policy.heartbeat(now)
                place.lag_s = lag_s
                self._send(place, wire.HeartbeatReply(sequence=sequence, permission_s=self._permission_s()))
                self._owner.reported(slot, report)
            case wire.Started(key=key, epoch=epoch):
                self._plan.started(slot, key, epoch)
            case wire.Stopped(key=key, epoch=epoch):
                self._plan.stopped(slot, key, epoch)
                self._settle(now)
            case wire.Failed(key=key, epoch=epoch, problem=problem):
                if self._plan.failed(slot, key, epoch, problem):
                    self._log.warning("key failed", slot=slot, key=key, epoch=epoch, problem=problem)
            case wire.Ask(payload=payload):
                self._owner.asked(slot, payload)
            case wire.Leaving(drain_s=drain_s):
                place.policy.leaving(now, drain_s)
                self._plan.leaving(slot)
                self._wake.set()

    def _permission_s(self) -> float | None:
        permission_s = self._owner.permission_s()
        return None if permission_s is None else max(0.0, permission_s)

    def _greeted(self, place: _Place, hello: wire.Hello, now: float) -> None:
        if hello.protocol != wire.PROTOCOL:
            raise wire.WireError(f"it speaks protocol {hello.protocol}, the pool {wire.PROTOCOL}")
        if hello.slot != place.slot:
            raise wire.WireError(f"it claims slot {hello.slot!r}")
        if hello.preload_problem:
            raise wire.WireError(f"it was not forked from a preloaded server: {hello.preload_problem}")
        if not place.policy.hello(now):
            return
        payload = self._owner.welcome(place.slot)
        welcome = wire.Welcome(heartbeat_s=self._limits.heartbeat_s, permission_s=self._permission_s(), payload=payload)
        self._send(place, welcome)
        self._log.info("worker was welcomed", slot=place.slot, pid=hello.pid)
        self._plan.ready(place.slot)
        self._settle(now)
        self._wake.set()
