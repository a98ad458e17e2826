"""What a pool of another size would do with the same namespaces: each slot's load, and what changes its slot.

Decides nothing itself: ring, bounded load and slot names are the supervisor's own. A plan is where a pool comes to
rest that starts as each does, before it has measured anything, with all namespaces alike, and is then told the
weights, a round a minute.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from typing import Final

from khook.sizing import slot_names
from khook.supervisor.load import weight
from shards.balance import Balance
from shards.ring import Ring

MOST_ROUNDS: Final = 1_000
"""Each moves some dozens, and a pool comes to rest; this is for one that would not."""


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


def plan(
    weights: Mapping[str, float],
    *,
    workers: int,
    shape: RingShape,
    from_workers: int | None = None,
    homes_before: Mapping[str, str] | None = None,
) -> ShardPlan:
    """`weights`: each above 0. `homes_before`: where the `from_workers` have the namespaces now; None: where they would
    have them."""
    homes = assigned(weights, workers=workers, shape=shape)
    moves = None
    if from_workers is not None:
        if homes_before is None:
            homes_before = assigned(weights, workers=from_workers, shape=shape)
        moves = tuple(
            Move(namespace=name, from_slot=before, to_slot=homes[name], weight=weights[name])
            for name in sorted(weights)
            if (before := homes_before.get(name)) is not None and before != homes[name]
        )
    return ShardPlan(
        shape=shape,
        weights=weights,
        slots=tuple(_slot(slot, homes, weights) for slot in slot_names(workers)),
        from_workers=from_workers,
        moves=moves,
    )


def assigned(weights: Mapping[str, float], *, workers: int, shape: RingShape) -> dict[str, str]:
    """The slot of each namespace, once a pool of so many has come to rest."""
    ring = Ring(slot_names(workers), shape.virtual_nodes)
    told: Mapping[str, float] = dict.fromkeys(weights, weight(0.0))
    homes: dict[str, str] = {}
    for _ in range(MOST_ROUNDS):
        balance = Balance(ring, told, homes, max_load_factor=shape.max_load_factor)
        balance.settle()
        moves = balance.level()
        homes = balance.homes
        if told is weights and not moves:
            break
        told = weights
    return homes


def _slot(slot: str, homes: Mapping[str, str], weights: Mapping[str, float]) -> SlotPlan:
    owned = sorted(name for name, home in homes.items() if home == slot)
    return SlotPlan(slot=slot, namespaces=tuple(owned), load=fsum(weights[name] for name in owned))
