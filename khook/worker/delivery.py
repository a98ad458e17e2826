"""The calls of one worker, from their incidents to their ends.

A call is held for a better text or for its group, delivered (`attempts`), parked while its agent is away (`lot`),
and, where its protocol has runs, followed to the end of the run. Each has a task of its own; what it must not lose
stands in the Hook's status, so that any owner after a crash can carry on: a call found `Calling` is reconciled before
anything is sent. Whatever ends a call is visible on the Hook: status, condition, Kubernetes Event, metric.
"""

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from khook.agents.auto import Protocols
from khook.agents.outcome import (
    DOUBT_S,
    MAX_POLL_S,
    AgentRequest,
    Context,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Working,
    poll_wait_s,
)
from khook.core import rows
from khook.core.breaker import BreakerState
from khook.core.incident import Call, CallId, CallReason, CallState, Row
from khook.core.parking import ParkReason
from khook.log import Log
from khook.messages import AgentAccess
from khook.seams import Clock
from khook.worker.attempts import Attempts, Stay, doubt_after_crash
from khook.worker.counters import CallCounters
from khook.worker.job import Job
from khook.worker.kagent import Kagent
from khook.worker.lot import Lot, Troubled, Wake
from khook.worker.status import Commit
from khook.worker.table import HookTable
from khook.worker.turnstile import Turnstile
from shards.permission import Permission

CLAIM_ENDS: Final[dict[Commit, str]] = {
    Commit.PRUNED: "the Hook CRD is older than this khook and drops its status fields: upgrade kagent-hook-crds",
    Commit.REFUSED: "the API server refused the Hook's status for 15 s",
    Commit.GAVE_UP: "the API server did not take the claim for 15 min",
}
FAILURES: Final[dict[OutcomeKind, CallReason]] = {
    OutcomeKind.RETRY: CallReason.UNREACHABLE,
    OutcomeKind.RETRY_AFTER: CallReason.UNREACHABLE,
    OutcomeKind.AMBIGUOUS: CallReason.UNREACHABLE,
    OutcomeKind.UNAUTHORIZED: CallReason.UNAUTHORIZED,
    OutcomeKind.NOT_FOUND: CallReason.AGENT_NOT_FOUND,
    OutcomeKind.REJECTED: CallReason.REJECTED,
    OutcomeKind.RUN_FAILED: CallReason.RUN_FAILED,
    OutcomeKind.RUN_LOST: CallReason.RUN_LOST,
    OutcomeKind.INPUT_REQUIRED: CallReason.INPUT_REQUIRED,
}
"""What the end of a delivery, or of a run, means for a call that goes no further."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLimits:
    attempts: int
    back_off_s: float
    """Before the second attempt; the third waits twice as long."""
    calls_per_worker: int
    calls_per_agent: int
    redeliver_for: timedelta
    """How long a call may wait for its agent, from its claim; zero: not at all."""
    run_deadline: timedelta
    """How long an accepted run is followed."""


class Delivery:
    """One task for each call under way; `submit` never blocks. `run` lets parked calls go.

    `cluster`: what agents are told that it is called; empty: nothing.
    """

    def __init__(
        self,
        *,
        access: AgentAccess,
        connect: Callable[[AgentAccess], Protocols],
        limits: DeliveryLimits,
        cluster: str,
        permission: Permission,
        clock: Clock,
        now: Callable[[], datetime],
        randomness: random.Random,
        counters: CallCounters,
        log: Log,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._now = now
        self._log = log
        self._counters = counters
        self._kagent = Kagent(access=access, connect=connect)
        self._lot = Lot(clock=clock, now=now, log=log)
        self._attempts = Attempts(
            kagent=self._kagent,
            lot=self._lot,
            turnstile=Turnstile(per_worker=limits.calls_per_worker, per_agent=limits.calls_per_agent),
            claim=self._claim,
            permission=permission,
            cluster=cluster,
            attempts=limits.attempts,
            back_off_s=limits.back_off_s,
            clock=clock,
            randomness=randomness,
            counters=counters,
            log=log,
        )
        # Polls are not counted as sends; but those of one agent that hangs must not take all connections either.
        self._polls = Turnstile(per_worker=limits.calls_per_worker, per_agent=limits.calls_per_agent)
        self._jobs: dict[CallId, tuple[Job, asyncio.Task[None]]] = {}
        self.needs_key = False
        """A call could not be made because there is no API key."""

    async def run(self) -> None:
        await self._lot.run()

    def access_changed(self, access: AgentAccess) -> None:
        """From the next send on, this key and this address; calls that wait for them go."""
        self.needs_key = False
        if self._kagent.access_changed(access):
            self._lot.address_changed()
        self._lot.key_changed()

    def breakers(self) -> dict[BreakerState, int]:
        return dict(self._lot.breakers)

    def parked(self) -> dict[ParkReason, int]:
        return dict(self._lot.parked)

    def troubled(self) -> dict[str, Troubled]:
        """The agents whose calls have to wait, by name."""
        return self._lot.troubled()

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
        in_flight = [(job, task) for job, task in mine if job.progress is not None]
        for job, task in mine:
            if job.progress is None:
                task.cancel()
        ended_at = self._clock.monotonic() + within_s
        while waiting := [task for job, task in in_flight if job.progress is not None and not task.done()]:
            if (left_s := ended_at - self._clock.monotonic()) <= 0:
                break
            # A send that is answered becomes a run to follow: nothing to wait for here.
            await asyncio.wait(waiting, timeout=min(left_s, 0.1))
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
        """`execute` cannot be asked later; what can be asked stays `Calling` for the next owner to reconcile."""
        if job.progress is None or not job.progress.written or not job.cannot_be_asked:
            return
        self._log.info("call left unanswered", hook=job.table.ref.key, call_id=job.call_id)
        job.table.update(
            job.key,
            job.call_id,
            lambda row: rows.accepted(row, now=self._now(), reason=CallReason.NO_ANSWER),
        )
        job.table.call_accepted(job.key, OutcomeReason.NO_ANSWER.value)

    async def _deliver(self, job: Job) -> None:
        row = job.row
        if row is None or row.call is None:
            return
        if row.call.state is CallState.ACCEPTED:
            await self._follow(job)
            return
        if job.found_after_crash:
            doubt_after_crash(job, row, self._clock.monotonic())
        if job.hold_s > 0:
            job.claimed = await self._claim(job, CallState.PENDING)
            if not job.claimed:
                return
            await self._hold(job)
            job.table.update(job.key, job.call_id, rows.gathered)
        ended = await self._attempts.deliver(job)
        while isinstance(ended, Stay):
            if not await self._stayed(job, ended):
                return
            ended = await self._attempts.deliver(job)
        if ended is not None:
            await self._settle(job, ended)
        elif job.row is not None and job.table.entry(job.key) is None:
            await self._shelve(job)

    async def _hold(self, job: Job) -> None:
        try:
            async with asyncio.timeout(job.hold_s):
                await job.text_came.wait()
        except TimeoutError:
            return

    async def _claim(self, job: Job, state: CallState) -> bool:
        commit = await job.table.writer.commit(job.call_id, state)
        if commit is Commit.WRITTEN:
            return True
        if (why := CLAIM_ENDS.get(commit)) is not None:
            self._fail(job, CallReason.CLAIM_REFUSED, why)
        return False

    async def _stayed(self, job: Job, stay: Stay) -> bool:
        """Park until the agent may be tried again. False: the call has ended, one way or another."""
        row = job.row
        if row is None or row.call is None or row.call.reason is CallReason.SUSPENDED:
            return False
        if stay.reason is ParkReason.UNAUTHORIZED and not self._kagent.has_key:
            self.needs_key = True
        until_time = row.call.claimed_time + self._limits.redeliver_for
        if until_time <= self._now():
            await self._give_up(job, FAILURES[stay.outcome], stay.error)
            return False
        if job.table.suspended:
            await self._shelve(job)
            return False
        # Within a second, not at once: an outage parks hundreds, and each write carries all rows of the Hook.
        job.table.update(job.key, job.call_id, lambda row: rows.parked(row, reason=CallReason.PARKED))
        if stay.error != job.waits_for:
            job.waits_for = stay.error
            job.table.call_parked(job.key, stay.error)
            self._log.info("call parked", hook=job.table.ref.key, call_id=job.call_id, reason=stay.reason.value)
        wake = await self._lot.wait(
            job,
            agent=row.agent,
            reason=stay.reason,
            until_time=until_time,
            alive=stay.alive,
            at_least_s=stay.at_least_s,
        )
        if not job.wanted:
            await self._shelve(job)
            return False
        if wake is Wake.GO:
            return True
        reason = CallReason.PARK_FULL if wake is Wake.FULL else FAILURES[stay.outcome]
        await self._give_up(job, reason, stay.error)
        return False

    async def _give_up(self, job: Job, reason: CallReason, error: str) -> None:
        """The call is not tried any more; if an agent had it after all, that is its end instead."""
        found = await self._attempts.look(job)
        if found is not None:
            await self._settle(job, found)
        else:
            self._fail(job, reason, error)

    async def _shelve(self, job: Job) -> None:
        """Its Hook was suspended, or its entry deleted, while it was tried: it is not tried again, unless an agent had
        it after all."""
        found = await self._attempts.look(job)
        if found is not None:
            await self._settle(job, found)
        elif job.table.entry(job.key) is None:
            self._fail(job, CallReason.REJECTED, "its entry is gone")
        else:
            self._change(job, lambda row: rows.suspended(rows.parked(row, reason=CallReason.PARKED)))

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        match outcome.kind:
            case OutcomeKind.ACCEPTED if outcome.task_id:
                self._change(job, lambda row: rows.accepted(row, now=self._now(), task_id=outcome.task_id))
                job.table.call_accepted(job.key, outcome.reason.value)
                await self._follow(job)
            case OutcomeKind.ACCEPTED:
                self._change(job, lambda row: rows.accepted(row, now=self._now(), reason=CallReason.NO_ANSWER))
                job.table.call_accepted(job.key, outcome.reason.value)
            case OutcomeKind.COMPLETED:
                self._change(job, lambda row: rows.completed(row, now=self._now(), result=outcome.result))
                job.table.call_accepted(job.key, outcome.reason.value)
            case OutcomeKind.RUN_FAILED | OutcomeKind.RUN_LOST | OutcomeKind.INPUT_REQUIRED:
                job.table.update(job.key, job.call_id, lambda row: rows.accepted(row, now=self._now()))
                self._run_failed(job, FAILURES[outcome.kind], outcome.error)
            case _:
                self._fail(job, FAILURES[outcome.kind], outcome.error)

    # Runs.

    async def _follow(self, job: Job) -> None:
        """Poll the run to its end, or to its deadline."""
        row = job.row
        if row is None or row.call is None or not row.call.task_id:
            return
        call, polls, wait_s = row.call, 0, poll_wait_s(0)
        accepted_time = call.accepted_time or call.claimed_time
        last = False
        while not last:
            # Also a run whose time is over is looked at once more: it may have ended while nobody followed it.
            left_s = max(0.0, (accepted_time + self._limits.run_deadline - self._now()).total_seconds())
            last = left_s <= wait_s
            await asyncio.sleep(min(wait_s, left_s))
            if self._kagent.named(call.protocol) is None:
                self._run_failed(job, CallReason.RUN_LOST, "its protocol is not known here: it cannot be followed")
                return
            seen = await self._polled(job, row, call, within_s=max(left_s, MAX_POLL_S))
            polls += 1
            wait_s = poll_wait_s(polls)
            if not isinstance(seen, Outcome):
                wait_s = seen.retry_after_s or wait_s
            elif seen.kind is not OutcomeKind.RUN_LOST or self._known_for_s(accepted_time) > DOUBT_S:
                self._run_ended(job, seen)
                return
        self._run_failed(job, CallReason.RUN_DEADLINE, "the run did not end in time")

    async def _polled(self, job: Job, row: Row, call: Call, *, within_s: float) -> Outcome | Working:
        """One poll, when it is this run's turn."""
        try:
            async with asyncio.timeout(within_s):
                ticket = await self._polls.enter(job, agent=row.agent)
        except TimeoutError:
            return Working(seen=False)
        protocol = self._kagent.named(call.protocol)
        assert protocol is not None, "every address has the same protocols"
        poll = self._kagent.begin(protocol.poll(_following(job, row, call), call.task_id))
        poll.add_done_callback(lambda _: self._polls.leave(ticket))
        return await asyncio.shield(poll)

    def _known_for_s(self, accepted_time: datetime) -> float:
        return (self._now() - accepted_time).total_seconds()

    def _run_ended(self, job: Job, outcome: Outcome) -> None:
        if outcome.kind is OutcomeKind.COMPLETED:
            self._change(job, lambda row: rows.completed(row, now=self._now(), result=outcome.result))
        else:
            self._run_failed(job, FAILURES[outcome.kind], outcome.error)

    def _run_failed(self, job: Job, reason: CallReason, error: str) -> None:
        """The agent had it: the window holds, and the Hook says what became of the run."""
        self._change(job, lambda row: rows.failed(row, now=self._now(), reason=reason, error=error))
        job.table.run_failed(job.key, f"{reason}: {error}")
        self._counters.failed(reason.value)

    def _fail(self, job: Job, reason: CallReason, error: str) -> None:
        self._change(job, lambda row: rows.failed(row, now=self._now(), reason=reason, error=error))
        job.table.call_failed(job.key, reason, error)
        self._counters.failed(reason.value)

    def _change(self, job: Job, change: Callable[[Row], Row]) -> None:
        job.table.update(job.key, job.call_id, change)
        job.table.writer.now()


def _following(job: Job, row: Row, call: Call) -> AgentRequest:
    """Enough of the request to ask about its run: also where its entry is gone, and its prompt with it."""
    context = Context(
        event_name=row.event_type.value,
        event_time=call.claimed_time,
        resource_name=row.resource_name,
        namespace=job.table.ref.namespace,
        event_message="",
    )
    return AgentRequest(
        call_id=job.call_id, agent=row.agent, agent_id=row.agent, prompt="", context=context, hook=job.table.ref.key
    )
