"""One resource in one scope, listed and then watched for ever.

Lists, watches from the list's version, and goes on from the last line's version whenever the watch ends; lists
again only when the API server says that the version is compacted (410) or somebody asks. Every wait has an end:
a watch that falls silent is opened anew, a failure backs off, and `live` says the truth about it all. The sink gets
every change at least once and in order; versions are opaque and never compared by order. Sources: KEP-956
(bookmarks), KEP-365 (paginated lists), "Efficient detection of changes" in the API concepts, client-go's reflector.
"""

import asyncio
import random
from collections.abc import AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

from khook.errors import Forbidden, Gone, KubeError, NotFound, Throttled, Unauthorized, Unavailable
from khook.kube.backoff import BackOff
from khook.kube.client import KubeClient
from khook.kube.lines import digest
from khook.kube.listing import list_into
from khook.kube.resources import Change, Resource
from khook.kube.stream import Stream
from khook.kube.terms import DEFAULT_PACE, Health, Log, Pace, Relist, Sink, Skip, WatchCounters, WatchEnd
from khook.seams import Clock

__all__ = ["Change", "Health", "Pace", "Relist", "Sink", "Skip", "Watch", "WatchCounters", "WatchEnd"]

T = TypeVar("T")

# A server that sends garbage must not fill the log; the counter goes on.
LOGGED_SKIPS_MOST: Final = 20

# The transport's own read timeout: later than our guard, so that the guard names the cause.
READ_MARGIN_S: Final = 10.0

_ENDS: Final[dict[type[KubeError], WatchEnd]] = {
    Gone: WatchEnd.GONE,
    Throttled: WatchEnd.THROTTLED,
    Unauthorized: WatchEnd.UNAUTHORIZED,
    Forbidden: WatchEnd.FORBIDDEN,
    NotFound: WatchEnd.MISSING,
    Unavailable: WatchEnd.UNAVAILABLE,
}


class Watch(Generic[T]):
    """`namespace` None: the whole cluster. `run` never returns; cancel it."""

    def __init__(
        self,
        *,
        client: KubeClient,
        resource: Resource[T],
        namespace: str | None,
        sink: Sink[T],
        clock: Clock,
        randomness: random.Random,
        log: Log,
        counters: WatchCounters,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self.health = Health(live_at=clock.monotonic())
        self._client = client
        self._resource = resource
        self._namespace = namespace
        self._sink = sink
        self._clock = clock
        self._randomness = randomness
        self._log = log
        self._counters = counters
        self._pace = pace
        self._back_off = BackOff(randomness=randomness, limits=pace.back_off)
        self._healthy_since_at: float | None = None
        self._wanted_list: Relist | None = Relist.START
        self._listed_at = clock.monotonic()
        self._version = ""
        self._stream: Stream[T] | None = None
        self._skips = 0

    def live(self, now_at: float) -> bool:
        """False: nothing has proved it live for `deaf_s` of its pace."""
        return self.deaf_s(now_at) < self._pace.deaf_s

    def deaf_s(self, now_at: float) -> float:
        """Seconds since it was last proven live.

        Bookmarks prove it where there are any. Where there are none the open connection does: TCP keep-alive would
        have broken it, and a stream is ended when it is older than its `timeoutSeconds` and 15 s.
        """
        if self.health.opened and not self._resource.bookmarks:
            return 0.0
        return max(0.0, now_at - self.health.live_at)

    def relist(self) -> None:
        """Ask for a LIST: at once, or as soon as the back-off under way ends."""
        self._wanted_list = self._wanted_list or Relist.ASKED
        if self._stream is not None:
            self._stream.stop()

    async def run(self) -> None:
        """List, watch, and again, until cancelled."""
        self.health.live_at = self._clock.monotonic()
        while True:
            try:
                if self._wanted_list is not None:
                    await self._list(self._wanted_list)
                await self._follow()
            except Gone as error:
                await self._compacted(error)
            except KubeError as error:
                await self._pause(error)

    async def _list(self, cause: Relist) -> None:
        self._wanted_list = None
        try:
            self._version = await list_into(
                self._sink,
                client=self._client,
                resource=self._resource,
                namespace=self._namespace,
                skipped=lambda item: self._skipped(Skip.MALFORMED, len(item), digest(item)),
                patience=self._pause,
            )
        except Gone as error:
            self._wanted_list = cause
            raise Unavailable("the LIST is compacted faster than it is read", status=error.status) from error
        except KubeError:
            self._wanted_list = cause
            raise
        self._counters.relisted(self._resource.name, cause)
        self._listed_at = self._clock.monotonic()
        self.health.synced = True

    async def _follow(self) -> None:
        """One watch. Raises the KubeError that it ended with, if it did."""
        stream = self._stream = Stream(
            resource=self._resource,
            sink=self._sink,
            version=self._version,
            health=self.health,
            clock=self._clock,
            pace=self._pace,
            skipped=self._skipped,
        )
        server_timeout_s = self._randomness.randint(*self._pace.server_timeout_s)
        try:
            end = await stream.run(self._open(server_timeout_s), server_timeout_s=server_timeout_s)
        except KubeError as error:
            self._counters.ended(self._resource.name, _end_of(error))
            if stream.said_error and not isinstance(error, Throttled):
                # Measured: an Events watch resumed just before a compaction answers 500 at each try.
                self._wanted_list = Relist.ERROR
            raise
        finally:
            self._stream = None
            self._version = stream.version
            if self._healthy_since_at is None:
                self._healthy_since_at = stream.opened_at
        self._counters.ended(self._resource.name, end)
        if end is WatchEnd.SHORT:
            await self._fail(end, "it ended at once and brought nothing")

    def _open(self, server_timeout_s: int) -> AbstractAsyncContextManager[AsyncIterable[bytes]]:
        resource = self._resource
        params = {"watch": "true", "resourceVersion": self._version, "timeoutSeconds": str(server_timeout_s)}
        if resource.field_selector:
            params["fieldSelector"] = resource.field_selector
        silence_s = server_timeout_s + self._pace.late_s
        if resource.bookmarks:
            params["allowWatchBookmarks"] = "true"
            silence_s = self._pace.silence_s
        return self._client.stream(
            resource.path(self._namespace),
            params=params,
            accept=resource.accept,
            read_s=silence_s + READ_MARGIN_S,
        )

    async def _compacted(self, error: Gone) -> None:
        """The version is gone: list again, at once unless that list was made just now."""
        self._wanted_list = Relist.GONE
        if self._clock.monotonic() - self._listed_at < self._pace.gone_again_s:
            await self._fail(WatchEnd.GONE, str(error))

    async def _pause(self, error: KubeError) -> None:
        """Wait as long as the error asks for."""
        end = _end_of(error)
        self.health.forbidden = isinstance(error, Forbidden)
        match error:
            case Forbidden():
                self._note(end, str(error))
                await asyncio.sleep(self._pace.forbidden_s)
            case Throttled():
                self._note(end, str(error))
                spread_s = self._randomness.uniform(0.0, self._pace.throttled_spread_s)
                await asyncio.sleep(error.retry_after_s + spread_s)
            case _:
                await self._fail(end, str(error))

    async def _fail(self, end: WatchEnd, message: str) -> None:
        """Back off."""
        self._note(end, message)
        since_at, self._healthy_since_at = self._healthy_since_at, None
        healthy_for_s = 0.0 if since_at is None else self._clock.monotonic() - since_at
        await asyncio.sleep(self._back_off.failed(healthy_for_s=healthy_for_s))

    def _note(self, end: WatchEnd, message: str) -> None:
        """Say it once; the same failure again and again is the counter's."""
        say = self._log.debug if self.health.last_error == end else self._log.warning
        self.health.last_error = end
        say("watch failed", resource=self._resource.name, namespace=self._namespace, cause=end, error=message)

    def _skipped(self, why: Skip, size_bytes: int, hashed: str) -> None:
        self._counters.skipped(self._resource.name, why)
        self._skips += 1
        if self._skips <= LOGGED_SKIPS_MOST:
            self._log.warning(
                "watch line skipped",
                resource=self._resource.name,
                namespace=self._namespace,
                cause=why,
                size_bytes=size_bytes,
                digest=hashed,
            )


def _end_of(error: KubeError) -> WatchEnd:
    return _ENDS.get(type(error), WatchEnd.REFUSED)
