"""The parked calls of one worker: calls that could not be delivered for an outage and wait for their agent.

It knows who waits for whom, since when and until when, who is next and who has to leave when it is full; it sends
nothing and reads no clock. A call is parked once, under its ticket; that an incident has one parked call at most
follows from its having one open call at most. Who leaves gets a visible failure from the caller: nothing is dropped.

Invariants: never more than `most` tickets, whatever is parked; whatever leaves, leaves all of its lines.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from typing import Final, Generic, TypeVar

from khook.core.signal import Namespace

PARKED_MOST: Final = 1_000
"""A worker's. About 8 KiB each with its row and its frozen request: 8 MiB, and at the pace of one agent
(8 at a time, 50 ms) they are gone within 10 s of its return."""

Ticket = TypeVar("Ticket", bound=Hashable)


class ParkReason(StrEnum):
    """Why a call is parked: a metric's label."""

    OUTAGE = "outage"
    """Its delivery used up its attempts."""
    BREAKER = "breaker"
    """Its agent's breaker is open."""
    UNAUTHORIZED = "unauthorized"
    """The key was refused: not its agent has to come back, the key has to change."""
    PROTOCOL = "protocol"
    """Nobody could say which protocol kagent speaks."""
    QUEUE = "queue"
    """Too many calls wait for their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked(Generic[Ticket]):
    ticket: Ticket
    agent: str
    """`namespace/name`."""
    namespace: Namespace
    """The Hook's."""
    reason: ParkReason
    claimed_time: datetime
    until_time: datetime
    """When it has waited long enough and fails: `redeliverFor` after it was claimed."""
    calls_before: int = 0
    """Earlier calls about the same incident: an agent has looked at it already."""
    probes: int = 0
    """How often it was the probe and failed. Those that have not stand before it: a call that itself breaks its agent
    must not be the only one that is ever tried."""


_Key = tuple[int, datetime, int]
"""A place in a line: rank, time, and the number of the parking, so that no two are equal."""


class Parking(Generic[Ticket]):
    def __init__(self, most: int = PARKED_MOST) -> None:
        self._most = most
        self._parked: dict[Ticket, Parked[Ticket]] = {}
        self._numbers: dict[Ticket, int] = {}
        self._tickets: dict[int, Ticket] = {}
        self._last_number = 0
        self._lines: dict[str, list[_Key]] = {}
        self._ends: list[_Key] = []
        self._reasons: Counter[ParkReason] = Counter()
        self._namespaces: Counter[Namespace] = Counter()

    def __len__(self) -> int:
        return len(self._parked)

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._parked

    def get(self, ticket: Ticket) -> Parked[Ticket] | None:
        return self._parked.get(ticket)

    @property
    def counts(self) -> Mapping[ParkReason, int]:
        """All reasons, also those that nothing waits for."""
        return {reason: self._reasons[reason] for reason in ParkReason}

    @property
    def agents(self) -> tuple[str, ...]:
        """Those that `oldest` has an answer for."""
        return tuple(self._lines)

    def by_agent(self) -> dict[str, Counter[ParkReason]]:
        """Of each agent that calls wait for, how many and why. Counted anew: for a person who looks."""
        counts: dict[str, Counter[ParkReason]] = {}
        for parked in self._parked.values():
            counts.setdefault(parked.agent, Counter())[parked.reason] += 1
        return counts

    @property
    def next_end_time(self) -> datetime | None:
        """When `due` has its next answer: a time for a timer."""
        return self._ends[0][1] if self._ends else None

    def park(self, parked: Parked[Ticket]) -> Ticket | None:
        """Let it wait; returns the ticket that has to leave for it (`Failed/ParkFull`), which may be its own.

        It is the one whose incident has had most calls; of equals, one of the namespace that has most parked, so that
        one tenant's storm pushes out its own; of these the youngest. A ticket that is parked already is parked anew,
        with what is said now.
        """
        self.leave(parked.ticket)
        self._enter(parked)
        if len(self._parked) <= self._most:
            return None
        least_missed = max(self._parked.values(), key=self._spare).ticket
        self.leave(least_missed)
        return least_missed

    def leave(self, ticket: Ticket) -> Parked[Ticket] | None:
        """It waits no longer: sent, failed, or not wanted any more. None where it was not parked."""
        parked = self._parked.pop(ticket, None)
        if parked is None:
            return None
        number = self._numbers.pop(ticket)
        del self._tickets[number]
        _remove(self._ends, (0, parked.until_time, number))
        self._reasons[parked.reason] -= 1
        self._namespaces[parked.namespace] -= 1
        if not self._namespaces[parked.namespace]:
            del self._namespaces[parked.namespace]
        if parked.reason is not ParkReason.UNAUTHORIZED:
            line = self._lines[parked.agent]
            _remove(line, (parked.probes, parked.claimed_time, number))
            if not line:
                del self._lines[parked.agent]
        return parked

    def oldest(self, agent: str) -> Ticket | None:
        """The next to be sent when this agent is back, and its probe. Those that wait for a key are not among them."""
        line = self._lines.get(agent)
        return self._tickets[line[0][2]] if line else None

    def waiting_for(self, reason: ParkReason) -> list[Ticket]:
        """All that are parked for this reason, oldest first."""
        found = [parked for parked in self._parked.values() if parked.reason is reason]
        return [parked.ticket for parked in sorted(found, key=self._age)]

    def due(self, now: datetime) -> list[Ticket]:
        """Those that have waited long enough, the longest overdue first. They stay parked until they `leave`."""
        return [self._tickets[number] for _, _, number in takewhile(lambda key: key[1] <= now, self._ends)]

    def _enter(self, parked: Parked[Ticket]) -> None:
        self._last_number += 1
        number = self._last_number
        self._parked[parked.ticket] = parked
        self._numbers[parked.ticket] = number
        self._tickets[number] = parked.ticket
        insort(self._ends, (0, parked.until_time, number))
        self._reasons[parked.reason] += 1
        self._namespaces[parked.namespace] += 1
        if parked.reason is not ParkReason.UNAUTHORIZED:
            insort(self._lines.setdefault(parked.agent, []), (parked.probes, parked.claimed_time, number))

    def _age(self, parked: Parked[Ticket]) -> tuple[datetime, int]:
        return (parked.claimed_time, self._numbers[parked.ticket])

    def _spare(self, parked: Parked[Ticket]) -> tuple[int, int, datetime, int]:
        return (parked.calls_before, self._namespaces[parked.namespace], *self._age(parked))


def _remove(line: list[_Key], key: _Key) -> None:
    del line[bisect_left(line, key)]
