"""How even the ring is, how much a slot more or less moves, and how long a plan takes: the figures of `shards`.

    python bench/ring_figures.py [keys]

prints one JSON object: each figure with what it should not exceed. Exit code 1 if one does. The functions take slots
and keys, for whoever wants the figures of a list of his own.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from shards.balance import MAX_MOVES, Balance
from shards.plan import Plan
from shards.ring import Ring

SLOTS: Final = 8
KEYS: Final = 10_000
MOST_SLOTS: Final = 16
REPEATS: Final = 5
"""The fastest of so many is what the work costs; the others are what else the machine did."""
PATTERNS: Final = ("team-{}", "ns-{:05}", "namespace-{}", "{}-prod", "customer-{}-app")
"""Nobody's names are special: what depends on them is reported for each of these, and judged by the worst."""

Weights = Mapping[str, float]
Homes = Mapping[str, str]


def slots(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def named(count: int, pattern: str = PATTERNS[0]) -> list[str]:
    return [pattern.format(number) for number in range(count)]


def zipf(keys: Sequence[str], seed: int) -> dict[str, float]:
    """Zipf(1.0): the key of rank n weighs 1/n; who has which rank is drawn."""
    order = random.Random(seed).sample(keys, len(keys))
    return {key: 1 / rank for rank, key in enumerate(order, start=1)}


def settled(ring: Ring, weights: Weights) -> dict[str, str]:
    """Where the keys of a pool that begins live."""
    balance = Balance(ring, weights, {})
    balance.settle()
    return balance.homes


def max_over_mean(ring: Ring, weights: Weights, homes: Homes) -> float:
    loads = Balance(ring, weights, homes).loads.values()
    return max(loads) * len(loads) / sum(loads)


def moved(before: Homes, after: Homes) -> int:
    return sum(before[key] != after[key] for key in before)


def level(ring: Ring, weights: Weights, homes: Homes) -> tuple[dict[str, str], list[int]]:
    """Rounds until nothing moves any more: the homes then, and how many keys each round moved."""
    now, waves = dict(homes), list[int]()
    while True:
        balance = Balance(ring, weights, now)
        moves = balance.level()
        if not moves:
            return now, waves
        now = balance.homes
        waves.append(moves)


def even(count: int = KEYS) -> dict[str, float]:
    ring = Ring(slots(SLOTS))
    found = {}
    for pattern in PATTERNS:
        weights = dict.fromkeys(named(count, pattern), 1.0)
        found[pattern] = round(max_over_mean(ring, weights, settled(ring, weights)), 4)
    return found


def uneven(count: int = KEYS, seeds: int = 10) -> dict[str, Any]:
    """A pool that placed its keys as equals learns that they are not: the worst of `seeds` draws."""
    ring, keys = Ring(slots(SLOTS)), named(count)
    start = settled(ring, dict.fromkeys(keys, 1.0))
    before, after, rounds, moves = 0.0, 0.0, 0, 0
    for seed in range(seeds):
        weights = zipf(keys, seed)
        homes, waves = level(ring, weights, start)
        before = max(before, max_over_mean(ring, weights, start))
        after = max(after, max_over_mean(ring, weights, homes))
        rounds, moves = max(rounds, len(waves)), max(moves, sum(waves))
    return {"before": round(before, 4), "after": round(after, 4), "rounds": rounds, "moves": moves}


def one_more_slot(keys: Sequence[str], most_slots: int = MOST_SLOTS) -> dict[int, float]:
    """n → the share of keys that live elsewhere with n + 1 slots, times n + 1: 1 is what has to move."""
    weights = dict.fromkeys(keys, 1.0)
    homes = [settled(Ring(slots(count)), weights) for count in range(1, most_slots + 1)]
    return {
        count: round(moved(homes[count - 1], homes[count]) / len(keys) * (count + 1), 4)
        for count in range(1, most_slots)
    }


def a_slot_breaks_and_returns(count: int = KEYS) -> dict[str, Any]:
    """Share of the keys that move when one of the slots breaks, and the rounds until all are home again."""
    whole, weights = Ring(slots(SLOTS)), dict.fromkeys(named(count), 1.0)
    home = settled(whole, weights)
    broken = Balance(Ring(slots(SLOTS - 1)), weights, home)
    broken.settle()
    homes, waves = level(whole, weights, broken.homes)
    return {
        "moved_x_slots": round(moved(home, broken.homes) / count * SLOTS, 4),
        "rounds": len(waves),
        "away_in_the_end": moved(home, homes),
    }


def planning_ms(count: int = KEYS) -> dict[str, float]:
    """CPU time of a whole plan (ring homes, balance, steps): from nothing, and for a round of changed weights."""
    ring, keys = Ring(slots(SLOTS)), named(count)
    weights, changed = dict.fromkeys(keys, 1.0), zipf(keys, 1)
    begun: list[Plan] = []

    def from_nothing() -> None:
        plan = Plan()
        plan.lead(1)
        plan.want(settled(Ring(slots(SLOTS)), weights))
        for slot in ring.slots:
            plan.ready(slot)
        assert len(plan.steps(0.0)) == count
        begun.append(plan)

    def one_more_round() -> None:
        plan = begun.pop()
        balance = Balance(ring, changed, plan.homes())
        balance.settle()
        balance.level()
        plan.want(balance.homes)
        assert len(plan.steps(1.0)) <= MAX_MOVES

    return {"from_nothing": _fastest_ms(from_nothing), "one_more_round": _fastest_ms(one_more_round)}


def _fastest_ms(work: Callable[[], None]) -> float:
    took_s = []
    for _ in range(REPEATS):
        began_at = time.process_time()
        work()
        took_s.append(time.process_time() - began_at)
    return round(min(took_s) * 1000, 1)


def figures(count: int = KEYS) -> dict[str, Any]:
    """Every figure, and under `missed` the names of those that are worse than they should be."""
    evenness, zipfs, ms = even(count), uneven(count), planning_ms(count)
    growth = {pattern: one_more_slot(named(count, pattern)) for pattern in PATTERNS}
    limits = [
        ("even_max_over_mean", max(evenness.values()), 1.10),
        ("zipf_max_over_mean", zipfs["after"], 1.25),
        ("one_more_slot_moves_x_slots", max(max(shares.values()) for shares in growth.values()), 1.3),
        ("plan_from_nothing_ms", ms["from_nothing"], 50.0),
        ("plan_one_more_round_ms", ms["one_more_round"], 50.0),
    ]
    return {
        "slots": SLOTS,
        "keys": count,
        "max_moves_a_round": MAX_MOVES,
        "figures": {name: {"is": value, "at_most": limit} for name, value, limit in limits},
        "missed": [name for name, value, limit in limits if value > limit],
        "even_by_names": evenness,
        "zipf": zipfs,
        "one_more_slot_by_names": growth,
        "a_slot_breaks_and_returns": a_slot_breaks_and_returns(count),
    }


def main() -> int:
    found = figures(int(sys.argv[1]) if len(sys.argv) > 1 else KEYS)
    print(json.dumps(found, indent=2))
    return 1 if found["missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
