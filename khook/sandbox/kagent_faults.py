"""How the embedded agent server misbehaves, and how a reply leaves it: plain data, and the queue that deals it out.

Faults are scripted by agent (or for any) and by the step of the protocol that they hit, each for so many requests;
the first that fits is played. Which bytes a fault is, the protocols know.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import orjson

ANY_AGENT: Final = "*"

JSON: Final = {"content-type": "application/json"}
TEXT: Final = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}


class Step(StrEnum):
    """What a request is for. `execute` knows SEND alone."""

    VERSION = "version"
    HEALTH = "health"
    SESSION = "session"
    SEND = "send"
    POLL = "poll"
    LIST = "list"


class FaultKind(StrEnum):
    """How an agent misbehaves. Those that say "accepts" start a run; of the others a `Fault` with `runs` does too."""

    REFUSE = "refuse"
    UNAUTHORIZED = "401"
    NOT_FOUND = "404"
    BUSY = "429"
    ERROR = "500"
    ERROR_RPC = "500-rpc"
    """500 with a JSON-RPC error in it: the controller could not reach the agent, or lost it."""
    INTERNAL = "-32603"
    """The same in a 200."""
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    CUT_OFF = "503-reset"
    """What Envoy says when its connection to the server breaks."""
    GATEWAY_TIMEOUT = "504"
    DATABASE = "database"
    """kagent's database is down: the answers of its REST routes look like "not found" but for their ending."""
    CUT = "cut"
    """Hangs up without an answer, and has not accepted."""
    DROP = "drop"
    """Accepts, then hangs up without an answer."""
    SLOW = "slow"
    """Accepts, and answers after `seconds`."""
    HANG = "hang"
    """Accepts, and never answers."""
    FAILED = "failed"
    """Accepts; the run fails."""
    INPUT_REQUIRED = "input-required"
    """Accepts; the run waits for a person."""
    ENDLESS = "endless"
    """Accepts; the run never ends."""
    LOST = "lost"
    """Accepts, and then knows nothing of the run."""
    MESSAGE = "message"
    """Answers with a message, without a run to follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: FaultKind
    seconds: float = 0.0
    """SLOW: the delay. BUSY, UNAVAILABLE: Retry-After, none at 0."""
    times: int | None = None
    """How many requests it meets; None: each one until the faults are set anew."""
    on: Step | None = Step.SEND
    """Which requests it meets; None: all."""
    runs: bool = False
    """The answer is the fault's, and the run started nevertheless."""
    late_s: float = 0.0
    """The task of a run that starts is in its session's list only so much later."""

    @staticmethod
    def from_json(wish: Mapping[str, Any]) -> "Fault":
        """`{"kind": "429", "seconds": 2, "times": 1, "on": "send" or "*", "runs": false, "lateSeconds": 0}`."""
        on = wish.get("on", Step.SEND)
        return Fault(
            kind=FaultKind(wish["kind"]),
            seconds=float(wish.get("seconds", 0)),
            times=wish.get("times"),
            on=None if on == "*" else Step(on),
            runs=bool(wish.get("runs", False)),
            late_s=float(wish.get("lateSeconds", 0)),
        )


class Faults:
    """What each agent does from now on, one after the other; none: it is well."""

    def __init__(self) -> None:
        self._by_agent: dict[str, list[Fault]] = {}

    def set(self, agent: str, faults: Iterable[Fault]) -> None:
        self._by_agent[agent] = list(faults)

    def next(self, agent: str, step: Step) -> Fault | None:
        """The fault that this request meets; its own agent's before any agent's."""
        return self._next(agent, step) or self._next(ANY_AGENT, step)

    def _next(self, agent: str, step: Step) -> Fault | None:
        faults = self._by_agent.get(agent, [])
        for at, fault in enumerate(faults):
            if fault.on in (None, step):
                if fault.times is not None:
                    faults[at : at + 1] = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                return fault
        return None


class Wire(StrEnum):
    """How a reply leaves, or does not."""

    ANSWER = "answer"
    REFUSE = "refuse"
    HANG_UP = "hang up"
    HANG = "hang"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wire: Wire = Wire.ANSWER
    delay_s: float = 0.0

    @property
    def end(self) -> str:
        """The HTTP status, or what the wire did instead of one."""
        return str(self.status) if self.wire is Wire.ANSWER else self.wire.value


def json_reply(status: int, body: object) -> Reply:
    return Reply(status=status, body=orjson.dumps(body), headers=JSON)


def text_reply(status: int, text: str) -> Reply:
    """As Go's `http.Error` writes it."""
    return Reply(status=status, body=f"{text}\n".encode(), headers=TEXT)


_PROXIES: Final = {
    FaultKind.BAD_GATEWAY: (502, "Bad Gateway"),
    FaultKind.UNAVAILABLE: (503, "no healthy upstream"),
    FaultKind.CUT_OFF: (
        503,
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    ),
    FaultKind.GATEWAY_TIMEOUT: (504, "upstream request timeout"),
}


def proxy_reply(fault: Fault) -> Reply | None:
    """What a proxy in front of the server says, and the wire faults that accept nothing; None: it is none of these."""
    if fault.kind is FaultKind.REFUSE:
        return Reply(wire=Wire.REFUSE)
    if fault.kind is FaultKind.CUT:
        return Reply(wire=Wire.HANG_UP)
    if fault.kind not in _PROXIES:
        return None
    status, text = _PROXIES[fault.kind]
    return with_retry_after(text_reply(status, text), fault)


def with_retry_after(reply: Reply, fault: Fault) -> Reply:
    if not fault.seconds:
        return reply
    return replace(reply, headers={**reply.headers, "retry-after": f"{fault.seconds:.0f}"})


def spoilt(reply: Reply, fault: Fault | None) -> Reply:
    """The reply to an accepted request, as the fault lets it through."""
    match fault.kind if fault else None:
        case FaultKind.DROP:
            return Reply(wire=Wire.HANG_UP)
        case FaultKind.HANG:
            return Reply(wire=Wire.HANG)
        case FaultKind.SLOW if fault:
            return replace(reply, delay_s=fault.seconds)
        case _:
            return reply
