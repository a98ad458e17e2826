"""Claim, attempts, and what came of them: the way of one call from its incident to its agent.

Order, and why: the claim is written to the Hook's status and the API server's answer must hold it before the
first send, so that any owner after a crash finds it. A send is a task of its own that is never cancelled: when a
namespace is given up in mid-send, a request that was wholly written is recorded as accepted and its late answer
ignored. Attempts follow one table of outcomes (`khook.agents.outcome`); nothing is sent blindly.

Bounds: `calls_per_worker` sends that have no answer yet, of these `calls_per_agent` to one agent, so that an
agent that hangs holds up its own calls and no others.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from khook.agents.outcome import (
    AgentProtocol,
    AgentRequest,
    Context,
    Finding,
    Outcome,
    OutcomeKind,
    Progress,
)
from khook.core import rows
from khook.core.incident import CallId, CallReason, CallState, Row
from khook.core.prompt import render_prompt
from khook.core.signal import Namespace
from khook.log import Log
from khook.messages import AgentAccess
from khook.seams import Clock
from khook.worker.counters import CallCounters
from khook.worker.places import Places
from khook.worker.status import Commit
from khook.worker.table import HookTable, RowKey

JITTER: Final = 0.1
"""Waits between attempts vary by this share, so that a fleet does not knock in step."""
CLAIM_ENDS: Final[dict[Commit, str]] = {
    Commit.PRUNED: "the Hook CRD is older than this khook and drops its status fields: upgrade kagent-hook-crds",
    Commit.REFUSED: "the API server refused the Hook's status for 15 s",
    Commit.GAVE_UP: "the API server did not take the claim for 15 min",
}
FAILURES: Final[dict[OutcomeKind, CallReason]] = {
    OutcomeKind.RETRY: CallReason.UNREACHABLE,
    OutcomeKind.RETRY_AFTER: CallReason.UNREACHABLE,
    OutcomeKind.AMBIGUOUS: CallReason.UNREACHABLE,
    OutcomeKind.RUN_FAILED: CallReason.RUN_FAILED,
    OutcomeKind.RUN_LOST: CallReason.RUN_LOST,
    OutcomeKind.INPUT_REQUIRED: CallReason.INPUT_REQUIRED,
    OutcomeKind.UNAUTHORIZED: CallReason.UNAUTHORIZED,
    OutcomeKind.NOT_FOUND: CallReason.AGENT_NOT_FOUND,
    OutcomeKind.REJECTED: CallReason.REJECTED,
}
"""What an attempt's end means for a call that has no attempt left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    attempts: int
    back_off_s: float
    """Before the second attempt; the third waits twice as long."""
    calls_per_worker: int
    calls_per_agent: int


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One call to deliver. `hold_s`: how long its first send waits for an Event's better text."""

    table: HookTable
    key: RowKey
    call_id: CallId
    hold_s: float = 0.0
    found_after_crash: bool = False
    claimed: bool = False
    """Its id stands in the status already, as Pending."""
    request: AgentRequest | None = None
    """Frozen at the first send: every attempt sends the same bytes."""
    text_came: asyncio.Event = field(default_factory=asyncio.Event)
    progress: Progress | None = None
    """Of the send under way; None between sends."""

    @property
    def row(self) -> Row | None:
        return self.table.row(self.key, self.call_id)


class Delivery:
    """All calls of one worker. One task for each call under way; `submit` never blocks."""

    def __init__(
        self,
        *,
        access: AgentAccess,
        connect: Callable[[AgentAccess], AgentProtocol],
        limits: DeliveryLimits,
        clock: Clock,
        now: Callable[[], datetime],
        randomness: random.Random,
        counters: CallCounters,
        log: Log,
    ) -> None:
        self._access = access
        self._connect = connect
        self._protocol = connect(access)
        self._limits = limits
        self._clock = clock
        self._now = now
        self._randomness = randomness
        self._counters = counters
        self._log = log
        self._places = Places(per_worker=limits.calls_per_worker, per_agent=limits.calls_per_agent)
        self._jobs: dict[CallId, tuple[Job, asyncio.Task[None]]] = {}
        self._sends: set[asyncio.Task[Outcome]] = set()
        self._retired: set[asyncio.Task[None]] = set()
        self.needs_key = False
        """A call could not be made because there is no API key."""

    def access_changed(self, access: AgentAccess) -> None:
        """From the next send on, this key and this address."""
        before, self._access = self._access, access
        self.needs_key = False
        if access == msgspec.structs.replace(before, api_key=access.api_key):
            self._protocol.replace_key(access.api_key)
            return
        retired, self._protocol = self._protocol, self._connect(access)
        closing = asyncio.create_task(_close_after(retired, set(self._sends)))
        self._retired.add(closing)
        closing.add_done_callback(self._retired.discard)

    def submit(self, job: Job) -> None:
        """Start delivering; a call that is under way already is left alone."""
        if job.call_id in self._jobs:
            return
        task = asyncio.create_task(self._deliver(job), name=f"call {job.call_id}")
        self._jobs[job.call_id] = (job, task)
        task.add_done_callback(lambda done: self._finished(job, done))

    def forget(self, table: HookTable) -> None:
        """The Hook is gone: drop what was not sent; what is on the wire ends by itself."""
        for job, task in list(self._jobs.values()):
            if job.table is table:
                task.cancel()

    def text_came(self, call_id: CallId) -> None:
        """The Event that this call waits for is here: send now."""
        if found := self._jobs.get(call_id):
            found[0].text_came.set()

    async def release(self, tables: Iterable[HookTable], *, within_s: float) -> None:
        """Let go of these Hooks' calls: those in flight may finish within `within_s`, the rest is recorded so."""
        wanted = {id(table) for table in tables}
        mine = [(job, task) for job, task in self._jobs.values() if id(job.table) in wanted]
        in_flight = [task for job, task in mine if job.progress is not None]
        for job, task in mine:
            if job.progress is None:
                task.cancel()
        if in_flight:
            await asyncio.wait(in_flight, timeout=within_s)
        for job, task in mine:
            if not task.done():
                task.cancel()
                self._record_unanswered(job)
        await asyncio.gather(*(task for _, task in mine), return_exceptions=True)

    def _finished(self, job: Job, task: asyncio.Task[None]) -> None:
        del self._jobs[job.call_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours must not pass unseen, nor take the other calls with it.
            self._log.error("delivery failed", hook=job.table.ref.key, call_id=job.call_id, error=repr(error))
            self._fail(job, CallReason.REJECTED, "internal error: see khook's log")

    def _record_unanswered(self, job: Job) -> None:
        if job.progress is None or not job.progress.written:
            return
        self._log.info("call left unanswered", hook=job.table.ref.key, call_id=job.call_id)
        job.table.update(
            job.key,
            job.call_id,
            lambda row: rows.accepted(row, now=self._now(), reason=CallReason.NO_ANSWER),
        )
        job.table.call_accepted(job.key, OutcomeReason.NO_ANSWER.value)

    async def _deliver(self, job: Job) -> None:
        if job.found_after_crash:
            known = await self._protocol.reconcile(self._request(job))
            if isinstance(known, Outcome):
                self._settle(job, known)
                return
            if known is Finding.CANNOT_TELL:
                self._fail(job, CallReason.UNREACHABLE, "nobody could say whether the agent had been asked")
                return
        elif job.hold_s > 0:
            if not await self._claim_pending(job):
                return
            await self._hold(job)
        outcome = await self._attempts(job)
        if outcome is not None:
            self._settle(job, outcome)

    async def _hold(self, job: Job) -> None:
        try:
            async with asyncio.timeout(job.hold_s):
                await job.text_came.wait()
        except TimeoutError:
            return

    async def _claim_pending(self, job: Job) -> bool:
        job.claimed = await self._claim(job, CallState.PENDING)
        return job.claimed

    async def _claim(self, job: Job, state: CallState) -> bool:
        commit = await job.table.writer.commit(job.call_id, state)
        if commit is Commit.WRITTEN:
            return True
        if (why := CLAIM_ENDS.get(commit)) is not None:
            self._fail(job, CallReason.CLAIM_REFUSED, why)
        return False

    async def _attempts(self, job: Job) -> Outcome | None:
        """Up to `attempts` sends; None when the call is not wanted any more or its claim did not hold."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._limits.attempts),
            wait=self._wait_s,
            retry=retry_if_result(lambda outcome: outcome is not None and outcome.again),
            sleep=asyncio.sleep,
            retry_error_callback=_last_outcome,
        )
        return await retrying(self._attempt, job)

    def _wait_s(self, state: RetryCallState) -> float:
        outcome = _last_outcome(state)
        if outcome is not None and outcome.retry_after_s is not None:
            return outcome.retry_after_s
        spread = 1 + JITTER * (2 * self._randomness.random() - 1)
        return self._limits.back_off_s * float(2 ** (state.attempt_number - 1)) * spread

    async def _attempt(self, job: Job) -> Outcome | None:
        row = job.row
        if row is None or row.call is None:
            return None
        if row.call.state is CallState.PENDING and not job.claimed and not await self._claim_pending(job):
            # Claimed before it takes a place: a Hook whose status cannot be written holds up no other Hook's calls.
            return None
        await self._places.take(row.agent)
        send = None
        try:
            send = await self._begin(job)
        finally:
            if send is None:
                self._places.leave(row.agent)
        if send is None:
            return None
        send.add_done_callback(lambda _: self._places.leave(row.agent))
        return await self._answered(job, send)

    async def _begin(self, job: Job) -> asyncio.Task[Outcome] | None:
        """The send, begun under its claim; None when the call is not wanted any more or its claim did not hold.

        A task of its own: whoever gives up on its answer must not break its connection.
        """
        row = job.row
        if row is None or row.call is None or row.call.reason is CallReason.SUSPENDED:
            # Dropped with its entry, or suspended, while it waited for its turn.
            return None
        request = self._request(job)
        if row.call.state is CallState.PENDING:
            protocol = self._protocol.name
            job.table.update(job.key, job.call_id, lambda r: rows.calling(r, protocol=protocol))
            if not await self._claim(job, CallState.CALLING):
                return None
        job.table.update(job.key, job.call_id, rows.attempted)
        job.progress = Progress()
        send = asyncio.create_task(self._protocol.call(request, job.progress))
        self._sends.add(send)
        send.add_done_callback(self._sends.discard)
        return send

    async def _answered(self, job: Job, send: asyncio.Task[Outcome]) -> Outcome:
        request = self._request(job)
        started_at = self._clock.monotonic()
        outcome = await asyncio.shield(send)
        job.progress = None
        if outcome.kind is OutcomeKind.UNAUTHORIZED and not self._access.api_key:
            self.needs_key = True
        took_s = self._clock.monotonic() - started_at
        self._counters.called(self._protocol.name, outcome.kind.value, took_s)
        row = job.row
        self._log.info(
            "agent called",
            hook=request.hook,
            agent=request.agent,
            call_id=request.call_id,
            attempt=row.call.attempts if row is not None and row.call is not None else 0,
            outcome=outcome.kind.value,
            reason=outcome.reason.value,
            seconds=round(took_s, 3),
        )
        return outcome

    def _request(self, job: Job) -> AgentRequest:
        if job.request is None:
            job.request = self._render(job)
        return job.request

    def _render(self, job: Job) -> AgentRequest:
        row, entry, template = job.row, job.table.entry(job.key), job.table.template(job.key)
        if row is None or row.facts is None or entry is None or template is None:
            raise RuntimeError("a call is delivered only with its row, its facts and its entry")
        namespace = Namespace(job.table.ref.namespace)
        return AgentRequest(
            call_id=job.call_id,
            agent=row.agent,
            agent_id=entry.agent_id,
            prompt=render_prompt(template, row.facts, event_type=row.event_type, namespace=namespace),
            context=Context(
                event_name=row.event_type.value,
                event_time=row.facts.time,
                resource_name=row.facts.pod,
                namespace=namespace,
                event_message=row.facts.message,
            ),
            hook=job.table.ref.key,
        )

    def _settle(self, job: Job, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.ACCEPTED:
            self._change(job, lambda row: rows.accepted(row, now=self._now(), reason=CallReason.NO_ANSWER))
        elif outcome.kind is OutcomeKind.COMPLETED:
            self._change(job, lambda row: rows.completed(row, now=self._now(), result=outcome.result))
        else:
            self._fail(job, FAILURES[outcome.kind], outcome.error)
            return
        job.table.call_accepted(job.key, outcome.reason.value)

    def _fail(self, job: Job, reason: CallReason, error: str) -> None:
        self._change(job, lambda row: rows.failed(row, now=self._now(), reason=reason, error=error))
        job.table.call_failed(job.key, reason, error)

    def _change(self, job: Job, change: Callable[[Row], Row]) -> None:
        job.table.update(job.key, job.call_id, change)
        job.table.writer.now()


async def _close_after(protocol: AgentProtocol, sends: set[asyncio.Task[Outcome]]) -> None:
    """Once what it has under way has ended: closing breaks connections."""
    if sends:
        await asyncio.wait(sends)
    await protocol.aclose()


def _last_outcome(state: RetryCallState) -> Outcome | None:
    if state.outcome is None:
        return None
    outcome: Outcome | None = state.outcome.result()
    return outcome
