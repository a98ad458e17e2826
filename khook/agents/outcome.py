"""What one request to an agent is, and the small closed set of what can come of it.

An `AgentProtocol` makes one attempt, one reconcile or one poll at a time and never a retry: delivery decides what an
`Outcome` means for the call, by `kind` alone; `reason` and `error` are for logs, metrics and the Hook's status.
Whatever an agent or a network does ends in an `Outcome`: no library error leaves this room. Error texts are our own
words, never what a peer answered: an answer may echo the key or an event's text.

Who applies which rule: the protocol says what it saw (`NO_TRACE`: kagent knows the session and no task of ours) and
how long such a "no" is in doubt after a send (`Outcome.doubt_s`); delivery knows the times and waits the doubt out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

# What a Hook's status keeps of an answer: enough for a person to see that it fits, 500 rows stay under etcd's limit.
MAX_RESULT_BYTES: Final = 1024

# One line of `kubectl describe`.
MAX_ERROR_CHARS: Final = 256

# How long after a send (after a crash: after the grant) "kagent has no task of ours" may still be wrong: the agent's
# runtime stores the task, not the controller that answers, and a request may still be on its way through a proxy.
DOUBT_S: Final = 10.0

# A run takes seconds to minutes; half a minute late at its end hurts nobody, and 1,000 runs are 33 polls a second.
FIRST_POLL_S: Final = 2.0
MAX_POLL_S: Final = 30.0
_POLL_GROWTH: Final = 1.5


def poll_wait_s(polls: int) -> float:
    """The wait before the next poll of a run that has been polled `polls` times: 2 s, 3 s, 4.5 s … 30 s."""
    return min(FIRST_POLL_S * _POLL_GROWTH ** min(polls, 16), MAX_POLL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What happened, as the agent is told beside the prompt (the field `context` of the seed's request)."""

    event_name: str
    event_time: datetime
    resource_name: str
    namespace: str
    event_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRequest:
    """One call. Every attempt of it sends the same bytes under the same `call_id`."""

    call_id: str
    agent: str
    """`namespace/name`."""
    agent_id: str
    """As the Hook wrote it; `namespace/name` for an agentRef."""
    prompt: str
    context: Context
    hook: str
    """`namespace/name`."""


class OutcomeKind(StrEnum):
    """What delivery does next; the label `outcome` of `kagent_hook_api_calls_total`."""

    ACCEPTED = "accepted"
    """The agent has it: never send it again. Poll `task_id`; without one there is no run to follow."""
    COMPLETED = "completed"
    """Done, with `result`."""
    RUN_FAILED = "run_failed"
    """The agent took it and its run ended badly: never send it again, visible."""
    INPUT_REQUIRED = "input_required"
    """The run waits for a person: say so, never approve, never send it again."""
    RUN_LOST = "run_lost"
    """The agent took it and knows nothing of it any more: never send it again, visible."""
    AMBIGUOUS = "ambiguous"
    """It may have been taken: reconcile before any resend, and believe no "no" before `doubt_s` after the send."""
    RETRY = "retry"
    """Not delivered, for an outage: send the same again, after `retry_after_s` where the peer named a wait."""
    RETRY_AFTER = "retry_after"
    """Not delivered, as the peer is well and busy: send the same again, after `retry_after_s` where it named one."""
    UNAUTHORIZED = "unauthorized"
    """The key is refused: no retry until it changes."""
    NOT_FOUND = "not_found"
    """No such agent: send it again only where `retry_after_s` says so (a controller that has just started)."""
    REJECTED = "rejected"
    """Our mistake, or the address is wrong: no retry, visible."""


class OutcomeReason(StrEnum):
    """Why, one for each row of a protocol's table."""

    ANSWERED = "Answered"
    NO_ANSWER = "NoAnswer"
    """The request was wholly sent and nobody said what became of it."""
    UNREACHABLE = "Unreachable"
    """No connection: refused, no such host, TLS."""
    TIMEOUT = "Timeout"
    RESET = "Reset"
    SERVER_ERROR = "ServerError"
    GATEWAY = "Gateway"
    """A proxy gave up on the server behind it."""
    UNAVAILABLE = "Unavailable"
    """A proxy or the server said that it did not take the request."""
    AGENT_UNREACHABLE = "AgentUnreachable"
    """kagent could not reach the agent, or lost it (JSON-RPC -32603)."""
    UNREADABLE = "Unreadable"
    """An answer that is none of the protocol's."""
    THROTTLED = "Throttled"
    NO_SLOT = "NoSlot"
    """All connections of our own pool were busy; nothing was sent."""
    BAD_KEY = "BadKey"
    AGENT_NOT_FOUND = "AgentNotFound"
    REDIRECTED = "Redirected"
    BAD_REQUEST = "BadRequest"
    FAILED = "Failed"
    CANCELED = "Canceled"
    AGENT_REJECTED = "AgentRejected"
    """The agent itself declined the task."""
    INPUT_REQUIRED = "InputRequired"
    AUTH_REQUIRED = "AuthRequired"
    TASK_GONE = "TaskGone"


_AGAIN: Final = frozenset({OutcomeKind.RETRY, OutcomeKind.RETRY_AFTER})
_OUTAGES: Final = frozenset({OutcomeKind.RETRY, OutcomeKind.AMBIGUOUS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one attempt."""

    kind: OutcomeKind
    reason: OutcomeReason
    error: str = ""
    """Empty when answered; at most 256 characters, no secrets, no text of the event or the peer."""
    result: str = ""
    """The agent's answer, at most 1 KiB of UTF-8; empty where it said nothing readable."""
    retry_after_s: float | None = None
    doubt_s: float = 0.0
    """AMBIGUOUS: a `NO_TRACE` is to be believed this long after the send, and not before."""
    task_id: str = ""
    """The agent's run, where there is one to follow; ACCEPTED with one is polled."""
    status: int = 0
    """The HTTP status, 0 where there was none."""

    @property
    def again(self) -> bool:
        """Nothing was delivered, and the same may be sent again within this delivery."""
        return self.kind in _AGAIN or (self.kind is OutcomeKind.NOT_FOUND and self.retry_after_s is not None)

    @property
    def outage(self) -> bool:
        """The agent's side failed: what a circuit breaker counts. Never a 4xx, never our own full pool."""
        return self.kind in _OUTAGES and self.reason is not OutcomeReason.NO_SLOT


class Finding(StrEnum):
    """What a `reconcile` found out when it has no `Outcome` to report."""

    NOT_SENT = "not_sent"
    """The agent never got it, for certain: send it under the same call id."""
    NO_TRACE = "no_trace"
    """kagent has no task of ours. Once the doubt of the last send is over: as NOT_SENT. Before: ask again then."""
    CANNOT_TELL = "cannot_tell"
    """The agent could be asked and gave no answer that decides: the attempt is used up, nothing is sent."""
    CANNOT_BE_ASKED = "cannot_be_asked"
    """This protocol has no question to ask: send it once more, and once only, under the same call id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Working:
    """A poll that ended nothing: poll again after `poll_wait_s`, or `retry_after_s` where the peer named a wait."""

    seen: bool
    """False: nobody said that the run is at work; it may have ended, or the agent may be down."""
    retry_after_s: float | None = None


@dataclass(slots=True)
class Progress:
    """How far an attempt got, which the protocol writes and a draining worker reads, and whether it is still wanted."""

    written: bool = False
    """The whole request that starts work has left us: it may be at work, whatever the answer."""
    called_off: bool = False
    """Nobody waits for it any more, and somebody else may send the same: what has not begun to leave us stays."""
    permitted: Callable[[], bool] = lambda: True
    """Asked again in front of the request that starts work, where another one came before it."""

    @property
    def may_send(self) -> bool:
        return not self.called_off and self.permitted()


class AgentProtocol(Protocol):
    """One way of talking to agents. Its methods raise nothing and end by their own timeouts.

    A caller never cancels them: that loses a slot of the pool.
    """

    @property
    def name(self) -> str:
        """Written with the claim, and the label `protocol` of the metrics."""
        ...

    def replace_key(self, api_key: str) -> None:
        """What is sent from now on carries this key; empty: none."""
        ...

    async def call(self, request: AgentRequest, progress: Progress) -> Outcome:
        """One attempt."""
        ...

    async def reconcile(self, request: AgentRequest) -> Outcome | Finding:
        """What became of an earlier attempt whose end nobody saw. Sends nothing that starts work.

        An `Outcome` says that the agent has it (ACCEPTED, or how its run ended).
        """
        ...

    async def poll(self, request: AgentRequest, task_id: str) -> Outcome | Working:
        """How an accepted run is doing: one question. An `Outcome` is its end.

        RUN_LOST within `DOUBT_S` of the send is to be taken as `Working`: the task may not be stored yet.
        """
        ...

    async def aclose(self) -> None: ...
