"""What one request to an agent is, and the small closed set of what can come of it.

An `AgentProtocol` makes one attempt and never a retry: delivery decides what an `Outcome` means for the call, by
`kind` alone; `reason` and `error` are for logs, metrics and the Hook's status. Whatever an agent or a network does
ends in an `Outcome`: no library error leaves this room. Error texts are our own words, never what a peer answered:
an answer may echo the key or an event's text.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

# What a Hook's status keeps of an answer: enough for a person to see that it fits, 500 rows stay under etcd's limit.
MAX_RESULT_BYTES: Final = 1024

# One line of `kubectl describe`.
MAX_ERROR_CHARS: Final = 256


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
    """The agent has it: never send it again."""
    RETRY = "retry"
    """Send the same again, after `retry_after_s` where the peer named a wait."""
    UNAUTHORIZED = "unauthorized"
    """The key is refused: no retry until it changes."""
    NOT_FOUND = "not_found"
    """No such agent: no retry within the delivery."""
    REJECTED = "rejected"
    """Our mistake, or the address is wrong: no retry, visible."""


class OutcomeReason(StrEnum):
    """Why, one for each row of a protocol's table."""

    ANSWERED = "Answered"
    NO_ANSWER = "NoAnswer"
    """The request was wholly sent and nobody said what became of it: counted as accepted, as it cannot be asked."""
    UNREACHABLE = "Unreachable"
    """No connection: refused, no such host, TLS."""
    TIMEOUT = "Timeout"
    RESET = "Reset"
    SERVER_ERROR = "ServerError"
    THROTTLED = "Throttled"
    NO_SLOT = "NoSlot"
    """All connections of our own pool were busy; nothing was sent."""
    BAD_KEY = "BadKey"
    AGENT_NOT_FOUND = "AgentNotFound"
    REDIRECTED = "Redirected"
    BAD_REQUEST = "BadRequest"


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
    status: int = 0
    """The HTTP status, 0 where there was none."""


class Finding(StrEnum):
    """What a `reconcile` found out when it has no `Outcome` to report."""

    NOT_SENT = "not_sent"
    """The agent never got it: send it under the same call id."""
    CANNOT_TELL = "cannot_tell"
    """The agent could be asked and gave no answer that decides: the attempt is used up, nothing is sent."""
    CANNOT_BE_ASKED = "cannot_be_asked"
    """This protocol has no question to ask: send it once more, and once only, under the same call id."""


@dataclass(slots=True)
class Progress:
    """How far an attempt got; the protocol writes it, a draining worker reads it."""

    written: bool = False
    """The whole request has left us: it may be at work, whatever the answer."""


class AgentProtocol(Protocol):
    """One way of talking to agents."""

    @property
    def name(self) -> str:
        """Written with the claim, and the label `protocol` of the metrics."""
        ...

    def replace_key(self, api_key: str) -> None:
        """What is sent from now on carries this key; empty: none."""
        ...

    async def call(self, request: AgentRequest, progress: Progress) -> Outcome:
        """One attempt. Ends by its own timeouts: a caller never cancels it (that loses a slot of the pool)."""
        ...

    async def reconcile(self, request: AgentRequest) -> Outcome | Finding:
        """What became of an earlier attempt whose end nobody saw. Sends nothing that starts work."""
        ...

    async def aclose(self) -> None: ...
