"""The single writer of one Hook's status.

Claims are written at once, and while one patch is under way the claims that come share the next (group commit
without a wait). Everything else is written at most once a second, and nothing when nothing changed. Each patch
carries the Hook's uid and the resourceVersion that it was computed from; memory wins after a conflict. While this
worker has no permission to act (another leader may have its namespaces) nothing is written at all.

Invariant: `commit` answers WRITTEN only when the API server's own answer holds the call id in that state. So an
older CRD, which prunes our fields and still answers 200, can never let a call through.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from khook.core import status as core_status
from khook.core.incident import CallId, CallState
from khook.errors import Conflict, Forbidden, Invalid, KubeError, NotFound, Throttled
from khook.kube.hooks import HookRef, Hooks
from khook.log import Log
from khook.seams import Clock
from shards.permission import Permission

REPEAT_INTERVAL_S: Final = 1.0
"""Repeats of an incident cost at most this many seconds' worth of one write each."""
REFUSED_FOR_S: Final = 15.0
"""403 or 422 for this long ends a claim: RBAC or the CRD will not let us write."""
REFUSED_AGAIN_S: Final = 30.0
"""How often a refused status is tried while nobody waits for it."""
CLAIM_FOR_S: Final = 15 * 60.0
"""How long a claim is tried while the API server does not answer."""
BACK_OFF_FIRST_S: Final = 0.5
BACK_OFF_MOST_S: Final = 10.0


class Commit(StrEnum):
    """What became of a claim."""

    WRITTEN = "written"
    PRUNED = "pruned"
    """The CRD is older than our fields."""
    DROPPED = "dropped"
    """The Hook is gone, or another object has its name now."""
    REFUSED = "refused"
    GAVE_UP = "gave_up"


@dataclass(slots=True, eq=False)
class _Claim:
    call_id: CallId
    state: CallState
    asked_at: float
    answer: asyncio.Future[Commit]


class StatusWriter:
    """`source` renders the status that memory wants right now over the one that the API server holds; it is asked
    again before each patch."""

    def __init__(
        self,
        *,
        ref: HookRef,
        resource_version: str,
        written: dict[str, Any],
        hooks: Hooks,
        source: Callable[[dict[str, Any]], dict[str, Any]],
        permission: Permission,
        clock: Clock,
        randomness: random.Random,
        log: Log,
    ) -> None:
        self._ref = ref
        self._resource_version = resource_version
        self._held = written
        """The status as the API server holds it, by its last answer."""
        self._asked: dict[str, Any] | None = written
        """The status that was last asked for and answered; None asks again whatever it holds."""
        self._hooks = hooks
        self._source = source
        self._permission = permission
        self._clock = clock
        self._randomness = randomness
        self._log = log
        self._claims: list[_Claim] = []
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._wrote_at = clock.monotonic() - REPEAT_INTERVAL_S
        self._refused = False
        """By the last answer: 403 or 422."""
        self._failures = 0
        self._gone = False
        self._closing = asyncio.Event()
        self._hurry = asyncio.Event()
        """Ends a back-off once: somebody flushes, or closes."""
        self.outdated = False
        """The CRD pruned a claim: shown as `CRDOutdated` until one survives."""

    def changed(self) -> None:
        """Memory moved: write within a second."""
        self._settled.clear()
        self._wake.set()

    def now(self) -> None:
        """Memory moved in a way that somebody waits to see: write at once."""
        self.changed()
        self._urgent.set()

    async def commit(self, call_id: CallId, state: CallState) -> Commit:
        """Wait until the API server's answer holds `call_id` in `state`, or say why it never will."""
        if self._gone or self._closing.is_set():
            return Commit.DROPPED
        claim = _Claim(call_id, state, self._clock.monotonic(), asyncio.get_running_loop().create_future())
        self._claims.append(claim)
        self.now()
        try:
            return await claim.answer
        finally:
            if claim in self._claims:  # given up by whoever asked
                self._claims.remove(claim)

    async def flush(self, within_s: float) -> bool:
        """Write what memory wants, now. False: it could not be written in time."""
        if self._gone:
            return True
        self._hurry.set()
        self.now()
        try:
            async with asyncio.timeout(within_s):
                await self._settled.wait()
        except TimeoutError:
            return False
        return self._gone or not self._refused

    def close(self) -> None:
        """End `run` after the patch under way; the object is another owner's, or gone."""
        self._closing.set()
        self._hurry.set()
        self._wake.set()
        self._urgent.set()
        self._answer_all(Commit.DROPPED)

    async def run(self) -> None:
        """Write until closed. Never cancelled from outside: a cancelled patch would cost its connection."""
        while not self._closing.is_set() and not self._gone:
            await self._woken()
            await self._space_out()
            await self._permitted()
            self._wake.clear()
            self._urgent.clear()
            if self._closing.is_set():
                break
            await self._write()
        self._settled.set()

    async def _woken(self) -> None:
        """There is something to write, or it is time to ask whether a refusal still holds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(REFUSED_AGAIN_S if self._refused else None):
                await self._wake.wait()

    async def _space_out(self) -> None:
        wait_s = self._wrote_at + REPEAT_INTERVAL_S - self._clock.monotonic()
        if wait_s <= 0 or self._urgent.is_set():
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._urgent.wait()
        except TimeoutError:
            return

    async def _permitted(self) -> None:
        """Or closing: who takes the namespace over reads what stands there, and it must not change under its hands."""
        if self._permission.holds:
            return
        either = [asyncio.ensure_future(self._permission.wait()), asyncio.ensure_future(self._closing.wait())]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in either:
                one.cancel()

    async def _write(self) -> None:
        self._settled.clear()
        covered = list(self._claims)
        wanted = self._source(self._held)
        if self._asked is None or core_status.changed(self._asked, wanted):
            self._wrote_at = self._clock.monotonic()
            try:
                answer = await self._hooks.patch_status(self._ref, self._resource_version, wanted)
            except KubeError as error:
                await self._after(error)
                return
            self._failures = 0
            if self._refused:
                self._refused = False
                self._log.info("hook status taken again", hook=self._ref.key)
            self._take(answer)
            # Also where the server kept less (an older CRD prunes): the same is not asked for twice.
            self._asked = wanted
        self._judge(covered)
        self._mark_settled()

    def _take(self, hook: dict[str, Any]) -> None:
        self._resource_version = hook["metadata"]["resourceVersion"]
        self._held = hook.get("status") or {}

    def _mark_settled(self) -> None:
        if not self._wake.is_set():
            self._settled.set()

    async def _after(self, error: KubeError) -> None:
        match error:
            case Conflict() | NotFound():
                # A 404 is believed when a GET says so too: a Hook that is dropped here calls nobody any more.
                await self._read_again()
            case Invalid() | Forbidden():
                await self._after_refusal(error)
            case Throttled():
                await self._pause(error.retry_after_s)
            case _:
                await self._pause(self._back_off_s())

    async def _read_again(self) -> None:
        try:
            hook = await self._hooks.get(self._ref)
        except NotFound:
            self._drop()
            return
        except KubeError:
            await self._pause(self._back_off_s())
            return
        if hook["metadata"]["uid"] != self._ref.uid:
            self._drop()
            return
        self._take(hook)
        self._asked = None
        self.now()

    async def _after_refusal(self, error: KubeError) -> None:
        if not self._refused:
            self._refused = True
            self._log.error("hook status refused", hook=self._ref.key, status=error.status)
        now_at = self._clock.monotonic()
        for claim in [claim for claim in self._claims if now_at - claim.asked_at >= REFUSED_FOR_S]:
            self._end(claim, Commit.REFUSED)
        if not self._claims:
            self._settled.set()  # nothing more can be done now: tried again at the next change, or in a while
            return
        left_s = self._claims[0].asked_at + REFUSED_FOR_S - now_at
        await self._pause(min(self._back_off_s(), max(left_s, BACK_OFF_FIRST_S)))

    async def _pause(self, wait_s: float) -> None:
        for claim in [c for c in self._claims if self._clock.monotonic() - c.asked_at >= CLAIM_FOR_S]:
            self._end(claim, Commit.GAVE_UP)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._hurry.wait()
        self._hurry.clear()
        self.now()

    def _back_off_s(self) -> float:
        self._failures += 1
        ceiling = min(BACK_OFF_MOST_S, BACK_OFF_FIRST_S * 2 ** min(self._failures - 1, 10))
        return float(ceiling * (0.5 + self._randomness.random() / 2))

    def _judge(self, covered: list[_Claim]) -> None:
        wanted: dict[str, Any] | None = None
        for claim in covered:
            if core_status.call_state(self._held, claim.call_id) == claim.state:
                self.outdated = False
                self._end(claim, Commit.WRITTEN)
            elif core_status.call_state(wanted := wanted or self._source(self._held), claim.call_id) != claim.state:
                # Memory itself moved on while the patch was under way (entry deleted, Hook suspended).
                self._end(claim, Commit.DROPPED)
            else:
                self.outdated = True
                self._end(claim, Commit.PRUNED)

    def _answer_all(self, commit: Commit) -> None:
        for claim in list(self._claims):
            self._end(claim, commit)

    def _end(self, claim: _Claim, commit: Commit) -> None:
        if claim in self._claims:  # `close` may have ended it while its patch was under way
            self._claims.remove(claim)
        if not claim.answer.done():
            claim.answer.set_result(commit)

    def _drop(self) -> None:
        self._gone = True
        self._answer_all(Commit.DROPPED)
        self._settled.set()
