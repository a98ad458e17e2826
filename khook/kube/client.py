"""Requests to the API server: the one place where its answers become `khook.errors`.

Reads and watches go over the streaming transport and may be cancelled; writes go over the exact one, each in a task
of its own that a cancelled caller does not take with it, so that a write ends by its own timeouts alone. Transports
are used bare, without an httpx client around them: no redirects, no cookies, no proxies from the environment, by
construction. A 401 gets fresh credentials once, and a read is asked again with them. Nothing else is retried here.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final, TypeVar

import httpx
import msgspec
import orjson

from khook.errors import Invalid, KubeError, Unauthorized, Unavailable
from khook.kube.answers import BAD_JSON, error_for_answer
from khook.kube.connections import Connections
from khook.kube.credentials import Credentials
from khook.kube.identity import FreshCredentials, Identity
from khook.kube.resources import JSON, Resource
from khook.kube.server_time import ServerTime
from khook.kube.transports import TRANSPORT_ERRORS
from khook.seams import Clock, Transports

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741

CONNECT_S: Final = 5.0
WRITE_S: Final = 10.0
READ_S: Final = 30.0
POOL_S: Final = 5.0

# A read that drips for ever keeps within READ_S from byte to byte; a page of 500 pods takes a second or two.
WHOLE_READ_S: Final = 120.0

# 500 pods of 10 to 20 KB are a tenth of it.
PAGE_LIMIT_BYTES: Final = 64 * 1024 * 1024

# etcd takes requests of 1.5 MiB, and managed fields may double what we see of one.
OBJECT_LIMIT_BYTES: Final = 4 * 1024 * 1024

# A Status with its message; the rest of a proxy's error page is not worth reading.
ERROR_LIMIT_BYTES: Final = 64 * 1024

# Parsing an address costs more than the rest of a request; a worker asks for a few paths of each of its namespaces.
URLS_MOST: Final = 4096

MERGE_PATCH: Final = "application/merge-patch+json"
USER_AGENT: Final = f"khook/{version('khook')}"


class KubeClient:
    """`fresh` is asked after a 401 and answers newer credentials, or None where there are none."""

    def __init__(
        self,
        *,
        credentials: Credentials,
        transports: Transports,
        clock: Clock,
        fresh: FreshCredentials | None = None,
    ) -> None:
        self._clock = clock
        self._identity = Identity(credentials=credentials, clock=clock, fresh=fresh)
        self._connections = Connections(credentials=credentials, transports=transports)
        self._server_time = ServerTime()
        self._writes: dict[asyncio.Task[dict[str, Any]], None] = {}

    def server_now(self) -> datetime:
        """The API server's time, by our clock: what is written into statuses."""
        return self._clock.now() + self._server_time.offset

    def replace(self, credentials: Credentials) -> None:
        """Go on with these: new requests at once; requests and watches under way end where they are."""
        self._identity.replace(credentials)

    async def get(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        accept: str = JSON,
        limit_bytes: int = OBJECT_LIMIT_BYTES,
    ) -> bytes:
        """The body of a GET. Raises a KubeError."""
        try:
            async with asyncio.timeout(WHOLE_READ_S), self._answer(path, params, accept, READ_S) as response:
                return await _read(response, limit_bytes)
        except TimeoutError as error:
            raise Unavailable(f"GET {path} took more than {WHOLE_READ_S:.0f} s") from error

    async def get_object(self, resource: Resource[T], namespace: str, name: str, kind: type[O]) -> O:
        """One object by name, as `kind`. Raises a KubeError; `Invalid` when it does not look like one."""
        body = await self.get(resource.path(namespace, name), accept=resource.accept)
        try:
            return msgspec.json.decode(body, type=kind)
        except BAD_JSON as error:
            raise Invalid(f"not a {kind.__name__}: {error}") from error

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, str], accept: str, read_s: float
    ) -> AsyncIterator[AsyncIterable[bytes]]:
        """The chunks of a watch, as they come. `read_s` is the longest silence between two of them.

        Raises a KubeError on opening, and out of the `async with` where the stream breaks.
        """
        async with self._answer(path, params, accept, read_s) as response:
            encoded = response.headers.get("content-encoding", "identity") != "identity"
            # The bare stream spares two generators a chunk.
            yield response.aiter_bytes() if encoded else _async_stream(response)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST to a collection; the object as stored."""
        return await self._exactly("POST", path, content=orjson.dumps(body), content_type=JSON)

    async def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """A merge patch (RFC 7386); the object as stored."""
        return await self._exactly("PATCH", path, content=orjson.dumps(body), content_type=MERGE_PATCH)

    async def ask(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, within_s: float
    ) -> dict[str, Any]:
        """One object over the exact transport, each step of the exchange within `within_s`: for what has a deadline."""
        content = None if body is None else orjson.dumps(body)
        return await self._exactly(method, path, content=content, content_type=JSON, within_s=within_s)

    async def aclose(self) -> None:
        """Waits for the writes under way (bounded by their timeouts), then closes all connections."""
        if self._writes:
            await asyncio.wait(list(self._writes))
        await self._connections.aclose()

    @asynccontextmanager
    async def _answer(
        self, path: str, params: Mapping[str, str] | None, accept: str, read_s: float
    ) -> AsyncIterator[httpx.Response]:
        """A GET that was answered with 200, after one try with fresh credentials where it was a 401."""
        seen = self._identity.generation
        async with AsyncExitStack() as stack:
            try:
                response = await stack.enter_async_context(self._get_once(path, params, accept, read_s))
            except Unauthorized:
                if not await self._identity.renew(refused=seen):
                    raise
                response = await stack.enter_async_context(self._get_once(path, params, accept, read_s))
            yield response

    @asynccontextmanager
    async def _get_once(
        self, path: str, params: Mapping[str, str] | None, accept: str, read_s: float
    ) -> AsyncIterator[httpx.Response]:
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        async with self._connections.use(self._identity.credentials) as pair:
            request = self._request("GET", path, params=params, headers=headers, read_s=read_s)
            async with self._exchange(pair.streaming, request) as response:
                yield response

    async def _exactly(
        self, method: str, path: str, *, content: bytes | None, content_type: str, within_s: float | None = None
    ) -> dict[str, Any]:
        work = self._exchange_once(method, path, content=content, content_type=content_type, within_s=within_s)
        task = asyncio.ensure_future(work)
        self._writes[task] = None
        task.add_done_callback(self._written)
        seen = self._identity.generation
        try:
            return await asyncio.shield(task)
        except Unauthorized:
            await self._identity.renew(refused=seen)
            raise

    def _written(self, task: asyncio.Task[dict[str, Any]]) -> None:
        del self._writes[task]
        if not task.cancelled():
            task.exception()  # a cancelled caller does not come for it

    async def _exchange_once(
        self, method: str, path: str, *, content: bytes | None, content_type: str, within_s: float | None
    ) -> dict[str, Any]:
        headers = {"Accept": JSON, "Accept-Encoding": "identity"}
        if content is not None:
            headers["Content-Type"] = content_type
        async with self._connections.use(self._identity.credentials) as pair:
            request = self._request(method, path, headers=headers, read_s=READ_S, content=content, within_s=within_s)
            async with self._exchange(pair.exact, request) as response:
                answer = await _read(response, OBJECT_LIMIT_BYTES)
        try:
            stored = orjson.loads(answer)
        except ValueError as error:
            raise Unavailable(f"{method} {path}: the answer is not JSON", status=response.status_code) from error
        if not isinstance(stored, dict):
            raise Unavailable(f"{method} {path}: the answer is not an object", status=response.status_code)
        return stored

    def _request(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        read_s: float,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        within_s: float | None = None,
    ) -> httpx.Request:
        credentials = self._identity.credentials
        token = self._identity.token()
        limits_s = {"connect": CONNECT_S, "write": WRITE_S, "read": read_s, "pool": POOL_S}
        if within_s is not None:
            limits_s = {step: min(limit_s, within_s) for step, limit_s in limits_s.items()}
        extensions: dict[str, Any] = {"timeout": limits_s}
        if credentials.tls_server_name:
            extensions["sni_hostname"] = credentials.tls_server_name
        try:
            url = _url(credentials.server, path)
            url = url.copy_with(params=params) if params else url
        except httpx.InvalidURL as error:
            raise Invalid(f"{method} {path[:100]}…: {error}") from None
        return httpx.Request(
            method,
            url,
            headers=headers | {"User-Agent": USER_AGENT} | ({"Authorization": f"Bearer {token}"} if token else {}),
            content=content,
            extensions=extensions,
        )

    @asynccontextmanager
    async def _exchange(
        self, transport: httpx.AsyncBaseTransport, request: httpx.Request
    ) -> AsyncIterator[httpx.Response]:
        """Send once; a bad status or a broken transport is a KubeError, from the first byte to the last."""
        try:
            sent_time = self._clock.now()
            response = await transport.handle_async_request(request)
            answered_time = self._clock.now()
            date = response.headers.get("date")
            self._server_time.observe(date, sent_time=sent_time, answered_time=answered_time)
            try:
                if not 200 <= response.status_code < 300:
                    raise await self._refusal(response)
                yield response
            finally:
                await response.aclose()
        except TRANSPORT_ERRORS as error:
            what = f"{request.method} {request.url.path}: {type(error).__name__}"
            if isinstance(error, httpx.LocalProtocolError):
                raise Unavailable(what) from None  # its text quotes the header that is wrong, and a token in it
            raise Unavailable(f"{what}: {error}") from error

    async def _refusal(self, response: httpx.Response) -> KubeError:
        try:
            body = await _read(response, ERROR_LIMIT_BYTES)
        except Invalid:
            body = b""
        retry_after = response.headers.get("retry-after")
        return error_for_answer(response.status_code, body=body, retry_after=retry_after, now=self.server_now())


@lru_cache(maxsize=URLS_MOST)
def _url(server: str, path: str) -> httpx.URL:
    return httpx.URL(server.rstrip("/") + path)


def _async_stream(response: httpx.Response) -> AsyncIterable[bytes]:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    """The whole body, decoded. Raises Invalid past the limit: asking again would not make it smaller."""
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise Invalid(f"the answer is larger than {limit_bytes} bytes", status=response.status_code)
    return b"".join(parts)
