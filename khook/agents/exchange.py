"""One HTTP exchange with kagent: sent by our own timeouts, and its answer read as far as is safe.

It talks to the transport and not to an `httpx.AsyncClient`: no cookies, no redirects, no proxy from the environment.
Every protocol's table of symptoms begins with the `Failure`s below; what an answer means is the protocol's to know.
An answer is never unpacked (a compressed one could be a bomb) and never kept beyond its first MiB.
"""

import socket
import ssl
from collections.abc import AsyncIterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Final

import httpx
import orjson

from khook.agents.outcome import Progress
from khook.seams import Clock

CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0

# A worker has at most 64 calls under way (KHOOK_CALLS_PER_WORKER) and the transport 256 connections, so nobody waits
# for one. Where more calls are allowed, this wait is before anything is sent: sending again is safe.
POOL_TIMEOUT_S: Final = 1.0

# What is kept of an answer is its first KiB; an endless one must neither fill the memory nor hold the slot.
MAX_ANSWER_BYTES: Final = 1024 * 1024

# A peer that asks for more is asked again after this: a call is delivered for 15 min at most.
MAX_RETRY_AFTER_S: Final = 900.0


class Failure(Enum):
    """Why there is no answer."""

    NO_SLOT = auto()
    NO_CONNECTION = auto()
    CONNECT_TIMEOUT = auto()
    WRITE_TIMEOUT = auto()
    READ_TIMEOUT = auto()
    BROKEN = auto()
    UNSENDABLE = auto()


_BY_ERROR: Final[tuple[tuple[type[httpx.TransportError], Failure], ...]] = (
    (httpx.PoolTimeout, Failure.NO_SLOT),
    (httpx.ConnectTimeout, Failure.CONNECT_TIMEOUT),
    (httpx.ConnectError, Failure.NO_CONNECTION),
    (httpx.WriteTimeout, Failure.WRITE_TIMEOUT),
    (httpx.ReadTimeout, Failure.READ_TIMEOUT),
    (httpx.LocalProtocolError, Failure.UNSENDABLE),
    (httpx.UnsupportedProtocol, Failure.UNSENDABLE),
    (httpx.TransportError, Failure.BROKEN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `whole` is False where the body broke off or was cut: then it is no evidence of anything."""

    status: int
    headers: httpx.Headers
    body: bytes
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class NoAnswer:
    """The exchange failed; `hint` is what a person can act on, in our own words."""

    failure: Failure
    hint: str = ""


class Exchange:
    """Exchanges with one base URL. The transport is the exact one of `khook.seams.Transports`; `aclose` closes it."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
        read_timeout_s: float,
    ) -> None:
        self.clock = clock
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._transport = transport
        self._read_timeout_s = read_timeout_s

    def replace_key(self, api_key: str) -> None:
        self._api_key = api_key

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Answer | NoAnswer:
        """One request and its answer; `path` is percent-encoded. Raises nothing but the caller's own cancellation."""
        try:
            request = self._request(method, path, body=body, headers=headers or {}, progress=progress)
            response = await self._transport.handle_async_request(request)
            try:
                read, whole = await self._read(response)
            finally:
                await response.aclose()
        except httpx.TransportError as error:
            return NoAnswer(failure=failure_of(error), hint=_hint(error))
        return Answer(status=response.status_code, headers=response.headers, body=read, whole=whole)

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _request(
        self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str], progress: Progress | None
    ) -> httpx.Request:
        async def trace(event: str, _info: Any) -> None:
            if progress is not None and event == "http11.send_request_body.complete":
                progress.written = True

        timeouts = httpx.Timeout(
            connect=CONNECT_TIMEOUT_S, write=WRITE_TIMEOUT_S, read=self._read_timeout_s, pool=POOL_TIMEOUT_S
        )
        return httpx.Request(
            method,
            f"{self._base_url}{path}",
            headers={**self._headers(body), **{name.encode(): value.encode() for name, value in headers.items()}},
            content=body,
            extensions={"timeout": timeouts.as_dict(), "trace": trace},
        )

    def _headers(self, body: bytes | None) -> dict[bytes, bytes]:
        headers = {b"Accept-Encoding": b"identity", b"User-Agent": b"kagent-hook-controller"}
        if self._api_key:
            # Bytes, so that a key beyond ASCII is sent and not an exception that quotes it.
            headers[b"Authorization"] = b"Bearer " + self._api_key.encode()
        if body is not None:
            headers[b"Content-Type"] = b"application/json"
        return headers

    async def _read(self, response: httpx.Response) -> tuple[bytes, bool]:
        """The body as far as it comes, and whether that is all of it.

        Dripping bytes keep a read timeout from ever firing, hence the deadline for the whole.
        """
        body = bytearray()
        deadline_at = self.clock.monotonic() + self._read_timeout_s
        try:
            async for chunk in _raw(response):
                body += chunk
                if len(body) >= MAX_ANSWER_BYTES or self.clock.monotonic() >= deadline_at:
                    return bytes(body[:MAX_ANSWER_BYTES]), False
        except httpx.TransportError:
            return b"", False
        return bytes(body), response.headers.get("content-encoding", "identity") == "identity"


def _raw(response: httpx.Response) -> AsyncIterable[bytes]:
    """The stream itself, as it came: `Response` would unpack it, and refuses one that was given to it whole."""
    assert isinstance(response.stream, AsyncIterable)
    return response.stream


def failure_of(error: httpx.TransportError) -> Failure:
    return next(failure for kind, failure in _BY_ERROR if isinstance(error, kind))


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object; an empty one for anything else."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def retry_after_s(answer: Answer, now: datetime) -> float | None:
    """`Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), else `retry_after` in a JSON body."""
    for stated in (answer.headers.get("retry-after"), json_object(answer.body).get("retry_after")):
        wait_s = _seconds(stated, now)
        if wait_s is not None:
            return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
    return None


def _seconds(stated: object, now: datetime) -> float | None:
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    if not isinstance(stated, str):
        return None
    try:
        return float(stated) if stated.strip().isdecimal() else (_http_date(stated) - now).total_seconds()
    except (ValueError, OverflowError):
        return None


def _http_date(stated: str) -> datetime:
    date = parsedate_to_datetime(stated)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _hint(error: BaseException) -> str:
    """What kept a connection from being made: what a person can act on, without a word of the peer's."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ": the server's certificate is not trusted (see KAGENT_CA_FILE)"
        if isinstance(cause, ssl.SSLError):
            return ": TLS failed"
        if isinstance(cause, socket.gaierror):
            return ": host name not found"
        if isinstance(cause, ConnectionRefusedError):
            return ": refused"
    return ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(8):  # no library nests deeper
        if seen is None:
            return
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]  # one for each address of the host; they mostly agree
        yield seen
        seen = seen.__cause__ or seen.__context__
