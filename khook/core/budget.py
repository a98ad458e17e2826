"""How many calls one Hook may make: a bucket that holds an hour's worth and refills evenly.

The last line against a storm that no grouping catches: a thousand incidents of one Hook are a thousand runs of an
agent, and somebody pays for each. Nothing is lost for it: what the bucket does not allow yet waits, visibly, and is
called when it does, as long as its incident goes on. A call id is charged once, however often it is sent.

The bucket is not written anywhere. A new owner of the namespace reckons it from the calls that stand in the Hook's
status, so that neither a crash nor a move fills it; calls whose rows are gone by then were refilled for the most part.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

REFILLED_IN: Final = timedelta(hours=1)


class Budget:
    """`size` calls at once, and `size` an hour. Times are the API server's."""

    __slots__ = ("_calls", "_size", "_time")

    def __init__(self, size: int, *, now: datetime, charged: Iterable[datetime] = ()) -> None:
        """`charged`: when calls were made before, as far as anybody remembers."""
        if size < 1:
            raise ValueError("a Hook without a limit has no budget")
        self._size = size
        self._calls = float(size)
        earlier = sorted(min(time, now) for time in charged)
        self._time = earlier[0] if earlier else now
        for time in earlier:
            self._refill(time)
            self._calls = max(0.0, self._calls - 1)
        self._refill(now)

    def take(self, now: datetime) -> bool:
        """Charge one call; False where it has to wait."""
        self._refill(now)
        if self._calls < 1:
            return False
        self._calls -= 1
        return True

    def _refill(self, now: datetime) -> None:
        """Our idea of the server's time may step back by a second: then nothing is refilled, and nothing lost."""
        if now > self._time:
            self._calls = min(self._size, self._calls + self._size * ((now - self._time) / REFILLED_IN))
            self._time = now
