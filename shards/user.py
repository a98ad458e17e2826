"""What the user of a pool gives it and sees of it: the owner's call-backs, a log, the view of slots and keys.

Data and protocols only. Import them from `shards.pool`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shards.plan import Hold
from shards.policy import Phase


class Owner(Protocol):
    """What the pool's user supplies. Called in the pool's loop, must not block; what it raises ends the pool."""

    def welcome(self, slot: str) -> bytes:
        """The payload for a member that said hello: settings, credentials."""
        ...

    def permission_s(self) -> float | None:
        """For how many seconds from now members may act outwardly; None: without limit, 0 or less: not at all. Asked
        at each welcome and for each beat."""
        ...

    def reported(self, slot: str, report: bytes) -> None: ...

    def asked(self, slot: str, question: bytes) -> None:
        """A message from a member; answer with `Pool.tell_slot`."""
        ...

    def died(self, slot: str, how: str) -> None:
        """After the process is gone for certain, before its successor starts."""
        ...


class Log(Protocol):
    """A structlog-like bound logger."""

    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


class PoolBroken(Exception):
    """Every slot has spent its crash budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotView:
    state: Phase
    pid: int | None
    restarts: int
    keys: tuple[str, ...]
    """What its process holds, or has not yet acknowledged to have stopped."""
    lag_s: float
    """How late its last heartbeat was sent: what its event loop suffers."""
    last_death: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    slot: str | None
    """Who holds it; None while it waits for a process."""
    epoch: int
    started: bool
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    slots: Mapping[str, SlotView]
    keys: Mapping[str, KeyView]


def key_view(held: Hold | None) -> KeyView:
    if held is None:
        return KeyView(slot=None, epoch=0, started=False, problem="")
    return KeyView(slot=held.slot, epoch=held.epoch, started=held.started, problem=held.problem)
