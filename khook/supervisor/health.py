"""What `/healthz` and `/readyz` say, and why: counts and reasons, never event text.

Not ready: while the CRD is missing; before the first look at everything that shall be owned; while any owned
namespace has gone without a live watch for 90 s; while every namespace is forbidden; while stopping. A standby is
ready when its workers are warm and nothing keeps it from leading. A 403 is reported and not counted, for one team's
missing RoleBinding must not take the controller out of service. Pure: `now_at` is an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from khook.messages import NamespaceReport

DEAF_AFTER_S: Final = 90.0
CRD_MISSING: Final = "the cluster does not know Hooks: install kagent-hook-crds first"
NAMES_MOST: Final = 20
"""Namespaces named in a body; the count tells the rest."""


@dataclass(slots=True)
class _Watched:
    wanted_at: float
    live_at: float | None = None
    forbidden_at: float | None = None
    """When the last report said so; None when it said something else."""
    reason: str = "not started"

    def forbidden(self, now_at: float) -> bool:
        """A report that nobody renews lapses: its worker may be dead, and nobody asks any more."""
        return self.forbidden_at is not None and now_at < self.forbidden_at + DEAF_AFTER_S


@dataclass(slots=True)
class Health:
    """What is known of each owned namespace, fed by the pool's facts and the workers' reports."""

    hooks_synced: bool = False
    hooks_reason: str = "hooks not listed yet"
    crd_missing: bool = False
    """The API server does not know Hooks; it is asked again."""
    stopping: bool = False
    leading: bool = True
    election_problem: str = ""
    """Why this replica could not lead if it had to."""
    cold_workers: int = 0
    """Those that have not said hello yet; of a standby they are all there is to be ready."""
    _namespaces: dict[str, _Watched] = field(default_factory=dict)
    _all_seen: bool = False

    def wanted(self, namespaces: Iterable[str], *, now_at: float) -> None:
        """The namespaces that shall be owned from now on."""
        keep = set(namespaces)
        for gone in [name for name in self._namespaces if name not in keep]:
            del self._namespaces[gone]
        for name in keep:
            self._namespaces.setdefault(name, _Watched(wanted_at=now_at))

    def reported(self, started: Iterable[str], not_live: Iterable[NamespaceReport], *, now_at: float) -> None:
        """One worker's heartbeat: the namespaces it has started, and those of them that are not fully live."""
        ill = {report.namespace: report for report in not_live}
        for name in started:
            watched = self._namespaces.get(name)
            if watched is None:
                continue
            report = ill.get(name)
            watched.forbidden_at = now_at if report is not None and report.forbidden else None
            watched.reason = "" if report is None else report.reason
            if report is None:
                watched.live_at = now_at
            elif report.live:
                watched.live_at = now_at - report.deaf_s

    def counts(self, now_at: float) -> dict[str, int]:
        """How many namespaces are live, starting, forbidden and deaf."""
        counts = dict.fromkeys(("live", "starting", "forbidden", "deaf"), 0)
        for watched in self._namespaces.values():
            counts[self._state(watched, now_at)] += 1
        return counts

    def _state(self, watched: _Watched, now_at: float) -> str:
        if watched.forbidden(now_at):
            return "forbidden"
        if self._deaf_s(watched, now_at) >= DEAF_AFTER_S:
            return "deaf"
        return "starting" if watched.live_at is None else "live"

    def ready(self, now_at: float, *, hooks_deaf_s: float) -> tuple[bool, dict[str, Any]]:
        """The verdict and the body of `/readyz`; `hooks_deaf_s`: since the watch on Hooks was last live."""
        deaf = {name: self._deaf_s(watched, now_at) for name, watched in self._namespaces.items()}
        forbidden = sorted(name for name, watched in self._namespaces.items() if watched.forbidden(now_at))
        too_long = sorted(
            name for name, s in deaf.items() if s >= DEAF_AFTER_S and not self._namespaces[name].forbidden(now_at)
        )
        reasons = self._reasons(too_long, forbidden, hooks_deaf_s)
        body: dict[str, Any] = {
            "ready": not reasons,
            "reasons": reasons,
            "namespaces": len(self._namespaces),
            "live": sum(
                1 for w in self._namespaces.values() if w.live_at is not None and now_at < w.live_at + DEAF_AFTER_S
            ),
            "deaf": [
                {"namespace": name, "seconds": round(deaf[name]), "reason": self._namespaces[name].reason}
                for name in too_long[:NAMES_MOST]
            ],
            "deafCount": len(too_long),
            "forbidden": forbidden[:NAMES_MOST],
            "forbiddenCount": len(forbidden),
        }
        return not reasons, body

    def _reasons(self, too_long: list[str], forbidden: list[str], hooks_deaf_s: float) -> list[str]:
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if self.crd_missing:
            reasons.append(CRD_MISSING)
        elif not self.hooks_synced:
            reasons.append(self.hooks_reason)
        elif not self._started():
            reasons.append("namespaces are being started")
        if not self.leading:
            reasons += [self.election_problem] if self.election_problem else []
            reasons += [f"{self.cold_workers} workers are being started"] if self.cold_workers else []
        if self.hooks_synced and hooks_deaf_s >= DEAF_AFTER_S:
            reasons.append(f"no live watch on Hooks for {DEAF_AFTER_S:.0f} s")
        if too_long:
            reasons.append(f"{len(too_long)} namespaces without a live watch for {DEAF_AFTER_S:.0f} s")
        if forbidden and len(forbidden) == len(self._namespaces):
            reasons.append("every namespace is forbidden (RBAC)")
        return reasons

    def _started(self) -> bool:
        """Whether every namespace that was wanted at first has been live, or forbidden, once."""
        if not self._all_seen:
            self._all_seen = all(w.live_at is not None or w.forbidden_at is not None for w in self._namespaces.values())
        return self._all_seen

    @staticmethod
    def _deaf_s(watched: _Watched, now_at: float) -> float:
        since_at = watched.wanted_at if watched.live_at is None else watched.live_at
        return max(0.0, now_at - since_at)
