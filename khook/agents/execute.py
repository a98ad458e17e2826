"""The `execute` protocol: one POST that the agent accepts, answered in its own time.

`POST {base}/v1/agents/{agentId}/execute` with a Bearer key and the call id as `Idempotency-Key`
(draft-ietf-httpapi-idempotency-key-header). There is no run to follow and nothing to ask afterwards. An agent may
work for minutes, so silence after the whole request was written counts as accepted; everything else that is not an
answer is safe to send again under the same key. `MATRIX` is the whole decision, a row a symptom. Without an API key
nothing is sent at all.
"""

from datetime import UTC
from enum import Enum, auto
from typing import Final
from urllib.parse import quote

import httpx
import orjson

from khook.agents.answer import kept
from khook.agents.exchange import Answer, Exchange, Failure, NoAnswer, json_object, retry_after_s
from khook.agents.outcome import (
    MAX_ERROR_CHARS,
    AgentRequest,
    Finding,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Progress,
    Working,
)
from khook.seams import Clock

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
    BAD_NAME = auto()
    NO_RUN = auto()


_K = OutcomeKind
_R = OutcomeReason

MATRIX: Final[dict[Symptom, tuple[OutcomeKind, OutcomeReason, str]]] = {
    # symptom: what delivery does, why, in words for a person
    Symptom.STATUS_2XX: (_K.COMPLETED, _R.ANSWERED, ""),
    Symptom.STATUS_3XX: (_K.REJECTED, _R.REDIRECTED, "redirects are not followed; set KAGENT_BASE_URL to its end"),
    Symptom.STATUS_401: (_K.UNAUTHORIZED, _R.BAD_KEY, "the API key was not accepted"),
    Symptom.STATUS_403: (_K.UNAUTHORIZED, _R.BAD_KEY, "the API key may not call this agent"),
    Symptom.STATUS_404: (_K.NOT_FOUND, _R.AGENT_NOT_FOUND, "no such agent"),
    Symptom.STATUS_429: (_K.RETRY_AFTER, _R.THROTTLED, "too many requests"),
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
    Symptom.BAD_NAME: (_K.REJECTED, _R.BAD_REQUEST, "not an agent's name"),
    Symptom.NO_RUN: (_K.RUN_LOST, _R.TASK_GONE, "this protocol has no run to follow"),
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


def symptom_of_status(status: int, *, written: bool) -> Symptom:
    if status == 504 and written:
        return Symptom.STATUS_504_WRITTEN
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Symptom.STATUS_ODD)


def symptom_of_failure(failure: Failure, *, written: bool) -> Symptom:
    if failure is Failure.READ_TIMEOUT and written:
        return Symptom.READ_TIMEOUT_WRITTEN
    return Symptom[failure.name]


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
        self._has_key = bool(api_key)
        self._key_hint = key_hint
        self._exchange = Exchange(
            base_url=base_url, api_key=api_key, transport=transport, clock=clock, read_timeout_s=read_timeout_s
        )

    def replace_key(self, api_key: str) -> None:
        self._has_key = bool(api_key)
        self._exchange.replace_key(api_key)

    async def call(self, request: AgentRequest, progress: Progress) -> Outcome:
        """One POST; see `MATRIX`."""
        if not self._has_key:
            error = f"no API key yet: {self._key_hint}"[:MAX_ERROR_CHARS]
            return Outcome(kind=OutcomeKind.UNAUTHORIZED, reason=OutcomeReason.BAD_KEY, error=error)
        if not set(request.agent_id.split("/")).isdisjoint({"", ".", ".."}):
            return self._outcome(Symptom.BAD_NAME, request)  # it would climb out of /v1/agents/
        answer = await self._exchange.ask(
            "POST",
            f"/v1/agents/{quote(request.agent_id, safe='')}/execute",
            body=encode(request),
            headers={"Idempotency-Key": request.call_id},
            progress=progress,
        )
        if isinstance(answer, NoAnswer):
            symptom = symptom_of_failure(answer.failure, written=progress.written)
            return self._outcome(symptom, request, hint=answer.hint)
        return self._outcome(symptom_of_status(answer.status, written=progress.written), request, answer=answer)

    async def reconcile(self, request: AgentRequest) -> Outcome | Finding:
        """This API has no question to ask: the same key makes sending once more the best there is."""
        return Finding.CANNOT_BE_ASKED

    async def poll(self, request: AgentRequest, task_id: str) -> Outcome | Working:
        """Never asked: no outcome of this protocol names a task."""
        return self._outcome(Symptom.NO_RUN, request)

    async def aclose(self) -> None:
        await self._exchange.aclose()

    def _outcome(
        self, symptom: Symptom, request: AgentRequest, *, answer: Answer | None = None, hint: str = ""
    ) -> Outcome:
        kind, reason, words = MATRIX[symptom]
        what = f"HTTP {answer.status}: {words}" if answer else words + hint
        waits = answer is not None and kind in (OutcomeKind.RETRY, OutcomeKind.RETRY_AFTER)
        return Outcome(
            kind=kind,
            reason=reason,
            error=f"agent {request.agent}: {what}"[:MAX_ERROR_CHARS] if words else "",
            result=_result(answer) if answer and reason is OutcomeReason.ANSWERED else "",
            retry_after_s=retry_after_s(answer, self._exchange.clock.now()) if answer and waits else None,
            status=answer.status if answer else 0,
        )


def _result(answer: Answer) -> str:
    """What is kept of the answer's text."""
    if "content-encoding" in answer.headers:
        return ""  # compressed although we asked for identity: not text
    text = answer.body.decode("utf-8", "replace")
    parsed = json_object(answer.body)
    text = next((value for name in RESULT_FIELDS if isinstance(value := parsed.get(name), str)), text)
    return kept(text)
