"""Who leads: an election on a Lease, which fences itself.

Decides with `khook.core.election`; carries it out with one request at a time. Its invariant: `permission_s` never
reaches past the renew deadline after the *sending* of the last renewal that was answered, by the monotonic clock, and
ends there whatever hangs meanwhile. A Lease that is lost is not fought for: `run` raises, and the process ends.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Final, NoReturn, Protocol

from khook.core.election import JOINT, LeaseLimits, LeaseSpec, Observation, Standing, released, renewed, taken
from khook.errors import Conflict, KubeError, LeaseLost, NotFound, SettingsError, Throttled
from khook.kube.backoff import BackOff, BackOffLimits
from khook.kube.lease import Lease, LeaseNamespaceMissing, Written
from khook.log import Log
from khook.seams import Clock, fresh_uuid

ASKING: Final = BackOffLimits(first_s=2.0, most_s=10.0)
"""A candidate whose API server does not answer, or refuses it, need not hurry: nobody else can lead either."""
LEAST_PAUSE_S: Final = 0.001
"""A deadline that is nearer than the loop's clock can tell must not spin it."""
FIRST_EPOCHS: Final = 2**32
"""Grants that one leader can make before its epochs reach the next leader's: a thousand a second for 50 days."""


class Leadership(Protocol):
    """What the supervisor needs of an election."""

    @property
    def identity(self) -> str:
        """Whom others see leading when we do."""
        ...

    @property
    def leader(self) -> str:
        """Whoever leads as far as is known; empty: nobody, or not looked yet."""
        ...

    @property
    def leading(self) -> bool: ...

    @property
    def epoch(self) -> int:
        """Grows with each change of leader; 0 before the first."""
        ...

    @property
    def problem(self) -> str:
        """Why we could not lead if we had to; empty: we could."""
        ...

    def permission_s(self) -> float | None:
        """How long the workers may still act outwardly; None: without end."""
        ...

    async def run(self, lead: Callable[[], None]) -> NoReturn:
        """Wait for our turn, call `lead`, and stay. Raises LeaseLost, SettingsError."""
        ...

    async def release(self) -> None:
        """Let the next one lead at once; nothing of ours may be running any more."""
        ...


class NoElection:
    """One replica, told so: leads from the start and for ever."""

    leading = True
    epoch = 1
    problem = ""

    def __init__(self, *, identity: str) -> None:
        self.identity = self.leader = identity

    def permission_s(self) -> float | None:
        return None

    async def run(self, lead: Callable[[], None]) -> NoReturn:
        lead()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def release(self) -> None:
        """There is nothing to release."""


class Election:
    """`name` is whom the Lease shows; a process that starts again is another candidate, for its forerunner's requests
    may still be under way."""

    def __init__(
        self,
        *,
        lease: Lease,
        name: str,
        clock: Clock,
        now: Callable[[], datetime],
        randomness: random.Random,
        log: Log,
        limits: LeaseLimits | None = None,
    ) -> None:
        self.identity = f"{name}{JOINT}{fresh_uuid(randomness)[:8]}"
        self.problem = ""
        self._lease = lease
        self._clock = clock
        self._now = now
        self._limits = limits or LeaseLimits()
        self._back_off = BackOff(randomness=randomness, limits=ASKING)
        self._log = log
        self._observed = Observation(self.identity, self._limits.duration_s)
        self._seen = ""
        self._held: Written | None = None
        """As the API server last answered us; None while somebody else leads, or nobody."""
        self._until_at = float("-inf")

    @property
    def leader(self) -> str:
        return self._observed.holder

    @property
    def leading(self) -> bool:
        return self._held is not None

    @property
    def epoch(self) -> int:
        spec = self._observed.spec
        return 0 if spec is None else spec.transitions + 1

    def permission_s(self) -> float | None:
        return 0.0 if self._held is None else self._until_at - self._clock.monotonic()

    async def run(self, lead: Callable[[], None]) -> NoReturn:
        await self._acquire()
        self._log.info("became leader", leader=self.identity, epoch=self.epoch)
        lead()
        await self._keep()

    async def release(self) -> None:
        if self._held is None:
            return
        spec, version, self._held = self._held.spec, self._held.version, None
        try:
            try:
                await self._lease.update(released(spec, time=self._now()), version=version)
            except Conflict:  # a renewal of ours was under way, or somebody wrote a label
                found = await self._lease.read()
                if found is not None and found.spec.holder == self.identity:
                    await self._lease.update(released(found.spec, time=self._now()), version=found.version)
        except KubeError as error:
            self._log.warning("leader did not release the lease", reason=str(error), within_s=self._limits.duration_s)
        else:
            self._log.info("leader released the lease", leader=self.identity)

    # Becoming it.

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._tried():
                    return
            except LeaseNamespaceMissing as error:
                raise self._nowhere() from error
            except KubeError as error:
                await asyncio.sleep(self._asked_in_vain(error))
            else:
                self.problem = ""
                self._back_off.failures = 0
                await asyncio.sleep(self._limits.poll_s)

    async def _tried(self) -> bool:
        """Look, and take the Lease if it is free."""
        found = await self._lease.read()
        self._saw(None if found is None else found.spec)
        if self._observed.standing(self._clock.monotonic()) is Standing.HELD:
            return False
        sent_at = self._clock.monotonic()
        ours = taken(self._observed.spec, identity=self.identity, duration_s=self._limits.duration_s, time=self._now())
        try:
            if found is None:
                self._hold(await self._lease.create(ours), sent_at)
            else:
                self._hold(await self._lease.update(ours, version=found.version), sent_at)
        except Conflict:
            return False  # somebody was faster: the next look tells who
        return True

    def _saw(self, spec: LeaseSpec | None) -> None:
        self._observed.saw(spec, self._clock.monotonic())
        if self.leader not in ("", self._seen, self.identity):
            self._seen = self.leader
            self._log.info("standing by for the leader", leader=self.leader)

    def _asked_in_vain(self, error: KubeError) -> float:
        """Seconds until the next look."""
        how = f"HTTP {error.status}" if error.status else "no answer"
        problem = f"the Lease in the namespace {self._lease.namespace} cannot be read or written ({how})"
        if problem != self.problem:
            self._log.warning("leader not known", reason=str(error), status=error.status)
        self.problem = problem
        if isinstance(error, Throttled):
            return max(error.retry_after_s, self._limits.poll_s)
        return max(self._back_off.failed(healthy_for_s=0.0), self._limits.poll_s)

    def _nowhere(self) -> SettingsError:
        where = (
            f"POD_NAMESPACE: the namespace {self._lease.namespace!r}, where the Lease of the leader election is kept"
        )
        return SettingsError(
            [f"{where}, does not exist; name one that does, or run one replica with LEADER_ELECTION=false"]
        )

    # Staying it.

    async def _keep(self) -> NoReturn:
        while True:
            await asyncio.sleep(min(self._limits.retry_s, max(0.0, self._left_s())))
            self._in_time()
            renewing = asyncio.create_task(self._renew())
            renewing.add_done_callback(_seen_to_end)
            while not renewing.done():
                await asyncio.wait({renewing}, timeout=max(self._left_s(), LEAST_PAUSE_S))
                if not renewing.done():  # its request ends by its own timeouts; what it answers no longer matters
                    self._in_time()
            renewing.result()

    def _in_time(self) -> None:
        if self._left_s() <= 0:
            raise self._lost(f"not renewed for {self._limits.renew_deadline_s:.0f} s")

    async def _renew(self) -> None:
        """One try. Raises LeaseLost when somebody else leads."""
        assert self._held is not None, "who leads holds the Lease"
        held = self._held
        try:
            try:
                await self._write(held.spec, version=held.version)
            except Conflict:
                await self._write_over()
            except NotFound:  # deleted by hand: whoever is first has it
                await self._write(held.spec, version=None)
        except KubeError as error:
            self._log.warning("leader did not renew the lease", reason=str(error), status=error.status)

    async def _write_over(self) -> None:
        """The version is not ours any more: an answer of ours was lost, somebody wrote a label, or we are replaced."""
        found = await self._lease.read()
        if found is None:
            return
        if found.spec.holder != self.identity:
            self._observed.saw(found.spec, self._clock.monotonic())
            raise self._lost(f"{found.spec.holder or 'nobody'} leads now")
        await self._write(found.spec, version=found.version)

    async def _write(self, spec: LeaseSpec, *, version: str | None) -> None:
        sent_at = self._clock.monotonic()
        spec = renewed(spec, time=self._now())
        if version is None:
            self._hold(await self._lease.create(spec), sent_at)
        else:
            self._hold(await self._lease.update(spec, version=version), sent_at)

    def _hold(self, written: Written, sent_at: float) -> None:
        self._held = written
        self._until_at = max(self._until_at, sent_at + self._limits.renew_deadline_s)
        self._observed.saw(written.spec, self._clock.monotonic())

    def _left_s(self) -> float:
        return self._until_at - self._clock.monotonic()

    def _lost(self, why: str) -> LeaseLost:
        self._held = None
        self._log.error("leader lost the lease", leader=self.leader, why=why)
        return LeaseLost(f"the Lease was lost: {why}")


def _seen_to_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()
