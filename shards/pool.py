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
from shards.balance import MAX_LOAD_FACTOR, MAX_MOVES, Balance, checked
from shards.launch import Channel, ChannelClosed, ChannelFull, Clock, Launcher
from shards.place import Place
from shards.plan import Grant, Plan, Revoke
from shards.policy import Action, Phase, PoolLimits, Why
from shards.ring import VIRTUAL_NODES, Ring
from shards.user import KeyView, Log, Owner, PoolBroken, PoolView, SlotView, key_view

__all__ = ["KeyView", "Log", "Owner", "Pool", "PoolBroken", "PoolView", "SlotView"]

MAX_SLEEP_S: Final = 1.0
"""The loop looks at the clock at least this often, so that a clock that runs unlike the loop's does no harm."""
MIN_SLEEP_S: Final = 0.001
"""A deadline that is nearer than a float can add to the time must not spin the loop."""
LATE_S: Final = 1.0
"""Woken later than this, the pool was itself stalled (stopped, starved), and forgives silence for as long."""
KILL_WAIT_S: Final = 5.0
"""How long an aborted or failed pool waits for the deaths of those it killed; one stuck in the kernel takes longer."""
MAX_PROBLEM_CHARS: Final = 500

_SIGNALS: Final = {
    Action.SIGTERM: signal.SIGTERM,
    Action.SIGABRT: signal.SIGABRT,
    Action.SIGKILL: signal.SIGKILL,
}


class Pool:
    """Keeps `slots` filled and keys owned. Use one in one loop, call `run` once.

    No slot shall carry more than `max_load_factor` times the mean of the keys' weights.
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
        max_load_factor: float = MAX_LOAD_FACTOR,
        limits: PoolLimits,
        log: Log,
    ) -> None:
        if not slots:
            raise ValueError("a pool needs a slot")
        if not max_load_factor > 1:
            raise ValueError(f"max_load_factor must be above 1, not {max_load_factor}")
        self._launcher = launcher
        self._owner = owner
        self._clock = clock
        self._randomness = randomness
        self._virtual_nodes = virtual_nodes
        self._max_load_factor = max_load_factor
        self._limits = limits
        self._log = log
        self._ring = Ring(slots, virtual_nodes)
        self._plan = Plan()
        self._weights: dict[str, float] = {}
        self._places = {slot: Place(slot, limits) for slot in self._ring.slots}
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
        """Exactly these keys shall be owned, each with its weight. Raises ValueError for a weight that is not finite
        and above 0.

        Weights that changed, and slots that came back, move running keys here and nowhere else, `MAX_MOVES` at a
        time: call it every now and then, also if nothing changed.
        """
        self._weights = checked(keys)
        balance = self._balance()
        balance.settle()
        if self._plan.leads:  # else it was all settled anew
            balance.level(max(0, MAX_MOVES - self._plan.revoking))
        self._place_keys(balance)

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
        holds, weights = self._plan.holds(), self._weights
        held_by: dict[str, list[str]] = {slot: [] for slot in self._places}
        loads = dict.fromkeys(self._places, 0.0)
        for key, hold in holds.items():
            held_by[hold.slot].append(key)
            loads[hold.slot] += weights.get(key, 0.0)
        keys = {key: key_view(holds.get(key), weights.get(key, 0.0)) for key in {**weights, **holds}}
        slots = {slot: place.view(held_by[slot], loads[slot]) for slot, place in self._places.items()}
        return PoolView(slots=slots, keys=keys)

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
            if all(place.policy.broken for place in self._places.values()):
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

    def _balance(self) -> Balance:
        """Of what nobody may run yet, the home costs nothing: before `lead` it is chosen anew each time."""
        homes = self._plan.homes() if self._plan.leads else {}
        return Balance(self._ring, self._weights, homes, max_load_factor=self._max_load_factor)

    def _place_keys(self, balance: Balance) -> None:
        self._plan.want(balance.homes)
        self._settle(self._clock.monotonic())

    def _draw_ring(self) -> None:
        """A slot broke or came back. Keys of the broken go to the others; nobody else's move before the next `want`."""
        whole = [slot for slot, place in self._places.items() if not place.policy.broken]
        self._ring = Ring(whole, self._virtual_nodes)
        balance = self._balance()
        balance.settle()
        self._place_keys(balance)

    def _act(self, place: Place, action: Action | None) -> None:
        match action:
            case None:
                pass
            case Action.START:
                place.launches += 1
                place.life = asyncio.get_running_loop().create_task(self._live(place))
            case Action.JOIN:
                self._log.info("slot is back", slot=place.slot)
                self._draw_ring()
            case Action.SEND_STOP:
                self._send(place, wire.Stop(drain_s=self._stop_drain_s or 0.0))
            case _:
                why = place.policy.why
                self._log.warning("worker was signalled", slot=place.slot, signal=action.value, why=why and why.value)
                place.signal(_SIGNALS[action])

    def _send(self, place: Place, message: wire.FromPool) -> bool:
        try:
            return place.send(message)
        except ChannelFull:
            self._condemn(place, Why.NOT_READING)
            return False

    def _condemn(self, place: Place, why: Why, **values: Any) -> None:
        self._log.warning("worker was condemned", slot=place.slot, why=why.value, **values)
        self._act(place, place.policy.condemn(self._clock.monotonic(), why))
        self._wake.set()

    # one process's life

    async def _live(self, place: Place) -> None:
        """From launch to burial. Guards the pool: what goes wrong here ends `run`, not silently this task."""
        try:
            self._buried(place, await place.fill(self._launcher, self._read))
        except Exception as error:  # noqa: BLE001 - a task guard: `run` raises it
            self._fail(error)
        finally:
            self._wake.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._wake.set()

    def _buried(self, place: Place, how: str) -> None:
        now = self._clock.monotonic()
        why, was_on_probation = place.policy.why, place.policy.on_probation
        place.process, place.last_death = None, how
        self._plan.dead(place.slot)
        place.policy.died(now, self._randomness.random())
        write = self._log.info if how == "exit 0" else self._log.warning
        write("worker ended", slot=place.slot, how=how, why=why and why.value, next=place.policy.phase.value)
        self._owner.died(place.slot, how)
        if place.policy.phase is Phase.BROKEN:
            deaths = 1 if was_on_probation else self._limits.crash_budget
            retry_in_s = round((place.policy.deadline_at or now) - now)
            self._log.error("slot is broken", slot=place.slot, deaths=deaths, retry_in_s=retry_in_s)
            self._draw_ring()
        self._settle(now)

    async def _bury_all(self) -> None:
        lives = []
        for place in self._places.values():
            place.signal(signal.SIGKILL)
            if place.life is not None:
                lives.append(place.life)
                if place.process is None:
                    place.life.cancel()
        if lives:
            await asyncio.wait(lives, timeout=KILL_WAIT_S)

    # messages

    async def _read(self, place: Place, channel: Channel) -> None:
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

    def _heard(self, place: Place, message: wire.FromMember) -> None:
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

    def _greeted(self, place: Place, hello: wire.Hello, now: float) -> None:
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
