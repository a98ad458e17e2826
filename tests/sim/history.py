"""What happened in a world, as facts with their virtual time in seconds. Checkers read nothing else.

Nothing here comes from khook's own memory: told is what the story wrote, runs and attempts are the embedded kagent's
record, rows are read off the API server's store, grants off the channels, acts and streams off the transports.
"""

from dataclasses import dataclass, field
from typing import Any

from sim.plan import Trouble, WorldPlan

IncidentKey = tuple[str, str, str, str]
"""Hook uid, event type, agent as `namespace/name`, and the resource: a pod's name, or its owner's `Kind/name`."""


@dataclass(slots=True, kw_only=True)
class Spell:
    """A pod that is Pending, or not Ready, without a break."""

    from_s: float
    until_s: float = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One piece of evidence, as the API server took it."""

    at_s: float
    namespace: str
    pod: str
    label: str
    trouble: Trouble
    is_event: bool
    oom: bool = False
    """The latest termination that its pod's status shows is an OOM kill."""
    until_s: float | None = None
    """When it could not be read any more (overwritten, its pod gone); None: never."""
    spell: Spell | None = None
    """Its pod was unwell when it was told; None: it was Ready."""
    controller: str = ""
    owner: str = ""
    """Of its pod, as the plan names them."""


@dataclass(slots=True, kw_only=True)
class EntryLife:
    """One entry of one Hook, as long as it stood there."""

    hook: str
    uid: str
    event_type: str
    agent: str
    """`namespace/name`."""
    cooldown_s: float
    label: str
    from_s: float
    until_s: float = float("inf")
    suspended: list[tuple[float, float]] = field(default_factory=list)
    groups: bool = False
    hold_s: float = 0.0

    @property
    def namespace(self) -> str:
        return self.hook.partition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """A request that only the owner of a namespace may make, as it left its process."""

    at_s: float
    process: str
    what: str
    """`status` or `send`."""
    namespace: str
    """Of a send: empty, its call tells."""
    call_id: str = ""
    number: int = 0
    """Acts, rows, grants and ends are numbered together, as they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFact:
    """One piece of work that an agent took on."""

    at_s: float
    agent: str
    """`namespace/name`."""
    call_id: str
    event_type: str
    pod: str
    namespace: str
    protocol: str
    named: tuple[str, ...] = ()
    """Where pods have owners: the pods of its namespace that its prompt names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFact:
    at_s: float
    agent: str
    call_id: str
    end: str
    """The HTTP status, or what the wire did instead of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFact:
    """One row of one version of a Hook's status, where it differs from the version before; no state: it is gone."""

    at_s: float
    key: IncidentKey
    call_id: str
    state: str
    reason: str
    firing: bool
    number: int
    claimed_s: float
    accepted_s: float | None
    ended_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A namespace in a process's hands, from the grant that reached it to its word that it let go, or its death."""

    process: str
    namespace: str
    epoch: int
    number: int
    """Of the grant, among acts and rows."""
    from_s: float
    until_s: float
    until_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A watch that a process had open on a namespace."""

    process: str
    namespace: str
    resource: str
    from_s: float
    until_s: float
    until_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A process under SIGSTOP."""

    process: str
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    at_s: float
    process: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A fault as it was carried out, and until when its consequences may be felt."""

    from_s: float
    until_s: float
    felt_until_s: float
    what: str
    agent: str = ""
    """`namespace/name` where it concerns one agent alone; empty: everybody."""


@dataclass(slots=True, kw_only=True)
class End:
    """How things stood before khook was told to stop, and what it left when it had."""

    ready: bool = True
    why_not: str = ""
    owners: dict[str, list[str]] = field(default_factory=dict)
    """By namespace: the slots that hold it and have started it."""
    wanted: list[str] = field(default_factory=list)
    rows: dict[IncidentKey, dict[str, Any]] = field(default_factory=dict)
    tasks_left: list[str] = field(default_factory=list)
    stop_error: str = ""


@dataclass(slots=True, kw_only=True)
class Sizes:
    """The largest that were seen."""

    tasks: int = 0
    streams: int = 0
    rows: int = 0
    status_writes: dict[str, list[float]] = field(default_factory=dict)
    """By Hook: when each patch arrived."""


@dataclass(slots=True, kw_only=True)
class History:
    plan: WorldPlan
    told: list[Told] = field(default_factory=list)
    entries: list[EntryLife] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    runs: list[RunFact] = field(default_factory=list)
    attempts: list[AttemptFact] = field(default_factory=list)
    rows: list[RowFact] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    end: End = field(default_factory=End)
    sizes: Sizes = field(default_factory=Sizes)
    errors: list[str] = field(default_factory=list)
    """What went wrong in khook itself: error lines of its log that name a defect, exceptions nobody expected."""
    end_s: float = 0.0
