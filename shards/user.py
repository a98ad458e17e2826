"""What the user of a pool gives it and sees of it: the owner's call-backs, a log, the view of slots and keys.

The views are msgspec structs, because a view of ten thousand keys is made several times a minute and they are made
five times as fast as a frozen dataclass. Data and protocols only. Import them from `shards.pool`.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from shards.plan import Hold
from shards.policy import Phase


class Owner(Protocol):
    """What the pool's user supplies. Called in the pool's loop, must not block; what it raises ends the pool.

    Who inherits it may leave out what it has no use for.
    """

    def welcome(self, slot: str) -> bytes:
        """The payload for a member that said hello: settings, credentials."""
        return b""

    def permission_s(self) -> float | None:
        """For how many seconds from now members may act outwardly; None: without limit, 0 or less: not at all. Asked
        at each welcome and for each beat."""
        return None

    def reported(self, slot: str, report: bytes) -> None:
        """What came with a heartbeat."""

    def asked(self, slot: str, question: bytes) -> None:
        """A message from a member; answer with `Pool.tell_slot`."""

    def died(self, slot: str, how: str) -> None:
        """After the process is gone for certain, before its successor starts."""


class Log(Protocol):
    """A structlog-like bound logger."""

    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


class PoolBroken(Exception):
    """Every slot has spent its crash budget, and none has served its probation."""


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    state: Phase
    on_probation: bool
    """It was broken, and serves without keys until it has proved itself."""
    pid: int | None
    restarts: int
    keys: tuple[str, ...]
    """What its process holds, or has not yet acknowledged to have stopped."""
    load: float
    """The weights of these keys together."""
    lag_s: float
    """How late its last heartbeat was sent: what its event loop suffers."""
    last_death: str


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    slot: str | None
    """Who holds it; None while it waits for a process."""
    epoch: int
    started: bool
    problem: str
    weight: float
    """As it was last wanted; 0 for a key that is on its way out."""


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    slots: Mapping[str, SlotView]
    keys: Mapping[str, KeyView]


def key_view(held: Hold | None, weight: float) -> KeyView:
    if held is None:
        return KeyView(slot=None, epoch=0, started=False, problem="", weight=weight)
    return KeyView(slot=held.slot, epoch=held.epoch, started=held.started, problem=held.problem, weight=weight)
