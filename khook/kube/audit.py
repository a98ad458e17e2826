"""Kubernetes Events on a Hook: the trail that `kubectl describe hook` shows.

core/v1 Events with the fields of events.k8s.io (reportingComponent, reportingInstance). The same thing said again is
a patch of count and lastTimestamp, not another Event. Each Hook has its own token bucket, as client-go's correlator
has one for each object, so a noisy Hook silences only itself; what waits for a token goes on counting, and warnings go
before the rest. What is about a call carries its id as an annotation; of several calls that the same is said of, the
latest one's, as in the Hook's status. `record` never waits and never fails: the trail is told what happened, it is not
part of it, and what it cannot write in time or in room is dropped and counted.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from khook.errors import Conflict, Forbidden, Gone, Invalid, KubeError, NotFound, Throttled
from khook.kube.backoff import BackOff
from khook.kube.client import KubeClient
from khook.kube.hooks import HookRef
from khook.kube.resources import EVENTS, HOOK_API, HOOK_KIND
from khook.kube.terms import Log
from khook.seams import Clock

REPORTING_COMPONENT: Final = "kagent-hook-controller"

# The id that the log, the Hook's status and kagent have too.
CALL_ID_ANNOTATION: Final = "kagent.dev/call-id"

# events.k8s.io/v1: NoteLengthLimit, bytes.
MESSAGE_LIMIT_BYTES: Final = 1024

# Different things said about all Hooks of a worker. Some 1.5 KB each at the worst.
KEPT_MOST: Final = 1000

# A busy Hook may say ten things at once, then two a minute: more than a person reads, little for the API server.
BURST: Final = 10
REFILL_S: Final = 30.0

# What is said in one go is counted first and written once, however fast it is said.
GATHER_S: Final = 0.1

# The API server keeps Events for an hour after the last write; ours is forgotten before, and written anew.
KEPT_S: Final = 50 * 60.0

# A DNS subdomain (253) less the dot and 16 hex digits.
NAME_LIMIT: Final = 236


class Reason(StrEnum):
    """What can be said about a Hook."""

    AGENT_CALLED = "AgentCalled"
    """An agent has the call."""
    AGENT_CALL_FAILED = "AgentCallFailed"
    """A call failed for good, or the agent's run went wrong: the message says how."""
    AGENT_CALL_PARKED = "AgentCallParked"
    """Calls wait for an agent that cannot be reached, or for a key."""
    INCIDENT_RESOLVED = "IncidentResolved"
    """The incident is over."""
    INVALID_CONFIGURATION = "InvalidConfiguration"
    """A part of the Hook does not work: the message has its path and the reason."""
    CALLS_SUPPRESSED = "CallsSuppressed"
    """New incidents find the Hook's budget used up, or no room in its status."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    hook: HookRef
    reason: Reason
    message: str
    warning: bool
    first_time: datetime
    last_time: datetime
    last_at: float
    name: str
    created: bool = False
    count: int = 0
    call_id: str = ""


_Key = tuple[str, Reason, str]


@dataclass(slots=True)
class _Bucket:
    """Full when new; `tokens` as of `at`."""

    at: float
    tokens: float = float(BURST)

    def wait_s(self, now_at: float) -> float:
        """Until there is a token; 0 where there is one."""
        self.tokens = min(float(BURST), self.tokens + (now_at - self.at) / REFILL_S)
        self.at = now_at
        return 0.0 if self.tokens >= 1.0 else (1.0 - self.tokens) * REFILL_S


class AuditTrail:
    """`instance` names this process (the pod). `dropped` is called for each thing said that was never written."""

    def __init__(
        self,
        *,
        client: KubeClient,
        clock: Clock,
        randomness: random.Random,
        instance: str,
        log: Log,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._randomness = randomness
        self._instance = instance[:128]
        self._log = log
        self._dropped = dropped
        self._entries: dict[_Key, _Entry] = {}
        """All that is remembered, the one said last at the end."""
        self._unwritten: dict[_Key, None] = {}
        self._buckets: dict[str, _Bucket] = {}
        self._news = asyncio.Event()
        self._back_off = BackOff(randomness=randomness)

    def record(self, hook: HookRef, reason: Reason, message: str, *, warning: bool = False, call_id: str = "") -> None:
        """Say something about a Hook, and about one of its calls: written soon, or counted with what is the same."""
        now_at, now_time = self._clock.monotonic(), self._client.server_now()
        message = _cut(message)
        key = (hook.uid, reason, message)
        entry = self._entries.pop(key, None)
        if entry is None or now_at - entry.last_at > KEPT_S:
            if len(self._entries) >= KEPT_MOST and not self._forget_one():
                self._dropped()
                return
            entry = _Entry(
                hook=hook,
                reason=reason,
                message=message,
                warning=warning,
                first_time=now_time,
                last_time=now_time,
                last_at=now_at,
                name=self._fresh_name(hook),
            )
        entry.count += 1
        entry.last_time, entry.last_at, entry.call_id = now_time, now_at, call_id
        self._entries[key] = entry
        self._unwritten[key] = None
        self._news.set()

    async def run(self) -> None:
        """Write what is said, until cancelled."""
        while True:
            self._news.clear()
            wait_s = await self._write_due()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            await asyncio.sleep(GATHER_S)

    async def flush(self, deadline_at: float) -> None:
        """Write what may be written now; give up at `deadline_at` (monotonic). Drops the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline_at - self._clock.monotonic())):
                await self._write_due()
        for _ in self._unwritten:
            self._dropped()
        self._unwritten.clear()

    def _forget_one(self) -> bool:
        """Make room: what is written and was not said for longest."""
        for key in self._entries:
            if key not in self._unwritten:
                del self._entries[key]
                return True
        return False

    async def _write_due(self) -> float | None:
        """Write all that has a token. Seconds until the next has one; None: nothing waits."""
        wait_s: float | None = None
        # What went wrong is not to wait behind what went well: in a storm that would be for hours.
        for key in sorted(self._unwritten, key=lambda key: not self._entries[key].warning):
            if key not in self._unwritten:
                continue  # written meanwhile: `flush` works beside `run`
            entry = self._entries[key]
            bucket = self._bucket(entry.hook)
            missing_s = bucket.wait_s(self._clock.monotonic())
            if missing_s:
                wait_s = missing_s if wait_s is None else min(wait_s, missing_s)
                continue
            bucket.tokens -= 1.0
            if not await self._write(key, entry):
                bucket.tokens += 1.0
                wait_s = 0.0
        return wait_s

    def _bucket(self, hook: HookRef) -> _Bucket:
        now_at = self._clock.monotonic()
        if hook.uid not in self._buckets and len(self._buckets) >= KEPT_MOST:
            full = [uid for uid, bucket in self._buckets.items() if bucket.at + BURST * REFILL_S <= now_at]
            for uid in full or [next(iter(self._buckets))]:
                del self._buckets[uid]
        return self._buckets.setdefault(hook.uid, _Bucket(now_at))

    async def _write(self, key: _Key, entry: _Entry) -> bool:
        """False: it could not be written now, and the back-off for that is over."""
        del self._unwritten[key]
        try:
            if entry.created:
                await self._update(entry)
            else:
                await self._create(entry)
        except (Forbidden, Invalid, NotFound, Gone) as error:
            self._entries.pop(key, None)
            self._unwritten.pop(key, None)  # said again meanwhile
            self._dropped()
            self._log.warning("audit event refused", hook=entry.hook.key, reason=entry.reason, status=error.status)
        except KubeError as error:
            if self._entries.get(key) is entry:
                self._unwritten[key] = None
            wait_s = error.retry_after_s if isinstance(error, Throttled) else self._back_off.failed(healthy_for_s=0.0)
            await asyncio.sleep(wait_s)
            return False
        self._back_off.failures = 0
        return True

    async def _create(self, entry: _Entry) -> None:
        """The name is kept over attempts: taken means that an answer got lost, and the Event is there."""
        try:
            await self._client.create(EVENTS.path(entry.hook.namespace), self._event(entry))
        except Conflict:
            await self._patch(entry)
        entry.created = True

    async def _update(self, entry: _Entry) -> None:
        try:
            await self._patch(entry)
        except NotFound:
            entry.name, entry.created = self._fresh_name(entry.hook), False
            await self._create(entry)

    async def _patch(self, entry: _Entry) -> None:
        body: dict[str, Any] = {"count": entry.count, "lastTimestamp": _seconds(entry.last_time)}
        if entry.call_id:
            body["metadata"] = _annotated(entry)
        await self._client.patch(EVENTS.path(entry.hook.namespace, entry.name), body)

    def _fresh_name(self, hook: HookRef) -> str:
        return f"{hook.name[:NAME_LIMIT]}.{self._randomness.getrandbits(64):016x}"

    def _event(self, entry: _Entry) -> dict[str, Any]:
        hook = entry.hook
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": entry.name, "namespace": hook.namespace} | _annotated(entry),
            "involvedObject": {
                "apiVersion": HOOK_API,
                "kind": HOOK_KIND,
                "namespace": hook.namespace,
                "name": hook.name,
                "uid": hook.uid,
            },
            "type": "Warning" if entry.warning else "Normal",
            "reason": entry.reason,
            "message": entry.message,
            "firstTimestamp": _seconds(entry.first_time),
            "lastTimestamp": _seconds(entry.last_time),
            "count": entry.count,
            "source": {"component": REPORTING_COMPONENT},
            "reportingComponent": REPORTING_COMPONENT,
            "reportingInstance": self._instance,
        }


def _annotated(entry: _Entry) -> dict[str, Any]:
    return {"annotations": {CALL_ID_ANNOTATION: entry.call_id}} if entry.call_id else {}


def _seconds(time: datetime) -> str:
    """As meta/v1 Time writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(message: str) -> str:
    """At most MESSAGE_LIMIT_BYTES of UTF-8, never half a character."""
    return message.encode("utf-8", "replace")[:MESSAGE_LIMIT_BYTES].decode("utf-8", "ignore")
