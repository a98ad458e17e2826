"""The circuit breaker of one agent: whether it may be called now, after how its last calls ended.

It counts outages, not verdicts: a call that nobody took (transport, 5xx, JSON-RPC -32603) is a failure; a 4xx is an
answer. Five failures in a row, or one delivery that used up its attempts, open it; when its time is over one call may
try (the probe), and what becomes of that one decides. Every other answer that is still on its way when it opens is
old news: such a failure changes nothing, such a success closes it, for the agent has just answered.

Whoever was let in hands its `Admission` back with what came of it, exactly once a send. The probe is given to who asks
first: ask for the oldest parked call, and park a new call behind those that wait for the same agent already.
"""

from enum import StrEnum
from typing import Final

FAILURES_TO_OPEN: Final = 5
"""In a row: fewer would let one lost pod behind a Service of three look like an outage."""
OPEN_FIRST_S: Final = 30.0
"""About what a pod needs to be scheduled and to become Ready again."""
OPEN_MOST_S: Final = 300.0
"""A call waits 15 min by default (`redeliverFor`): it has to see several probes in that time."""


class BreakerState(StrEnum):
    """The label `state` of `kagent_hook_breakers`."""

    CLOSED = "closed"
    """Calls failed lately, and are made all the same."""
    OPEN = "open"
    """No call is made for a while."""
    HALF_OPEN = "half_open"
    """The probe is under way."""


class Admission(StrEnum):
    YES = "yes"
    PROBE = "probe"
    """This one call may try; it has to report back, if only as `abandoned`."""
    NO = "no"


class Breaker:
    """One agent's. Times are monotonic seconds."""

    __slots__ = ("_failures", "_next_open_s", "_state", "_until_at")

    def __init__(self) -> None:
        self._state = BreakerState.CLOSED
        self._failures = 0
        self._next_open_s = OPEN_FIRST_S
        self._until_at = 0.0

    @property
    def state(self) -> BreakerState:
        """`OPEN` lasts until the probe has been given out, also past `until_at`."""
        return self._state

    @property
    def failures(self) -> int:
        """In a row, while it is closed."""
        return self._failures

    @property
    def until_at(self) -> float | None:
        """When a probe may go: a time for a timer. None unless it is open."""
        return self._until_at if self._state is BreakerState.OPEN else None

    @property
    def at_rest(self) -> bool:
        """It remembers nothing: it may be thrown away, a new one would be the same."""
        return self._state is BreakerState.CLOSED and self._failures == 0 and self._next_open_s == OPEN_FIRST_S

    def admits(self, now_at: float) -> Admission:
        """Whether a call may be sent now. The answer PROBE is given once: from then on it is half-open."""
        if self._state is BreakerState.CLOSED:
            return Admission.YES
        if self._state is BreakerState.HALF_OPEN or now_at < self._until_at:
            return Admission.NO
        self._state = BreakerState.HALF_OPEN
        return Admission.PROBE

    def succeeded(self) -> None:
        """The agent took a call, whenever that was sent: closed, and nothing is held against it."""
        self._close()
        self._next_open_s = OPEN_FIRST_S

    def answered(self, admission: Admission) -> None:
        """A 4xx: somebody is there, who did not take this call.

        As the probe's end it closes, for what was to be found out is whether calls reach anybody. It proves nothing
        about the agent behind kagent, so failures in a row stay counted, and the next opening lasts as long as if
        the probe had failed: a Hook that always gets a 400 must not hide that its agent is down.
        """
        if self._probes(admission):
            self._close()

    def failed(self, now_at: float, admission: Admission) -> None:
        """One attempt ended in an outage. Nobody's fault of ours: a full connection pool is not one."""
        if self._state is BreakerState.CLOSED:
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                self._open(now_at)
        elif self._probes(admission):
            self._open(now_at)

    def exhausted(self, now_at: float, admission: Admission) -> None:
        """A delivery used up its attempts on outages. Beside `failed` for its last attempt it does no harm."""
        if self._state is BreakerState.CLOSED or self._probes(admission):
            self._open(now_at)

    def abandoned(self, admission: Admission) -> None:
        """A call was given up before anything could be learnt from it. If it was the probe, the next may go now."""
        if self._probes(admission):
            self._state = BreakerState.OPEN

    def _probes(self, admission: Admission) -> bool:
        return admission is Admission.PROBE and self._state is BreakerState.HALF_OPEN

    def _open(self, now_at: float) -> None:
        self._state = BreakerState.OPEN
        self._failures = 0
        self._until_at = now_at + self._next_open_s
        self._next_open_s = min(2 * self._next_open_s, OPEN_MOST_S)

    def _close(self) -> None:
        self._state = BreakerState.CLOSED
        self._failures = 0
