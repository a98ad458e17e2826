"""What the workers' heartbeats say, until it is taken together once a second.

Knows the last report of each slot, and which namespaces had been started by the last tick: only then does a report
that does not name one say that it is live. Hands truth on to `Health`, and counts to `Loads`.
"""

from khook.messages import WorkerReport
from khook.supervisor.health import Health
from khook.supervisor.load import Loads
from shards.user import PoolView


class Reports:
    def __init__(self, *, health: Health, loads: Loads, now_at: float) -> None:
        self._health = health
        self._loads = loads
        self._last: dict[str, tuple[float, WorkerReport]] = {}
        self._started: dict[str, int] = {}
        """Of the namespaces that were started at the last tick, the epochs."""
        self._ticked_at = now_at

    def came(self, slot: str, report: WorkerReport, *, now_at: float) -> None:
        self._last[slot] = (now_at, report)
        self._loads.counted(report.lines)

    def died(self, slot: str) -> None:
        self._last.pop(slot, None)

    @property
    def needs_key(self) -> bool:
        """Some worker could not make a call because there is no API key."""
        return any(report.needs_key for _, report in self._last.values())

    def tick(self, view: PoolView, *, now_at: float) -> None:
        """A namespace is live when it was started by the last tick and a heartbeat since does not say otherwise."""
        by_slot: dict[str, list[str]] = {}
        for name, key in view.keys.items():
            if key.slot is not None and key.started and self._started.get(name) == key.epoch:
                by_slot.setdefault(key.slot, []).append(name)
        for slot, (reported_at, report) in self._last.items():
            if reported_at >= self._ticked_at:
                self._health.reported(by_slot.get(slot, ()), report.not_live, now_at=reported_at)
        self._started = {name: key.epoch for name, key in view.keys.items() if key.started}
        self._ticked_at = now_at
