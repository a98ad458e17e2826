"""Which slot is a key's home: a consistent-hash ring with virtual nodes.

Decides from names alone, so that every process and every restart agrees: the points are blake2b-64 digests, never
`hash()`, which differs from process to process. A slot that joins takes keys from all others and moves no other key;
a slot that leaves gives its own keys to the rest and moves no other.
Source: Karger et al., "Consistent Hashing and Random Trees" (STOC 1997).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

VIRTUAL_NODES: Final = 256
"""Points a slot has on the ring: at 256 the largest of 8 slots holds about 1.1 times the mean."""


class Ring:
    """An immutable ring; `slots` keeps the order given. A ring without slots owns nothing."""

    def __init__(self, slots: Iterable[str], virtual_nodes: int = VIRTUAL_NODES) -> None:
        self.slots = tuple(slots)
        if len(set(self.slots)) != len(self.slots):
            raise ValueError(f"a slot stands twice in {self.slots}")
        if virtual_nodes < 1:
            raise ValueError(f"virtual_nodes must be 1 or more, not {virtual_nodes}")
        placed = sorted((_point(f"{slot}#{node}"), slot) for slot in self.slots for node in range(virtual_nodes))
        self._points = [point for point, _ in placed]
        self._owners = [slot for _, slot in placed]

    def owner(self, key: str) -> str | None:
        """The slot of the first point after the key's own, going round; None only if there are no slots."""
        if not self._owners:
            return None
        return self._owners[bisect_right(self._points, _point(key)) % len(self._owners)]

    def owners(self, keys: Iterable[str]) -> dict[str, str]:
        """The owner of each key, a little faster than one by one; of none if there are no slots."""
        if not self._owners:
            return {}
        points, owners, count = self._points, self._owners, len(self._points)
        return {key: owners[bisect_right(points, _point(key)) % count] for key in keys}

    def clockwise(self, key: str) -> Iterator[str]:
        """Every slot once, in the order in which their points follow the key's own: the owner first."""
        seen: set[str] = set()
        start = bisect_right(self._points, _point(key))
        for index in range(start, start + len(self._owners)):
            slot = self._owners[index % len(self._owners)]
            if slot not in seen:
                seen.add(slot)
                yield slot
                if len(seen) == len(self.slots):
                    return


def _point(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
