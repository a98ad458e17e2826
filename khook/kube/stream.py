"""One watch, from its opening to its end.

Cuts the bytes into lines and decodes each in one pass into the resource's struct; bookmarks and errors, which do not
decode so, take the slow way. A guard ends the watch when it falls silent or outlives its `timeoutSeconds`. What it
leaves behind is the version to go on from: the last line's or bookmark's, taken after the sink had the object.
"""

import asyncio
from collections.abc import AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Generic, TypeVar

import msgspec

from khook.errors import Unavailable
from khook.kube.answers import BAD_JSON, Status, error_for_line
from khook.kube.lines import LineSplitter, digest
from khook.kube.resources import Bookmark, RareLine, Resource
from khook.kube.terms import Health, Pace, Sink, Skip, WatchEnd
from khook.seams import Clock

T = TypeVar("T")

Skipped = Callable[[Skip, int, str], None]
"""Told of a skipped line: why, how many bytes, and their hash."""

# Timers are as exact as the loop's clock; re-arming one for less than this would spin.
_TIMER_RESOLUTION_S: Final = 0.001

_rare_lines: Final = msgspec.json.Decoder(RareLine)
_bookmarks: Final = msgspec.json.Decoder(Bookmark)
_statuses: Final = msgspec.json.Decoder(Status)


class Stream(Generic[T]):
    """Runs once. `version`: where the next watch goes on."""

    def __init__(
        self,
        *,
        resource: Resource[T],
        sink: Sink[T],
        version: str,
        health: Health,
        clock: Clock,
        pace: Pace,
        skipped: Skipped,
    ) -> None:
        self.version = version
        self.opened_at: float | None = None
        self.said_error = False
        """It ended with an ERROR line."""
        self._resource = resource
        self._sink = sink
        self._health = health
        self._clock = clock
        self._pace = pace
        self._skipped = skipped
        self._splitter = LineSplitter()
        self._from_version = version
        self._heard_at = 0.0
        self._ends_at = 0.0
        self._brought = False
        self._stopped = False
        self._scope: asyncio.Timeout | None = None
        self._guard: asyncio.TimerHandle | None = None

    async def run(
        self, opening: AbstractAsyncContextManager[AsyncIterable[bytes]], *, server_timeout_s: float
    ) -> WatchEnd:
        """Until it ends well (TIMEOUT, SHORT, SILENCE, ASKED); raises the KubeError of any other end."""
        try:
            async with asyncio.timeout(self._pace.open_s) as self._scope, opening as chunks:
                self._opened(server_timeout_s)
                async for chunk in chunks:
                    self._take(chunk)
        except TimeoutError as error:
            if self._stopped:
                return WatchEnd.ASKED
            if self.opened_at is None:
                raise Unavailable(f"no answer within {self._pace.open_s} s") from error
            return WatchEnd.SILENCE
        finally:
            self._closed()
        return self._clean_end()

    def stop(self) -> None:
        """End it now: `run` returns ASKED."""
        self._stopped = True
        self._expire()

    def _opened(self, server_timeout_s: float) -> None:
        now_at = self._clock.monotonic()
        self.opened_at = self._heard_at = self._health.live_at = now_at
        self._ends_at = now_at + server_timeout_s + self._pace.late_s
        self._health.opened = True
        self._health.forbidden = False
        self._health.last_error = ""
        if self._scope is not None and not self._stopped:
            self._scope.reschedule(None)
        self._watch_over()

    def _closed(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
        self._scope = None
        if self._health.opened and not self._resource.bookmarks:
            self._health.live_at = min(self._clock.monotonic(), self._ends_at)
        self._health.opened = False

    def _clean_end(self) -> WatchEnd:
        assert self.opened_at is not None
        short = self._clock.monotonic() - self.opened_at < self._pace.short_s
        return WatchEnd.SHORT if short and not self._brought else WatchEnd.TIMEOUT

    def _watch_over(self) -> None:
        """A timer that looks and sleeps again, instead of one that every chunk would have to move."""
        due_at = self._ends_at
        if self._resource.bookmarks:
            due_at = min(due_at, self._heard_at + self._pace.silence_s)
        wait_s = due_at - self._clock.monotonic()
        if wait_s < _TIMER_RESOLUTION_S:
            self._expire()
        else:
            self._guard = asyncio.get_running_loop().call_later(wait_s, self._watch_over)

    def _expire(self) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _take(self, chunk: bytes) -> None:
        lines = self._splitter.feed(chunk)
        if self._splitter.overlong:
            self._skip_overlong()
        decode = self._resource.lines.decode
        version_of = self._resource.version_of
        taken, heard = 0, False
        for line in lines:
            try:
                decoded = decode(line)
            except BAD_JSON:
                heard = self._take_rare(line) or heard
                continue
            self._sink.line(decoded.type, decoded.object)
            version = version_of(decoded.object)
            if version and version != self.version:
                self.version = version
                self._brought = True
            taken += 1
        self._health.lines += taken  # once a chunk; what an ERROR line cut short is no great loss
        if taken or heard:
            self._heard_at = self._health.live_at = self._clock.monotonic()

    def _take_rare(self, line: bytes) -> bool:
        """A bookmark (True), an error (raised), or what we cannot read."""
        if not line.strip():
            return False
        try:
            rare = _rare_lines.decode(line)
            if rare.type == "BOOKMARK":
                self.version = _bookmarks.decode(rare.object).metadata.resource_version or self.version
                return True
            status = _statuses.decode(rare.object) if rare.type == "ERROR" else None
        except BAD_JSON:
            status = None
        if status is not None:
            self.said_error = True
            raise error_for_line(status)
        self._skipped(Skip.MALFORMED, len(line), digest(line))
        return False

    def _skip_overlong(self) -> None:
        for line in self._splitter.overlong:
            self._skipped(Skip.OVERLONG, line.size_bytes, line.digest)
        self._splitter.overlong.clear()
