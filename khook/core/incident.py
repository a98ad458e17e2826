"""An incident: one entry of one Hook × one resource, as plain data.

A `Row` is the incident and its latest `Call`; it is what an `activeEvents` element of the Hook's status holds and
what every owner of the namespace after this one starts from. `status` (firing, resolved) and `call` are two axes.
`khook.core.verdict` decides what a signal means for a row, `khook.core.rows` is the row's life. Rows are replaced,
never changed, and nothing here has a clock.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NewType

from khook.core.owner import POD_KIND, ResourceRef
from khook.core.signal import EventType, PodUid

CallId = NewType("CallId", str)
EntryId = NewType("EntryId", str)
"""Identity of an entry in its Hook: (type, agent, groupBy, selector, k-th of equals) as one bounded string."""


class Verdict(StrEnum):
    """What a signal means for its incident: the label `verdict` of `kagent_hook_events_total`."""

    FIRE = "fire"
    """A new incident: its agent is called."""
    REFIRE = "refire"
    """A known incident whose cooldown is over, or whose call failed: its agent is called again."""
    REPEAT = "repeat"
    """Within the cooldown of a call."""
    IN_FLIGHT = "in_flight"
    """Its call is under way, or waits."""
    SUSPENDED = "suspended"
    """Its Hook is suspended: the incident is shown, and nobody is called."""
    NO_ROOM = "no_room"
    """A new incident that its Hook's status has no room for: nobody is called."""
    STALE = "stale"
    """Not newer than what was judged already."""
    HISTORY = "history"
    """Listed, and older than `KHOOK_MAX_SIGNAL_AGE`."""

    @property
    def changes_row(self) -> bool:
        """The signal belongs in a row (`rows.apply`); the other verdicts leave no trace but a counter."""
        return self not in (Verdict.STALE, Verdict.HISTORY, Verdict.NO_ROOM)


class RowStatus(StrEnum):
    FIRING = "firing"
    RESOLVED = "resolved"


class CallState(StrEnum):
    PENDING = "Pending"
    """Not sent yet, or to be sent again: the reason says why."""
    CALLING = "Calling"
    """Being sent, or, after a crash, about to be looked for in kagent."""
    ACCEPTED = "Accepted"
    """The agent has it, and its run is followed."""
    COMPLETED = "Completed"
    """Done: `result` is the beginning of the answer."""
    FAILED = "Failed"
    """Over without an answer: the reason says how."""


class CallReason(StrEnum):
    """Why a call is in its state. `Pending`: the first five. `Accepted`: NoAnswer. `Failed`: the rest, and Budget."""

    QUEUED = "Queued"
    """`Pending`: about to be sent."""
    GROUPING = "Grouping"
    """`Pending`: waits some seconds for more pods of its group."""
    PARKED = "Parked"
    """`Pending`: waits for its agent, or for a key that is accepted."""
    BUDGET = "Budget"
    """`Pending`: its Hook has used up its calls, and it waits for the bucket. `Failed`: its incident was over, or made
    room for another, before there was one."""
    SUSPENDED = "Suspended"
    """`Pending`: its Hook is suspended."""
    NO_ANSWER = "NoAnswer"
    """`Accepted`: wholly sent, and nobody said what became of it; there is no run to follow."""
    RUN_FAILED = "RunFailed"
    """`Failed`: the agent took it, and its run ended badly."""
    RUN_DEADLINE = "RunDeadline"
    """`Failed`: the run did not end within `KHOOK_RUN_DEADLINE`."""
    RUN_LOST = "RunLost"
    """`Failed`: kagent knows nothing of the run any more."""
    INPUT_REQUIRED = "InputRequired"
    """`Failed`: the run waits for a person, in kagent."""
    AGENT_NOT_FOUND = "AgentNotFound"
    """`Failed`: kagent knows no such agent."""
    UNAUTHORIZED = "Unauthorized"
    """`Failed`: the key was refused, and no other came in time."""
    REJECTED = "Rejected"
    """`Failed`: the agent's side calls the request our mistake (another 4xx), or its entry is gone."""
    UNREACHABLE = "Unreachable"
    """`Failed`: every attempt failed for an outage."""
    CLAIM_REFUSED = "ClaimRefused"
    """`Failed`: the API server would not store the claim (403 or 422), so nothing was sent."""
    PARK_FULL = "ParkFull"
    """`Failed`: too many calls waited for their agents, and others had a better claim to the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to an agent about one incident. Its id is written down before it is used."""

    id: CallId
    state: CallState
    reason: CallReason | None = None
    protocol: str = ""
    """Written with the first claim that is `Calling`; a claim is reconciled by its own protocol."""
    task_id: str = ""
    attempts: int = 0
    claimed_time: datetime
    accepted_time: datetime | None = None
    ended_time: datetime | None = None
    """When it became Completed or Failed: the retry gap of a failure counts from here."""
    error: str = ""
    """At most 256 characters, no secrets, no event text."""
    result: str = ""
    """The agent's answer, at most 1 KiB."""

    @property
    def unsent(self) -> bool:
        """No agent can have heard of it: what it will say may still change."""
        return self.state is CallState.PENDING and self.attempts == 0

    @property
    def charged(self) -> bool:
        """Its Hook's budget has paid for it."""
        return self.reason not in (CallReason.BUDGET, CallReason.SUSPENDED)

    @property
    def open(self) -> bool:
        """Something is still going to happen to it."""
        if self.state is CallState.PENDING:
            return self.reason is not CallReason.SUSPENDED
        if self.state is CallState.ACCEPTED:
            return self.task_id != "" and self.reason is not CallReason.NO_ANSWER
        return self.state is CallState.CALLING

    @property
    def ended(self) -> bool:
        """Nothing more is sent or followed: from here the window counts, and the facts are not needed any more."""
        return not self.open and self.state is not CallState.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPod:
    """One pod of a group, and how it failed last."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the agent is told, kept with the row until the call has ended so that any owner can carry on.

    They change as long as nothing was sent, and never again: the same call has the same prompt, whoever renders it.
    """

    container: str = ""
    reason: str = ""
    message: str = ""
    """At most 1 KiB (UTF-8)."""
    time: datetime
    pod: str
    """Of a group: the first that failed. What is said above is said of it."""
    count: int = 1
    """Signals so far."""
    pods: tuple[FailedPod, ...] = ()
    """Of a group: the first `GROUP_PODS_MOST` that failed, in that order."""
    pod_count: int = 0
    """Of a group: how many have failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSignal:
    """The newest signal judged, by (pod uid, raw time): what is not newer than it is stale."""

    pod_uid: PodUid
    raw_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One `activeEvents` row: an incident and its latest call."""

    entry: EntryId
    """Empty: restored from a status that an older khook or the Go controller wrote; it mutes by type and resource."""
    event_type: EventType
    resource_kind: str
    resource_name: str
    agent: str
    """`namespace/name`."""
    pod_uid: PodUid
    first_seen: datetime
    last_seen: datetime
    status: RowStatus
    resolved_time: datetime | None = None
    count: int
    last_signal: LastSignal
    pod_signals: tuple[LastSignal, ...] = ()
    """Of a group: the newest signal of each other pod, oldest first, as far as they are kept."""
    facts: Facts | None
    call: Call | None

    @property
    def is_group(self) -> bool:
        """It is about the owner of pods, not about one pod."""
        return self.resource_kind not in (POD_KIND, "")

    @property
    def resource(self) -> ResourceRef:
        return ResourceRef(self.resource_kind, self.resource_name)

    def signal_of(self, uid: PodUid) -> LastSignal | None:
        """The newest signal of this pod that was judged, as far as the row remembers it."""
        if uid == self.last_signal.pod_uid:
            return self.last_signal
        return next((one for one in self.pod_signals if one.pod_uid == uid), None)

    @property
    def legacy(self) -> bool:
        """Written by the Go controller or an older khook: nobody's incident, it only mutes."""
        return self.entry == ""


# Between a call that failed before any agent had it and the next one for the same incident: long enough that a
# crash loop does not become a call loop, short enough that a failed call mutes nothing.
RETRY_GAP: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRules:
    """The durations that decide about rows; an entry's `cooldown` is the one that is its own."""

    resolve_after: timedelta
    max_signal_age: timedelta
    retry_gap: timedelta = RETRY_GAP
