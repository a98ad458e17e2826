"""The `execute` protocol: one POST that the agent accepts, answered in its own time.

`POST {base}/v1/agents/{agentId}/execute` with a Bearer key and the call id as `Idempotency-Key`
(draft-ietf-httpapi-idempotency-key-header). There is no run to follow and nothing to ask afterwards. An agent may
work for minutes, so silence after the whole request was written counts as accepted; everything else that is not an
answer is safe to send again under the same key. `MATRIX` is the whole decision, a row a symptom. Without an API key
nothing is sent at all.

It talks to the transport and not to an `httpx.AsyncClient`: no cookies, no redirects, no proxy from the environment.
"""

import socket
import ssl
from collections.abc import AsyncIterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from khook.agents.outcome import (
    MAX_ERROR_CHARS,
    MAX_RESULT_BYTES,
    AgentRequest,
    Finding,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Progress,
)
from khook.core.text import plain
from khook.seams import Clock

CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0

# A worker has at most 64 calls under way (KHOOK_CALLS_PER_WORKER) and the transport 256 connections, so nobody waits
# for one. Where more calls are allowed, this wait is before anything is sent: sending again is safe.
POOL_TIMEOUT_S: Final = 1.0

# The answer is read for its first KiB; an endless one must neither fill the memory nor hold the slot.
MAX_ANSWER_BYTES: Final = 1024 * 1024

# A peer that asks for more is asked again after this: a call is delivered for 15 min at most.
MAX_RETRY_AFTER_S: Final = 900.0

# Fields in which an answer's text is looked for; an answer without any is kept as it stands.
RESULT_FIELDS: Final = ("result", "response", "output", "message")


class Symptom(Enum):
    """What was seen of one attempt."""

    STATUS_2XX = auto()
    STATUS_3XX = auto()
    STATUS_401 = auto()
    STATUS_403 = auto()
    STATUS_404 = auto()
    STATUS_429 = auto()
    STATUS_4XX = auto()
    STATUS_504_WRITTEN = auto()
    STATUS_5XX = auto()
    STATUS_ODD = auto()
    NO_SLOT = auto()
    NO_CONNECTION = auto()
    CONNECT_TIMEOUT = auto()
    WRITE_TIMEOUT = auto()
    READ_TIMEOUT = auto()
    READ_TIMEOUT_WRITTEN = auto()
    BROKEN = auto()
    UNSENDABLE = auto()


_K = OutcomeKind
_R = OutcomeReason

MATRIX: Final[dict[Symptom, tuple[OutcomeKind, OutcomeReason, str]]] = {
    # symptom: what delivery does, why, in words for a person
    Symptom.STATUS_2XX: (_K.ACCEPTED, _R.ANSWERED, ""),
    Symptom.STATUS_3XX: (_K.REJECTED, _R.REDIRECTED, "redirects are not followed; set KAGENT_BASE_URL to its end"),
    Symptom.STATUS_401: (_K.UNAUTHORIZED, _R.BAD_KEY, "the API key was not accepted"),
    Symptom.STATUS_403: (_K.UNAUTHORIZED, _R.BAD_KEY, "the API key may not call this agent"),
    Symptom.STATUS_404: (_K.NOT_FOUND, _R.AGENT_NOT_FOUND, "no such agent"),
    Symptom.STATUS_429: (_K.RETRY, _R.THROTTLED, "too many requests"),
    Symptom.STATUS_4XX: (_K.REJECTED, _R.BAD_REQUEST, "the request was refused as wrong"),
    Symptom.STATUS_504_WRITTEN: (_K.ACCEPTED, _R.NO_ANSWER, "a gateway gave up waiting for the agent's answer"),
    Symptom.STATUS_5XX: (_K.RETRY, _R.SERVER_ERROR, "the server failed"),
    Symptom.STATUS_ODD: (_K.RETRY, _R.SERVER_ERROR, "no valid HTTP status"),
    Symptom.NO_SLOT: (_K.RETRY, _R.NO_SLOT, "all connections were busy"),
    Symptom.NO_CONNECTION: (_K.RETRY, _R.UNREACHABLE, "no connection"),
    Symptom.CONNECT_TIMEOUT: (_K.RETRY, _R.TIMEOUT, "no connection in time"),
    Symptom.WRITE_TIMEOUT: (_K.RETRY, _R.TIMEOUT, "the request could not be sent in time"),
    Symptom.READ_TIMEOUT: (_K.RETRY, _R.TIMEOUT, "no answer in time to a request that was not wholly sent"),
    Symptom.READ_TIMEOUT_WRITTEN: (_K.ACCEPTED, _R.NO_ANSWER, "no answer in time"),
    Symptom.BROKEN: (_K.RETRY, _R.RESET, "the connection broke before an answer"),
    Symptom.UNSENDABLE: (_K.REJECTED, _R.BAD_REQUEST, "no valid HTTP request; is there a line break in the API key?"),
}

_BY_STATUS: Final = {
    401: Symptom.STATUS_401,
    403: Symptom.STATUS_403,
    404: Symptom.STATUS_404,
    429: Symptom.STATUS_429,
}
_BY_CLASS: Final = {
    2: Symptom.STATUS_2XX,
    3: Symptom.STATUS_3XX,
    4: Symptom.STATUS_4XX,
    5: Symptom.STATUS_5XX,
}
_BY_ERROR: Final[tuple[tuple[type[httpx.TransportError], Symptom], ...]] = (
    (httpx.PoolTimeout, Symptom.NO_SLOT),
    (httpx.ConnectTimeout, Symptom.CONNECT_TIMEOUT),
    (httpx.ConnectError, Symptom.NO_CONNECTION),
    (httpx.WriteTimeout, Symptom.WRITE_TIMEOUT),
    (httpx.ReadTimeout, Symptom.READ_TIMEOUT),
    (httpx.LocalProtocolError, Symptom.UNSENDABLE),
    (httpx.UnsupportedProtocol, Symptom.UNSENDABLE),
    (httpx.TransportError, Symptom.BROKEN),
)


def symptom_of_status(status: int, *, written: bool) -> Symptom:
    if status == 504 and written:
        return Symptom.STATUS_504_WRITTEN
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Symptom.STATUS_ODD)


def symptom_of_error(error: httpx.TransportError, *, written: bool) -> Symptom:
    symptom = next(symptom for kind, symptom in _BY_ERROR if isinstance(error, kind))
    return Symptom.READ_TIMEOUT_WRITTEN if symptom is Symptom.READ_TIMEOUT and written else symptom


def encode(request: AgentRequest) -> bytes:
    """The body, in the seed's order of fields. The same request always gives the same bytes."""
    context = request.context
    return orjson.dumps(
        {
            "agentId": request.agent_id,
            "prompt": request.prompt,
            "context": {
                "eventName": context.event_name,
                "eventTime": context.event_time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "resourceName": context.resource_name,
                "namespace": context.namespace,
                "eventMessage": context.event_message,
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


class ExecuteProtocol:
    """`execute` at one base URL. The transport is the exact one of `khook.seams.Transports`; `aclose` closes it."""

    name: Final = "execute"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
        read_timeout_s: float = 30.0,
        key_hint: str = "set KAGENT_API_KEY",
    ) -> None:
        """`api_key` may be empty: then calls end with `key_hint`, what a person does to give one."""
        self._base_url = base_url.rstrip("/")
        self._transport = transport
        self._clock = clock
        self._read_timeout_s = read_timeout_s
        self._api_key = api_key
        self._key_hint = key_hint
        self._headers: dict[bytes, bytes] = {
            b"Content-Type": b"application/json",
            b"Accept-Encoding": b"identity",  # a compressed answer could be a bomb
            b"User-Agent": b"kagent-hook-controller",
        }

    def replace_key(self, api_key: str) -> None:
        self._api_key = api_key

    async def call(self, request: AgentRequest, progress: Progress) -> Outcome:
        """One POST; see `MATRIX`. Raises nothing but the caller's own cancellation."""
        if not self._api_key:
            return self._no_key()
        try:
            post = self._post(request, progress)
            answer = await self._exchange(post)
        except httpx.TransportError as error:
            symptom = symptom_of_error(error, written=progress.written)
            return _outcome(symptom, request, detail=_cause(error))
        symptom = symptom_of_status(answer.status, written=progress.written)
        return _outcome(symptom, request, answer=answer, now=self._clock.now())

    async def reconcile(self, request: AgentRequest) -> Outcome | Finding:
        """This API has no question to ask: the same key makes sending once more the best there is."""
        return Finding.CANNOT_BE_ASKED

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _no_key(self) -> Outcome:
        error = f"no API key yet: {self._key_hint}"[:MAX_ERROR_CHARS]
        return Outcome(kind=OutcomeKind.UNAUTHORIZED, reason=OutcomeReason.BAD_KEY, error=error)

    def _post(self, request: AgentRequest, progress: Progress) -> httpx.Request:
        if not set(request.agent_id.split("/")).isdisjoint({"", ".", ".."}):
            raise httpx.UnsupportedProtocol("not an agent's name")  # it would climb out of /v1/agents/

        async def trace(event: str, _info: Any) -> None:
            if event == "http11.send_request_body.complete":
                progress.written = True

        timeouts = httpx.Timeout(
            connect=CONNECT_TIMEOUT_S, write=WRITE_TIMEOUT_S, read=self._read_timeout_s, pool=POOL_TIMEOUT_S
        )
        return httpx.Request(
            "POST",
            f"{self._base_url}/v1/agents/{quote(request.agent_id, safe='')}/execute",
            headers={
                **self._headers,
                # Bytes, so that a key beyond ASCII is sent and not an exception that quotes it.
                b"Authorization": b"Bearer " + self._api_key.encode(),
                b"Idempotency-Key": request.call_id.encode(),
            },
            content=encode(request),
            extensions={"timeout": timeouts.as_dict(), "trace": trace},
        )

    async def _exchange(self, post: httpx.Request) -> _Answer:
        response = await self._transport.handle_async_request(post)
        try:
            body = await self._read(response)
        finally:
            await response.aclose()
        return _Answer(response.status_code, response.headers, body)

    async def _read(self, response: httpx.Response) -> bytes:
        """The body, as far as it comes: the status has decided already, a broken body changes nothing.

        Dripping bytes keep a read timeout from ever firing, hence the deadline for the whole.
        """
        body = bytearray()
        deadline_at = self._clock.monotonic() + self._read_timeout_s
        try:
            async for chunk in _raw(response):
                body += chunk
                if len(body) >= MAX_ANSWER_BYTES or self._clock.monotonic() >= deadline_at:
                    break
        except httpx.TransportError:
            return b""
        return bytes(body[:MAX_ANSWER_BYTES])


def _raw(response: httpx.Response) -> AsyncIterable[bytes]:
    """The stream itself, as it came: `Response` would unpack it, and refuses one that was given to it whole."""
    assert isinstance(response.stream, AsyncIterable)
    return response.stream


def _outcome(
    symptom: Symptom,
    request: AgentRequest,
    *,
    answer: _Answer | None = None,
    now: datetime | None = None,
    detail: str = "",
) -> Outcome:
    kind, reason, words = MATRIX[symptom]
    status = answer.status if answer else 0
    what = f"HTTP {status}: {words}" if answer else words + detail
    return Outcome(
        kind=kind,
        reason=reason,
        error=f"agent {request.agent}: {what}"[:MAX_ERROR_CHARS] if words else "",
        result=_result(answer) if answer and reason is OutcomeReason.ANSWERED else "",
        retry_after_s=_retry_after_s(answer, now) if answer and now and kind is OutcomeKind.RETRY else None,
        status=status,
    )


def _result(answer: _Answer) -> str:
    """The answer's text as one line without control or bidi characters, cut to what a status keeps."""
    text = answer.body.decode("utf-8", "replace")
    if "content-encoding" in answer.headers:
        return ""  # compressed although we asked for identity: not text
    parsed = _json_object(answer.body)
    text = next((value for name in RESULT_FIELDS if isinstance(value := parsed.get(name), str)), text)
    return plain(text.strip(), max_bytes=MAX_RESULT_BYTES)


def _retry_after_s(answer: _Answer, now: datetime) -> float | None:
    """`Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), else `retry_after` in a JSON body."""
    for stated in (answer.headers.get("retry-after"), _json_object(answer.body).get("retry_after")):
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


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _cause(error: BaseException) -> str:
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
