"""Where calls wait for their agents: breakers and parked calls, with the clock that the pure rules lack.

A call that meets an open breaker, or whose delivery failed for an outage, waits here; when its agent may be tried
again the oldest goes first, alone, as the probe; when that one gets through, the others follow, oldest first. Nobody
waits past its own end. Calls that wait for a key go when it changes, or every five minutes.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from khook.agents.outcome import Outcome, OutcomeKind
from khook.core.breaker import Admission, Breaker, BreakerState
from khook.core.incident import Row
from khook.core.parking import Parked, Parking, ParkReason
from khook.core.signal import Namespace
from khook.log import Log
from khook.seams import Clock
from khook.worker.job import Job

TICK_S: Final = 0.5
KEY_AGAIN_S: Final = 300.0
"""A refused key is tried again this often: somebody may have granted it something."""
AT_MOST_S: Final = 300.0
"""However long its agent asked for: the calls behind it wait as long."""
AT_LEAST_S: Final = 30.0
"""A call whose agent is well but would not take it (429, our own full pool) waits this long."""
UNASKED_S: Final = 900.0
"""A breaker whose probe nobody has made for this long knows nothing of today."""

WINDOW: Final = timedelta(minutes=10)
"""The default cooldown: an incident that has lasted for one has most likely had its call."""

_TAKEN: Final = frozenset(
    {
        OutcomeKind.ACCEPTED,
        OutcomeKind.COMPLETED,
        OutcomeKind.RUN_FAILED,
        OutcomeKind.INPUT_REQUIRED,
        OutcomeKind.RUN_LOST,
    }
)


class Wake(Enum):
    GO = auto()
    OVERDUE = auto()
    FULL = auto()
    """Others have a better claim to the place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled:
    """An agent whose breaker is not closed, or that calls are parked for."""

    breaker: BreakerState
    retry_in_s: float | None
    """Until a call may try, while the breaker is open."""
    parked: Mapping[ParkReason, int]


class Lot:
    """`run` lets calls go; everything else is called by their own tasks, on the same loop."""

    def __init__(self, *, clock: Clock, now: Callable[[], datetime], log: Log) -> None:
        self._clock = clock
        self._now = now
        self._log = log
        self._breakers: dict[str, Breaker] = {}
        self._parking: Parking[Job] = Parking()
        self._ends: dict[Job, Wake] = {}
        self._not_before_at: dict[Job, float] = {}
        self._busy = asyncio.Event()
        """Calls wait, or an open breaker may have to be forgotten: something depends on time."""
        self.key_number = 0
        """Grows with each change of the key or the address."""

    # Breakers.

    def admits(self, agent: str) -> Admission:
        """Whether a new call may be sent. Behind calls that wait for the same agent already, it waits too."""
        breaker = self._breakers.get(agent)
        if breaker is None:
            return Admission.YES
        if self._parking.oldest(agent) is not None and breaker.state is not BreakerState.CLOSED:
            return Admission.NO
        return breaker.admits(self._clock.monotonic())

    def still_admits(self, agent: str, admission: Admission) -> bool:
        """Whether a call that was admitted a while ago may be sent now."""
        breaker = self._breakers.get(agent)
        return admission is Admission.PROBE or breaker is None or breaker.state is BreakerState.CLOSED

    def ended(self, agent: str, outcome: Outcome, admission: Admission) -> None:
        """What one send ended in."""
        breaker = self._breakers.setdefault(agent, Breaker())
        before = breaker.state
        if outcome.kind in _TAKEN:
            breaker.succeeded()
        elif outcome.outage:
            breaker.failed(self._clock.monotonic(), admission)
        else:
            breaker.answered(admission)
        self._tell(agent, breaker, before)
        self._forget(agent)

    def exhausted(self, agent: str, admission: Admission) -> None:
        """A delivery used up its attempts on outages."""
        breaker = self._breakers.setdefault(agent, Breaker())
        before = breaker.state
        breaker.exhausted(self._clock.monotonic(), admission)
        self._tell(agent, breaker, before)

    def _tell(self, agent: str, breaker: Breaker, before: BreakerState) -> None:
        """Which agent it is stands in the log alone: a metric has no label for it."""
        if breaker.state is before:
            return
        if breaker.until_at is not None:
            self._busy.set()
            retry_in_s = round(breaker.until_at - self._clock.monotonic(), 1)
            self._log.warning("breaker opened", agent=agent, retry_in_s=retry_in_s)
        elif breaker.state is BreakerState.CLOSED:
            self._log.info("breaker closed", agent=agent)

    def abandoned(self, agent: str, admission: Admission) -> None:
        """A call was given up before anything was learnt from it."""
        if (breaker := self._breakers.get(agent)) is not None:
            breaker.abandoned(admission)

    def _is_closed(self, agent: str) -> bool:
        breaker = self._breakers.get(agent)
        return breaker is None or breaker.state is BreakerState.CLOSED

    def _forget(self, agent: str) -> None:
        if self._breakers[agent].at_rest:
            del self._breakers[agent]

    @property
    def breakers(self) -> Mapping[BreakerState, int]:
        counts = dict.fromkeys(BreakerState, 0)
        for breaker in self._breakers.values():
            counts[breaker.state] += 1
        return counts

    @property
    def parked(self) -> Mapping[ParkReason, int]:
        return self._parking.counts

    def troubled(self) -> dict[str, Troubled]:
        """By agent: what a person who looks is told. The others are well, as far as is known."""
        now_at = self._clock.monotonic()
        parked = self._parking.by_agent()
        broken = {agent for agent, breaker in self._breakers.items() if breaker.state is not BreakerState.CLOSED}
        found = {}
        for agent in sorted(broken | parked.keys()):
            breaker = self._breakers.get(agent)
            until_at = None if breaker is None else breaker.until_at
            found[agent] = Troubled(
                breaker=BreakerState.CLOSED if breaker is None else breaker.state,
                retry_in_s=None if until_at is None else max(0.0, until_at - now_at),
                parked=parked.get(agent, {}),
            )
        return found

    # Waiting.

    async def wait(
        self, job: Job, *, agent: str, reason: ParkReason, until_time: datetime, alive: bool, at_least_s: float = 0.0
    ) -> Wake:
        """Park until it may go, or may wait no longer. `alive`: the agent is well, so only time has to pass.

        `at_least_s`: the wait that the agent asked for.
        """
        row = job.row
        assert row is not None, "a parked call has a row"
        assert row.call is not None, "a parked call has a row with it"
        job.wake.clear()
        job.admission = Admission.NO
        if reason is ParkReason.UNAUTHORIZED:
            # Refused may have been the key before: then the new one is tried at once.
            at_least_s = KEY_AGAIN_S if job.key_number == self.key_number else 0.0
        elif alive or self._is_closed(agent):
            # Its neighbours get through: without a pause it would be delivered again and again until its end.
            at_least_s = min(max(at_least_s, AT_LEAST_S), AT_MOST_S)
        if at_least_s > 0:
            self._not_before_at[job] = self._clock.monotonic() + at_least_s
        parked = Parked(
            ticket=job,
            agent=agent,
            namespace=Namespace(job.table.ref.namespace),
            reason=reason,
            claimed_time=row.call.claimed_time,
            until_time=until_time,
            calls_before=_windows(row, row.call.claimed_time),
            probes=job.probes,
        )
        self._busy.set()
        if (pushed_out := self._parking.park(parked)) is not None:
            self._end(pushed_out, Wake.FULL)
        wanted = False
        try:
            await job.wake.wait()
            wanted = job.wanted
        finally:
            self._parking.leave(job)
            self._not_before_at.pop(job, None)
            wake = self._ends.pop(job, Wake.GO)
            if not wanted:
                # Its Hook, or its entry, went in the very moment that it was let go: the next may be the probe.
                self.abandoned(agent, job.admission)
        return wake

    def address_changed(self) -> None:
        """What was learnt of agents was learnt of those behind the old address."""
        self._breakers.clear()

    def key_changed(self) -> None:
        """Those that wait for a key may try the new one, those that wait for an address too."""
        self.key_number += 1
        for reason in (ParkReason.UNAUTHORIZED, ParkReason.PROTOCOL):
            for job in self._parking.waiting_for(reason):
                self._go(job, Admission.NO)

    async def run(self) -> None:
        while True:
            await self._busy.wait()
            await asyncio.sleep(TICK_S)
            self.tick()
            if not len(self._parking) and all(breaker.until_at is None for breaker in self._breakers.values()):
                self._busy.clear()

    def tick(self) -> None:
        """Let go whose time has come."""
        for job in self._parking.due(self._now()):
            self._end(job, Wake.OVERDUE)
        now_at = self._clock.monotonic()
        for job in self._parking.waiting_for(ParkReason.UNAUTHORIZED):
            if self._not_before_at.get(job, now_at) <= now_at:
                self._go(job, Admission.NO)
        for agent in self._parking.agents:
            self._let_go(agent, now_at)
        self._forget_unasked(now_at)

    def _let_go(self, agent: str, now_at: float) -> None:
        while (job := self._parking.oldest(agent)) is not None:
            if not job.wanted:
                self._go(job, Admission.NO)
                continue
            if self._not_before_at.get(job, now_at) > now_at:
                return
            breaker = self._breakers.get(agent)
            admission = Admission.YES if breaker is None else breaker.admits(now_at)
            if admission is Admission.NO:
                return
            self._go(job, admission)

    def _forget_unasked(self, now_at: float) -> None:
        """An agent that nobody has called since is not shown as broken for ever."""
        for agent, breaker in list(self._breakers.items()):
            unasked = breaker.until_at is not None and now_at - breaker.until_at > UNASKED_S
            if unasked and self._parking.oldest(agent) is None:
                del self._breakers[agent]

    def _go(self, job: Job, admission: Admission) -> None:
        job.admission = admission
        self._parking.leave(job)
        job.wake.set()

    def _end(self, job: Job, wake: Wake) -> None:
        self._ends[job] = wake
        self._parking.leave(job)
        job.wake.set()


def _windows(row: Row, claimed_time: datetime) -> int:
    """How many calls its incident can have had before: a window each since it was first seen."""
    return max(0, (claimed_time - row.first_seen) // WINDOW)
