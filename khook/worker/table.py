"""One Hook's dedup table: its entries, its rows, and the writer of its status.

A signal comes in with its pod; out come the calls to make. All decisions are `khook.core`'s; here they meet the
clock, fresh call ids and the status. Invariant: a row is judged and replaced in one step of the loop, so two
signals of one incident can never both fire.
"""

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from khook.core import rows as row_rules
from khook.core import status as status_rules
from khook.core.condition import Problem, ReadyFacts, find_condition, ready_condition, with_condition
from khook.core.configure import Configured
from khook.core.incident import CallId, CallReason, CallState, EntryId, IncidentRules, Row, RowStatus, Verdict
from khook.core.match import Entry, match
from khook.core.pods import PodFacts, settled, unwell
from khook.core.signal import EventType, Signal, Source
from khook.core.template import Template, parse
from khook.core.verdict import judge
from khook.kube.audit import AuditTrail, Reason
from khook.kube.hooks import HookRef
from khook.log import Log
from khook.seams import fresh_uuid
from khook.worker.counters import EventCounters
from khook.worker.status import StatusWriter

RowKey = tuple[EntryId, str, str]
"""Entry identity, resource kind, resource name."""

COUNT_ROOM_FROM: Final = 100
"""Below this many rows a Hook has room whatever they hold: adding up their bytes is not worth it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The entries of one table that a second look at the namespace is meant for."""

    table: "HookTable"
    entries: frozenset[EntryId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A call to make: its row stands in the table, its claim is not written yet."""

    key: RowKey
    call_id: CallId


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one signal led to in one table."""

    fires: tuple[Fire, ...] = ()
    texts: tuple[CallId, ...] = ()
    """Calls in flight that an Event has given its text to."""


class HookTable:
    """`writer` is attached by whoever reads the Hook, before anything is judged."""

    writer: StatusWriter

    def __init__(
        self,
        *,
        ref: HookRef,
        rules: IncidentRules,
        configure: Callable[[dict[str, Any]], Configured],
        default_cooldown: timedelta,
        now: Callable[[], datetime],
        randomness: random.Random,
        counters: EventCounters,
        audit: AuditTrail,
        log: Log,
    ) -> None:
        self.ref = ref
        self._rules = rules
        self._configure = configure
        self._default_cooldown = default_cooldown
        self._now = now
        self._randomness = randomness
        self._counters = counters
        self._audit = audit
        self._log = log
        self._configured = Configured(entries=(), problems=(), suspended=False)
        self._entries: dict[EntryId, Entry] = {}
        self._templates: dict[EntryId, Template] = {}
        self._rows: dict[RowKey, Row] = {}
        self._rendered = status_rules.RenderedRows()
        self._legacy: tuple[Row, ...] = ()
        self._generation = 0
        self._ready: dict[str, Any] | None = None
        self._trouble: tuple[Problem, str] | None = None
        """What the last call failed of; a call that succeeds clears it."""
        self._forbidden = False
        self._full = False
        """A new incident found no room, and none has come since: looked at anew by each tick."""

    # The Hook itself.

    def take(self, hook: dict[str, Any]) -> frozenset[EntryId]:
        """The Hook as it now stands; returns the identities that are new here."""
        self._generation = hook["metadata"].get("generation", 0)
        self._configured = self._configure(hook)
        before = frozenset(self._entries)
        self._entries = {entry.identity: entry for entry in self._configured.entries}
        self._templates = {entry.identity: parse(entry.prompt) for entry in self._configured.entries}
        self._drop_unsent_of_gone_entries()
        self._full = False  # whoever edits it may have made room
        if self._configured.suspended:
            self._rows = {key: row_rules.suspended(row) for key, row in self._rows.items()}
        for problem in self._configured.problems:
            self._audit.record(
                self.ref, Reason.INVALID_CONFIGURATION, f"{problem.path}: {problem.reason}", warning=True
            )
        return frozenset(self._entries) - before

    def restore(self, status: dict[str, Any]) -> list[Fire]:
        """Rows out of the Hook's own status, and the calls among them that somebody has to carry on."""
        restored = status_rules.restore(status)
        if restored.dropped:
            self._log.warning("status rows unreadable", hook=self.ref.key, count=restored.dropped)
        self._ready = find_condition(status)
        self._legacy = tuple(row for row in restored.rows if row.legacy)
        self._rows = {_key(row): row for row in restored.rows if not row.legacy}
        self._drop_unsent_of_gone_entries()
        if self.suspended:
            self._rows = {key: row_rules.suspended(row) for key, row in self._rows.items()}
        return [fire for key, row in list(self._rows.items()) if (fire := self._carried_on(key, row)) is not None]

    def _carried_on(self, key: RowKey, row: Row) -> Fire | None:
        if row.call is None or not row.call.open:
            return None
        if row.call.state is CallState.ACCEPTED:
            # Its run is followed to the end, whatever became of its entry.
            return Fire(key=key, call_id=row.call.id)
        if row.facts is None or key[0] not in self._entries:
            # Nothing is left to send it with: said, instead of "in flight" for ever.
            self._ended_unasked(key, row, CallReason.REJECTED, "its entry or its facts are gone")
            return None
        return Fire(key=key, call_id=row.call.id)

    def _ended_unasked(self, key: RowKey, row: Row, reason: CallReason, error: str) -> None:
        """A restored call that nobody carries on: says nothing about the agent, so the condition stays."""
        self._rows[key] = row_rules.failed(row, now=self._now(), reason=reason, error=error)
        self._audit.record(
            self.ref,
            Reason.AGENT_CALL_FAILED,
            f"the call to agent {row.agent} about {_about(row)} ended: {error}",
            warning=True,
        )

    def _drop_unsent_of_gone_entries(self) -> None:
        for key, row in list(self._rows.items()):
            unsent = row.call is not None and row.call.state is CallState.PENDING and row.call.attempts == 0
            if key[0] not in self._entries and row.call is not None and unsent:
                del self._rows[key]
                self._counters.judged(row.event_type, "dropped")
                self._log.info("unsent call dropped with its entry", hook=self.ref.key, call_id=row.call.id)

    @property
    def suspended(self) -> bool:
        return self._configured.suspended

    @property
    def rows(self) -> Collection[Row]:
        """Its incidents now, without those that only mute. A view: not to be kept."""
        return self._rows.values()

    @property
    def trouble(self) -> str | None:
        """Why it is not Ready, or that it has no room for a new incident."""
        found = self._problems()
        first = next((problem.value for problem in Problem if found.get(problem)), None)
        return first or ("Full" if self._full else None)

    @property
    def waits_for_oom(self) -> bool:
        """Both kinds of entry: a restart Event may turn out to be the oom-kill entry's business."""
        types = {entry.event_type for entry in self._configured.entries}
        return {EventType.OOM_KILL, EventType.POD_RESTART} <= types

    def entry(self, key: RowKey) -> Entry | None:
        return self._entries.get(key[0])

    def template(self, key: RowKey) -> Template | None:
        return self._templates.get(key[0])

    # Signals.

    def signal(self, signal: Signal, pod: PodFacts | None, *, oom: bool, only: frozenset[EntryId] | None) -> Judged:
        """Judge a signal for every entry that it concerns (of `only`, where given)."""
        fires: list[Fire] = []
        texts: list[CallId] = []
        for entry in match(
            self._configured.entries,
            signal,
            pod_labels=None if pod is None else pod.labels,
            pod_known=pod is not None,
            oom=oom,
        ):
            if only is None or entry.identity in only:
                self._judge(entry, signal, fires, texts)
        return Judged(fires=tuple(fires), texts=tuple(texts))

    def _judge(self, entry: Entry, signal: Signal, fires: list[Fire], texts: list[CallId]) -> None:
        now = self._now()
        key = (entry.identity, row_rules.POD_KIND, signal.pod)
        row = self._rows.get(key)
        if row is None and self._muted(entry, signal, now):
            self._counters.judged(entry.event_type, Verdict.REPEAT)
            return
        verdict = judge(
            row,
            signal,
            now=now,
            cooldown=entry.cooldown,
            suspended=self._configured.suspended,
            has_room=row is not None or self._make_room(now),
            rules=self._rules,
        )
        self._counters.judged(entry.event_type, verdict)
        if verdict is Verdict.NO_ROOM:
            self._tell_suppressed()
        if verdict is Verdict.STALE and row is not None:
            self._reword(key, row, signal, texts)
        if not verdict.changes_row:
            return
        fresh = verdict in (Verdict.FIRE, Verdict.REFIRE)
        call_id = CallId(fresh_uuid(self._randomness)) if fresh else None
        row = row_rules.apply(row, signal, verdict, now=now, entry=entry, call_id=call_id)
        self._rows[key] = row
        if call_id is not None:
            fires.append(Fire(key=key, call_id=call_id))
        else:
            says_more = signal.source is Source.EVENT and signal.type is entry.event_type
            if verdict is Verdict.IN_FLIGHT and says_more and row.call is not None:
                texts.append(row.call.id)
            self.writer.changed()

    def _reword(self, key: RowKey, row: Row, signal: Signal, texts: list[CallId]) -> None:
        reworded = row_rules.reworded(row, signal)
        if reworded is not row and row.call is not None:
            self._rows[key] = reworded
            texts.append(row.call.id)
            self.writer.changed()

    def _muted(self, entry: Entry, signal: Signal, now: datetime) -> bool:
        return bool(self._legacy) and row_rules.muted_by_legacy(
            self._legacy, signal, event_type=entry.event_type, now=now, cooldown=entry.cooldown
        )

    def _make_room(self, now: datetime) -> bool:
        if self._full:
            return False  # within a second of the last look, and each look costs milliseconds
        if len(self._rows) < COUNT_ROOM_FROM:
            return True
        room = self._room(now)
        for row in (*room.dropped, *room.failed):
            self._rows.pop(_key(row), None)
        return room.has_room

    def _room(self, now: datetime) -> row_rules.Room:
        rows = list(self._rows.values())
        return row_rules.make_room(rows, now=now, cooldown_of=self._cooldown_of, rules=self._rules)

    def _tell_suppressed(self) -> None:
        if not self._full:
            self._full = True
            self.writer.changed()
        self._audit.record(
            self.ref,
            Reason.CALLS_SUPPRESSED,
            f"this Hook holds {row_rules.MAX_ROWS} incidents, as many as it may: new ones call no agent",
            warning=True,
        )

    def _cooldown_of(self, row: Row) -> timedelta:
        entry = self._entries.get(row.entry)
        return self._default_cooldown if entry is None else entry.cooldown

    # Rows.

    def row(self, key: RowKey, call_id: CallId) -> Row | None:
        """The row, as long as this is still its call."""
        row = self._rows.get(key)
        return row if row is not None and row.call is not None and row.call.id == call_id else None

    def update(self, key: RowKey, call_id: CallId, change: Callable[[Row], Row]) -> None:
        """Replace the row of this call; nothing happens when the row has another call by now."""
        if (row := self.row(key, call_id)) is not None:
            self._rows[key] = change(row)
            self.writer.changed()

    def firing(self) -> Iterable[EventType]:
        """The type of each firing row, for the gauge."""
        return (row.event_type for row in self._rows.values() if row.status is RowStatus.FIRING)

    def tick(self, pod_named: Callable[[str], PodFacts | None]) -> list[tuple[Row, Entry]]:
        """Resolve and expire. Returns rows whose lasting state may be due to be told again."""
        now = self._now()
        self._legacy = tuple(row for row in self._legacy if not self._expired(row, now))
        again = []
        for key, row in list(self._rows.items()):
            if self._resolves(row, now, pod_named(row.resource_name)):
                self._rows[key] = row_rules.resolved(row, now=now)
                self._resolved(row)
            elif self._expired(row, now):
                del self._rows[key]
                self.writer.changed()
            elif (entry := self._entries.get(row.entry)) is not None and _may_be_told_again(row, entry, now):
                again.append((row, entry))
        if self._full and len(self._rows) < row_rules.MAX_ROWS and self._room(now).has_room:
            self._full = False
            self.writer.changed()
        return again

    def _resolves(self, row: Row, now: datetime, pod: PodFacts | None) -> bool:
        return row_rules.resolves(
            row,
            now=now,
            all_settled=pod is None or settled(pod),
            any_unwell=pod is not None and unwell(pod),
            cooldown=self._cooldown_of(row),
            rules=self._rules,
        )

    def _expired(self, row: Row, now: datetime) -> bool:
        return row_rules.expired(row, now=now, cooldown=self._cooldown_of(row), rules=self._rules)

    def _resolved(self, row: Row) -> None:
        self._log.info("incident resolved", hook=self.ref.key, event_type=row.event_type)
        self._audit.record(
            self.ref,
            Reason.INCIDENT_RESOLVED,
            f"{_about(row)} is over",
            warning=False,
        )
        self.writer.changed()

    # Outcomes of calls.

    def call_accepted(self, key: RowKey, how: str) -> None:
        """An agent has the call: the API is well, and the Hook's audit trail says who was asked."""
        self._trouble = None
        if (row := self._rows.get(key)) is not None:
            self._audit.record(
                self.ref, Reason.AGENT_CALLED, f"agent {row.agent} was asked about {_about(row)}: {how}", warning=False
            )

    def call_failed(self, key: RowKey, reason: CallReason, error: str) -> None:
        """A call ended without an agent having it: shown until one succeeds."""
        if (row := self._rows.get(key)) is None:
            return
        if reason is CallReason.AGENT_NOT_FOUND:
            self._trouble = (Problem.AGENT_NOT_FOUND, f"agent {row.agent} is not known to kagent")
        elif reason is not CallReason.CLAIM_REFUSED:
            self._trouble = (Problem.KAGENT_API_ERROR, f"agent {row.agent} could not be asked: {error}")
        self._audit.record(
            self.ref,
            Reason.AGENT_CALL_FAILED,
            f"agent {row.agent} could not be asked about {_about(row)}: {error}",
            warning=True,
        )

    def call_parked(self, key: RowKey, error: str) -> None:
        """A call waits for its agent: shown until one gets through."""
        if (row := self._rows.get(key)) is None:
            return
        self._trouble = (Problem.KAGENT_API_ERROR, f"agent {row.agent} cannot be asked yet: {error}")
        # Without the incident's name: an outage parks hundreds, and must not use up what this Hook may say.
        self._audit.record(self.ref, Reason.AGENT_CALL_PARKED, f"calls wait: {error}", warning=True)

    def run_failed(self, key: RowKey, how: str) -> None:
        """The agent had the call and its run ended badly; `how` is our own words."""
        if (row := self._rows.get(key)) is not None:
            self._audit.record(
                self.ref, Reason.AGENT_CALL_FAILED, f"agent {row.agent}, asked about {_about(row)}: {how}", warning=True
            )

    def show_forbidden(self, forbidden: bool) -> None:
        """Whether the API server forbids us to watch the namespace's pods or Events."""
        if forbidden != self._forbidden:
            self._forbidden = forbidden
            self.writer.changed()

    def wanted_status(self, held: Mapping[str, Any]) -> dict[str, Any]:
        """The status as memory wants it now: what the writer asks for before each patch.

        `held` is what the API server has: conditions of other authors stay as they are there.
        """
        now = self._now()
        self._ready = ready_condition(
            ReadyFacts(
                entries=len(self._entries),
                suspended=self.suspended,
                full=self._full,
                problems=self._problems(),
            ),
            previous=self._ready,
            generation=self._generation,
            now=now,
        )
        rows = [*self._legacy, *self._rows.values()]
        conditions = with_condition(held, self._ready)
        return status_rules.render(rows, conditions, last_updated=now, rendered=self._rendered)

    def _problems(self) -> dict[Problem, list[str]]:
        problems: dict[Problem, list[str]] = {}
        if self.writer.outdated:
            problems[Problem.CRD_OUTDATED] = ["the Hook CRD drops khook's status fields: upgrade kagent-hook-crds"]
        if self._forbidden:
            problems[Problem.WATCH_FORBIDDEN] = ["khook may not watch pods or events in this namespace (RBAC)"]
        if self._configured.problems:
            problems[Problem.INVALID_CONFIGURATION] = [f"{p.path}: {p.reason}" for p in self._configured.problems]
        if self._trouble is not None:
            problem, line = self._trouble
            problems[problem] = [line]
        return problems


def _about(row: Row) -> str:
    return f"{row.event_type} of {row.resource_kind} {row.resource_name}"


def _may_be_told_again(row: Row, entry: Entry, now: datetime) -> bool:
    """No agent has heard of this pending pod, one cooldown after its call failed: its state, if it lasts, is news."""
    call = row.call
    failed = call is not None and call.state is CallState.FAILED and call.accepted_time is None
    if not failed or call is None or row.event_type is not EventType.POD_PENDING or row.status is RowStatus.RESOLVED:
        return False
    return now >= (call.ended_time or call.claimed_time) + entry.cooldown


def _key(row: Row) -> RowKey:
    return (row.entry, row.resource_kind, row.resource_name)
