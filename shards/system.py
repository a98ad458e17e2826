"""What a pool of real processes takes from its surroundings when its user has nothing better.

A clock and a log, on the standard library alone. A simulation brings its own; so does who has a log of his own.
"""

import logging
import time
from typing import Any


class SystemClock:
    """`shards.launch.Clock`. Goes on while a process is stopped or the machine suspended: a permission relies on it."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)


class StandardLog:
    """`shards.pool.Log` on a logger of the standard library: the values follow the event as key=value."""

    def __init__(self, name: str = "shards") -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **values: Any) -> None:
        self._write(logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._write(logging.WARNING, event, values)

    def error(self, event: str, **values: Any) -> None:
        self._write(logging.ERROR, event, values)

    def _write(self, level: int, event: str, values: dict[str, Any]) -> None:
        self._logger.log(level, "%s", " ".join([event, *(f"{key}={value!r}" for key, value in values.items())]))
