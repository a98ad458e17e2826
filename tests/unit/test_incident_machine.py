"""Any order of signals, call outcomes, suspensions, silences, node clocks and restarts of khook, against a model.

The model keeps an incident as a person would tell it (a phase, since when, which signal was the last) and states the
exact verdict for every signal. The row goes through the Hook's status at any moment, as after a crash.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from incidents import COOLDOWN, RULES, START, a_signal, an_entry

from khook.core import rows
from khook.core.incident import CallId, CallReason, CallState, Row, RowStatus, Verdict
from khook.core.signal import EventType
from khook.core.status import render, restore
from khook.core.verdict import judge

ENTRY = an_entry(event_type=EventType.POD_PENDING)
GAP = RULES.retry_gap


@dataclass
class Told:
    """An incident as a person would tell it. `since` is when the phase began to count."""

    phase: str = "none"
    """none, waiting, calling, running, window, failed, withheld."""
    since: datetime = START
    sent: bool = False
    uid: str = ""
    raw: datetime = START
    seen: datetime = START
    count: int = 0
    resolved: datetime | None = None
    text: str = ""

    def knows(self, uid: str, raw: datetime, *, listed: bool) -> bool:
        if self.phase == "none":
            return False
        if uid != self.uid:
            return listed and raw <= self.seen
        if self.raw > self.seen:
            return raw in (self.raw, min(raw, self.seen))
        return raw <= self.raw

    def speaks_again(self, now: datetime, *, suspended: bool) -> bool:
        """A level that still holds."""
        if suspended:
            return False
        return self.phase == "withheld" or (self.phase == "failed" and now >= self.since + COOLDOWN)

    def expects(
        self, uid: str, raw: datetime, now: datetime, *, listed: bool, level: bool, suspended: bool, room: bool
    ) -> Verdict:
        if self.knows(uid, raw, listed=listed) and not (level and self.speaks_again(now, suspended=suspended)):
            return Verdict.STALE
        starting = Verdict.SUSPENDED if suspended else Verdict.FIRE
        match self.phase:
            case "none" | "withheld" if self.phase == "none" or not suspended:
                if listed and not level and raw < now - RULES.max_signal_age:
                    return Verdict.HISTORY
                return Verdict.NO_ROOM if self.phase == "none" and not room else starting
            case "withheld":
                return Verdict.SUSPENDED
            case "waiting" | "calling" | "running":
                return Verdict.IN_FLIGHT
            case "failed":
                return Verdict.REPEAT if now < self.since + GAP else starting
            case _:
                if now < self.since + COOLDOWN:
                    return Verdict.REPEAT
                return Verdict.SUSPENDED if suspended else Verdict.REFIRE

    def hears(self, verdict: Verdict, uid: str, raw: datetime, now: datetime, text: str, *, level: bool) -> None:
        if level and self.phase != "none" and uid == self.uid and raw < self.raw <= self.seen:
            raw_kept = self.raw  # a state that is told again does not make news of what came since
        else:
            raw_kept = raw
        opens = verdict in (Verdict.FIRE, Verdict.REFIRE) or (verdict is Verdict.SUSPENDED and self.phase != "withheld")
        seen = min(raw, now)
        self.seen = seen if self.phase == "none" else max(self.seen, seen)
        self.count = 1 if opens and (self.phase == "none" or self.resolved) else self.count + 1
        self.uid, self.raw, self.resolved = uid, raw_kept, None
        if opens or (self.phase in ("waiting", "withheld") and not self.sent):
            self.text = text
        if opens:
            self.phase = "withheld" if verdict is Verdict.SUSPENDED else "waiting"
            self.since, self.sent = now, False


class Incidents(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.suspended = False
        self.row: Row | None = None
        self.told = Told()
        self.calls = 0
        self.accepted: list[datetime] = []

    # Time: steps around every duration that decides.

    @rule(
        step=st.sampled_from([1, 59, 60, 61, 119, 120, 599, 600, 601, 899, 900, 901]),
        micros=st.sampled_from([0, 1, 999_999]),
    )
    def time_passes(self, step: int, micros: int) -> None:
        self.now += timedelta(seconds=step, microseconds=micros)

    @rule(edge=st.sampled_from([GAP, COOLDOWN]), micros=st.sampled_from([-1, 0, 1]))
    def time_comes_to_the_edge_of_the_phase(self, edge: timedelta, micros: int) -> None:
        self.now = max(self.now, self.told.since + edge + timedelta(microseconds=micros))

    # Signals.

    @rule(
        uid=st.sampled_from(["uid-1", "uid-2"]),
        offset_s=st.sampled_from([-1000, -901, -900, -60, -1, 0, 0, 0, 5, 3600]),
        listed=st.booleans(),
        level=st.booleans(),
        room=st.sampled_from([True, True, True, False]),
    )
    def a_signal_comes(self, uid: str, offset_s: int, listed: bool, level: bool, room: bool) -> None:
        self.judged(uid, self.now + timedelta(seconds=offset_s), listed=listed, level=level, room=room)

    @rule(listed=st.booleans(), level=st.booleans(), offset_s=st.sampled_from([-1, 0, 0, 1]))
    def the_last_signal_comes_again(self, listed: bool, level: bool, offset_s: int) -> None:
        if self.row is not None:
            raw = self.told.raw + timedelta(seconds=offset_s)
            self.judged(self.told.uid, raw, listed=listed, level=level, room=True)

    def judged(self, uid: str, raw: datetime, *, listed: bool, level: bool, room: bool) -> None:
        self.calls += 1
        given: dict[str, Any] = {"listed": listed, "level": level}
        signal = a_signal(type=EventType.POD_PENDING, pod_uid=uid, raw_time=raw, message=f"text {self.calls}", **given)
        expected = self.told.expects(uid, raw, self.now, **given, suspended=self.suspended, room=room)
        verdict = judge(
            self.row,
            signal,
            now=self.now,
            cooldown=COOLDOWN,
            suspended=self.suspended,
            has_room=room,
            rules=RULES,
        )
        assert expected == verdict
        if verdict.changes_row:
            call_id = CallId(f"call-{self.calls}")
            self.row = rows.apply(self.row, signal, verdict, now=self.now, entry=ENTRY, call_id=call_id)
            self.told.hears(verdict, uid, raw, self.now, signal.message, level=level)

    # What becomes of the call.

    def in_phase(self, *phases: str) -> bool:
        return self.told.phase in phases

    def enter(self, row: Row, phase: str, *, sent: bool = False) -> None:
        self.row, self.told.phase, self.told.since = row, phase, self.now
        self.told.sent = sent or self.told.sent

    def current(self) -> Row:
        assert self.row is not None
        return self.row

    @precondition(lambda self: self.in_phase("waiting"))
    @rule()
    def it_is_sent(self) -> None:
        self.enter(rows.attempted(rows.calling(self.current(), protocol="a2a")), "calling", sent=True)

    @precondition(lambda self: self.in_phase("calling"))
    @rule(answered=st.booleans())
    def an_agent_has_it_and_that_is_all(self, answered: bool) -> None:
        self.accepted.append(self.now)
        if answered:
            self.enter(rows.completed(self.current(), now=self.now, result="done"), "window")
        else:
            self.enter(rows.accepted(self.current(), now=self.now, reason=CallReason.NO_ANSWER), "window")

    @precondition(lambda self: self.in_phase("calling"))
    @rule()
    def a_run_begins(self) -> None:
        self.accepted.append(self.now)
        self.enter(rows.accepted(self.current(), now=self.now, task_id="task"), "running")

    @precondition(lambda self: self.in_phase("running"))
    @rule(well=st.booleans())
    def the_run_ends(self, well: bool) -> None:
        began = self.accepted[-1]
        if well:
            self.enter(rows.completed(self.current(), now=self.now), "window")
        else:
            row = rows.failed(self.current(), now=self.now, reason=CallReason.RUN_FAILED, error="no")
            self.enter(row, "window")
        self.told.since = began

    @precondition(lambda self: self.in_phase("waiting", "calling"))
    @rule()
    def nobody_takes_it(self) -> None:
        row = rows.failed(self.current(), now=self.now, reason=CallReason.UNREACHABLE, error="refused")
        self.enter(row, "failed")

    # The Hook, the pods, khook itself.

    @rule()
    def the_hook_is_suspended(self) -> None:
        self.suspended = True
        if self.row is not None:
            self.row = rows.suspended(self.row)
            self.told.phase = "withheld" if self.told.phase == "waiting" else self.told.phase

    @rule()
    def the_hook_goes_on(self) -> None:
        self.suspended = False

    @rule(settled=st.booleans(), unwell=st.booleans())
    def khook_looks_at_its_rows(self, settled: bool, unwell: bool) -> None:
        if self.row is None:
            return
        if rows.resolves(
            self.row, now=self.now, all_settled=settled, any_unwell=unwell, cooldown=COOLDOWN, rules=RULES
        ):
            assert self.now - self.told.seen >= (RULES.resolve_after if settled else COOLDOWN)
            self.row, self.told.resolved = rows.resolved(self.row, now=self.now), self.now
        if rows.expired(self.row, now=self.now, cooldown=COOLDOWN, rules=RULES):
            assert self.told.phase not in ("waiting", "calling", "running")
            assert self.told.resolved is not None
            assert self.now >= max(self.told.seen, self.told.resolved) + RULES.max_signal_age
            assert self.told.phase != "window" or self.now >= self.told.since + COOLDOWN
            self.row, self.told = None, Told()

    @rule()
    def khook_starts_again(self) -> None:
        if self.row is not None:
            status = orjson.loads(orjson.dumps(render([self.row], [], last_updated=self.now)))
            (self.row,) = restore(status).rows

    @invariant()
    def the_row_says_what_happened(self) -> None:
        if self.row is None:
            assert self.told.phase == "none"
            return
        assert (self.row.count, self.row.last_seen) == (self.told.count, self.told.seen)
        assert self.row.first_seen <= self.row.last_seen <= self.now
        assert (self.row.status is RowStatus.RESOLVED) == (self.told.resolved is not None)
        assert self.row.resolved_time == self.told.resolved
        assert self.row.call is not None
        assert self.row.call.open == self.in_phase("waiting", "calling", "running")
        assert self.row.call.ended == self.in_phase("window", "failed")
        assert (self.row.facts is None) == self.row.call.ended
        if self.row.facts is not None:
            assert self.row.facts.message == self.told.text
        assert not (self.suspended and self.row.call.state is CallState.PENDING and self.row.call.open)

    @invariant()
    def no_cooldown_has_two_calls(self) -> None:
        assert all(
            later - earlier >= COOLDOWN for earlier, later in zip(self.accepted, self.accepted[1:], strict=False)
        )


IncidentsTest = Incidents.TestCase
IncidentsTest.settings = settings(max_examples=250, stateful_step_count=40, deadline=None)
