"""What one Hook may spend on calls, and which of its incidents wait for more.

First come, first called: a new incident waits behind those that wait already, though the bucket may hold a call at
that moment.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Generic, TypeVar

from khook.core.budget import Budget

Key = TypeVar("Key")


class Allowance(Generic[Key]):
    """`budget` None: no limit, and nobody waits."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._waiting: dict[Key, None] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def charge(self, key: Key, now: datetime) -> bool:
        """Charge the call of a new incident; False: it waits from now on."""
        if self._budget is None or (not self._waiting and self._budget.take(now)):
            return True
        self.wait(key)
        return False

    def wait(self, key: Key) -> None:
        """At the end of the line."""
        self._waiting.pop(key, None)
        self._waiting[key] = None

    def due(self, now: datetime) -> Iterator[Key]:
        """Those that may be called now, oldest first; each is charged."""
        while self._waiting and (self._budget is None or self._budget.take(now)):
            key = next(iter(self._waiting))
            del self._waiting[key]
            yield key

    def forget(self, key: Key) -> None:
        """Its call is not wanted any more."""
        self._waiting.pop(key, None)

    def clear(self) -> None:
        self._waiting.clear()
