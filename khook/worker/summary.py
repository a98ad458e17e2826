"""What this worker tells of its incidents when somebody reads the status page: one look at every row, no state kept.

It reads the tables' rows and what the parking lot knows of agents, decides nothing and changes nothing. Nobody
reading costs nothing; a reader costs some 2 µs a row, in slices between which the loop turns, and never more than one
look a second, for the supervisor keeps what it was told for as long. Event text is left where it is, and every other
text is cut: rows are restored from statuses, and anybody who may write one chooses how long a name in it is.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappushpop
from operator import itemgetter
from typing import Final, Protocol

from khook.core.breaker import BreakerState
from khook.core.incident import Call, CallReason, CallState, Row, RowStatus
from khook.core.rows import ERROR_MAX_BYTES
from khook.core.text import plain
from khook.kube.hooks import HookRef
from khook.log import redacted
from khook.summary import (
    MOST_AGENTS,
    MOST_FIRING,
    MOST_HELD_BACK,
    MOST_HOOKS,
    MOST_RESOLVED,
    AgentSummary,
    BreakerSummary,
    CallSummary,
    HeldBack,
    HookTrouble,
    IncidentSummary,
    WorkerSummary,
)
from khook.worker.lot import Troubled

SLICE_ROWS: Final = 1_000
"""About 2 ms: what a burst of a hundred watch lines takes."""
QUEUED_LONG: Final = timedelta(seconds=10)
"""A queued call is sent within moments; one that has waited this long is held back, by others before it."""

NAME_MAX_BYTES: Final = 320
"""`namespace/name` of an agent has 317; whatever is longer is nobody's name."""

_HeldKey = tuple[str, str, str, str]
"""Reason, namespace, Hook, agent."""


class Table(Protocol):
    """What of a `HookTable` is looked at."""

    @property
    def ref(self) -> HookRef: ...
    @property
    def rows(self) -> Iterable[Row]: ...
    @property
    def held_signals(self) -> int: ...
    @property
    def suspended(self) -> bool: ...
    @property
    def trouble(self) -> str | None: ...


async def summarize(tables: Iterable[Table], troubled: Mapping[str, Troubled], *, now: datetime) -> WorkerSummary:
    """The tables' rows as they stand now; a table is looked at in one step of the loop."""
    tally = Tally(now=now)
    looked_at = 0
    for table in tables:
        looked_at += tally.add(table)
        if looked_at >= SLICE_ROWS:
            looked_at = 0
            await asyncio.sleep(0)
    return tally.summary(troubled)


class Newest:
    """The last of many rows, by a time; in no order until they are asked for."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[datetime, int, Table, Row]] = []
        self.seen = 0

    def add(self, time: datetime, table: Table, row: Row) -> None:
        self.seen += 1
        if len(self._heap) < self._most:
            self._heap.append((time, self.seen, table, row))
            if len(self._heap) == self._most:
                self._heap.sort()  # a sorted list is a heap
        elif time > self._heap[0][0]:
            heappushpop(self._heap, (time, self.seen, table, row))

    def newest_first(self) -> Iterable[tuple[Table, Row]]:
        return ((table, row) for _, _, table, row in sorted(self._heap, key=itemgetter(0, 1), reverse=True))


@dataclass(slots=True)
class _Held:
    calls: int
    oldest_time: datetime


class Tally:
    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._hooks = self._suspended_hooks = self._held_signals = 0
        self._firing = Newest(MOST_FIRING)
        self._resolved = Newest(MOST_RESOLVED)
        self._calls: Counter[tuple[str, CallState, CallReason | None]] = Counter()
        self._held: dict[_HeldKey, _Held] = {}
        self._trouble: list[HookTrouble] = []

    def add(self, table: Table) -> int:
        """How many rows it has."""
        looked_at = 0
        self._hooks += 1
        self._suspended_hooks += table.suspended
        self._held_signals += table.held_signals
        if (reason := table.trouble) is not None:
            self._trouble.append(HookTrouble(namespace=table.ref.namespace, hook=table.ref.name, reason=reason))
        for row in table.rows:
            looked_at += 1
            if row.status is RowStatus.FIRING:
                self._firing.add(row.last_seen, table, row)
            else:
                self._resolved.add(row.resolved_time or row.last_seen, table, row)
            if (call := row.call) is not None:
                self._calls[row.agent, call.state, call.reason] += 1
                if call.state is CallState.PENDING:
                    self._hold(table, row, call)
        return looked_at

    def _hold(self, table: Table, row: Row, call: Call) -> None:
        queued = call.reason is None or call.reason is CallReason.QUEUED
        if queued and self._now - call.claimed_time < QUEUED_LONG:
            return
        key = ((call.reason or CallReason.QUEUED).value, table.ref.namespace, table.ref.name, row.agent)
        held = self._held.get(key)
        if held is None:
            self._held[key] = _Held(1, call.claimed_time)
        else:
            held.calls += 1
            held.oldest_time = min(held.oldest_time, call.claimed_time)

    def summary(self, troubled: Mapping[str, Troubled]) -> WorkerSummary:
        calls: Counter[str] = Counter()
        for (_, state, reason), count in self._calls.items():
            calls[state.value if reason is None else f"{state.value}/{reason.value}"] += count
        agents = {agent for agent, _, _ in self._calls} | troubled.keys()
        return WorkerSummary(
            hooks=self._hooks,
            suspended_hooks=self._suspended_hooks,
            firing=self._firing.seen,
            resolved=self._resolved.seen,
            held_signals=self._held_signals,
            calls=dict(sorted(calls.items())),
            incidents=tuple(
                _incident(table, row)
                for newest in (self._firing, self._resolved)
                for table, row in newest.newest_first()
            ),
            held_back=self._held_back(),
            agents=self._agents(agents, troubled),
            agents_count=len(agents),
            hooks_in_trouble=tuple(self._trouble[:MOST_HOOKS]),
            hooks_in_trouble_count=len(self._trouble),
        )

    def _held_back(self) -> tuple[HeldBack, ...]:
        most = sorted(self._held.items(), key=lambda one: (-one[1].calls, one[0]))[:MOST_HELD_BACK]
        return tuple(
            HeldBack(
                reason=reason,
                namespace=namespace,
                hook=hook,
                agent=_shown(agent),
                calls=held.calls,
                oldest_time=held.oldest_time,
            )
            for (reason, namespace, hook, agent), held in most
        )

    def _agents(self, agents: Iterable[str], troubled: Mapping[str, Troubled]) -> tuple[AgentSummary, ...]:
        """Those in trouble first; of the others, those with most calls."""
        calls: dict[str, Counter[str]] = {}
        for (agent, state, _), count in self._calls.items():
            calls.setdefault(agent, Counter())[state.value] += count
        order = sorted(agents, key=lambda name: (name not in troubled, -calls.get(name, Counter()).total(), name))
        return tuple(_agent(name, calls.get(name, Counter()), troubled.get(name)) for name in order[:MOST_AGENTS])


def _agent(name: str, calls: Mapping[str, int], troubled: Troubled | None) -> AgentSummary:
    breaker, parked = None, {}
    if troubled is not None:
        parked = {reason.value: count for reason, count in troubled.parked.items() if count}
        if troubled.breaker is not BreakerState.CLOSED:
            breaker = BreakerSummary(state=troubled.breaker.value, retry_in_seconds=troubled.retry_in_s)
    return AgentSummary(agent=_shown(name), calls=dict(calls), breaker=breaker, parked=parked)


def _incident(table: Table, row: Row) -> IncidentSummary:
    return IncidentSummary(
        namespace=table.ref.namespace,
        hook=table.ref.name,
        event_type=row.event_type.value,
        resource_kind=_shown(row.resource_kind),
        resource_name=_shown(row.resource_name),
        agent=_shown(row.agent),
        status=row.status.value,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        resolved_time=row.resolved_time,
        count=row.count,
        call=None if row.call is None else _call(row.call),
    )


def _call(call: Call) -> CallSummary:
    return CallSummary(
        id=_shown(call.id),
        state=call.state.value,
        reason=None if call.reason is None else call.reason.value,
        protocol=_shown(call.protocol),
        attempts=call.attempts,
        claimed_time=call.claimed_time,
        ended_time=call.ended_time,
        error=_shown(call.error, max_bytes=ERROR_MAX_BYTES),
    )


def _shown(text: str, *, max_bytes: int = NAME_MAX_BYTES) -> str:
    """Of a text of half a megabyte only the start is worth looking at."""
    return plain(redacted(text[: 4 * max_bytes]), max_bytes=max_bytes)
