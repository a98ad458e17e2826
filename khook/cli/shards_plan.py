"""What a pool of another size would do with the same namespaces: each slot's load, and what changes its slot.

Decides nothing itself: ring, bounded load and slot names are the supervisor's own. A plan is where a pool comes to
rest that is told these weights. A pool that has just started measures first, and moves there a few namespaces a
minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum

from khook.sizing import slot_names
from shards.balance import Balance
from shards.ring import Ring


@dataclass(frozen=True, slots=True, kw_only=True)
class RingShape:
    virtual_nodes: int
    max_load_factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    namespace: str
    from_slot: str
    to_slot: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotPlan:
    slot: str
    namespaces: tuple[str, ...]
    """By name."""
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """`moves` are against a pool of `from_workers`; both are None where there is nothing to compare with."""

    shape: RingShape
    weights: Mapping[str, float]
    slots: tuple[SlotPlan, ...]
    from_workers: int | None
    moves: tuple[Move, ...] | None

    @property
    def load(self) -> float:
        return fsum(self.weights.values())

    @property
    def mean(self) -> float:
        return self.load / len(self.slots)

    @property
    def fullest(self) -> float:
        """The fullest slot's load as a multiple of the mean; 0 where there is no load."""
        return max(slot.load for slot in self.slots) / self.mean if self.load else 0.0


def plan(weights: Mapping[str, float], *, workers: int, from_workers: int | None, shape: RingShape) -> ShardPlan:
    """`weights`: each above 0."""
    homes = assigned(weights, workers=workers, shape=shape)
    moves = None
    if from_workers is not None:
        before = assigned(weights, workers=from_workers, shape=shape)
        moves = tuple(
            Move(namespace=name, from_slot=before[name], to_slot=homes[name], weight=weights[name])
            for name in sorted(weights)
            if before[name] != homes[name]
        )
    return ShardPlan(
        shape=shape,
        weights=weights,
        slots=tuple(_slot(slot, homes, weights) for slot in slot_names(workers)),
        from_workers=from_workers,
        moves=moves,
    )


def assigned(weights: Mapping[str, float], *, workers: int, shape: RingShape) -> dict[str, str]:
    """The slot of each namespace in a pool that starts with these weights. It has nothing to level afterwards: who was
    placed later is lighter, so what found no room at its home finds none later, and nobody fits elsewhere better."""
    ring = Ring(slot_names(workers), shape.virtual_nodes)
    balance = Balance(ring, weights, {}, max_load_factor=shape.max_load_factor)
    balance.settle()
    return balance.homes


def _slot(slot: str, homes: Mapping[str, str], weights: Mapping[str, float]) -> SlotPlan:
    owned = sorted(name for name, home in homes.items() if home == slot)
    return SlotPlan(slot=slot, namespaces=tuple(owned), load=fsum(weights[name] for name in owned))
