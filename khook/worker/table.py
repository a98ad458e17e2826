"""One Hook's dedup table: its entries, its rows, and the writer of its status.

A signal comes in with its pod; out come the calls to make. All decisions are `khook.core`'s; here they meet the
clock, fresh call ids and the status. Invariant: a row is judged and replaced in one step of the loop, so two
signals of one incident can never both fire.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from khook.core import rows as row_rules
from khook.core import status as status_rules
from khook.core.condition import Problem, ReadyFacts, find_condition, ready_condition, with_condition
from khook.core.configure import Configured
from khook.core.decision import decide
from khook.core.holding import Holds, lasts
from khook.core.incident import CallId, CallReason, CallState, EntryId, IncidentRules, Row, RowStatus, Verdict
from khook.core.match import Entry, match
from khook.core.owner import ResourceRef
from khook.core.pods import PodFacts
from khook.core.signal import EventType, PodUid, Signal, Source
from khook.kube.audit import AuditTrail
from khook.kube.hooks import HookRef
from khook.log import Log
from khook.seams import fresh_uuid
from khook.worker.counters import EventCounters, SuppressedCounters
from khook.worker.rowbook import PodsOf, RowBook, RowKey
from khook.worker.status import StatusWriter
from khook.worker.trail import HookTrail

DROPPED: Final = "dropped"
"""A call that was not sent yet and went with its entry: counted as a verdict is."""
HELD: Final = "held"
"""A signal that waits for its entry's `holdFor`: counted as a verdict is, and judged later if the trouble lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """The entries of one table that a signal is meant for: new ones, or those that could not be asked before."""

    table: "HookTable"
    entries: frozenset[EntryId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """A call to make: its row stands in the table, its claim is not written yet."""

    key: RowKey
    call_id: CallId
    is_group: bool = False
    """It is the first of a group: others may join before it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one signal led to in one table."""

    fires: tuple[Fire, ...] = ()
    texts: tuple[CallId, ...] = ()
    """Calls in flight that an Event has given its text to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """All that is known of a signal where it meets an entry."""

    signal: Signal
    pod: PodFacts | None
    """None: gone."""
    resource: ResourceRef
    """What an incident of a grouping entry is about: the pod's owner, or the pod where it has none."""
    held_out: bool = False
    """The trouble has lasted for its entry's `holdFor`."""


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
        calls_an_hour: int,
        now: Callable[[], datetime],
        randomness: random.Random,
        counters: EventCounters,
        suppressed: SuppressedCounters,
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
        self._trail = HookTrail(ref=ref, audit=audit, log=log)
        self._log = log
        self._configured = Configured(entries=(), problems=(), suspended=False)
        self._entries: dict[EntryId, Entry] = {}
        self.grouping: frozenset[EntryId] = frozenset()
        """Entries that need a pod's owner."""
        self.not_grouping: frozenset[EntryId] = frozenset()
        self._holds = Holds()
        self._book = RowBook(
            rules=rules,
            cooldown_of=self._cooldown_of,
            calls_an_hour=calls_an_hour,
            now=now,
            changed=self._changed,
            suppressed=suppressed,
            trail=self._trail,
        )
        self._rendered = status_rules.RenderedRows()
        self._generation = 0
        self._ready: dict[str, Any] | None = None
        self._forbidden = False

    def _changed(self) -> None:
        self.writer.changed()

    # The Hook itself.

    def take(self, hook: dict[str, Any]) -> frozenset[EntryId]:
        """The Hook as it now stands; returns the identities that are new here."""
        self._generation = hook["metadata"].get("generation", 0)
        self._configured = self._configure(hook)
        before = frozenset(self._entries)
        self._entries = {entry.identity: entry for entry in self._configured.entries}
        self.grouping = frozenset(entry.identity for entry in self._configured.entries if entry.group_by_owner)
        self.not_grouping = frozenset(self._entries) - self.grouping
        self._holds.keep({entry.identity for entry in self._configured.entries if entry.hold_for})
        self._drop_unsent_of_gone_entries()
        self._book.full = False  # whoever edits it may have made room
        if self._configured.suspended:
            self._book.suspend()
        self._trail.invalid(self._configured.problems)
        return frozenset(self._entries) - before

    def restore(self, status: dict[str, Any]) -> list[Fire]:
        """Rows out of the Hook's own status, and the calls among them that somebody has to carry on."""
        restored = status_rules.restore(status)
        if restored.dropped:
            self._log.warning("status rows unreadable", hook=self.ref.key, count=restored.dropped)
        self._ready = find_condition(status)
        self._book.restore(restored.rows, suspended=self.suspended)
        self._drop_unsent_of_gone_entries()
        return [fire for key, row in self._book.items() if (fire := self._carried_on(key, row)) is not None]

    def _carried_on(self, key: RowKey, row: Row) -> Fire | None:
        call = row.call
        if call is None or not call.open or row_rules.waits_for_budget(row):
            return None
        if call.state is CallState.ACCEPTED:
            # Its run is followed to the end, whatever became of its entry.
            return Fire(key=key, call_id=call.id)
        if row.facts is None or key[0] not in self._entries:
            # Nothing is left to send it with: said, instead of "in flight" for ever.
            error = "its entry or its facts are gone"
            self._book.put(key, row_rules.failed(row, now=self._now(), reason=CallReason.REJECTED, error=error))
            self._trail.ended_unasked(row, error)
            return None
        return Fire(key=key, call_id=call.id, is_group=call.reason is CallReason.GROUPING)

    def _drop_unsent_of_gone_entries(self) -> None:
        for key, row in self._book.items():
            if key[0] not in self._entries and row.call is not None and row.call.unsent:
                self._book.drop(key)
                self._counters.judged(row.event_type, DROPPED)
                self._log.info("unsent call dropped with its entry", hook=self.ref.key, call_id=row.call.id)

    @property
    def suspended(self) -> bool:
        return self._configured.suspended

    @property
    def held_signals(self) -> int:
        """Signals that wait for their entry's `holdFor`."""
        return len(self._holds)

    @property
    def trouble(self) -> str | None:
        """Why it is not Ready, or that it has no room for a new incident."""
        found = self._problems()
        first = next((problem.value for problem in Problem if found.get(problem)), None)
        return first or ("Full" if self._book.full else None)

    @property
    def waits_for_oom(self) -> bool:
        """Both kinds of entry: a restart Event may turn out to be the oom-kill entry's business."""
        types = {entry.event_type for entry in self._configured.entries}
        return {EventType.OOM_KILL, EventType.POD_RESTART} <= types

    def entry(self, key: RowKey) -> Entry | None:
        return self._entries.get(key[0])

    # Signals.

    def signal(self, occasion: Occasion, *, oom: bool, only: frozenset[EntryId] | None) -> Judged:
        """Judge a signal for every entry that it concerns (of `only`, where given)."""
        fires: list[Fire] = []
        texts: list[CallId] = []
        pod = occasion.pod
        for entry in match(
            self._configured.entries,
            occasion.signal,
            pod_labels=None if pod is None else pod.labels,
            pod_known=pod is not None,
            oom=oom,
        ):
            if only is None or entry.identity in only:
                self._judge(entry, occasion, fires, texts)
        return Judged(fires=tuple(fires), texts=tuple(texts))

    def _judge(self, entry: Entry, occasion: Occasion, fires: list[Fire], texts: list[CallId]) -> None:
        now, signal = self._now(), occasion.signal
        resource = occasion.resource if entry.group_by_owner else row_rules.pod_of(signal)
        key = (entry.identity, *resource)
        row = self._book.get(key)
        decision = decide(
            entry,
            row,
            signal,
            may_be_held=occasion.pod is not None and not occasion.held_out,
            legacy=self._book.legacy,
            suspended=self._configured.suspended,
            has_room=lambda: self._book.make_room(now),
            now=now,
            rules=self._rules,
        )
        verdict = decision.verdict
        if decision.held and occasion.pod is not None:
            self._holds.hold(entry, signal, occasion.pod)
            self._counters.judged(entry.event_type, HELD)
            return
        self._counters.judged(entry.event_type, verdict)
        if decision.muted:
            return
        if verdict is Verdict.NO_ROOM:
            self._book.tell_full()
        if verdict is Verdict.STALE and row is not None:
            self._reword(key, row, signal, texts)
        if not verdict.changes_row:
            return
        if verdict in (Verdict.FIRE, Verdict.REFIRE):
            fires += self._fire(key, row, signal, verdict, entry=entry, resource=resource, now=now)
            return
        pods = 1 if row is None else self._book.pods_failed(key, row, signal)
        row = row_rules.apply(row, signal, verdict, now=now, entry=entry, resource=resource, pod_count=pods)
        self._book.put(key, row)
        says_more = signal.source is Source.EVENT and signal.type is entry.event_type and not row.is_group
        if verdict is Verdict.IN_FLIGHT and says_more and row.call is not None:
            texts.append(row.call.id)
        self.writer.changed()

    def _fire(
        self,
        key: RowKey,
        row: Row | None,
        signal: Signal,
        verdict: Verdict,
        *,
        entry: Entry,
        resource: ResourceRef,
        now: datetime,
    ) -> list[Fire]:
        """A new call: to make at once, or to wait until the budget allows it."""
        call_id = CallId(fresh_uuid(self._randomness))
        charged = self._book.charge(key, now)
        is_group = resource != row_rules.pod_of(signal)
        waits = CallReason.GROUPING if is_group else CallReason.QUEUED
        row = row_rules.apply(
            row,
            signal,
            verdict,
            now=now,
            entry=entry,
            resource=resource,
            call_id=call_id,
            waits=waits if charged else CallReason.BUDGET,
        )
        self._book.put(key, row)
        if is_group:
            self._book.begin_group(key, signal.pod)
        if charged:
            return [Fire(key=key, call_id=call_id, is_group=is_group)]
        self.writer.changed()
        return []

    def _reword(self, key: RowKey, row: Row, signal: Signal, texts: list[CallId]) -> None:
        if not row_rules.says_more(row, signal, now=self._now(), rules=self._rules):
            return
        reworded = row_rules.reworded(row, signal, pod_count=self._book.pods_failed(key, row, signal))
        if reworded is not row and row.call is not None:
            self._book.put(key, reworded)
            if not row.is_group:
                texts.append(row.call.id)
            self.writer.changed()

    def _cooldown_of(self, row: Row) -> timedelta:
        entry = self._entries.get(row.entry)
        return self._default_cooldown if entry is None else entry.cooldown

    # Pods.

    def pod_seen(self, pod: PodFacts) -> None:
        """A new line of a pod: what is held back for trouble that is over is forgotten."""
        self._holds.seen(pod)

    def held_out(self, pod_of: Callable[[PodUid], PodFacts | None]) -> list[tuple[Signal, PodFacts, Audience]]:
        """Signals whose trouble has lasted long enough: to be judged now, each for its entry."""
        found = []
        for entry, uid, held in self._holds.due(self._now()):
            pod = pod_of(uid)
            if pod is not None and lasts(held, pod):
                # Confirmed by the pod as it is now, the signal is live, however long ago a LIST told it.
                signal = replace(held.signal, listed=False)
                found.append((signal, pod, Audience(table=self, entries=frozenset({entry}))))
        return found

    # Rows.

    @property
    def rows(self) -> Iterable[Row]:
        """Its incidents now, without those that only mute. A view: not to be kept."""
        return self._book.rows

    @property
    def over_budget(self) -> int:
        """Calls that wait for the budget."""
        return self._book.over_budget

    def row(self, key: RowKey, call_id: CallId) -> Row | None:
        """The row, as long as this is still its call."""
        return self._book.of_call(key, call_id)

    def update(self, key: RowKey, call_id: CallId, change: Callable[[Row], Row]) -> None:
        """Replace the row of this call; nothing happens when the row has another call by now."""
        self._book.update(key, call_id, change)

    def firing(self) -> Iterable[EventType]:
        """The type of each firing row, for the gauge."""
        return (row.event_type for row in self._book.rows if row.status is RowStatus.FIRING)

    def tick(self, pods_of: PodsOf) -> list[tuple[Row, Entry]]:
        """Resolve and expire. Returns rows whose lasting state may be due to be told again."""
        again = self._book.tick(pods_of)
        return [(row, entry) for row in again if (entry := self._entries.get(row.entry)) is not None]

    def afforded(self) -> list[Fire]:
        """Calls that waited for the budget and may be made now."""
        return [Fire(key=key, call_id=call_id) for key, call_id in self._book.afforded()]

    # Outcomes of calls.

    def call_accepted(self, key: RowKey, how: str) -> None:
        if (row := self._book.get(key)) is not None:
            self._trail.accepted(row, how)

    def call_failed(self, key: RowKey, reason: CallReason, error: str) -> None:
        if (row := self._book.get(key)) is not None:
            self._trail.failed(row, reason, error)

    def call_parked(self, key: RowKey, error: str) -> None:
        if (row := self._book.get(key)) is not None:
            self._trail.parked(row, error)

    def run_failed(self, key: RowKey, how: str) -> None:
        if (row := self._book.get(key)) is not None:
            self._trail.run_failed(row, how)

    # What it shows.

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
        facts = ReadyFacts(
            entries=len(self._entries),
            suspended=self.suspended,
            full=self._book.full,
            over_budget=self._book.over_budget,
            calls_an_hour=self._book.calls_an_hour,
            problems=self._problems(),
        )
        self._ready = ready_condition(facts, previous=self._ready, generation=self._generation, now=now)
        rows = [*self._book.legacy, *self._book.rows]
        conditions = with_condition(held, self._ready)
        return status_rules.render(rows, conditions, last_updated=now, rendered=self._rendered)

    def _problems(self) -> dict[Problem, Sequence[str]]:
        return self._trail.problems(
            outdated=self.writer.outdated, forbidden=self._forbidden, invalid=self._configured.problems
        )
