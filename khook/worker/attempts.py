"""One delivery: up to three sends of one call, and what has to be known before each of them.

Before every send stands the claim: the API server's answer must hold the call id as `Calling`. After a send whose end
nobody saw stands a reconcile, and its "no" counts only when the doubt is over (`Outcome.doubt_s`): nothing is sent
blindly. What an attempt ended in decides by `Outcome.kind` alone, and the waits between attempts are tenacity's.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from khook.agents.auto import Undecided
from khook.agents.execute import ExecuteProtocol
from khook.agents.outcome import (
    DOUBT_S,
    AgentProtocol,
    AgentRequest,
    Finding,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Progress,
)
from khook.core import rows
from khook.core.breaker import Admission
from khook.core.incident import CallReason, CallState, Row
from khook.core.parking import ParkReason
from khook.log import Log
from khook.seams import Clock
from khook.worker.asking import request_for
from khook.worker.counters import CallCounters
from khook.worker.job import Job
from khook.worker.kagent import Kagent
from khook.worker.lot import Lot
from khook.worker.turnstile import Turnstile
from shards.permission import Permission

JITTER: Final = 0.1
"""Waits between attempts vary by this share, so that a fleet does not knock in step."""
WAIT_MOST_S: Final = 60.0
"""A longer Retry-After is waited for among the parked calls, where everybody sees it and its end is watched."""
CROWD_LEAST: Final = 64
"""Of a full queue, only calls to agents with this many waiting are parked: a crowd elsewhere is not their affair."""
QUEUE_MOST: Final = 1_000
"""Calls that wait for their turn; past this they are parked, where room and time are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """The delivery ended without an agent having the call; it may be delivered again later."""

    reason: ParkReason
    error: str
    outcome: OutcomeKind = OutcomeKind.RETRY
    alive: bool = False
    """The agent's side is well: only time has to pass."""
    at_least_s: float = 0.0
    """The wait that its side asked for."""


Ended = Outcome | Stay | None
"""None: the call is not wanted any more, or its claim did not hold."""


class Attempts:
    """`claim(job, state)` writes the claim and says whether it holds; `cluster` is its name for agents, or empty."""

    def __init__(
        self,
        *,
        kagent: Kagent,
        lot: Lot,
        turnstile: Turnstile,
        claim: Callable[[Job, CallState], Awaitable[bool]],
        permission: Permission,
        cluster: str,
        attempts: int,
        back_off_s: float,
        clock: Clock,
        randomness: random.Random,
        counters: CallCounters,
        log: Log,
    ) -> None:
        self._kagent = kagent
        self._lot = lot
        self._turnstile = turnstile
        self._claim = claim
        self._permission = permission
        self._cluster = cluster
        self._attempts = attempts
        self._back_off_s = back_off_s
        self._clock = clock
        self._randomness = randomness
        self._counters = counters
        self._log = log

    async def deliver(self, job: Job) -> Ended:
        """One delivery, as the agent's breaker admits it: a probe is a single send."""
        row = job.row
        if row is None:
            return None
        admission = self._lot.admits(row.agent) if job.admission is Admission.NO else job.admission
        job.admission = Admission.NO
        if admission is Admission.NO:
            return _behind_breaker(row.agent)
        if self._turnstile.waiting >= QUEUE_MOST and self._turnstile.crowd(row.agent) >= CROWD_LEAST:
            self._lot.abandoned(row.agent, admission)
            return Stay(reason=ParkReason.QUEUE, error=f"{QUEUE_MOST} calls wait for their turn", alive=True)
        ended: Ended = None
        try:
            ended = await self._retried(job, row.agent, admission)
        finally:
            if ended is None:
                self._lot.abandoned(row.agent, admission)
        if admission is Admission.PROBE and isinstance(ended, Stay):
            job.probes += 1
        return ended

    async def look(self, job: Job) -> Outcome | None:
        """The last look at a call that will not be sent again: was it taken after all?"""
        if not job.doubtful or job.row is None:
            return None
        protocol = await self._protocol(job)
        found = None if isinstance(protocol, Undecided) else await self._reconcile(job, protocol)
        return found if isinstance(found, Outcome) else None

    async def _retried(self, job: Job, agent: str, admission: Admission) -> Ended:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(1 if admission is Admission.PROBE else self._attempts),
            wait=self._wait_s,
            retry=retry_if_result(_soon_again),
            sleep=asyncio.sleep,
            retry_error_callback=_last,
        )
        ended: Ended = await retrying(self._attempt, job, agent, admission)
        if not isinstance(ended, Outcome) or not _again(ended):
            return ended
        if ended.outage:
            self._lot.exhausted(agent, admission)
        elif ended.kind is OutcomeKind.NOT_FOUND and admission is not Admission.PROBE:
            # A probe is one send, perhaps to a kagent that has just started: it has its other attempts yet to come.
            return ended
        return Stay(
            reason=ParkReason.OUTAGE,
            error=ended.error,
            outcome=ended.kind,
            alive=not ended.outage,
            at_least_s=ended.retry_after_s or 0.0,
        )

    def _wait_s(self, state: RetryCallState) -> float:
        ended = _last(state)
        if isinstance(ended, Outcome) and ended.retry_after_s is not None:
            return ended.retry_after_s
        spread = 1 + JITTER * (2 * self._randomness.random() - 1)
        return self._back_off_s * float(2 ** (state.attempt_number - 1)) * spread

    async def _attempt(self, job: Job, agent: str, admission: Admission) -> Ended:
        if not await self._claimed(job):
            return None
        job.key_number = self._lot.key_number
        protocol = await self._protocol(job)
        if isinstance(protocol, Undecided):
            return self._undecided(protocol, agent, admission)
        if job.doubtful:
            found = await self._reconcile(job, protocol)
            if isinstance(found, Outcome):
                self._lot.ended(agent, found, admission)
                return found
            if found is Finding.CANNOT_TELL:
                unknown = "nobody can say whether an earlier request was taken"
                lost = Outcome(
                    kind=OutcomeKind.AMBIGUOUS, reason=OutcomeReason.NO_ANSWER, error=f"agent {agent}: {unknown}"
                )
                self._lot.ended(agent, lost, admission)
                return lost
        outcome = await self._send(job, protocol, agent, admission)
        if not isinstance(outcome, Outcome):
            return outcome
        self._lot.ended(agent, outcome, admission)
        return await self._meant(job, protocol, outcome)

    async def _claimed(self, job: Job) -> bool:
        """Claimed before it takes a place: a Hook whose status cannot be written holds up no other Hook's calls."""
        row = job.row
        if row is None or row.call is None or not job.wanted:
            return False
        if row.call.state is CallState.PENDING and not job.claimed:
            job.claimed = await self._claim(job, CallState.PENDING)
            return job.claimed
        return True

    async def _protocol(self, job: Job) -> AgentProtocol | Undecided:
        """The claim's own where something may be under way by it, else the one of today."""
        row = job.row
        if job.doubtful and row is not None and row.call is not None:
            earlier = self._kagent.named(row.call.protocol)
            if earlier is not None:
                return earlier
        return await self._kagent.choose()

    def _undecided(self, why: Undecided, agent: str, admission: Admission) -> Stay:
        if why.unauthorized:
            self._lot.abandoned(agent, admission)
            return Stay(reason=ParkReason.UNAUTHORIZED, error=why.error, outcome=OutcomeKind.UNAUTHORIZED, alive=True)
        self._lot.exhausted(agent, admission)
        return Stay(reason=ParkReason.PROTOCOL, error=why.error, at_least_s=why.retry_after_s or 0.0)

    async def _meant(self, job: Job, protocol: AgentProtocol, outcome: Outcome) -> Ended:
        """What a send's outcome means for the call."""
        match outcome.kind:
            case OutcomeKind.AMBIGUOUS:
                job.doubtful = True
                job.believe_at = max(job.believe_at, self._clock.monotonic() + outcome.doubt_s)
            case OutcomeKind.UNAUTHORIZED:
                return Stay(
                    reason=ParkReason.UNAUTHORIZED, error=outcome.error, outcome=OutcomeKind.UNAUTHORIZED, alive=True
                )
            case OutcomeKind.NOT_FOUND if not outcome.again:
                other = await self._kagent.doubt(protocol)
                if isinstance(other, Undecided):
                    return Stay(reason=ParkReason.PROTOCOL, error=other.error, alive=True)
                if other.name != protocol.name:
                    # kagent has changed its protocol under us; a plain 404 took nothing.
                    job.table.update(job.key, job.call_id, lambda row: rows.parked(row, reason=CallReason.QUEUED))
                    return Outcome(kind=OutcomeKind.RETRY_AFTER, reason=outcome.reason, error=outcome.error)
            case _:
                pass
        return outcome

    async def _reconcile(self, job: Job, protocol: AgentProtocol) -> Outcome | Finding:
        """What became of an earlier send. NO_TRACE and NOT_SENT end the doubt; waits it out where it has to."""
        request = self.request(job)
        while True:
            found = await self._kagent.ask(self._kagent.current(protocol).reconcile(request))
            if isinstance(found, Outcome) or found is Finding.CANNOT_TELL:
                return found
            left_s = job.believe_at - self._clock.monotonic()
            if found is not Finding.NO_TRACE or left_s <= 0:
                job.doubtful = False
                return Finding.NOT_SENT
            await asyncio.sleep(left_s)

    async def _send(self, job: Job, protocol: AgentProtocol, agent: str, admission: Admission) -> Ended:
        ticket = await self._turnstile.enter(job, agent=agent)
        send = None
        try:
            if not self._lot.still_admits(agent, admission):
                # Others have found out while it waited: a queue before a dead agent would knock for hours.
                return _behind_breaker(agent)
            send = await self._begin(job, protocol)
        finally:
            if send is None:
                self._turnstile.leave(ticket)
        if send is None:
            return None
        send.add_done_callback(lambda _: self._turnstile.leave(ticket))
        started_at = self._clock.monotonic()
        try:
            outcome = await asyncio.shield(send)
        except asyncio.CancelledError:
            if job.progress is not None:
                job.progress.called_off = True
            raise
        job.progress = None
        self._tell(job, protocol, outcome, seconds=self._clock.monotonic() - started_at)
        return outcome

    async def _begin(self, job: Job, protocol: AgentProtocol) -> asyncio.Task[Outcome] | None:
        """The send, begun under its claim; None when the call is not wanted any more or its claim did not hold."""
        row = job.row
        if row is None or row.call is None or row.call.reason is CallReason.SUSPENDED:
            # Dropped with its entry, or suspended, while it waited for its turn.
            return None
        request = self.request(job)
        if row.call.state is CallState.PENDING or row.call.protocol != protocol.name:
            job.table.update(job.key, job.call_id, lambda r: rows.calling(r, protocol=protocol.name))
            if not await self._claim(job, CallState.CALLING):
                return None
        if not self._permission.holds:
            await self._permission.wait()
            if not job.wanted:
                return None
        job.table.update(job.key, job.call_id, rows.attempted)
        job.progress = Progress(permitted=lambda: self._permission.holds)
        job.cannot_be_asked = protocol.name == ExecuteProtocol.name
        return self._kagent.begin(self._kagent.current(protocol).call(request, job.progress))

    def _tell(self, job: Job, protocol: AgentProtocol, outcome: Outcome, *, seconds: float) -> None:
        self._counters.called(protocol.name, outcome.kind.value, seconds)
        request, row = self.request(job), job.row
        self._log.info(
            "agent called",
            hook=request.hook,
            agent=request.agent,
            call_id=request.call_id,
            protocol=protocol.name,
            attempt=row.call.attempts if row is not None and row.call is not None else 0,
            outcome=outcome.kind.value,
            reason=outcome.reason.value,
            seconds=round(seconds, 3),
        )

    def request(self, job: Job) -> AgentRequest:
        """Frozen at the first use; after a crash rendered again from the row's facts."""
        if job.request is None:
            job.request = _render(job, cluster=self._cluster)
        return job.request


def _render(job: Job, *, cluster: str) -> AgentRequest:
    row, entry = job.row, job.table.entry(job.key)
    if row is None or row.facts is None or entry is None:
        raise RuntimeError("a call is delivered only with its row, its facts and its entry")
    return request_for(row, entry=entry, ref=job.table.ref, call_id=job.call_id, cluster=cluster)


def doubt_after_crash(job: Job, row: Row, now_at: float) -> None:
    """Whoever had this call before may have sent it in the very moment of its death."""
    call = row.call
    if call is not None and (call.state is CallState.CALLING or call.attempts):
        job.doubtful = True
        job.believe_at = now_at + DOUBT_S


def _behind_breaker(agent: str) -> Stay:
    return Stay(reason=ParkReason.BREAKER, error=f"agent {agent} failed before: its circuit breaker is open")


def _again(ended: Ended) -> bool:
    return isinstance(ended, Outcome) and (ended.again or ended.kind is OutcomeKind.AMBIGUOUS)


def _soon_again(ended: Ended) -> bool:
    return _again(ended) and isinstance(ended, Outcome) and (ended.retry_after_s or 0.0) <= WAIT_MOST_S


def _last(state: RetryCallState) -> Ended:
    ended: Ended = None if state.outcome is None else state.outcome.result()
    return ended
