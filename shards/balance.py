"""Where each key shall live: its home on the ring, unless that slot has too much to do.

Decides from the ring, the keys' weights and where they live now; refuses to know who holds what, and since when. Two
levels keep keys from wandering. A key leaves a slot only while that slot is above the limit, `max_load_factor` × mean;
slots are filled, and keys return to their homes on the ring, only up to the comfort, which is nearer to the mean. What
moves a load from one to the other has to be more than noise.
Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA 2018); theirs is without weights
and without a memory.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from math import fsum, isfinite
from typing import Final

from shards.ring import Ring

MAX_LOAD_FACTOR: Final = 1.25
COMFORT: Final = 0.4
"""Where the comfort lies between mean and limit. At 1.25 it is 1.10 × mean: what the ring alone gives many keys of one
weight, within a percent or two, so that hardly any of them has to live away from home."""
MAX_MOVES: Final = 64
"""Running keys that change hands in one round: a hand-over stops and starts each of them, and a few dozen at a time
are not noticed. What is left follows in the next rounds."""


def checked(weights: Mapping[str, float]) -> dict[str, float]:
    """A copy. Raises ValueError for a weight that is not finite and above 0."""
    for key, weight in weights.items():
        if not (isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of {key!r} must be finite and above 0, not {weight}")
    return dict(weights)


class Balance:
    """One round over the keys of `weights`. `homes` is where they live now; who lives at a slot that is not on the
    ring lives nowhere. Call `settle`, then perhaps `level`; `homes` is the result."""

    def __init__(
        self,
        ring: Ring,
        weights: Mapping[str, float],
        homes: Mapping[str, str],
        *,
        max_load_factor: float = MAX_LOAD_FACTOR,
    ) -> None:
        self._ring = ring
        self._weights = weights
        self._keys_of: dict[str, list[str]] = {slot: [] for slot in ring.slots}
        self._homeless: list[str] = []
        self.homes: dict[str, str] = {}
        for key in weights:
            home = homes.get(key)
            if home is not None and home in self._keys_of:
                self.homes[key] = home
                self._keys_of[home].append(key)
            else:
                self._homeless.append(key)
        weight_of = weights.__getitem__
        self.loads = {slot: fsum(map(weight_of, keys)) for slot, keys in self._keys_of.items()}
        mean = fsum(weights.values()) / len(ring.slots) if ring.slots else 0.0
        self._limit = max_load_factor * mean
        self._comfort = (1 + (max_load_factor - 1) * COMFORT) * mean

    def settle(self) -> None:
        """Give a home to each key that has none; the heaviest choose first. Without slots they stay homeless."""
        if not self._ring.slots:
            return
        homes = self._ring.owners(self._homeless)
        for key in self._heaviest_first(self._homeless):
            slot = homes[key]
            if self.loads[slot] + self._weights[key] > self._comfort:
                slot = self._roomy(key) or min(self._ring.slots, key=self.loads.__getitem__)
            self._put(key, slot)
        self._homeless = []

    def level(self, max_moves: int = MAX_MOVES) -> int:
        """Move some keys for the balance's sake, `max_moves` at most; returns how many. After `settle`."""
        moves = self._return(max_moves)
        for slot in sorted(self._ring.slots, key=self.loads.__getitem__, reverse=True):
            moves += self._relieve(slot, max_moves - moves)
        return moves

    def _return(self, max_moves: int) -> int:
        """Back to their homes on the ring, where there is room to spare."""
        ring_homes = self._ring.owners(self.homes)
        away = [key for key, home in self.homes.items() if home != ring_homes[key]]
        moves = 0
        for key in self._heaviest_first(away):
            if moves == max_moves:
                break
            home = ring_homes[key]
            if self.loads[home] + self._weights[key] <= self._comfort:
                self._put(key, home)
                moves += 1
        return moves

    def _relieve(self, slot: str, max_moves: int) -> int:
        """Away from a slot above the limit, by few and light moves."""
        if self.loads[slot] <= self._limit:
            return 0
        keys = self._heaviest_first(key for key, home in self.homes.items() if home == slot)[::-1]
        weights = [self._weights[key] for key in keys]
        moves = 0
        while moves < max_moves and self.loads[slot] > self._limit:
            room = self._limit - min(self.loads.values())
            enough = bisect_left(weights, self.loads[slot] - self._limit)
            chosen = enough if enough < len(keys) and weights[enough] <= room else bisect_right(weights, room) - 1
            target = self._roomy(keys[chosen]) if chosen >= 0 else None
            if target is None:
                break
            self._put(keys.pop(chosen), target)
            weights.pop(chosen)
            moves += 1
        return moves

    def _roomy(self, key: str) -> str | None:
        """The first slot clockwise that could take it in comfort; else the first that could within the limit."""
        weight, within_limit = self._weights[key], None
        for slot in self._ring.clockwise(key):
            after = self.loads[slot] + weight
            if after <= self._comfort:
                return slot
            if after <= self._limit:
                within_limit = within_limit or slot
        return within_limit

    def _put(self, key: str, slot: str) -> None:
        last = self.homes.get(key)
        if last is not None:
            self.loads[last] -= self._weights[key]
        self.homes[key] = slot
        self.loads[slot] += self._weights[key]

    def _heaviest_first(self, keys: Iterable[str]) -> list[str]:
        """Of one weight in the order of their names: the result must not hang on the order of anything given."""
        return sorted(sorted(keys), key=self._weights.__getitem__, reverse=True)
