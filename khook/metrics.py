"""What khook counts, summed over its processes: one set of memory-mapped files a slot.

The *slot* stands for the process, so a restarted worker goes on in its predecessor's files: files never multiply
and counters never go back. Two live processes must never share a slot: grant nothing and start no successor before
the old process is known to be gone.

The order that matters cannot be got wrong here. The supervisor calls `prepare_directory`, then every process calls
`bind_slot` before it counts anything; whoever counted before is told so by a RuntimeError. A process that never
binds (a test, a command for people) counts in its own memory. prometheus_client itself may be imported at any time:
it asks for its value class when a labelled child is made, and no metric here is without labels.
Labels are closed sets: never a pod, a Hook, a namespace or an agent.
"""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from khook.errors import SettingsError

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"

_SLOT: Final = re.compile(r"[a-z0-9-]{1,32}")
"""Part of a file's name that is split at `_` and matched by glob."""
_CALL_SECONDS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a controller that hands the run over at once to an agent that answers when it is done."""


class _Values:
    """Makes prometheus_client's values: in memory until a slot is bound, in the slot's files from then on."""

    _multiprocess = False

    def __init__(self) -> None:
        self.slot = ""
        self.made = 0
        self._make: Callable[..., Any] = values.MutexValue

    def bind(self, slot: str) -> None:
        if not _SLOT.fullmatch(slot):
            raise ValueError(f"{slot!r} is no slot: lower-case letters, digits and '-'")
        if self.slot == slot:
            return
        if self.slot:
            raise RuntimeError(f"this process counts for {self.slot} and cannot count for {slot} too")
        if self.made:
            raise RuntimeError("something was counted before the slot was bound")
        self.slot = slot
        self._make = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.made += 1
        return self._make(*args, **kwargs)


_VALUES: Final = _Values()
values.ValueClass = _VALUES

_REGISTRY: Final = CollectorRegistry()

_EVENTS: Final = Counter(
    "kagent_hook_events_total", "Signals judged, by what was decided.", ["event_type", "verdict"], registry=_REGISTRY
)
_ACTIVE_EVENTS: Final = Gauge(
    "kagent_hook_active_events",
    "Incidents that are firing.",
    ["event_type"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
_API_CALLS: Final = Counter(
    "kagent_hook_api_calls_total", "Requests to kagent, by how they ended.", ["protocol", "outcome"], registry=_REGISTRY
)
_CALLS_FAILED: Final = Counter(
    "kagent_hook_calls_failed_total", "Calls that failed for good, by why.", ["reason"], registry=_REGISTRY
)
_CALLS_SUPPRESSED: Final = Counter(
    "kagent_hook_calls_suppressed_total",
    "Calls that were not made when their incidents began, by why: their Hook's budget was used up, or its status full.",
    ["reason"],
    registry=_REGISTRY,
)
_API_CALL_DURATION: Final = Histogram(
    "kagent_hook_api_call_duration_seconds",
    "How long requests to kagent took.",
    ["protocol"],
    buckets=_CALL_SECONDS,
    registry=_REGISTRY,
)
_WATCH_ENDS: Final = Counter(
    "kagent_hook_watch_ends_total", "Watches that ended, by why.", ["resource", "cause"], registry=_REGISTRY
)
_RELISTS: Final = Counter(
    "kagent_hook_relists_total", "Lists made again, by why.", ["resource", "cause"], registry=_REGISTRY
)
_WATCH_LINES_SKIPPED: Final = Counter(
    "kagent_hook_watch_lines_skipped_total",
    "Lines of watches that could not be read, by why.",
    ["resource", "cause"],
    registry=_REGISTRY,
)
_WATCH_FORBIDDEN: Final = Gauge(
    "kagent_hook_watch_forbidden",
    "Namespaces whose watch RBAC does not allow.",
    ["resource"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
_BREAKERS: Final = Gauge(
    "kagent_hook_breakers",
    "Agents whose calls failed, by the state of their circuit breaker.",
    ["state"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
_PARKED_CALLS: Final = Gauge(
    "kagent_hook_parked_calls",
    "Calls that wait for their agent or for their Hook's budget, by why.",
    ["reason"],
    multiprocess_mode="livesum",
    registry=_REGISTRY,
)
# None without a label: such a metric has a value, and so a file, before its slot is bound.
_ROLE: Final = Gauge(
    "kagent_hook_role",
    "1 for the role that this replica has: leader or standby.",
    ["role"],
    multiprocess_mode="livemax",
    registry=_REGISTRY,
)
_SLOTS: Final = Gauge(
    "kagent_hook_slots",
    "Slots for worker processes, by their state; a broken one died too often and is left alone for a while.",
    ["state"],
    multiprocess_mode="livemax",
    registry=_REGISTRY,
)
_NAMESPACES: Final = Gauge(
    "kagent_hook_namespaces",
    "Namespaces that shall be owned: live, starting, forbidden by RBAC, or deaf: without a live watch for 90 s.",
    ["state"],
    multiprocess_mode="livemax",
    registry=_REGISTRY,
)
_WORKER_RESTARTS: Final = Counter(
    "kagent_hook_worker_restarts_total", "Workers started again after a death.", ["slot"], registry=_REGISTRY
)


@cache
def _child(metric: Any, *labels: str) -> Any:
    """The sample with these labels, in their order; looked up once, which costs more than to count."""
    return metric.labels(*labels)


_shown: Final[dict[Any, float]] = {}


def _set(gauge: Gauge, value: float, *labels: str) -> None:
    """Written where it moved: most seconds move nothing."""
    child = _child(gauge, *labels)
    if _shown.get(child) != value:
        _shown[child] = value
        child.set(value)


class _Events:
    def judged(self, event_type: str, verdict: str) -> None:
        """One signal met one entry."""
        _child(_EVENTS, event_type, verdict).inc()


class _Calls:
    def called(self, protocol: str, outcome: str, seconds: float) -> None:
        """One request to kagent was answered, or failed."""
        _child(_API_CALLS, protocol, outcome).inc()
        _child(_API_CALL_DURATION, protocol).observe(seconds)

    def failed(self, reason: str) -> None:
        """One call failed for good."""
        _child(_CALLS_FAILED, reason).inc()

    def suppressed(self, reason: str) -> None:
        """One call was held back."""
        _child(_CALLS_SUPPRESSED, reason).inc()


class _Watches:
    def ended(self, resource: str, cause: str) -> None:
        """One watch ended."""
        _child(_WATCH_ENDS, resource, cause).inc()

    def relisted(self, resource: str, cause: str) -> None:
        """One list was made again."""
        _child(_RELISTS, resource, cause).inc()

    def skipped(self, resource: str, cause: str) -> None:
        """One line could not be read."""
        _child(_WATCH_LINES_SKIPPED, resource, cause).inc()


EVENTS: Final = _Events()
CALLS: Final = _Calls()
WATCHES: Final = _Watches()


def active_events(event_type: str, count: int) -> None:
    """How many incidents of one type are firing in this process."""
    _set(_ACTIVE_EVENTS, count, event_type)


def watch_forbidden(resource: str, namespaces: int) -> None:
    """In how many of this process's namespaces RBAC does not allow the watch."""
    _set(_WATCH_FORBIDDEN, namespaces, resource)


def breakers(state: str, agents: int) -> None:
    """How many of this process's agents have a breaker in this state."""
    _set(_BREAKERS, agents, state)


def parked_calls(reason: str, calls: int) -> None:
    """How many of this process's calls are parked for this reason."""
    _set(_PARKED_CALLS, calls, reason)


def role(*, leads: bool) -> None:
    """What this replica is."""
    _set(_ROLE, leads, "leader")
    _set(_ROLE, not leads, "standby")


def slots(state: str, count: int) -> None:
    """How many slots of this replica are in this state."""
    _set(_SLOTS, count, state)


def namespaces(state: str, count: int) -> None:
    """How many namespaces that shall be owned are in this state."""
    _set(_NAMESPACES, count, state)


def worker_restarted(slot: str) -> None:
    """The supervisor started a worker again."""
    _child(_WORKER_RESTARTS, slot).inc()


def prepare_directory(path: str | None) -> Path:
    """The supervisor's first step: the directory of all slots, without what an earlier run left behind.

    None: a fresh temporary directory, gone when this process ends. Only metrics files are wiped, whatever else the
    directory holds. Raises SettingsError where it cannot be used.
    """
    try:
        directory = Path(path).absolute() if path else _fresh_directory()
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("*.db"):
            old.unlink()
    except OSError as error:
        raise SettingsError([f"{DIRECTORY_VARIABLE}: {path} cannot be used: {error.strerror}"]) from None
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    return directory


def _fresh_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="khook-metrics-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def bind_slot(slot: str, *, directory: Path | None = None) -> None:
    """Counts for `slot` from now on; in every process, before anything is counted.

    `directory` is what `prepare_directory` gave; a process that inherited the supervisor's environment leaves it out.
    """
    if directory is not None:
        os.environ[DIRECTORY_VARIABLE] = str(directory)
    if not os.environ.get(DIRECTORY_VARIABLE):
        raise RuntimeError("the metrics directory is not known: the supervisor prepares it and hands it on")
    _VALUES.bind(slot)


def slot_died(slot: str) -> None:
    """Takes the gauges of a dead worker away; after its death is certain and before its successor starts."""
    if not _VALUES.slot:
        return  # this process counts in its own memory: there are no files
    mark_process_dead(slot)  # type: ignore[no-untyped-call]


def exposition() -> bytes:
    """All slots' metrics in Prometheus' text format. Reads files: call it in a thread."""
    if not _VALUES.slot:
        return generate_latest(_REGISTRY)
    registry = CollectorRegistry()
    _Collector(registry, path=os.environ[DIRECTORY_VARIABLE])  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class _Collector(MultiProcessCollector):
    """Passes over empty files. A file is empty from its creation to its first line's room, and a process that is killed
    in between leaves it so until its slot counts again: nothing was counted there, and nothing can be read."""

    def collect(self) -> Iterable[Metric]:
        files = [str(file) for file in Path(os.environ[DIRECTORY_VARIABLE]).glob("*.db") if _size_bytes(file)]
        merged: Iterable[Metric] = self.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return merged


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0  # a dead slot's gauges were just taken away
