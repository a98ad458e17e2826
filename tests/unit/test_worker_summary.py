"""A worker's summary: the newest incidents with whole counts, bounded whatever stands in a status that others wrote."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from khook import log, messages
from khook.core.breaker import BreakerState
from khook.core.incident import Call, CallId, CallReason, CallState, EntryId, LastSignal, Row, RowStatus
from khook.core.parking import ParkReason
from khook.core.signal import EventType, PodUid
from khook.kube.hooks import HookRef
from khook.sandbox.virtual_time import run
from khook.summary import MOST_AGENTS, MOST_FIRING, MOST_HELD_BACK, MOST_RESOLVED, WorkerSummary
from khook.worker.lot import Troubled
from khook.worker.summary import summarize

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
MOST_BYTES = 512 * 1024
"""What `khook.summary` promises."""


@dataclass
class Table:
    rows: Collection[Row] = ()
    ref: HookRef = field(default_factory=lambda: HookRef(namespace="shop", name="h", uid="1"))
    suspended: bool = False
    held_signals: int = 0
    trouble: str | None = None


def row(name: str = "web-1", *, seen_s: float = 0.0, agent: str = "kagent/a", call: Call | None = None) -> Row:
    seen = NOW + timedelta(seconds=seen_s)
    return Row(
        entry=EntryId("e"),
        event_type=EventType.POD_RESTART,
        resource_kind="Pod",
        resource_name=name,
        agent=agent,
        pod_uid=PodUid("u"),
        first_seen=seen,
        last_seen=seen,
        status=RowStatus.FIRING,
        count=1,
        last_signal=LastSignal(pod_uid=PodUid("u"), raw_time=seen),
        facts=None,
        call=call,
    )


def over(name: str, *, seen_s: float = 0.0) -> Row:
    found = row(name, seen_s=seen_s)
    return replace(found, status=RowStatus.RESOLVED, resolved_time=found.last_seen)


def call(state: CallState, reason: CallReason | None = None, *, claimed_s: float = -60, error: str = "") -> Call:
    claimed = NOW + timedelta(seconds=claimed_s)
    return Call(id=CallId("id"), state=state, reason=reason, claimed_time=claimed, error=error)


def told(*tables: Table, troubled: Mapping[str, Troubled] | None = None) -> WorkerSummary:
    async def main() -> WorkerSummary:
        return await summarize(tables, troubled or {}, now=NOW)

    summary = run(main())
    # As it crosses the channel.
    assert messages.decode_from_worker(messages.encode(summary)) == summary
    return summary


def names(summary: WorkerSummary) -> list[str]:
    return [one.resource_name for one in summary.incidents]


def test_firing_incidents_come_first_then_the_newest() -> None:
    rows = [over("over-1", seen_s=-1), row("new", seen_s=-2), row("old", seen_s=-90), over("over-2", seen_s=-50)]
    summary = told(Table(rows[:2]), Table(rows[2:]))
    assert names(summary) == ["new", "old", "over-1", "over-2"]
    assert (summary.hooks, summary.firing, summary.resolved) == (2, 2, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_of_too_many_the_newest_are_told_and_all_are_counted(order: int) -> None:
    """More rows than are looked at in one step of the loop, whichever way their times run."""
    numbers = range(3_000)
    tables = [
        Table([row(f"f-{i}", seen_s=i * order) for i in numbers[start : start + 500]]) for start in range(0, 3_000, 500)
    ]
    tables.append(Table([over(f"r-{i}", seen_s=i * order) for i in range(300)]))
    summary = told(*tables)
    newest = sorted(numbers, key=lambda i: -i * order)[:MOST_FIRING]
    newest_over = sorted(range(300), key=lambda i: -i * order)[:MOST_RESOLVED]
    assert names(summary) == [f"f-{i}" for i in newest] + [f"r-{i}" for i in newest_over]
    assert (summary.firing, summary.resolved) == (3_000, 300)


def test_what_is_held_back_is_counted_by_hook_agent_and_reason() -> None:
    bank = HookRef(namespace="bank", name="h", uid="2")
    budget = [row(f"b-{i}", call=call(CallState.PENDING, CallReason.BUDGET, claimed_s=-i)) for i in range(3)]
    parked = row("p", call=call(CallState.PENDING, CallReason.PARKED))
    sent = row("s", call=call(CallState.COMPLETED))
    summary = told(Table([*budget, sent]), Table([parked], ref=bank))
    assert [
        (one.reason, one.namespace, one.hook, one.agent, one.calls, one.oldest_time) for one in summary.held_back
    ] == [
        ("Budget", "shop", "h", "kagent/a", 3, NOW - timedelta(seconds=2)),
        ("Parked", "bank", "h", "kagent/a", 1, NOW - timedelta(seconds=60)),
    ]
    assert summary.calls == {"Completed": 1, "Pending/Budget": 3, "Pending/Parked": 1}


@pytest.mark.parametrize(("claimed_s", "shown"), [(-9.9, []), (-10.0, ["Queued"])])
def test_a_call_that_waits_for_its_turn_is_held_back_once_it_has_waited_long(
    claimed_s: float, shown: list[str]
) -> None:
    queued = row(call=call(CallState.PENDING, CallReason.QUEUED, claimed_s=claimed_s))
    assert [one.reason for one in told(Table([queued])).held_back] == shown


def test_agents_in_trouble_come_first_even_those_that_no_row_names() -> None:
    well = [row(f"w-{i}", agent="kagent/well", call=call(CallState.COMPLETED)) for i in range(2)]
    troubled = {
        "kagent/open": Troubled(breaker=BreakerState.OPEN, retry_in_s=7.5, parked={}),
        "kagent/key": Troubled(breaker=BreakerState.CLOSED, retry_in_s=None, parked={ParkReason.UNAUTHORIZED: 2}),
    }
    summary = told(Table(well), troubled=troubled)
    assert [one.agent for one in summary.agents] == ["kagent/key", "kagent/open", "kagent/well"]
    key, opened, fine = summary.agents
    assert (key.breaker, key.parked) == (None, {"unauthorized": 2})
    assert opened.breaker is not None
    assert (opened.breaker.state, opened.breaker.retry_in_seconds) == ("open", 7.5)
    assert (fine.breaker, fine.calls) == (None, {"Completed": 2})


def test_a_hook_in_trouble_is_named_with_its_reason() -> None:
    (trouble,) = told(Table(trouble="AgentNotFound"), Table()).hooks_in_trouble
    assert (trouble.namespace, trouble.hook, trouble.reason) == ("shop", "h", "AgentNotFound")


def test_a_status_that_somebody_filled_with_long_and_hostile_names_stays_small_and_plain() -> None:
    """The rows are restored from a Hook's status: whoever may write it chooses what a name in it is."""
    evil = "\u202e<script>\x00" + '"' * 100_000  # a quote is two bytes in JSON
    hostile = Call(
        id=CallId(evil), state=CallState.PENDING, reason=CallReason.PARKED, protocol=evil, claimed_time=NOW, error=evil
    )
    rows = [replace(row(f"{i}{evil}", agent=f"{i}{evil}", call=hostile), resource_kind=evil) for i in range(200)]
    resolved = [replace(one, status=RowStatus.RESOLVED) for one in rows]
    troubled = {one.agent: Troubled(breaker=BreakerState.OPEN, retry_in_s=1.0, parked={}) for one in rows}
    summary = told(Table(rows), Table(resolved), troubled=troubled)
    assert len(messages.encode(summary)) < MOST_BYTES
    assert (len(summary.held_back), len(summary.agents)) == (MOST_HELD_BACK, MOST_AGENTS)
    for one in summary.incidents:
        assert one.call is not None
        texts = (one.resource_kind, one.resource_name, one.agent, one.call.id, one.call.protocol, one.call.error)
        assert all(text.isprintable() for text in texts)
    names_told = [one.agent for one in summary.held_back] + [one.agent for one in summary.agents]
    assert all(name.isprintable() for name in names_told)


def test_a_secret_in_a_call_s_error_is_blotted_out() -> None:
    log.register_secret("hunter2-in-an-error")
    (told_of,) = told(Table([row(call=call(CallState.FAILED, error="HTTP 500: hunter2-in-an-error"))])).incidents
    assert told_of.call is not None
    assert told_of.call.error == "HTTP 500: [redacted]"
