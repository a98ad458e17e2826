"""The balance against a naive model of its rules, and the promises that make it worth having: even, and still."""

import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import inf, nan

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shards.balance import MAX_MOVES, Balance, checked
from shards.ring import Ring

SLOTS = ["w0", "w1", "w2", "w3"]
KEYS = [f"k{number}" for number in range(12)]
FACTOR, COMFORT = 1.25, 1.10

weights_of_keys = st.dictionaries(st.sampled_from(KEYS), st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.0, 9.0]))


class Model:
    """The rules as they are said, one key at a time, with nothing remembered from one look to the next."""

    def __init__(self, ring: Ring, weights: Mapping[str, float], homes: Mapping[str, str]) -> None:
        self.ring, self.weights = ring, weights
        self.homes = {key: slot for key, slot in homes.items() if key in weights and slot in ring.slots}
        self.mean = sum(weights.values()) / len(ring.slots)

    def load(self, slot: str) -> float:
        return sum(self.weights[key] for key, home in self.homes.items() if home == slot)

    def first_with_room(self, key: str) -> str | None:
        for level in (COMFORT, FACTOR):
            for slot in self.ring.clockwise(key):
                if self.homes.get(key) != slot and self.load(slot) + self.weights[key] <= level * self.mean:
                    return slot
        return None

    def settle(self) -> None:
        homeless = [key for key in self.weights if key not in self.homes]
        for key in sorted(homeless, key=lambda key: (-self.weights[key], key)):
            self.homes[key] = self.first_with_room(key) or min(
                self.ring.slots, key=lambda slot: (self.load(slot), self.ring.slots.index(slot))
            )

    def level(self, max_moves: int) -> int:
        moves = 0
        for key in sorted(self.homes, key=lambda key: (-self.weights[key], key)):
            home = str(self.ring.owner(key))
            fits = self.load(home) + self.weights[key] <= COMFORT * self.mean
            if moves < max_moves and self.homes[key] != home and fits:
                self.homes[key] = home
                moves += 1
        for slot in sorted(self.ring.slots, key=lambda slot: (-self.load(slot), self.ring.slots.index(slot))):
            while moves < max_moves and (leaver := self.to_leave(slot)) is not None:
                self.homes[leaver] = self.first_with_room(leaver) or ""
                moves += 1
        return moves

    def to_leave(self, slot: str) -> str | None:
        excess = self.load(slot) - FACTOR * self.mean
        if excess <= 0:
            return None
        movable = sorted(
            (self.weights[key], key)
            for key, home in self.homes.items()
            if home == slot and self.first_with_room(key) is not None
        )
        enough = [(weight, key) for weight, key in movable if weight >= excess]
        if enough:
            return max(key for weight, key in enough if weight == enough[0][0])
        return min((key for weight, key in movable if weight == movable[-1][0]), default=None)


class BalanceMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(SLOTS, 8)
        self.weights: dict[str, float] = {}
        self.homes: dict[str, str] = {}

    @rule(weights=weights_of_keys)
    def keys_come_and_go(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.settle()

    @precondition(lambda self: self.weights)
    @rule(data=st.data())
    def weights_change(self, data: st.DataObject) -> None:
        for key in data.draw(st.lists(st.sampled_from(sorted(self.weights)), max_size=4)):
            self.weights[key] = data.draw(st.sampled_from([1.0, 4.0, 16.0]))

    @rule(slots=st.lists(st.sampled_from(SLOTS), min_size=1, unique=True))
    def slots_break_and_come_back(self, slots: list[str]) -> None:
        """As a pool does it: those who lost their homes settle, and nobody else moves."""
        self.ring = Ring(slots, 8)
        before = self.homes
        self.settle()
        assert {key: slot for key, slot in before.items() if slot in slots}.items() <= self.homes.items()

    def settle(self) -> None:
        balance, model = Balance(self.ring, self.weights, self.homes), Model(self.ring, self.weights, self.homes)
        balance.settle()
        model.settle()
        assert model.homes == balance.homes
        self.homes = balance.homes

    @rule(max_moves=st.sampled_from([0, 1, 2, MAX_MOVES]))
    def a_round(self, max_moves: int) -> None:
        balance, model = Balance(self.ring, self.weights, self.homes), Model(self.ring, self.weights, self.homes)
        balance.settle()
        model.settle()
        before = dict(balance.homes)
        assert model.level(max_moves) == balance.level(max_moves)
        assert model.homes == balance.homes
        assert len([key for key in before if before[key] != balance.homes[key]]) <= max_moves
        self.homes = balance.homes

    @precondition(lambda self: self.weights)
    @rule()
    def rounds_of_steady_weights_come_to_rest_below_the_limit(self) -> None:
        for _ in range(len(KEYS)):
            balance = Balance(self.ring, self.weights, self.homes)
            moves = balance.level(2)
            self.homes = balance.homes
            if not moves:
                break
        assert moves == 0
        limit = FACTOR * sum(self.weights.values()) / len(self.ring.slots)
        room = limit - min(balance.loads.values())
        for slot, load in balance.loads.items():
            if load > limit:
                lightest = min(self.weights[key] for key, home in self.homes.items() if home == slot)
                assert lightest > room, "only what fits nowhere may stay on a slot with too much"

    @invariant()
    def every_key_has_a_home_on_the_ring(self) -> None:
        assert self.weights.keys() == self.homes.keys()
        assert set(self.homes.values()) <= set(self.ring.slots)


TestBalance = BalanceMachine.TestCase
TestBalance.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


# at the size it is for


def team(count: int) -> list[str]:
    return [f"team-{number}" for number in range(count)]


def zipf(keys: list[str], seed: int = 1) -> dict[str, float]:
    order = random.Random(seed).sample(keys, len(keys))
    return {key: 1 / rank for rank, key in enumerate(order, start=1)}


def rounds(
    ring: Ring, homes: dict[str, str], weights: Callable[[int], Mapping[str, float]], count: int
) -> list[dict[str, str]]:
    """The homes after each round of a pool's life."""
    history = []
    for number in range(count):
        balance = Balance(ring, weights(number), homes)
        balance.settle()
        balance.level()
        homes = balance.homes
        history.append(homes)
    return history


def spread(ring: Ring, weights: Mapping[str, float], homes: Mapping[str, str]) -> float:
    """The fullest slot's load over the mean."""
    loads = Balance(ring, weights, homes).loads.values()
    return max(loads) / (sum(loads) / len(loads))


def moves(history: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(key, after[key]) for before, after in pairwise(history) for key in after if before[key] != after[key]]


@pytest.mark.parametrize("pattern", ["team-{}", "ns-{:05}", "namespace-{}", "{}-prod", "customer-{}-app"])
def test_keys_of_one_weight_are_even_on_eight_slots_and_nearly_all_at_home(pattern: str) -> None:
    ring, keys = Ring([f"w{number}" for number in range(8)]), [pattern.format(number) for number in range(10_000)]
    even = dict.fromkeys(keys, 1.0)
    balance = Balance(ring, even, {})
    balance.settle()
    assert spread(ring, even, balance.homes) <= 1.10
    assert len([key for key in keys if balance.homes[key] != ring.owner(key)]) <= 0.01 * len(keys)
    assert balance.level() == 0


@pytest.mark.parametrize("count", range(1, 16))
def test_one_more_slot_moves_little_more_than_its_share(count: int) -> None:
    even = dict.fromkeys(team(10_000), 1.0)
    before, after = (Balance(Ring(f"w{number}" for number in range(slots)), even, {}) for slots in (count, count + 1))
    before.settle()
    after.settle()
    assert len(moves([before.homes, after.homes])) <= 1.3 / (count + 1) * len(even)


def test_loads_as_uneven_as_zipfs_come_below_the_limit_in_bounded_rounds() -> None:
    ring, keys = Ring([f"w{number}" for number in range(8)]), team(10_000)
    start = {key: str(ring.owner(key)) for key in keys}
    for seed in range(5):
        weights = zipf(keys, seed)
        history = [start, *rounds(ring, start, lambda _, weights=weights: weights, 6)]  # type: ignore[misc]
        for before, after in pairwise(history):
            assert len(moves([before, after])) <= MAX_MOVES
        assert spread(ring, weights, history[-1]) <= 1.25
        assert history[-1] == history[-2]


def exponential(keys: list[str]) -> dict[str, float]:
    chance = random.Random(5)
    return {key: 0.05 + chance.expovariate(1.0) for key in keys}


@pytest.mark.parametrize(
    ("base", "smoothing"),
    [
        (dict.fromkeys(team(400), 1.0), 0.3),
        (exponential(team(400)), 0.3),
        (zipf(team(1000)), 0.1),  # the heaviest key alone is more than a slot's mean
    ],
    ids=["even", "exponential", "zipf"],
)
def test_noise_moves_hardly_anything_and_nothing_back_and_forth(base: dict[str, float], smoothing: float) -> None:
    chance, ring = random.Random(3), Ring([f"w{number}" for number in range(8)])
    now = dict(base)

    def measured(_: int) -> dict[str, float]:
        for key, weight in base.items():
            now[key] += smoothing * (weight * chance.uniform(0.8, 1.2) - now[key])
        return dict(now)

    history = rounds(ring, {}, measured, 200)
    moved = moves(history[10:])
    assert len(moved) <= 0.05 * len(base), "in 190 rounds"
    assert len({key for key, _ in moved}) == len(moved), "who moved once stays"
    assert [slot for _, slot in moved] == [ring.owner(key) for key, _ in moved], "and it moved home"


def test_a_key_of_more_than_a_slots_share_lives_alone() -> None:
    ring = Ring(SLOTS)
    weights = {"giant": 100.0, **dict.fromkeys(KEYS, 1.0)}
    history = rounds(ring, {}, lambda _: weights, 3)
    alone = history[-1]["giant"]
    assert [key for key, slot in history[-1].items() if slot == alone] == ["giant"]
    assert history[0] == history[-1]


def test_a_slot_that_comes_back_gets_its_keys_back_a_wave_at_a_time() -> None:
    keys = team(1_000)
    even, whole = dict.fromkeys(keys, 1.0), Ring(["w0", "w1", "w2"])
    home = {key: str(whole.owner(key)) for key in keys}
    broken = Balance(Ring(["w0", "w2"]), even, home)
    broken.settle()
    history = [broken.homes, *rounds(whole, broken.homes, lambda _: even, 12)]
    for before, after in pairwise(history):
        wave = moves([before, after])
        assert {slot for _, slot in wave} <= {"w1"}
        assert len(wave) <= MAX_MOVES
    assert history[-1] == home


def test_the_order_in_which_things_are_given_does_not_matter() -> None:
    weights = zipf(team(300))
    backwards = dict(reversed(weights.items()))
    one, other = Balance(Ring(SLOTS), weights, {}), Balance(Ring(SLOTS), backwards, {})
    for balance in (one, other):
        balance.settle()
        balance.level()
    assert one.homes == other.homes


def test_without_slots_or_keys_there_is_nothing_to_decide() -> None:
    nowhere = Balance(Ring([]), {"a": 1.0}, {"a": "w0"})
    nowhere.settle()
    assert (nowhere.homes, nowhere.level()) == ({}, 0)
    nobody = Balance(Ring(SLOTS), {}, {"a": "w0"})
    nobody.settle()
    assert (nobody.homes, nobody.level()) == ({}, 0)


@pytest.mark.parametrize("weight", [0.0, -1.0, inf, nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="'b' must be finite and above 0"):
        checked({"a": 1.0, "b": weight})
    assert checked({"a": 1.0}) == {"a": 1.0}
