"""The embedded API server: the pure store behind the `Service` seam, with time, streams and switches for faults.

It adds what a state machine cannot have: watch streams that end after `timeoutSeconds` and send bookmarks, the Date
header, tokens, RBAC refusals, and every misbehaviour a test wants (refuse, hang up, answer something else, lose an
answer, be slow, stall, end watches, restart). Waiting is asyncio's, so it runs on any event loop, also a virtual
one; wall time is the `Clock`'s. Requests and answers are counted so that tests can assert what was really asked.
"""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import Final

import orjson

from khook.sandbox import api_errors
from khook.sandbox.api_answers import answer, failed, rows
from khook.sandbox.api_errors import ApiError
from khook.sandbox.api_routes import ApiCall, flag, form, parse, selector
from khook.sandbox.exchange import HangUp, Refuse, Request, Response
from khook.sandbox.history import Watch
from khook.sandbox.paging import integer, version_number
from khook.sandbox.reviews import asked, reviewed
from khook.sandbox.store import Store
from khook.sandbox.token_paths import unwrapped
from khook.seams import Clock

Predicate = Callable[[ApiCall], bool]

# apiserver pkg/storage/cacher: roughly every minute, and 2 s before the watch's deadline
BOOKMARK_EVERY_S: Final = 60.0
BOOKMARK_BEFORE_END_S: Final = 2.0
# apiserver --min-request-timeout: a watch without timeoutSeconds ends after 30 to 60 min; the shorter is taken
DEFAULT_WATCH_S: Final = 1800.0
# apiserver pkg/endpoints/handlers/responsewriters: smaller answers are not compressed
GZIP_ABOVE_BYTES: Final = 128 * 1024
GZIP_LEVEL: Final = 1


@dataclass(slots=True, eq=False)
class _Fault:
    predicate: Predicate
    answer: Response | Exception | None
    delay_s: float
    lose_answer: bool
    times: int | None


@dataclass(slots=True, eq=False)
class _Stream:
    """One open watch, as the server sees it."""

    call: ApiCall
    watch: Watch
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    cut: bool = False
    end: bool = False


class _Body:
    """A stream's lines. Unlike a bare generator it can be closed before it was ever read."""

    def __init__(self, lines: AsyncGenerator[bytes, None], *, closed: Callable[[], None]) -> None:
        self._lines = lines
        self._closed = closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._lines.__anext__()

    async def aclose(self) -> None:
        await self._lines.aclose()
        self._closed()


class ApiServer:
    """A `Service` (khook.sandbox.exchange). Attributes are switches: tests set them at any time."""

    def __init__(self, store: Store, *, clock: Clock, user: str = "khook") -> None:
        self.store = store
        self.user = user
        self.tokens: frozenset[str] | None = None
        """Bearer tokens that are accepted, in the header or in front of the path; None accepts everybody."""
        self.requests: Counter[tuple[str, str]] = Counter()
        """By (verb, resource): `("watch", "events")`, `("patch", "hooks/status")`, `("get", "/readyz")`."""
        self.answers: Counter[tuple[str, str, int]] = Counter()
        """By (verb, resource, code); a 410 line in a watch counts as 410 as well as its 200."""
        self.watch_ends: Counter[str] = Counter()
        """Watches that ended cleanly by themselves, by resource."""
        self._clock = clock
        self._faults: list[_Fault] = []
        self._forbidden: list[tuple[str | None, str | None, str | None]] = []
        self._streams: dict[int, _Stream] = {}
        self._stalled: Predicate | None = None
        self._down = False

    # -- switches

    def forbid(self, *, verb: str | None = None, resource: str | None = None, namespace: str | None = None) -> None:
        """403 from now on for what fits; None fits all, namespace "" only requests at the cluster scope.

        Watches that are open go on delivering, as the real server's do.
        """
        self._forbidden.append((verb, resource, namespace))

    def allow_all(self) -> None:
        """Take back every `forbid`."""
        self._forbidden.clear()

    def fault(
        self,
        predicate: Predicate,
        *,
        answer: Response | Exception | None = None,
        delay_s: float = 0.0,
        lose_answer: bool = False,
        times: int | None = 1,
    ) -> Callable[[], None]:
        """For the next `times` fitting requests (None: until undone) wait, then answer so or raise so.

        `lose_answer` carries the request out and hangs up instead of answering. Returns the undoing.
        """
        fault = _Fault(predicate, answer, delay_s, lose_answer, times)
        self._faults.append(fault)

        def undo() -> None:
            with suppress(ValueError):
                self._faults.remove(fault)

        return undo

    def fail_next(self, predicate: Predicate, answer: Response | Exception, *, times: int = 1) -> Callable[[], None]:
        return self.fault(predicate, answer=answer, times=times)

    def refuse(self, predicate: Predicate) -> Callable[[], None]:
        """Connection refused for what fits, until undone."""
        return self.fault(predicate, answer=Refuse(), times=None)

    def stall(self, predicate: Predicate = lambda call: True) -> None:
        """No byte any more on watches that fit, open ones and new ones, and no end; until `unstall`."""
        self._stalled = predicate
        self._wake_all()

    def unstall(self) -> None:
        self._stalled = None
        self._wake_all()

    def cut_connections(self, predicate: Predicate = lambda call: True) -> int:
        """Break open watches that fit, without a last chunk. How many."""
        return self._command(predicate, cut=True)

    def end_watches(self, predicate: Predicate = lambda call: True) -> int:
        """End open watches that fit cleanly. How many."""
        return self._command(predicate, cut=False)

    def stop(self) -> None:
        """As a killed server: connections are cut and refused until `start`."""
        self._down = True
        self.cut_connections()

    def start(self) -> None:
        """Up again with the same data; watch caches begin anew."""
        self._down = False
        self.store.restart_caches()

    @property
    def open_watches(self) -> list[ApiCall]:
        return [stream.call for stream in self._streams.values()]

    # -- the service

    async def handle(self, request: Request) -> Response:
        if self._down:
            raise Refuse
        self.store.expire_events(self._clock.now())
        request = unwrapped(request)
        try:
            call = parse(self.store, request)
        except ApiError as error:
            self.answers[(request.method.lower(), request.path, error.code)] += 1
            return self._finished(request, failed(error))
        self.requests[(call.verb, call.resource)] += 1
        fault = self._due(call)
        response = await self._faulty(call, fault) if fault is not None else self._proper(call)
        self.answers[(call.verb, call.resource, response.status)] += 1
        return self._finished(request, response)

    async def _faulty(self, call: ApiCall, fault: _Fault) -> Response:
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if isinstance(fault.answer, Exception):
            raise fault.answer
        if isinstance(fault.answer, Response):
            return replace(fault.answer, headers=dict(fault.answer.headers))
        response = self._proper(call)
        if fault.lose_answer:
            raise HangUp
        return response

    def _due(self, call: ApiCall) -> _Fault | None:
        for fault in self._faults:
            if fault.predicate(call):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._faults.remove(fault)
                return fault
        return None

    def _proper(self, call: ApiCall) -> Response:
        try:
            self._authorize(call)
            if call.verb == "watch":
                return self._watch(call)
            if call.kind is None and (review := asked(call.request)) is not None:
                said = reviewed(review, call.request, user=self.user, may=self._may)
                return Response(status=201, headers={"content-type": "application/json"}, body=orjson.dumps(said))
            return answer(self.store, call, now=self._clock.now())
        except ApiError as error:
            return failed(error)

    def _authorize(self, call: ApiCall) -> None:
        scheme, _, token = call.request.headers.get("authorization", "").partition(" ")
        open_to_all = call.kind is None and not token
        if self.tokens is not None and not open_to_all and (scheme.lower() != "bearer" or token not in self.tokens):
            raise api_errors.unauthorized()
        if call.kind is None:
            return
        if not self._may(call.verb, call.resource, call.namespace or ""):
            raise api_errors.forbidden(
                call.kind,
                user=self.user,
                verb=call.verb,
                name=call.name,
                subresource=call.subresource,
                namespace=call.namespace,
            )

    def _may(self, verb: str, resource: str, namespace: str) -> bool:
        return not any(
            of_verb in (None, verb) and of_resource in (None, resource) and of_namespace in (None, namespace)
            for of_verb, of_resource, of_namespace in self._forbidden
        )

    def _finished(self, request: Request, response: Response) -> Response:
        response.headers.setdefault("date", format_datetime(self._clock.now(), usegmt=True))
        compressible = isinstance(response.body, bytes) and len(response.body) > GZIP_ABOVE_BYTES
        if compressible and "gzip" in request.headers.get("accept-encoding", ""):
            assert isinstance(response.body, bytes)
            response.body = gzip.compress(response.body, GZIP_LEVEL, mtime=0)
            response.headers["content-encoding"] = "gzip"
        return response

    # -- watches

    def _watch(self, call: ApiCall) -> Response:
        assert call.kind is not None
        query = call.request.query
        try:
            start = version_number(query.get("resourceVersion") or "0") or None
        except ValueError as error:
            raise api_errors.internal(str(error)) from None
        timeout_s = float(integer(query.get("timeoutSeconds", ""))) or DEFAULT_WATCH_S
        bookmarks = flag(call.request, "allowWatchBookmarks")
        watch = self.store.watch(
            call.kind,
            call.namespace,
            start=start,
            matches=selector(call),
            partial=form(call).partial,
            rendered=rows(call, self._clock.now),
            bookmarks=bookmarks,
        )
        if watch.failed_code:
            self.answers[(call.verb, call.resource, watch.failed_code)] += 1
        stream = _Stream(call, watch)
        watch.notify = stream.wake.set
        self._streams[id(stream)] = stream
        lines = self._lines(stream, timeout_s=timeout_s, bookmarks=bookmarks and call.kind.cached)
        body = _Body(lines, closed=lambda: self._forget(stream))
        return Response(status=200, headers={"content-type": "application/json"}, body=body)

    def _forget(self, stream: _Stream) -> None:
        self.store.unwatch(stream.watch)
        self._streams.pop(id(stream), None)

    async def _lines(self, stream: _Stream, *, timeout_s: float, bookmarks: bool) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        end_at = loop.time() + timeout_s
        bookmark_at = _next_bookmark_at(loop.time(), end_at) if bookmarks else None
        watch = stream.watch
        try:
            while True:
                if stream.cut:
                    raise HangUp
                if self._stalled is not None and self._stalled(stream.call):
                    await _woken(stream.wake, None)
                    continue
                for line in watch.drain():
                    yield line
                if stream.end or watch.ended or loop.time() >= end_at:
                    self.watch_ends[stream.call.resource] += 1
                    return
                if bookmark_at is not None and loop.time() >= bookmark_at and not watch.pending:
                    if self.store.revision > watch.start:
                        yield watch.bookmark(self.store.revision)
                    bookmark_at = _next_bookmark_at(loop.time(), end_at)
                await _woken(stream.wake, min(end_at, end_at if bookmark_at is None else bookmark_at) - loop.time())
        finally:
            self._forget(stream)

    def _command(self, predicate: Predicate, *, cut: bool) -> int:
        chosen = [stream for stream in self._streams.values() if predicate(stream.call)]
        for stream in chosen:
            stream.cut, stream.end = stream.cut or cut, stream.end or not cut
            stream.wake.set()
        return len(chosen)

    def _wake_all(self) -> None:
        for stream in self._streams.values():
            stream.wake.set()


def _next_bookmark_at(now_at: float, end_at: float) -> float | None:
    early = end_at - BOOKMARK_BEFORE_END_S
    at = min(now_at + BOOKMARK_EVERY_S, early)
    return at if at > now_at else None


async def _woken(wake: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the event or the time; the event is cleared."""
    if not wake.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await wake.wait()
    wake.clear()
