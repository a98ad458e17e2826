"""Leader election on a Lease: who may lead, by what was observed. Pure; `now_at` is monotonic seconds.

Nobody's wall clock is believed: a Lease counts as expired when its spec has not changed for its whole duration by our
own monotonic clock, counted from when we first saw it so. The holder stops acting `renew_deadline_s` after the sending
of its last renewal, which lies before the others may take over; that gap is all the difference in clock speed that is
forgiven (15 s against 10 s: one and a half times).
Source: client-go tools/leaderelection, less its trust in `renewTime`; coordination.k8s.io/v1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

JOINT: Final = "_"
"""Between a holder's name and what makes it this process's: in no pod's and no host's name."""
RELEASED_DURATION_S: Final = 1
"""A Lease without a holder is free at once; the API server wants a duration above 0 all the same."""


class Standing(StrEnum):
    """What a Lease says about us."""

    FREE = "free"
    MINE = "mine"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLimits:
    """Raises ValueError for numbers with which two could lead at once, or nobody for long."""

    duration_s: float = 15.0
    """How long the others wait after the last change that they saw."""
    renew_deadline_s: float = 10.0
    """How long the holder acts after the sending of its last renewal."""
    retry_s: float = 2.0
    """From one renewal to the next."""
    poll_s: float = 1.0
    """How often a standby looks: a released Lease is taken within this, so a change of leader takes 3 s at most."""

    def __post_init__(self) -> None:
        if not 0 < self.retry_s * 1.2 < self.renew_deadline_s < self.duration_s:
            raise ValueError("retry_s × 1.2 must be below renew_deadline_s, and that below duration_s")
        if self.poll_s <= 0:
            raise ValueError("poll_s must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSpec:
    """`spec` of a Lease, as far as an election needs it."""

    holder: str = ""
    duration_s: int = 0
    transitions: int = 0
    acquire_time: str = ""
    renew_time: str = ""
    """Both as the API server writes them: nobody's clock is compared with another's."""

    @staticmethod
    def of(lease: Mapping[str, Any]) -> "LeaseSpec":
        """From the object as the API server wrote it; what is missing is as Go's zero values are."""
        spec = lease.get("spec") or {}
        return LeaseSpec(
            holder=spec.get("holderIdentity") or "",
            duration_s=spec.get("leaseDurationSeconds") or 0,
            transitions=spec.get("leaseTransitions") or 0,
            acquire_time=spec.get("acquireTime") or "",
            renew_time=spec.get("renewTime") or "",
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.duration_s,
            "leaseTransitions": self.transitions,
            "acquireTime": self.acquire_time or None,
            "renewTime": self.renew_time or None,
        }


@dataclass(slots=True)
class Observation:
    """The Lease as we last saw it, and since when it has stood so."""

    identity: str
    duration_s: float
    """How long to wait for a holder who does not say."""
    spec: LeaseSpec | None = None
    """None: there is no Lease, or we have not looked yet."""
    _since_at: float = field(default=float("-inf"))

    def saw(self, spec: LeaseSpec | None, now_at: float) -> None:
        """`now_at` is when the answer came: what it says was true then at the earliest."""
        if spec != self.spec:
            self.spec, self._since_at = spec, now_at

    def standing(self, now_at: float) -> Standing:
        """Whether we may take it, have it, or must wait."""
        if self.spec is None or not self.spec.holder:
            return Standing.FREE
        if self.spec.holder == self.identity:
            return Standing.MINE
        wait_s = self.spec.duration_s if self.spec.duration_s > 0 else self.duration_s
        return Standing.FREE if now_at - self._since_at >= wait_s else Standing.HELD

    @property
    def holder(self) -> str:
        return "" if self.spec is None else self.spec.holder


def taken(before: LeaseSpec | None, *, identity: str, duration_s: float, time: datetime) -> LeaseSpec:
    """The Lease as a new leader writes it; `transitions` is its epoch."""
    before = before or LeaseSpec(holder=identity)
    transitions = before.transitions if before.holder == identity else before.transitions + 1
    written = micro_time(time)
    return LeaseSpec(
        holder=identity,
        duration_s=round(duration_s),
        transitions=transitions,
        acquire_time=written,
        renew_time=written,
    )


def renewed(spec: LeaseSpec, *, time: datetime) -> LeaseSpec:
    """The Lease as its holder writes it again."""
    return replace(spec, renew_time=micro_time(time))


def released(spec: LeaseSpec, *, time: datetime) -> LeaseSpec:
    """The Lease as a leader leaves it: free at once, its epoch kept."""
    return replace(spec, holder="", duration_s=RELEASED_DURATION_S, renew_time=micro_time(time))


def micro_time(time: datetime) -> str:
    """A meta/v1 MicroTime: exactly six decimals, or the API server refuses it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
