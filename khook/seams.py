"""The seams: what a running khook takes from outside, so that a test or a simulation can give it instead.

Five of them: time (`Clock`), randomness (a `random.Random`), HTTP (`Transports`), the process launcher
(`shards.launch.Launcher`) and exit (`Exit`). Sleeping is `asyncio.sleep`, deadlines are `asyncio.timeout`:
the simulation replaces the event loop, and with it both.
"""

import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID

import httpx

Exit = Callable[[int], None]


class Clock(Protocol):
    """Monotonic seconds for intervals (`*_at`), aware UTC datetimes for what is written down (`*_time`)."""

    def monotonic(self) -> float: ...

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's own clocks. CLOCK_BOOTTIME goes on while the machine is suspended: others' Leases run out then."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        return datetime.now(UTC)


class Transports(Protocol):
    """Makes HTTP transports; `tls` is None for plain http. The caller closes them."""

    def streaming(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        """For watches and LISTs: fast, but its errors are vague and a dropped GET may be sent twice."""
        ...

    def exact(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        """For writes and agent calls: tells "refused" from "dropped after sending"; never cancel its requests."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """How often khook looks at what nobody tells it. Thousands of simulated half-hours look more rarely."""

    worker_s: float = 1.0
    """Pods stuck in Pending, incidents to resolve or forget, gauges."""
    health_s: float = 1.0
    files_s: float = 2.0
    """The mounted secret: a kubelet needs up to a minute to bring a new one."""


DEFAULT_TICKS: Final = Ticks()


def fresh_uuid(randomness: random.Random) -> str:
    """A random UUID (version 4) from the injected randomness."""
    return str(UUID(int=randomness.getrandbits(128), version=4))
