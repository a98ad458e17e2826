"""The incidents of one Hook: its rows, how they age, what they may spend, and when there is no room for more.

What a signal means for a row is `table.py`'s business; here is all that happens to rows otherwise. Invariant: a row
leaves all that is known of it together, its group, its place in the line for the budget, its memory.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from khook.core import rows as row_rules
from khook.core.budget import Budget
from khook.core.incident import CallId, CallReason, CallState, EntryId, IncidentRules, Row, RowStatus
from khook.core.pods import PodFacts, settled, unwell
from khook.core.rowjson import RowSizes
from khook.core.signal import EventType, Signal
from khook.worker.allowance import Allowance
from khook.worker.counters import SuppressedCounters
from khook.worker.trail import HookTrail

RowKey = tuple[EntryId, str, str]
"""Entry identity, resource kind, resource name."""

PodsOf = Callable[[Row], Sequence[PodFacts] | None]
"""The pods that a row is about, as far as they are there; None: that is not known yet."""

COUNT_ROOM_FROM: Final = 100
"""Below this many rows a Hook has room whatever they hold: adding up their bytes is not worth it."""
MEMBERS_MOST: Final = 1_000
"""Pods of one group that are told apart while its call is unsent. Past this the count says "at least"."""
NO_ROOM: Final = "NoRoom"
"""Why a call was suppressed, beside `CallReason.BUDGET`."""


def key_of(row: Row) -> RowKey:
    return (row.entry, row.resource_kind, row.resource_name)


class RowBook:
    """`changed` is called when the status has something new to say; `cooldown_of` knows a row's entry."""

    def __init__(
        self,
        *,
        rules: IncidentRules,
        cooldown_of: Callable[[Row], timedelta],
        calls_an_hour: int,
        now: Callable[[], datetime],
        changed: Callable[[], None],
        suppressed: SuppressedCounters,
        trail: HookTrail,
    ) -> None:
        self._rules = rules
        self._cooldown_of = cooldown_of
        self._calls_an_hour = calls_an_hour
        self._now = now
        self._changed = changed
        self._suppressed = suppressed
        self._trail = trail
        self._rows: dict[RowKey, Row] = {}
        self._members: dict[RowKey, set[str]] = {}
        """The pods of each group whose call is unsent."""
        self._allowance: Allowance[RowKey] = Allowance(self._budget(()))
        self._sizes = RowSizes()
        self.legacy: tuple[Row, ...] = ()
        """Rows that belong to nobody and only mute."""
        self.full = False
        """A new incident found no room, and none has come since: looked at anew by each tick."""

    # Rows as such.

    def get(self, key: RowKey) -> Row | None:
        return self._rows.get(key)

    def put(self, key: RowKey, row: Row) -> None:
        self._rows[key] = row

    def items(self) -> list[tuple[RowKey, Row]]:
        return list(self._rows.items())

    @property
    def rows(self) -> Iterable[Row]:
        """Without those that only mute. A view: not to be kept."""
        return self._rows.values()

    def restore(self, rows: Sequence[Row], *, suspended: bool) -> None:
        """The rows that a status gave back, and what they say of the budget."""
        self.legacy = tuple(row for row in rows if row.legacy)
        self._rows = {key_of(row): row for row in rows if not row.legacy}
        if suspended:
            self.suspend()
        self._allowance = Allowance(self._budget(self._rows.values()))
        for row in sorted(filter(row_rules.waits_for_budget, self._rows.values()), key=_claimed_time):
            self._allowance.wait(key_of(row))

    def suspend(self) -> None:
        """No call that waits is sent any more."""
        self._rows = {key: row_rules.suspended(row) for key, row in self._rows.items()}
        self._allowance.clear()

    def drop(self, key: RowKey) -> None:
        self._rows.pop(key, None)
        self._members.pop(key, None)
        self._allowance.forget(key)

    # Calls.

    def of_call(self, key: RowKey, call_id: CallId) -> Row | None:
        """The row, as long as this is still its call."""
        row = self._rows.get(key)
        return row if row is not None and row.call is not None and row.call.id == call_id else None

    def update(self, key: RowKey, call_id: CallId, change: Callable[[Row], Row]) -> None:
        """Replace the row of this call; nothing happens when the row has another call by now."""
        if (row := self.of_call(key, call_id)) is not None:
            self._rows[key] = change(row)
            self._changed()

    # The budget.

    @property
    def calls_an_hour(self) -> int:
        """0: no limit."""
        return self._calls_an_hour

    @property
    def over_budget(self) -> int:
        """Calls that wait for the budget."""
        return len(self._allowance)

    def charge(self, key: RowKey, now: datetime) -> bool:
        """Pay for the call of a new incident; False: it waits for the budget from now on, and that is said."""
        if self._allowance.charge(key, now):
            return True
        self._suppressed.suppressed(CallReason.BUDGET.value)
        self._trail.over_budget(self._calls_an_hour)
        return False

    def afforded(self) -> list[tuple[RowKey, CallId]]:
        """Calls that waited for the budget and may be made now."""
        if not self.over_budget:
            return []
        now = self._now()
        calls = []
        for key in self._allowance.due(now):
            row = self._rows[key]
            assert row.call is not None, "a row that waits for the budget has a call"
            self._rows[key] = row_rules.afforded(row, now=now)
            calls.append((key, row.call.id))
        return calls

    def _budget(self, rows: Iterable[Row]) -> Budget | None:
        if not self._calls_an_hour:
            return None
        charged = [row.call.claimed_time for row in rows if row.call is not None and row.call.charged]
        return Budget(self._calls_an_hour, now=self._now(), charged=charged)

    def _give_up_budget(self) -> None:
        """A call that waited for the budget will not be made: never in silence."""
        self._suppressed.failed(CallReason.BUDGET.value)
        self._trail.given_up(self._calls_an_hour)

    # Groups.

    def begin_group(self, key: RowKey, pod: str) -> None:
        self._members[key] = {pod}

    def pods_failed(self, key: RowKey, row: Row, signal: Signal) -> int:
        """How many pods of this group have failed, with the signal's."""
        if not row.is_group:
            return 1
        if row.call is None or row.facts is None or not row.call.unsent:
            self._members.pop(key, None)
            return 1
        members = self._members.setdefault(key, {pod.name for pod in row.facts.pods})
        if len(members) < MEMBERS_MOST:
            members.add(signal.pod)
        return len(members)

    # Room.

    def make_room(self, now: datetime) -> bool:
        """Whether one more row fits, once those that may go are gone."""
        if self.full:
            return False  # within a second of the last look, and each look costs milliseconds
        if len(self._rows) < COUNT_ROOM_FROM:
            return True
        room = self._room(now)
        for row in room.dropped:
            self.drop(key_of(row))
        for row in room.failed:
            self.drop(key_of(row))
            self._give_up_budget()
        return room.has_room

    def tell_full(self) -> None:
        """A new incident found no room."""
        if not self.full:
            self.full = True
            self._changed()
        self._suppressed.suppressed(NO_ROOM)
        self._trail.full()

    def _room(self, now: datetime) -> row_rules.Room:
        rows = list(self._rows.values())
        return row_rules.make_room(rows, now=now, cooldown_of=self._cooldown_of, rules=self._rules, sizes=self._sizes)

    # Time.

    def tick(self, pods_of: PodsOf) -> list[Row]:
        """Resolve and expire. Returns rows whose lasting state may be due to be told again."""
        now = self._now()
        self.legacy = tuple(row for row in self.legacy if not self._expired(row, now))
        again = []
        for key, row in self.items():
            if self._resolves(row, now, pods_of):
                self._resolve(key, row, now)
            elif self._expired(row, now):
                self.drop(key)
                self._changed()
            elif _may_be_told_again(row, now, self._cooldown_of(row)):
                again.append(row)
        if self.full and len(self._rows) < row_rules.MAX_ROWS and self._room(now).has_room:
            self.full = False
            self._changed()
        return again

    def _resolves(self, row: Row, now: datetime, pods_of: PodsOf) -> bool:
        cooldown = self._cooldown_of(row)
        if not row_rules.is_quiet(row, now=now, cooldown=cooldown, rules=self._rules):
            return False
        pods = pods_of(row)
        return pods is not None and row_rules.resolves(
            row,
            now=now,
            all_settled=all(map(settled, pods)),
            any_unwell=any(map(unwell, pods)),
            cooldown=cooldown,
            rules=self._rules,
        )

    def _resolve(self, key: RowKey, row: Row, now: datetime) -> None:
        if row_rules.waits_for_budget(row):
            self._allowance.forget(key)
            self._give_up_budget()
            error = f"it was over before this Hook's {self._calls_an_hour} calls an hour allowed this call"
            row = row_rules.failed(row, now=now, reason=CallReason.BUDGET, error=error)
        self._rows[key] = row_rules.resolved(row, now=now)
        self._trail.resolved(row)
        self._changed()

    def _expired(self, row: Row, now: datetime) -> bool:
        return row_rules.expired(row, now=now, cooldown=self._cooldown_of(row), rules=self._rules)


def _may_be_told_again(row: Row, now: datetime, cooldown: timedelta) -> bool:
    """No agent has heard of this pending pod, one cooldown after its call failed: its state, if it lasts, is news."""
    call = row.call
    failed = call is not None and call.state is CallState.FAILED and call.accepted_time is None
    if not failed or call is None or row.event_type is not EventType.POD_PENDING or row.status is RowStatus.RESOLVED:
        return False
    return now >= (call.ended_time or call.claimed_time) + cooldown


def _claimed_time(row: Row) -> datetime:
    return row.last_seen if row.call is None else row.call.claimed_time
