"""A world as plain data: what there is, what happens, and what goes wrong when. Printable, and all that a seed is."""

from dataclasses import dataclass, field
from enum import StrEnum


class Trouble(StrEnum):
    """What is wrong with a pod; each `Tell` of it is one more piece of evidence."""

    CRASH = "crash"
    """Its container restarts: `restartCount` grows, some restarts have their BackOff Event."""
    OOM = "oom"
    UNSCHEDULABLE = "unschedulable"
    IMAGE = "image"
    QUIET = "quiet"
    """Pending without a word."""
    PROBE = "probe"
    KILLED = "killed"
    """Restarted for its liveness probe, told by Events alone."""


class How(StrEnum):
    """How a tell shows its pod's trouble."""

    STATUS = "status"
    """Of a probe: the pod is not Ready from now on, and an Event says why."""
    EVENT = "event"
    REPEAT = "repeat"
    """The last Event patched: its count and its time grow."""
    WELL = "well"
    """It runs again."""
    GONE = "gone"
    """Deleted, and made again under its name."""


class Change(StrEnum):
    DELETE = "delete"
    CREATE = "create"
    REWORD = "reword"
    REORDER = "reorder"
    ADD = "add"
    REMOVE = "remove"
    SUSPEND = "suspend"
    RESUME = "resume"
    REPLACE = "replace"
    """Deleted, and made again at once: another uid under the same name."""


class Harm(StrEnum):
    """Faults; `Fault.seconds` is how long one lasts, where it lasts."""

    WORKER_KILLED = "worker killed"
    WORKER_KILLED_AT_ACT = "worker killed at an act"
    """SIGKILL at its n-th write or send from here on, before it leaves or just after the server took it."""
    WORKER_STOPPED = "worker stopped"
    WORKER_TERMINATED = "worker terminated"
    SUPERVISOR_KILLED = "supervisor killed"
    SUPERVISOR_STOPPED = "supervisor stopped"
    ALL_STOPPED = "all stopped"
    RESTARTED = "restarted"
    """SIGTERM, and started again."""
    CUT_OFF = "cut off"
    """No packet between this replica and the API server."""
    LEASE_REFUSED = "lease refused"
    AGENT = "agent"
    KAGENT_AWAY = "kagent away"
    KEY_REFUSED = "key refused"
    API_AWAY = "API server away"
    API_RESTARTED = "API server restarted"
    API_BUSY = "API server busy"
    """429 with Retry-After."""
    API_FAILS = "API server fails"
    API_SLOW = "API server slow"
    ANSWERS_LOST = "answers lost"
    """Status patches are carried out and not answered."""
    WATCHES_ENDED = "watches ended"
    WATCHES_CUT = "watches cut"
    COMPACTED = "compacted"
    """And all watches cut: every one of them meets a 410."""
    WATCHES_REFUSED = "watches refused"
    """Of pods or of Events alone."""
    OWNERS_HIDDEN = "owners hidden"
    """Nobody is told who made a ReplicaSet or a Job: 403 or 503."""
    HOOKS_TOUCHED = "hooks touched"
    """Somebody labels the Hooks: their version moves under their writer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPlan:
    event_type: str
    agent: str
    cooldown_s: int
    label: str = ""
    """Only pods with `app` equal to it; empty: all."""
    groups: bool = False
    """`groupBy: Owner`."""
    hold_s: int = 0
    """`holdFor`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookPlan:
    namespace: str
    name: str
    entries: tuple[EntryPlan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    at_s: float
    change: Change
    hook: str
    """`namespace/name`."""
    entry: EntryPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    namespace: str
    name: str
    label: str
    trouble: Trouble
    controller: str = ""
    """Its direct one, as `Kind/name`; empty: none."""
    owner: str = ""
    """The one at the top: its controller, or who made that."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    at_s: float
    pod: str
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    at_s: float
    harm: Harm
    seconds: float = 0.0
    slot: int = 0
    replica: int = 0
    agent: str = ""
    kind: str = ""
    """Of an agent's fault: `FaultKind`; of refused watches: the resource; of an act: "before" or "after"; of hidden
    owners: the HTTP status."""
    number: int = 1

    @property
    def until_s(self) -> float:
        return self.at_s + self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One replica's clocks."""

    skew_s: float = 0.0
    rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldPlan:
    seed: int
    workers: int
    election: bool
    machines: tuple[Machine, ...]
    speaks: str
    honours_keys: bool
    real_ticks: bool
    frail: bool
    """Few deaths break a slot: its namespaces go to the others, and come back."""
    latency: bool
    """Requests take some milliseconds, so that things happen in between."""
    calls_per_agent: int
    run_s: float
    """How long an agent's run takes."""
    redeliver_for_s: int
    run_deadline_s: int
    hooks: tuple[HookPlan, ...]
    edits: tuple[Edit, ...]
    pods: tuple[PodPlan, ...]
    tells: tuple[Tell, ...]
    faults: tuple[Fault, ...]
    end_s: float = 1800.0
    calls_an_hour: int = 300
    """Of one Hook."""
    agents: tuple[str, ...] = field(default=())
