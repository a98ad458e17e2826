"""A plan is what a pool does: the very homes, and the moves between two sizes."""

import asyncio
import random
from collections.abc import Mapping

import pytest

from khook.cli.shards_plan import RingShape, assigned, plan
from khook.sandbox.virtual_time import run
from khook.sizing import slot_names
from khook.supervisor.load import weight
from shards.launch import InProcessLauncher, Seat
from shards.member import Member
from shards.policy import PoolLimits
from shards.pool import Pool

ROUNDS = 20


class Quiet:
    def info(self, event: str, **values: object) -> None: ...

    warning = error = info


class LoopClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Idle:
    """An owner, and the work of its members: none."""

    def permission_s(self) -> None: ...

    def reported(self, slot: str, report: bytes) -> None: ...

    def asked(self, slot: str, question: bytes) -> None: ...

    def died(self, slot: str, how: str) -> None: ...

    async def start(self, key: str, epoch: int) -> None: ...

    async def stop(self, key: str, epoch: int) -> None: ...

    def told(self, payload: bytes) -> None: ...

    def report(self) -> bytes:
        return b""

    async def drain(self, drain_s: float) -> None: ...


class IdleOwner(Idle):
    def welcome(self, slot: str) -> bytes:
        return b""


class IdleWork(Idle):
    async def welcome(self, payload: bytes) -> None: ...


def owned_by_a_pool(weights: Mapping[str, float], *, workers: int, shape: RingShape) -> dict[str, str]:
    """The holder of each key, after a pool that began to lead was told these weights now and then."""
    found: dict[str, str] = {}

    async def serve(seat: Seat) -> None:
        await Member(seat, work=IdleWork(), clock=LoopClock()).run()

    async def life() -> None:
        pool = Pool(
            launcher=InProcessLauncher(serve),
            owner=IdleOwner(),
            clock=LoopClock(),
            randomness=random.Random(1),
            slots=slot_names(workers),
            virtual_nodes=shape.virtual_nodes,
            max_load_factor=shape.max_load_factor,
            limits=PoolLimits(),
            log=Quiet(),
        )
        running = asyncio.create_task(pool.run())
        pool.lead(1)
        pool.want(dict.fromkeys(weights, weight(0.0)))  # as the supervisor does, which has not measured yet
        await asyncio.sleep(60)
        for _ in range(ROUNDS):
            pool.want(weights)
            await asyncio.sleep(60)
        found.update({key: one.slot for key, one in pool.view().keys.items() if one.slot is not None})
        await pool.stop(drain_s=0)
        await running

    run(life())
    return found


def zipf(count: int) -> dict[str, float]:
    return {f"namespace-{number}": 1.0 + 200.0 / (number + 1) for number in range(count)}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("weights", [dict.fromkeys(zipf(150), 1.0), zipf(150)], ids=["even", "zipf"])
@pytest.mark.parametrize("shape", [RingShape(virtual_nodes=256, max_load_factor=1.25),
                                   RingShape(virtual_nodes=16, max_load_factor=1.05)])  # fmt: skip
def test_a_plan_gives_each_namespace_the_slot_that_a_pool_gives_it(
    weights: dict[str, float], workers: int, shape: RingShape
) -> None:
    assert assigned(weights, workers=workers, shape=shape) == owned_by_a_pool(weights, workers=workers, shape=shape)


SHAPE = RingShape(virtual_nodes=256, max_load_factor=1.25)


def test_a_plan_counts_what_every_slot_has_and_every_namespace_that_moves() -> None:
    weights = zipf(1000)
    made = plan(weights, workers=3, from_workers=2, shape=SHAPE)
    before, after = (assigned(weights, workers=workers, shape=SHAPE) for workers in (2, 3))
    assert [slot.slot for slot in made.slots] == ["w0", "w1", "w2"]
    assert {name: slot.slot for slot in made.slots for name in slot.namespaces} == after
    assert sum(slot.load for slot in made.slots) == pytest.approx(sum(weights.values()))
    assert made.fullest == pytest.approx(max(slot.load for slot in made.slots) * 3 / sum(weights.values()))
    assert made.fullest <= 1.25
    assert made.moves is not None
    moved = {move.namespace: (move.from_slot, move.to_slot) for move in made.moves}
    assert moved == {name: (before[name], after[name]) for name in weights if before[name] != after[name]}
    assert 0.2 < len(moved) / len(weights) < 1.3 / 3 + 0.05


def test_without_a_size_to_compare_with_nothing_is_said_of_moves() -> None:
    made = plan({"shop": 1.0}, workers=2, from_workers=None, shape=SHAPE)
    assert (made.moves, made.fullest) == (None, 2.0)


def test_what_runs_is_compared_as_it_lies_and_what_waits_does_not_move() -> None:
    weights = zipf(4)
    homes = assigned(weights, workers=2, shape=SHAPE)
    other = {"w0": "w1", "w1": "w0"}
    lie = {"namespace-0": other[homes["namespace-0"]], "namespace-1": homes["namespace-1"], "gone": "w0"}
    made = plan(weights, workers=2, from_workers=2, homes_before=lie, shape=SHAPE)
    assert made.moves is not None
    assert [move.namespace for move in made.moves] == ["namespace-0"]


def test_the_same_size_moves_nothing() -> None:
    assert plan(zipf(50), workers=4, from_workers=4, shape=SHAPE).moves == ()


def test_no_namespaces_are_no_load() -> None:
    made = plan({}, workers=2, from_workers=1, shape=SHAPE)
    assert (made.fullest, made.load, made.moves) == (0.0, 0.0, ())
