"""How an explanation ends: an agent is asked, or exactly one `Reason` for silence.

The reasons stand in the order in which khook meets them, so that of several entries the one that came furthest is
the one to tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from khook.agents.outcome import AgentRequest
from khook.cli.explain_facts import Fact


class Reason(StrEnum):
    """Why no agent is asked; the JSON output has these words."""

    NOT_WATCHED = "namespace_not_watched"
    NO_HOOK = "no_hook"
    NOT_OWNED = "namespace_not_owned"
    NOTHING = "class_nothing"
    NO_ENTRY = "no_entry_of_type"
    INVALID_ENTRY = "invalid_entry"
    AGENT_NOT_ALLOWED = "agent_not_allowed"
    SELECTOR = "selector"
    POD_GONE = "pod_gone"
    TOO_OLD = "too_old"
    STALE = "stale"
    NO_ROOM = "no_room"
    SUSPENDED = "suspended"
    HELD = "held"
    REPEAT = "repeat"
    IN_FLIGHT = "in_flight"
    OVER_BUDGET = "over_budget"
    AGENT_NOT_FOUND = "agent_not_found"
    NO_KEY = "no_key"
    BREAKER_OPEN = "breaker_open"
    PARKED = "parked"
    TAKEN_BY_OOM = "taken_by_oom"


_ORDER: Final = list(Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What comes of one fact, at one entry or before any. `reason` None: the agent is asked."""

    reason: Reason | None
    words: str
    hook: str = ""
    """`namespace/name`; empty where no Hook was reached."""
    entry: int | None = None
    """Its place in the Hook."""
    agent: str = ""
    until_time: datetime | None = None
    request: AgentRequest | None = None
    """What the agent is asked, or would be."""

    @property
    def fires(self) -> bool:
        return self.reason is None

    @property
    def rank(self) -> int:
        return len(_ORDER) if self.reason is None else _ORDER.index(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One fact with what comes of it at each entry; the first of `outcomes` is the one to tell."""

    fact: Fact
    outcomes: Sequence[Outcome]

    @property
    def outcome(self) -> Outcome:
        return self.outcomes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`told` has at least one; `outcome` is the answer."""

    namespace: str
    pod: str
    told: Sequence[Told]
    notes: Sequence[str] = ()
    """What could not be known."""

    @property
    def outcome(self) -> Outcome:
        return max((one.outcome for one in self.told), key=_tells_most)


def furthest_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return sorted(outcomes, key=lambda one: one.rank, reverse=True)


def _tells_most(outcome: Outcome) -> tuple[bool, int]:
    """Of several facts, that a restart belongs to the OOM kill says least: the kill is another of them."""
    return outcome.reason is not Reason.TAKEN_BY_OOM, outcome.rank
