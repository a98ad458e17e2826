"""What was made last, for a second: an eager reader cannot load the loop that also supervises."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

KEPT_S: Final = 1.0

T = TypeVar("T")


class Kept(Generic[T]):
    """What `make` gave last; one reader at a time makes it anew, and those who come meanwhile share it."""

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._lock = asyncio.Lock()
        self._kept: tuple[T, float] | None = None

    async def read(self) -> T:
        async with self._lock:
            loop = asyncio.get_running_loop()
            if self._kept is not None and loop.time() - self._kept[1] < KEPT_S:
                return self._kept[0]
            made = await self._make()
            self._kept = (made, loop.time())
            return made
