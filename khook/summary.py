"""What a worker tells of its incidents, calls and agents when somebody reads the status page.

One set of structs for three readers: the channel from worker to supervisor, `/status.json`, and the page. It holds
names of Kubernetes objects and agents, times, numbers, and reasons and errors of ours; never the text of an Event, a
prompt, or what an agent answered. Every list has a limit, and the whole number stands beside it: a worker's summary
stays below 512 KiB, an eighth of what the channel takes as one message.
"""

from datetime import datetime
from typing import Final

import msgspec

MOST_FIRING: Final = 50
"""Of a worker, the newest: more than anybody reads, in a storm the few that tell what kind of storm it is."""
MOST_RESOLVED: Final = 20
MOST_HELD_BACK: Final = 30
"""Lines, one for each Hook, agent and reason; those with most calls."""
MOST_AGENTS: Final = 50
MOST_HOOKS: Final = 20


class CallSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    id: str
    state: str
    reason: str | None
    protocol: str
    attempts: int
    claimed_time: datetime
    ended_time: datetime | None
    error: str
    """Ours, about how the agent could not be asked."""


class IncidentSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    namespace: str
    hook: str
    event_type: str
    resource_kind: str
    resource_name: str
    agent: str
    """`namespace/name`."""
    status: str
    """`firing` or `resolved`."""
    first_seen: datetime
    last_seen: datetime
    resolved_time: datetime | None
    count: int
    call: CallSummary | None


class HeldBack(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Calls that are not sent for now, and why: `reason` is the call's, as the Hook's status has it."""

    reason: str
    namespace: str
    hook: str
    agent: str
    calls: int
    oldest_time: datetime
    """When the one that has waited longest was claimed."""


class BreakerSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A breaker that is not closed. Each worker has its own."""

    state: str
    retry_in_seconds: float | None
    """Until a call may try; None while one does."""


class AgentSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    agent: str
    """`namespace/name`."""
    calls: dict[str, int]
    """Of the incidents that are remembered, by the call's state."""
    breaker: BreakerSummary | None
    """None: closed."""
    parked: dict[str, int]
    """Calls that wait for it, by `khook.core.parking.ParkReason`."""


class HookTrouble(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A Hook that is not Ready; or one that holds so many incidents that a new one finds no room (`Full`)."""

    namespace: str
    hook: str
    reason: str


class WorkerSummary(msgspec.Struct, frozen=True, tag="summary", rename="camel", kw_only=True):
    hooks: int = 0
    suspended_hooks: int = 0
    firing: int = 0
    resolved: int = 0
    """Lately: those that are still remembered."""
    held_signals: int = 0
    """Those that wait for their entry's `holdFor`: no incident yet."""
    calls: dict[str, int] = msgspec.field(default_factory=dict)
    """By state, and state/reason where there is one."""
    incidents: tuple[IncidentSummary, ...] = ()
    """Firing ones first, then the newest first."""
    held_back: tuple[HeldBack, ...] = ()
    agents: tuple[AgentSummary, ...] = ()
    agents_count: int = 0
    hooks_in_trouble: tuple[HookTrouble, ...] = ()
    hooks_in_trouble_count: int = 0
