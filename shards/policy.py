"""One slot's life as a state machine: start, hello, heartbeats, back-off, crash budget, stop ladder.

Decides what to do to the process that fills a slot; refuses to know how a process is started, spoken to or killed.
Facts come in with `now` (monotonic seconds), at most one `Action` goes out for each. Invariant: START is returned
only at the very beginning or after `died`, so a slot never has two processes.

    WAITING ──START──► STARTING ──hello──► RUNNING ──stop, leaving──► STOPPING
       ▲                  │ no hello          │ no heartbeat, condemned   │ too slow
       │ back-off         └─────────┬─────────┴───────────────────────────┘
       └───── died ◄──────────── DOOMED (SIGABRT for the stack, then SIGKILL)

A slot that died too often is BROKEN for a while. Then it STARTs again, on probation: it is to own nothing until JOIN
says that it served its time. A death on probation breaks it again at once, for twice as long.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    WAITING = "waiting"
    """No process; one is started when the back-off ends."""
    STARTING = "starting"
    """A process that has not said hello yet."""
    RUNNING = "running"
    """At work."""
    STOPPING = "stopping"
    """Asked to drain, or draining by itself."""
    DOOMED = "doomed"
    """Being killed, its death not seen yet."""
    STOPPED = "stopped"
    """No process, and none is to come."""
    BROKEN = "broken"
    """The crash budget is spent: no process, and none for a good while."""


class Action(StrEnum):
    START = "start"
    JOIN = "join"
    """Probation is served: the slot may own keys again."""
    SEND_STOP = "send stop"
    SIGTERM = "SIGTERM"
    SIGABRT = "SIGABRT"
    SIGKILL = "SIGKILL"


class Why(StrEnum):
    """Why a process is being killed."""

    NO_HELLO = "no hello in time"
    NO_HEARTBEAT = "no heartbeat in time"
    REVOKE_LATE = "a revoke was not acknowledged in time"
    HUNG_UP = "closed its channel, but did not exit"
    BREACH = "broke the protocol"
    NOT_READING = "does not read its channel"
    STOP_LATE = "did not stop in time"
    POOL_STOPS = "the pool stops before it said hello"
    ABORTED = "the pool is aborted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Every number of a pool. Raises ValueError for numbers that contradict each other."""

    heartbeat_s: float = 1.0
    """How often a member beats, from its event loop itself."""
    heartbeat_timeout_s: float = 10.0
    """A stall shorter than this (a large LIST being decoded, a throttled CPU) must not cost a process."""
    hello_timeout_s: float = 15.0
    """From the fork to the hello; covers a forkserver that has to boot again on a busy node."""
    revoke_timeout_s: float = 5.0
    backoff_first_s: float = 0.1
    backoff_max_s: float = 30.0
    backoff_jitter: float = 0.2
    """Up to this share is taken off a back-off, so that slots that died of one cause do not return as one."""
    healthy_after_s: float = 120.0
    """A process that served this long has earned its slot a fresh back-off."""
    crash_budget: int = 10
    crash_window_s: float = 600.0
    """`crash_budget` deaths within this window break the slot."""
    broken_for_s: float = 600.0
    """Not below `crash_window_s`: so no window ever sees more than `crash_budget` restarts."""
    broken_for_max_s: float = 3600.0
    """What `broken_for_s` doubles to while the slot breaks on each probation."""
    probation_s: float = 60.0
    """How long a slot that was broken serves without keys first. Most of what breaks a process does so at its start."""
    stop_grace_s: float = 2.0
    """After the drain time is over, before SIGTERM."""
    sigterm_grace_s: float = 2.0
    sigabrt_grace_s: float = 0.5
    """Enough to print the stack; with it a stuck worker is replaced within heartbeat timeout + 1 s."""
    look_s: float = 1.0
    """The pool looks at the clock at least this often, so that a clock that runs unlike the loop's does no harm."""

    def __post_init__(self) -> None:
        broken = [message for bad, message in self._contradictions() if bad]
        if broken:
            raise ValueError("; ".join(broken))

    def _contradictions(self) -> list[tuple[bool, str]]:
        positive = ("heartbeat_s", "hello_timeout_s", "revoke_timeout_s", "backoff_first_s", "crash_window_s", "look_s")
        graces = ("stop_grace_s", "sigterm_grace_s", "sigabrt_grace_s", "healthy_after_s", "probation_s")
        return [
            *((getattr(self, name) <= 0, f"{name} must be above 0") for name in positive),
            *((getattr(self, name) < 0, f"{name} must not be below 0") for name in graces),
            (self.heartbeat_timeout_s < 3 * self.heartbeat_s, "heartbeat_timeout_s must allow for 3 heartbeats"),
            (self.backoff_max_s < self.backoff_first_s, "backoff_max_s must not be below backoff_first_s"),
            (not 0 <= self.backoff_jitter < 1, "backoff_jitter must be in [0, 1)"),
            (self.crash_budget < 1, "crash_budget must be 1 or more"),
            (self.broken_for_s < self.crash_window_s, "broken_for_s must not be below crash_window_s"),
            (self.broken_for_max_s < self.broken_for_s, "broken_for_max_s must not be below broken_for_s"),
        ]

    @property
    def stop_overrun_s(self) -> float:
        """How long after its drain time a pool may take to stop at worst."""
        return self.stop_grace_s + self.sigterm_grace_s + self.sigabrt_grace_s


_LONGER: Final = 2.0
"""Each wait (a back-off, a time broken) is so many times the one before."""
_MAX_DOUBLINGS: Final = 64
"""Keeps the power finite; a wait has met its maximum long before."""


class SlotPolicy:
    """The machine of one slot."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self.phase = Phase.WAITING
        self.why: Why | None = None
        self.on_probation = False
        self._due_at: float | None = float("-inf")
        self._next: Action = Action.START
        self._again = True
        self._hello_at: float | None = None
        self._failures = 0
        self._deaths: deque[float] = deque()
        self._breaks = 0
        """In a row: since the slot last served a probation to its end."""

    @property
    def deadline_at(self) -> float | None:
        """When `tick` wants to be called next; None: on no account."""
        if self._due_at is not None and (served_at := self._served_at()) is not None:
            return min(self._due_at, served_at)
        return self._due_at

    @property
    def ended(self) -> bool:
        return self.phase is Phase.STOPPED

    @property
    def broken(self) -> bool:
        """It is to own nothing: broken, or on probation."""
        return self.phase is Phase.BROKEN or self.on_probation

    def tick(self, now: float) -> Action | None:
        """What falls due now. Call again until it returns None."""
        if self.deadline_at is None or now < self.deadline_at:
            return None
        match self.phase:
            case Phase.WAITING | Phase.BROKEN:
                self.on_probation = self.phase is Phase.BROKEN
                self._enter(Phase.STARTING, now + self._limits.hello_timeout_s)
                self.why = None
                return Action.START
            case Phase.STARTING:
                return self.condemn(now, Why.NO_HELLO)
            case Phase.RUNNING if self._due_at is not None and now < self._due_at:
                self.on_probation = False
                self._breaks = 0
                return Action.JOIN
            case Phase.RUNNING:  # also when its probation ends just now: who is silent has not served
                return self.condemn(now, Why.NO_HEARTBEAT)
            case _:
                return self._climb(now)

    def hello(self, now: float) -> bool:
        """The process serves. False: it is no longer welcome."""
        if self.phase is not Phase.STARTING:
            return False
        self._hello_at = now
        self._enter(Phase.RUNNING, now + self._limits.heartbeat_timeout_s)
        return True

    def heartbeat(self, now: float) -> None:
        if self.phase is Phase.RUNNING:
            self._due_at = now + self._limits.heartbeat_timeout_s

    def postpone(self, late_s: float) -> None:
        """The judge itself was stalled that long: nobody is condemned for what it could not hear."""
        if self.phase in (Phase.STARTING, Phase.RUNNING) and self._due_at is not None:
            self._due_at += late_s

    def stop(self, now: float, drain_s: float) -> Action | None:
        """The slot is to end: drain for `drain_s`, then the ladder; no process after this one."""
        self._again = False
        match self.phase:
            case Phase.WAITING | Phase.BROKEN:
                self._enter(Phase.STOPPED, None)
                return None
            case Phase.STARTING:  # it holds nothing, so there is nothing to drain
                return self._doom(now, Why.POOL_STOPS, Action.SIGKILL)
            case Phase.RUNNING | Phase.STOPPING:
                self._ladder(Phase.STOPPING, Action.SIGTERM, now + drain_s + self._limits.stop_grace_s)
                return Action.SEND_STOP
            case _:
                return None

    def abort(self) -> Action | None:
        """The slot is to end now, without a drain; no process after this one."""
        self._again = False
        if self.phase in (Phase.WAITING, Phase.STOPPED, Phase.BROKEN):
            self._enter(Phase.STOPPED, None)
            return None
        self.why = Why.ABORTED
        self._enter(Phase.DOOMED, None)
        return Action.SIGKILL

    def leaving(self, now: float, drain_s: float) -> None:
        """The process drains by itself (somebody sent it SIGTERM); its successor starts after its death."""
        if self.phase is Phase.RUNNING:
            self._ladder(Phase.STOPPING, Action.SIGTERM, now + drain_s + self._limits.stop_grace_s)

    def hung_up(self, now: float) -> None:
        """The channel ended. A process on its way out gets a moment for it."""
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            self._ladder(Phase.DOOMED, Action.SIGABRT, now + self._limits.stop_grace_s)

    def condemn(self, now: float, why: Why) -> Action | None:
        """Kill it: SIGABRT first, which prints its stack, then SIGKILL."""
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            return self._doom(now, why, Action.SIGABRT)
        return None

    def died(self, now: float, chance: float) -> None:
        """The process is gone for certain. `chance` in [0, 1) is the jitter of the back-off."""
        served_s = 0.0 if self._hello_at is None else now - self._hello_at
        self._hello_at = None
        was_on_probation, self.on_probation = self.on_probation, False
        if not self._again:
            self._enter(Phase.STOPPED, None)
            return
        self._failures = 1 if served_s >= self._limits.healthy_after_s else self._failures + 1
        self._deaths.append(now)
        while now - self._deaths[0] >= self._limits.crash_window_s:
            self._deaths.popleft()
        if was_on_probation or len(self._deaths) >= self._limits.crash_budget:
            self._break(now)
        else:
            self._enter(Phase.WAITING, now + self._backoff_s(chance))

    def _break(self, now: float) -> None:
        self._breaks += 1
        self._failures = 0
        limits = self._limits
        self._enter(Phase.BROKEN, now + _longer(limits.broken_for_s, limits.broken_for_max_s, self._breaks))

    def _backoff_s(self, chance: float) -> float:
        full_s = _longer(self._limits.backoff_first_s, self._limits.backoff_max_s, self._failures)
        return full_s * (1 - self._limits.backoff_jitter * chance)

    def _served_at(self) -> float | None:
        """When the process that runs will have served its probation; None if it is not on one."""
        if self.phase is not Phase.RUNNING or not self.on_probation or self._hello_at is None:
            return None
        return self._hello_at + self._limits.probation_s

    def _enter(self, phase: Phase, due_at: float | None) -> None:
        self.phase, self._due_at = phase, due_at

    def _ladder(self, phase: Phase, rung: Action, at: float) -> None:
        self._enter(phase, at)
        self._next = rung

    def _doom(self, now: float, why: Why, rung: Action) -> Action:
        self.why = why
        self._ladder(Phase.DOOMED, rung, now)
        return self._climb(now)

    def _climb(self, now: float) -> Action:
        rung = self._next
        match rung:
            case Action.SIGTERM:
                self.why = Why.STOP_LATE
                self._ladder(Phase.DOOMED, Action.SIGABRT, now + self._limits.sigterm_grace_s)
            case Action.SIGABRT:
                self.why = self.why or Why.HUNG_UP  # the only way up here that condemned nobody yet
                self._ladder(Phase.DOOMED, Action.SIGKILL, now + self._limits.sigabrt_grace_s)
            case _:  # nothing is stronger than SIGKILL: only the death itself is waited for
                self._enter(Phase.DOOMED, None)
        return rung


def _longer(first_s: float, max_s: float, times: int) -> float:
    """The wait after so many failures in a row, 1 or more."""
    return min(first_s * _LONGER ** min(times - 1, _MAX_DOUBLINGS), max_s)
