"""The pool and its members over in-memory channels, in virtual time: the promises of a hand-over and of supervision."""

import asyncio
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from khook.sandbox.virtual_time import run
from shards.balance import MAX_MOVES
from shards.launch import ChannelClosed, InProcessLauncher, LaunchFailed, Process, Seat
from shards.member import Member, PoolGone
from shards.policy import Phase, PoolLimits
from shards.pool import Pool, PoolBroken
from shards.ring import Ring

KEYS = {f"key-{number}": 1.0 for number in range(24)}


class LoopClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Quiet:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **values: object) -> None:
        self.events.append((event, values))

    warning = error = info


class World:
    """What all workers together did, seen from above: at most one may run a key, whatever the pool believes."""

    def __init__(self) -> None:
        self.running: dict[str, str] = {}
        self.history: list[tuple[str, str, str, int]] = []
        self.welcomes: list[str] = []
        self.told: list[tuple[str, bytes]] = []
        self.drained: list[str] = []
        self.deaths: list[tuple[str, str]] = []
        self.reports: dict[str, bytes] = {}
        self.start_fails: dict[str, int] = {}
        self.start_s = 0.0
        self.stop_hangs: set[str] = set()
        self.stop_fails: set[str] = set()
        self.starting = self.most_starting = 0
        self.permitted_s: float | None = None

    # the owner

    def welcome(self, slot: str) -> bytes:
        return f"hi {slot}".encode()

    def permission_s(self) -> float | None:
        return self.permitted_s

    def reported(self, slot: str, report: bytes) -> None:
        self.reports[slot] = report

    def asked(self, slot: str, question: bytes) -> None:
        self.pool.tell_slot(slot, question.upper())

    def died(self, slot: str, how: str) -> None:
        self.deaths.append((slot, how))
        self.running = {key: owner for key, owner in self.running.items() if owner != slot}

    # wiring

    def make(self, slots: int = 2, launcher: object = None, **limits: float) -> Pool:
        self.launcher = InProcessLauncher(self.serve)
        self.log = Quiet()
        self.pool = Pool(
            launcher=launcher or self.launcher,  # type: ignore[arg-type]
            owner=self,
            clock=LoopClock(),
            randomness=random.Random(1),
            slots=[f"w{number}" for number in range(slots)],
            limits=PoolLimits(**limits),  # type: ignore[arg-type]
            log=self.log,
        )
        return self.pool

    async def serve(self, seat: Seat) -> None:
        self.members = getattr(self, "members", {})
        self.members[seat.slot] = Member(seat, work=Worker(self, seat.slot), clock=LoopClock())
        await self.members[seat.slot].run()

    def owners(self) -> Mapping[str, str | None]:
        return {key: seen.slot for key, seen in self.pool.view().keys.items() if seen.started}


class Worker:
    def __init__(self, world: World, slot: str) -> None:
        self.world, self.slot = world, slot

    async def welcome(self, payload: bytes) -> None:
        self.world.welcomes.append(payload.decode())

    async def start(self, key: str, epoch: int) -> None:
        world = self.world
        assert key not in world.running, f"{key} has two owners"
        world.starting += 1
        world.most_starting = max(world.starting, world.most_starting)
        try:
            await asyncio.sleep(world.start_s)
        finally:
            world.starting -= 1
        if world.start_fails.get(key, 0):
            world.start_fails[key] -= 1
            raise RuntimeError("no such key today")
        world.running[key] = self.slot
        world.history.append(("start", key, self.slot, epoch))

    async def stop(self, key: str, epoch: int) -> None:
        if key in self.world.stop_hangs:
            await asyncio.Event().wait()
        if key in self.world.stop_fails:
            raise RuntimeError("cannot let go")
        self.world.running.pop(key, None)
        self.world.history.append(("stop", key, self.slot, epoch))

    def told(self, payload: bytes) -> None:
        self.world.told.append((self.slot, payload))

    def report(self) -> bytes:
        return self.slot.encode()

    async def drain(self, drain_s: float) -> None:
        await asyncio.sleep(drain_s / 2)
        self.world.drained.append(self.slot)
        self.world.running = {key: slot for key, slot in self.world.running.items() if slot != self.slot}


def story(
    tell: Callable[[World], Awaitable[None]], world: World, *, slots: int = 2, launcher: object = None, **limits: float
) -> None:
    """Run a pool with all keys wanted, tell the story, stop the pool."""

    async def scene() -> None:
        pool = world.make(slots, launcher, **limits)
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        await tell(world)
        await pool.stop(drain_s=4.0)
        await running

    run(scene())


def test_every_key_runs_once_and_stays_where_it_is_when_keys_come_and_go() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        before = world.owners()
        assert set(before) == set(KEYS)
        assert set(before.values()) == {"w0", "w1"}
        world.pool.want({**KEYS, "another": 1.0})
        await asyncio.sleep(1)
        assert {**before, "another": world.running["another"]} == world.owners() == world.running
        world.pool.want(KEYS)
        await asyncio.sleep(1)
        assert before == world.owners() == world.running

    world = World()
    story(tell, world)
    assert world.welcomes == ["hi w0", "hi w1"]
    assert world.reports == {"w0": b"w0", "w1": b"w1"}
    assert sorted(world.drained) == ["w0", "w1"]
    assert sorted(world.deaths) == [("w0", "exit 0"), ("w1", "exit 0")]


def test_a_killed_worker_gets_its_keys_back_with_higher_epochs() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        before, first = world.owners(), {key: seen.epoch for key, seen in world.pool.view().keys.items()}
        world.launcher.processes["w1"].signal(signal.SIGKILL)
        await asyncio.sleep(0.15)  # the first back-off is 0.1 s at most
        assert before == world.owners() == world.running
        for key, seen in world.pool.view().keys.items():
            assert (seen.epoch > max(first.values())) == (seen.slot == "w1"), key
        assert world.pool.view().slots["w1"].restarts == 1
        assert world.pool.view().slots["w1"].last_death == "SIGKILL"
        assert world.deaths == [("w1", "SIGKILL")]

    story(tell, World())


def test_messages_reach_the_owner_of_a_key_and_only_while_there_is_one() -> None:
    async def tell(world: World) -> None:
        assert not world.pool.tell("key-0", b"too early")
        await asyncio.sleep(1)
        assert world.pool.tell("key-0", b"for you")
        assert not world.pool.tell("nobody's", b"lost")
        world.pool.tell_all(b"for all")
        world.members["w1"].ask(b"please")
        await asyncio.sleep(0.1)
        owner = world.running["key-0"]
        assert sorted([(owner, b"for you"), ("w0", b"for all"), ("w1", b"for all"), ("w1", b"PLEASE")]) == sorted(
            world.told
        )

    story(tell, World())


def test_a_revoke_that_is_not_acknowledged_ends_the_worker_and_never_makes_two_owners() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        owner = world.running["key-3"]
        world.stop_hangs.add("key-3")
        world.pool.want({key: 1.0 for key in KEYS if key != "key-3"})
        await asyncio.sleep(0.5)
        world.pool.want(KEYS)  # wanted again while the revoke is under way: still no second owner
        await asyncio.sleep(4)
        assert world.deaths == []
        assert world.running["key-3"] == owner
        world.stop_hangs.clear()
        await asyncio.sleep(2)
        assert world.deaths == [(owner, "SIGABRT")]
        assert world.owners() == world.running
        assert set(world.running) == set(KEYS)

    story(tell, World())


def test_a_stop_that_fails_costs_the_worker_and_frees_its_keys() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        owner = world.running["key-3"]
        world.stop_fails.add("key-3")
        world.pool.want({key: 1.0 for key in KEYS if key != "key-3"})
        await asyncio.sleep(4.5)
        assert world.pool.view().keys["key-3"].problem == "RuntimeError: cannot let go"
        assert world.deaths == []
        await asyncio.sleep(1.5)
        assert world.deaths == [(owner, "SIGABRT")]
        assert set(world.running) == set(KEYS) - {"key-3"}
        assert world.owners() == world.running

    story(tell, World())


def test_a_key_that_fails_to_start_is_tried_again_and_harms_no_other() -> None:
    async def tell(world: World) -> None:
        world.start_fails["key-5"] = 2
        await asyncio.sleep(0.9)
        view = world.pool.view().keys["key-5"]
        assert (view.started, view.problem) == (False, "RuntimeError: no such key today")
        assert set(world.owners()) == set(KEYS) - {"key-5"}
        await asyncio.sleep(3)
        view = world.pool.view().keys["key-5"]
        assert (view.started, view.problem) == (True, "")
        assert world.deaths == []

    story(tell, World())


def test_heartbeats_go_on_while_many_keys_start_slowly_and_few_at_once() -> None:
    async def tell(world: World) -> None:
        world.start_s = 30.0
        world.pool.want({f"slow-{number}": 1.0 for number in range(100)})
        await asyncio.sleep(125)
        assert len(world.owners()) == 100
        assert world.most_starting <= 64
        assert world.deaths == []

    story(tell, World())


def test_a_revoke_cancels_a_start_and_is_acknowledged() -> None:
    async def tell(world: World) -> None:
        world.start_s = 60.0
        await asyncio.sleep(1)
        world.pool.want({})
        await asyncio.sleep(1)
        assert world.pool.view().keys == {}
        await asyncio.sleep(100)
        assert {what for what, *_ in world.history} == {"stop"}
        assert world.running == {}
        assert world.deaths == []

    story(tell, World())


def test_a_worker_that_stops_beating_is_killed_after_the_timeout_and_replaced() -> None:
    class Stuck(World):
        beats = 0

        def report(self) -> None:
            self.beats += 1

        async def serve(self, seat: Seat) -> None:
            if seat.slot == "w1" and not self.deaths:
                await half_a_member(seat)
            else:
                await super().serve(seat)

    async def half_a_member(seat: Seat) -> None:
        from shards import wire

        seat.channel.send(wire.encode(wire.Hello(protocol=wire.PROTOCOL, slot=seat.slot, pid=seat.pid)))
        await asyncio.Event().wait()

    async def tell(world: World) -> None:
        await asyncio.sleep(9.9)
        assert world.deaths == []
        assert world.pool.view().slots["w1"].state is Phase.RUNNING
        await asyncio.sleep(1.1)
        assert world.deaths == [("w1", "SIGABRT")]
        assert set(world.owners()) == set(KEYS)

    story(tell, Stuck())


def test_sigterm_to_one_worker_drains_it_and_its_successor_takes_over() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        before = dict(world.running)
        world.launcher.processes["w0"].signal(signal.SIGTERM)
        await asyncio.sleep(9)
        assert world.pool.view().slots["w0"].state is Phase.STOPPING
        await asyncio.sleep(2)
        assert world.drained == ["w0"]
        assert world.deaths == [("w0", "exit 0")]
        assert before == world.running == world.owners()

    story(tell, World())


def test_a_slot_that_crashes_too_often_is_broken_and_its_keys_go_to_the_others() -> None:
    class Crashing(World):
        attempts = 0

        async def serve(self, seat: Seat) -> None:
            if seat.slot == "w2":
                self.attempts += 1
                raise RuntimeError("cannot")
            await super().serve(seat)

    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        before = dict(world.running)
        await asyncio.sleep(60)
        assert world.pool.view().slots["w2"].state is Phase.BROKEN
        assert world.attempts == 10  # type: ignore[attr-defined]
        assert set(world.running) == set(KEYS)
        assert before.items() <= world.running.items()
        assert world.owners() == world.running
        assert ("slot is broken", {"slot": "w2", "deaths": 10, "retry_in_s": 600}) in world.log.events

    story(tell, Crashing(), slots=3)


class CrashingUntil(World):
    """Slot w2 cannot live before `well_at`."""

    well_at = float("inf")
    attempts = 0

    async def serve(self, seat: Seat) -> None:
        if seat.slot == "w2":
            self.attempts += 1
            if asyncio.get_running_loop().time() < self.well_at:
                raise RuntimeError("cannot")
        await super().serve(seat)


def test_a_broken_slot_comes_back_after_a_probation_and_gets_its_own_keys_and_no_others() -> None:
    async def tell(world: World) -> None:
        assert isinstance(world, CrashingUntil)
        world.well_at = 300.0
        await asyncio.sleep(60)
        without = dict(world.running)
        at_home = {key for key, slot in at_homes(3).items() if slot == "w2"}
        assert at_home
        assert "w2" not in without.values()
        await asyncio.sleep(600)
        slot = world.pool.view().slots["w2"]
        assert (slot.state, slot.on_probation, slot.keys, slot.load) == (Phase.RUNNING, True, (), 0.0)
        world.pool.want(KEYS)
        await asyncio.sleep(30)
        assert world.running == without, "who is on probation gets nothing"
        await asyncio.sleep(60)
        assert not world.pool.view().slots["w2"].on_probation
        assert world.running == without, "and who is back gets nothing before the next round"
        world.pool.want(KEYS)
        await asyncio.sleep(1)
        assert world.running == world.owners() == {**without, **dict.fromkeys(at_home, "w2")} == at_homes(3)
        assert world.attempts == 11
        assert ("slot is back", {"slot": "w2"}) in world.log.events

    story(tell, CrashingUntil(), slots=3)


def at_homes(slots: int) -> dict[str, str]:
    return {key: str(Ring(f"w{number}" for number in range(slots)).owner(key)) for key in KEYS}


def test_a_slot_on_probation_inherits_nothing_from_one_that_breaks() -> None:
    async def tell(world: World) -> None:
        assert isinstance(world, CrashingUntil)
        world.well_at = 300.0
        await asyncio.sleep(650)
        for _ in range(3):
            world.launcher.processes["w1"].signal(signal.SIGKILL)
            await asyncio.sleep(5)
        slots = world.pool.view().slots
        assert slots["w1"].state is Phase.BROKEN
        assert slots["w2"].on_probation
        assert world.running == world.owners() == dict.fromkeys(KEYS, "w0")
        await asyncio.sleep(120)
        world.pool.want(KEYS)
        await asyncio.sleep(1)
        assert set(world.owners().values()) == {"w0", "w2"}

    story(tell, CrashingUntil(), slots=3, crash_budget=3, probation_s=120.0)


def test_a_slot_that_dies_on_probation_is_broken_again_at_once_and_for_longer() -> None:
    async def tell(world: World) -> None:
        assert isinstance(world, CrashingUntil)
        await asyncio.sleep(3 * 3600)
        broken = [values for event, values in world.log.events if event == "slot is broken"]
        assert [(seen["deaths"], seen["retry_in_s"]) for seen in broken] == [
            (10, 600),
            (1, 1200),
            (1, 2400),
            (1, 3600),
            (1, 3600),
        ]
        assert world.attempts == 14
        assert set(world.running) == set(KEYS)
        assert "w2" not in world.running.values()

    story(tell, CrashingUntil(), slots=3)


def test_a_pool_whose_only_process_is_on_probation_is_broken() -> None:
    class Dying(World):
        """w0 dies from the beginning until it is well; w1 is well until then."""

        async def serve(self, seat: Seat) -> None:
            if (seat.slot == "w0") is (asyncio.get_running_loop().time() < 500.0):
                raise RuntimeError("cannot")
            await super().serve(seat)

    async def scene() -> None:
        world = Dying()
        pool = world.make(2, probation_s=120.0)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(660)
        assert pool.view().slots["w0"].on_probation
        assert pool.view().slots["w0"].state is Phase.RUNNING
        world.launcher.processes["w1"].signal(signal.SIGKILL)
        with pytest.raises(PoolBroken, match="all 2 slots"):
            await running
        assert world.deaths[-1] == ("w0", "SIGKILL"), "it takes nothing with it"

    run(scene())


def test_a_pool_with_a_broken_slot_can_be_stopped() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(60)
        assert world.pool.view().slots["w2"].state is Phase.BROKEN

    world = CrashingUntil()
    story(tell, world, slots=3)
    assert sorted(world.drained) == ["w0", "w1"]
    assert world.attempts == 10


def test_weights_that_grow_move_keys_off_a_full_slot_a_wave_at_a_time() -> None:
    many = {f"key-{number}": 1.0 for number in range(1000)}

    async def tell(world: World) -> None:
        world.pool.want(many)
        await asyncio.sleep(10)
        before = world.owners()
        full = {key: 3.0 if before[key] == "w0" else 1.0 for key in many}
        limit = 1.25 * sum(full.values()) / 4
        assert world.pool.view().slots["w0"].load == len([key for key in many if before[key] == "w0"])
        assert 3.0 * world.pool.view().slots["w0"].load > limit
        world.pool.want(full)
        world.pool.want(full)  # while the first wave is on its way there is no second
        await asyncio.sleep(1)
        after = world.owners()
        moved = {key for key in many if before[key] != after[key]}
        assert len(moved) == MAX_MOVES
        assert {before[key] for key in moved} == {"w0"}
        for _ in range(3):
            world.pool.want(full)
            await asyncio.sleep(1)
        slots = world.pool.view().slots.values()
        assert max(seen.load for seen in slots) <= limit
        assert sum(seen.load for seen in slots) == sum(full.values())
        assert world.pool.view().keys["key-1"].weight == full["key-1"]
        settled = world.owners()
        world.pool.want(full)
        await asyncio.sleep(1)
        assert world.owners() == settled

    story(tell, World(), slots=4)


def test_a_key_on_its_way_out_weighs_nothing() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        world.stop_hangs.add("key-3")
        owner = world.running["key-3"]
        load = world.pool.view().slots[owner].load
        world.pool.want({key: 1.0 for key in KEYS if key != "key-3"})
        await asyncio.sleep(1)
        view = world.pool.view()
        assert "key-3" in view.slots[owner].keys
        assert (view.keys["key-3"].weight, view.slots[owner].load) == (0.0, load - 1.0)
        world.stop_hangs.clear()
        await asyncio.sleep(6)

    story(tell, World())


def test_before_it_leads_a_pool_settles_everything_anew() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        running = asyncio.create_task(pool.run())
        pool.want(dict.fromkeys(KEYS, 1.0))
        uneven = {key: 100.0 if number < 4 else 1.0 for number, key in enumerate(KEYS)}
        pool.want(uneven)
        pool.lead(1)
        await asyncio.sleep(1)
        loads = [seen.load for seen in pool.view().slots.values()]
        assert max(loads) <= 1.25 * sum(loads) / 2
        assert {what for what, *_ in world.history} == {"start"}
        await pool.stop(drain_s=1.0)
        await running

    run(scene())


def test_wishes_that_make_no_sense_are_refused() -> None:
    async def scene() -> None:
        pool = World().make(1)
        with pytest.raises(ValueError, match="'a' must be finite and above 0"):
            pool.want({"a": 0.0})
        with pytest.raises(ValueError, match="1 or more"):
            pool.lead(0)

    run(scene())


@pytest.mark.parametrize(
    ("arguments", "problem"), [({"slots": []}, "needs a slot"), ({"max_load_factor": 1.0}, "max_load_factor")]
)
def test_a_pool_that_makes_no_sense_is_refused(arguments: dict[str, Any], problem: str) -> None:
    given: dict[str, Any] = {
        "launcher": InProcessLauncher(World().serve),
        "owner": World(),
        "clock": LoopClock(),
        "randomness": random.Random(1),
        "slots": ["w0"],
        "limits": PoolLimits(),
        "log": Quiet(),
    }
    with pytest.raises(ValueError, match=problem):
        Pool(**{**given, **arguments})


def test_a_view_of_ten_thousand_keys_costs_little() -> None:
    async def tell(world: World) -> None:
        world.pool.want({f"key-{number}": 1.0 for number in range(10_000)})
        await asyncio.sleep(5)
        assert all(seen.started for seen in world.pool.view().keys.values())

        def took_s() -> float:
            began_at = time.process_time()
            assert len(world.pool.view().keys) == 10_000
            return time.process_time() - began_at

        traced = sys.gettrace() is not None  # coverage counts each line
        assert min(took_s() for _ in range(5)) <= (0.2 if traced else 0.02)

    story(tell, World())


def test_a_pool_whose_slots_are_all_broken_says_so() -> None:
    class NoProcesses:
        async def launch(self, slot: str) -> Process:
            raise LaunchFailed("out of processes")

    async def scene() -> None:
        world = World()
        pool = world.make(2, NoProcesses())
        with pytest.raises(PoolBroken):
            await pool.run()
        assert world.deaths[0] == ("w0", "not started: out of processes")
        assert len(world.deaths) == 20

    run(scene())


@pytest.mark.parametrize("problem", ["protocol", "slot", "preload", "garbage"])
def test_a_worker_that_is_not_what_it_should_be_is_refused(problem: str) -> None:
    from shards import wire

    hellos = {
        "protocol": wire.encode(wire.Hello(protocol=wire.PROTOCOL + 1, slot="w0", pid=1)),
        "slot": wire.encode(wire.Hello(protocol=wire.PROTOCOL, slot="w7", pid=1)),
        "preload": wire.encode(wire.Hello(protocol=wire.PROTOCOL, slot="w0", pid=1, preload_problem="no module x")),
        "garbage": b"\x93what",
    }

    class Odd(World):
        async def serve(self, seat: Seat) -> None:
            seat.channel.send(hellos[problem])
            await asyncio.Event().wait()

    async def scene() -> None:
        world = Odd()
        pool = world.make(1)
        with pytest.raises(PoolBroken):
            await pool.run()
        assert world.welcomes == []
        condemned = [values for event, values in world.log.events if event == "worker was condemned"]
        assert {values["why"] for values in condemned} == {"broke the protocol"}

    run(scene())


def test_a_worker_that_does_not_drain_climbs_the_ladder() -> None:
    class Deaf(World):
        async def serve(self, seat: Seat) -> None:
            seat.on_terminate(lambda: None)
            await super().serve(seat)

    class Endless(Worker):
        async def drain(self, drain_s: float) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.Event().wait()

    async def scene() -> None:
        world = World()

        async def serve(seat: Seat) -> None:
            await Member(seat, work=Endless(world, seat.slot), clock=LoopClock()).run()

        pool = world.make(1, InProcessLauncher(serve))
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        began_at = asyncio.get_running_loop().time()
        await pool.stop(drain_s=3.0)
        await running
        assert world.deaths == [("w0", "SIGABRT")]
        assert [values["signal"] for event, values in world.log.events if event == "worker was signalled"] == [
            "SIGTERM",
            "SIGABRT",
        ]
        assert asyncio.get_running_loop().time() - began_at == pytest.approx(3.0 + 2.0 + 2.0, abs=0.1)

    run(scene())


def test_a_worker_that_is_still_being_welcomed_stops_without_a_drain() -> None:
    class Slow(Worker):
        async def welcome(self, payload: bytes) -> None:
            await asyncio.Event().wait()

    async def scene() -> None:
        world = World()

        async def serve(seat: Seat) -> None:
            await Member(seat, work=Slow(world, seat.slot), clock=LoopClock()).run()

        pool = world.make(1, InProcessLauncher(serve))
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(60)
        assert (world.deaths, world.history) == ([], []), "it beats, and starts nothing yet"
        await pool.stop(drain_s=3.0)
        await running
        assert (world.deaths, world.drained) == ([("w0", "exit 0")], [])

    run(scene())


def test_a_pool_that_is_stopped_before_it_runs_starts_nothing() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        await pool.stop(drain_s=1.0)
        await pool.run()
        assert world.launcher.processes == {}

    run(scene())


def test_a_worker_that_does_not_read_is_given_up() -> None:
    class Deaf(World):
        async def serve(self, seat: Seat) -> None:
            from shards import wire

            if self.deaths:
                await super().serve(seat)
            seat.channel.send(wire.encode(wire.Hello(protocol=wire.PROTOCOL, slot=seat.slot, pid=seat.pid)))
            await asyncio.Event().wait()

    async def tell(world: World) -> None:
        await asyncio.sleep(1)
        sent = [world.pool.tell_slot("w0", b"x" * 3_000_000) for _ in range(7)]
        assert sent == [True] * 5 + [False] * 2
        await asyncio.sleep(1)
        assert world.deaths == [("w0", "SIGABRT")]
        assert "does not read its channel" in [values.get("why") for _, values in world.log.events]

    story(tell, Deaf(), slots=1)


def test_what_the_owner_raises_ends_the_pool_and_every_worker() -> None:
    class Failing(World):
        def reported(self, slot: str, report: bytes) -> None:
            raise KeyError(slot)

    async def scene() -> None:
        world = Failing()
        pool = world.make(2)
        with pytest.raises(KeyError):
            await pool.run()
        assert [how for _, how in world.deaths] == ["SIGKILL", "SIGKILL"]

    run(scene())


def test_a_cancelled_pool_leaves_no_worker() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [how for _, how in world.deaths] == ["SIGKILL", "SIGKILL"]

    run(scene())


def test_a_member_without_a_pool_ends_at_once_and_does_not_drain() -> None:
    async def scene() -> None:
        world = World()
        ends: list[BaseException] = []

        async def serve(seat: Seat) -> None:
            try:
                await Member(seat, work=Worker(world, seat.slot), clock=LoopClock()).run()
            except PoolGone as error:
                ends.append(error)

        process = await InProcessLauncher(serve).launch("w0")
        await process.channel.receive()
        process.channel.close()
        assert await process.exited() == "exit 0"
        assert len(ends) == 1
        assert world.drained == []
        with pytest.raises(ChannelClosed):
            process.channel.send(b"")

    run(scene())


def test_a_pool_that_was_itself_stalled_kills_nobody_for_its_silence() -> None:
    class Stalled(LoopClock):
        jump_s = 0.0

        def monotonic(self) -> float:
            return super().monotonic() + self.jump_s

    async def scene() -> None:
        world = World()
        pool = world.make(2)
        clock = Stalled()
        pool._clock = clock
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(5.5)
        clock.jump_s = 60.0
        await asyncio.sleep(15)
        assert world.deaths == []
        assert "pool was stalled" in [event for event, _ in world.log.events]
        await pool.stop(drain_s=1.0)
        await running

    run(scene())


def test_a_pool_that_does_not_lead_keeps_warm_processes_and_owns_nothing() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        pool.want({"early": 1.0})
        pool.want(KEYS)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(100)
        assert {seen.state for seen in pool.view().slots.values()} == {Phase.RUNNING}
        assert (world.history, world.owners()) == ([], {})
        pool.lead(5000)
        await asyncio.sleep(0.1)
        assert set(world.running) == set(KEYS)
        assert sorted(seen.epoch for seen in pool.view().keys.values()) == list(range(5000, 5000 + len(KEYS)))
        with pytest.raises(ValueError, match="leads already"):
            pool.lead(6000)
        await pool.stop(drain_s=1.0)
        await running

    run(scene())


def test_a_member_may_act_until_the_time_its_owner_gave_and_no_longer() -> None:
    async def scene() -> None:
        world = World()
        world.permitted_s = 0.0
        pool = world.make(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(0.5)
        permission = world.members["w0"].permission
        assert not permission.holds, "the welcome permitted nothing"
        world.permitted_s = 8.0
        await permission.wait()
        loop = asyncio.get_running_loop()
        assert permission.until_at == pytest.approx(loop.time() + 8.0)
        world.permitted_s = -3.0
        await asyncio.sleep(1.1)
        assert not permission.holds, "a later word counts, also when it takes permission back"
        assert permission.until_at == pytest.approx(loop.time(), abs=0.11), "less than none is none"
        world.permitted_s = None
        await permission.wait()
        assert permission.until_at == float("inf")
        await pool.stop(drain_s=1.0)
        await running

    run(scene())


def test_a_member_that_is_welcomed_with_permission_need_not_wait_for_a_beat() -> None:
    async def tell(world: World) -> None:
        await asyncio.sleep(0)
        while "w0" not in getattr(world, "members", {}) or not world.welcomes:
            await asyncio.sleep(0)
        assert world.members["w0"].permission.holds
        assert world.reports == {}

    world = World()
    world.permitted_s = 8.0
    story(tell, world, slots=1)


def test_an_aborted_pool_kills_at_once_drains_nothing_and_starts_no_successor() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(3)
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        world.launcher.processes["w2"].signal(signal.SIGKILL)  # in its back-off when the pool is aborted
        await asyncio.sleep(0.05)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await pool.abort()
        assert loop.time() - began_at < 0.1
        await running
        assert world.deaths == [("w2", "SIGKILL"), ("w0", "SIGKILL"), ("w1", "SIGKILL")]
        assert (world.drained, world.running) == ([], {})
        assert {seen.state for seen in pool.view().slots.values()} == {Phase.STOPPED}
        starts = len([what for what, *_ in world.history if what == "start"])
        await asyncio.sleep(60)
        assert (len(world.launcher.processes), starts) == (3, len(KEYS))
        await pool.abort()  # once more does nothing

    run(scene())


def test_an_abort_ends_a_drain() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        pool.want(KEYS)
        pool.lead(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        stopping = asyncio.create_task(pool.stop(drain_s=60.0))
        await asyncio.sleep(1)
        await pool.abort()
        await asyncio.gather(running, stopping)
        assert [how for _, how in world.deaths] == ["SIGKILL", "SIGKILL"]
        assert world.drained == []

    run(scene())


def test_an_abort_does_not_wait_for_ever_for_a_process_that_cannot_die() -> None:
    class Undead(World):
        async def serve(self, seat: Seat) -> None:
            try:
                await super().serve(seat)
            except asyncio.CancelledError:
                await asyncio.sleep(30.0)

    async def scene() -> None:
        world = Undead()
        pool = world.make(1)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await pool.abort()
        assert loop.time() - began_at == pytest.approx(5.0)
        await running
        await asyncio.sleep(60.0)

    run(scene())


class Midwife:
    """A launcher that takes a second."""

    def __init__(self, world: World) -> None:
        self.launcher = InProcessLauncher(world.serve)
        self.born: list[str] = []

    async def launch(self, slot: str) -> Process:
        await asyncio.sleep(1.0)
        self.born.append(slot)
        return await self.launcher.launch(slot)


def test_a_process_that_is_sentenced_while_it_is_being_born_dies_at_birth() -> None:
    async def scene() -> None:
        world = World()
        midwife = Midwife(world)
        pool = world.make(1, midwife)
        pool.lead(1)
        pool.want(KEYS)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(0.5)
        await pool.stop(drain_s=1.0)
        await running
        assert (midwife.born, world.deaths, world.welcomes) == (["w0"], [("w0", "SIGKILL")], [])

    run(scene())


def test_an_abort_does_not_wait_for_a_birth() -> None:
    async def scene() -> None:
        world = World()
        midwife = Midwife(world)
        pool = world.make(1, midwife)
        running = asyncio.create_task(pool.run())
        await asyncio.sleep(0.5)
        await pool.abort()
        await running
        assert asyncio.get_running_loop().time() == pytest.approx(0.5)
        await asyncio.sleep(10.0)
        assert midwife.born == []

    run(scene())


def test_a_pool_that_is_aborted_before_it_runs_starts_nothing() -> None:
    async def scene() -> None:
        world = World()
        pool = world.make(2)
        await pool.abort()
        await pool.run()
        assert world.launcher.processes == {}

    run(scene())
