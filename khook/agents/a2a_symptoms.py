"""What each symptom of an `a2a` attempt means: one table, and how an answer becomes a row of it.

`MATRIX` is the whole decision about a send and the session before it, `STATES` that about a task. The words are ours
alone: nothing of what a peer answered. Sources: A2A 0.3.0 and 1.0 (error codes), kagent-dev/kagent
`go/core/internal/a2a/a2a_handler_mux.go` and `httpserver/handlers/sessions.go`, Envoy's local replies.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from khook.agents.a2a_wire import VERSION_NOT_SUPPORTED, RpcError, TaskState, read_result
from khook.agents.exchange import Answer, Failure, NoAnswer, json_object
from khook.agents.outcome import DOUBT_S, OutcomeKind, OutcomeReason

# A controller that has just started learns of its agents within seconds.
NOT_FOUND_RETRY_S: Final = 15.0

# What a missing database row is called: by gorm (kagent to 0.8) and by pgx (since). A database that is down gives the
# same HTTP status with another ending.
_NO_ROW: Final = ("record not found", "no rows in result set")

_VERSION_REFUSED: Final = re.compile(rb"(missing required|unsupported) A2A[- ]version", re.IGNORECASE)
_AGENT_NOT_FOUND: Final = re.compile(rb"\AAgent \S+ not found\s*\Z")
# Envoy: "upstream connect error or disconnect/reset before headers. reset reason: …"
_CUT_OFF: Final = re.compile(rb"reset|disconnect", re.IGNORECASE)

# JSON-RPC 2.0 and A2A codes that refuse a request before any work. Any other code leaves it open.
_REFUSALS: Final = frozenset({-32700, -32600, -32601, -32602, -32003, -32004, -32005, -32007, -32008, -32009})


class Symptom(Enum):
    """What was seen of one attempt that did not end in a task or a message."""

    NO_SLOT = auto()
    NO_CONNECTION = auto()
    CONNECT_TIMEOUT = auto()
    WRITE_TIMEOUT = auto()
    READ_TIMEOUT = auto()
    BROKEN = auto()
    BROKEN_WRITTEN = auto()
    UNSENDABLE = auto()
    BAD_NAME = auto()
    BODY_BROKEN = auto()
    RPC_REFUSED = auto()
    RPC_INTERNAL = auto()
    RPC_OTHER = auto()
    STATUS_2XX = auto()
    STATUS_3XX = auto()
    STATUS_400_VERSION = auto()
    STATUS_401 = auto()
    STATUS_403 = auto()
    STATUS_404_AGENT = auto()
    STATUS_408 = auto()
    STATUS_429 = auto()
    STATUS_4XX = auto()
    STATUS_502 = auto()
    STATUS_503 = auto()
    STATUS_503_CUT_OFF = auto()
    STATUS_504 = auto()
    STATUS_5XX = auto()
    STATUS_ODD = auto()
    SESSION_NO_AGENT = auto()
    SESSION_SILENT = auto()
    SESSION_FAILED = auto()


@dataclass(frozen=True, slots=True)
class Row:
    kind: OutcomeKind
    reason: OutcomeReason
    words: str
    doubt_s: float = 0.0
    retry_after_s: float | None = None


_K = OutcomeKind
_R = OutcomeReason

MATRIX: Final[dict[Symptom, Row]] = {
    # symptom: what delivery does, why, in words for a person, how long a "no" is in doubt
    Symptom.NO_SLOT: Row(_K.RETRY, _R.NO_SLOT, "all connections were busy"),
    Symptom.NO_CONNECTION: Row(_K.RETRY, _R.UNREACHABLE, "no connection"),
    Symptom.CONNECT_TIMEOUT: Row(_K.RETRY, _R.TIMEOUT, "no connection in time"),
    Symptom.WRITE_TIMEOUT: Row(_K.RETRY, _R.TIMEOUT, "the request could not be sent in time"),
    Symptom.READ_TIMEOUT: Row(_K.AMBIGUOUS, _R.NO_ANSWER, "no answer in time", DOUBT_S),
    Symptom.BROKEN: Row(_K.RETRY, _R.RESET, "the connection broke before the request was out"),
    Symptom.BROKEN_WRITTEN: Row(_K.AMBIGUOUS, _R.RESET, "the connection broke before an answer", DOUBT_S),
    Symptom.UNSENDABLE: Row(
        _K.REJECTED, _R.BAD_REQUEST, "no valid HTTP request; is there a line break in the API key?"
    ),
    Symptom.BAD_NAME: Row(_K.REJECTED, _R.BAD_REQUEST, "not an agent's namespace/name, or no UUID as the call's id"),
    Symptom.BODY_BROKEN: Row(_K.AMBIGUOUS, _R.UNREADABLE, "the answer broke off", DOUBT_S),
    Symptom.RPC_REFUSED: Row(_K.REJECTED, _R.BAD_REQUEST, "the request was refused as wrong"),
    Symptom.RPC_INTERNAL: Row(_K.AMBIGUOUS, _R.AGENT_UNREACHABLE, "kagent could not reach the agent", DOUBT_S),
    Symptom.RPC_OTHER: Row(_K.AMBIGUOUS, _R.SERVER_ERROR, "an unexpected JSON-RPC error", DOUBT_S),
    Symptom.STATUS_2XX: Row(_K.AMBIGUOUS, _R.UNREADABLE, "neither a task nor a message in the answer", DOUBT_S),
    Symptom.STATUS_3XX: Row(_K.REJECTED, _R.REDIRECTED, "redirects are not followed; set KAGENT_BASE_URL to its end"),
    Symptom.STATUS_400_VERSION: Row(_K.REJECTED, _R.BAD_REQUEST, "kagent speaks neither A2A 0.3 nor 1.0"),
    Symptom.STATUS_401: Row(_K.UNAUTHORIZED, _R.BAD_KEY, "the API key was not accepted"),
    Symptom.STATUS_403: Row(_K.UNAUTHORIZED, _R.BAD_KEY, "the API key may not call this agent"),
    Symptom.STATUS_404_AGENT: Row(_K.NOT_FOUND, _R.AGENT_NOT_FOUND, "no such agent", retry_after_s=NOT_FOUND_RETRY_S),
    Symptom.STATUS_408: Row(_K.AMBIGUOUS, _R.GATEWAY, "a proxy gave up waiting", DOUBT_S),
    Symptom.STATUS_429: Row(_K.RETRY_AFTER, _R.THROTTLED, "too many requests"),
    Symptom.STATUS_4XX: Row(_K.REJECTED, _R.BAD_REQUEST, "the request was refused as wrong"),
    Symptom.STATUS_502: Row(_K.AMBIGUOUS, _R.GATEWAY, "a gateway got no answer from kagent", DOUBT_S),
    Symptom.STATUS_503: Row(_K.AMBIGUOUS, _R.UNAVAILABLE, "a proxy or kagent did not take the request"),
    Symptom.STATUS_503_CUT_OFF: Row(_K.AMBIGUOUS, _R.RESET, "a proxy lost its connection to kagent", DOUBT_S),
    Symptom.STATUS_504: Row(_K.AMBIGUOUS, _R.GATEWAY, "a gateway gave up waiting for kagent's answer", DOUBT_S),
    Symptom.STATUS_5XX: Row(_K.AMBIGUOUS, _R.SERVER_ERROR, "the server failed", DOUBT_S),
    Symptom.STATUS_ODD: Row(_K.AMBIGUOUS, _R.SERVER_ERROR, "no valid HTTP status", DOUBT_S),
    # Creating the session starts no work, so whatever it does not settle is tried again.
    Symptom.SESSION_NO_AGENT: Row(_K.NOT_FOUND, _R.AGENT_NOT_FOUND, "no such agent"),
    Symptom.SESSION_SILENT: Row(_K.RETRY, _R.TIMEOUT, "no answer in time to the creation of a session"),
    Symptom.SESSION_FAILED: Row(_K.RETRY, _R.SERVER_ERROR, "no session could be created"),
}

STATES: Final[dict[TaskState, Row]] = {
    TaskState.SUBMITTED: Row(_K.ACCEPTED, _R.ANSWERED, ""),
    TaskState.WORKING: Row(_K.ACCEPTED, _R.ANSWERED, ""),
    TaskState.UNKNOWN: Row(_K.ACCEPTED, _R.ANSWERED, ""),
    TaskState.COMPLETED: Row(_K.COMPLETED, _R.ANSWERED, ""),
    TaskState.FAILED: Row(_K.RUN_FAILED, _R.FAILED, "the run failed"),
    TaskState.CANCELED: Row(_K.RUN_FAILED, _R.CANCELED, "the run was canceled"),
    TaskState.REJECTED: Row(_K.RUN_FAILED, _R.AGENT_REJECTED, "the agent declined the task"),
    TaskState.INPUT_REQUIRED: Row(
        _K.INPUT_REQUIRED, _R.INPUT_REQUIRED, "the run waits for a person's answer in kagent"
    ),
    TaskState.AUTH_REQUIRED: Row(
        _K.INPUT_REQUIRED, _R.AUTH_REQUIRED, "the run waits for a person to authenticate in kagent"
    ),
}
GONE: Final = Row(_K.RUN_LOST, _R.TASK_GONE, "kagent knows nothing of the run any more")
CALLED_OFF: Final = Row(_K.RETRY, _R.UNAVAILABLE, "called off before it was sent")
ANSWERED: Final = Row(_K.COMPLETED, _R.ANSWERED, "")

_BY_STATUS: Final = {
    401: Symptom.STATUS_401,
    403: Symptom.STATUS_403,
    408: Symptom.STATUS_408,
    429: Symptom.STATUS_429,
    502: Symptom.STATUS_502,
    504: Symptom.STATUS_504,
}
_BY_CLASS: Final = {
    2: Symptom.STATUS_2XX,
    3: Symptom.STATUS_3XX,
    4: Symptom.STATUS_4XX,
    5: Symptom.STATUS_5XX,
}
# These say what they mean without a body, and whatever their body is.
_PLAIN_STATUSES: Final = frozenset({401, 403, 429})


def symptom_of_send(answer: Answer | NoAnswer, *, written: bool) -> Symptom:
    """Of an answer to a send that is neither a task nor a message."""
    if isinstance(answer, NoAnswer):
        broken = answer.failure is Failure.BROKEN and written
        return Symptom.BROKEN_WRITTEN if broken else Symptom[answer.failure.name]
    if answer.status in _PLAIN_STATUSES or answer.status // 100 == 3:
        return _symptom_of_status(answer.status)
    if not answer.whole:
        return Symptom.BODY_BROKEN
    if refuses_version(answer):
        return Symptom.STATUS_400_VERSION
    said = read_result(answer.body)
    if isinstance(said, RpcError):
        internal = Symptom.RPC_INTERNAL if said.code == -32603 else Symptom.RPC_OTHER
        return Symptom.RPC_REFUSED if said.code in _REFUSALS else internal
    if names_no_agent(answer):
        return Symptom.STATUS_404_AGENT
    if answer.status == 503:
        return Symptom.STATUS_503_CUT_OFF if _CUT_OFF.search(answer.body) else Symptom.STATUS_503
    return _symptom_of_status(answer.status)


def symptom_of_session(answer: Answer | NoAnswer) -> Symptom | None:
    """Of the answer to the creation of a session; None: go on, there is one, or there can be none."""
    if isinstance(answer, NoAnswer):
        return Symptom.SESSION_SILENT if answer.failure is Failure.READ_TIMEOUT else Symptom[answer.failure.name]
    status = answer.status
    if status // 100 == 2 or status in (404, 405):
        return None
    if status == 400:
        return Symptom.SESSION_NO_AGENT if no_row(answer) else Symptom.SESSION_FAILED
    if status // 100 in (3, 4) and status != 408:
        return _symptom_of_status(status)
    return Symptom.SESSION_FAILED


def _symptom_of_status(status: int) -> Symptom:
    return _BY_STATUS.get(status) or _BY_CLASS.get(status // 100, Symptom.STATUS_ODD)


def refuses_version(answer: Answer) -> bool:
    if read_result(answer.body) == RpcError(VERSION_NOT_SUPPORTED):
        return True
    return answer.status == 400 and _VERSION_REFUSED.search(answer.body) is not None


def names_no_agent(answer: Answer) -> bool:
    return answer.status == 404 and _AGENT_NOT_FOUND.match(answer.body) is not None


def no_row(answer: Answer) -> bool:
    """kagent's JSON error for something that its database does not hold, and not for a database that is down."""
    error = json_object(answer.body).get("error")
    return isinstance(error, str) and error.endswith(_NO_ROW)
