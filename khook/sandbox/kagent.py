"""The embedded agent server as a pure state machine: what was asked, what was accepted, and which faults it plays.

It speaks the `execute` protocol and keeps the only record that tests and the demo believe: a `Run` for each request
it accepted, an `Attempt` for each it saw. A repeated `Idempotency-Key` gets the first answer again and starts
nothing (draft-ietf-httpapi-idempotency-key-header). Faults are scripted by agent, or drawn by the caller and handed
in; `now` is an argument. It knows neither sockets nor clocks: `khook.sandbox.kagent_routes` carries its `Reply` out.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

# A soak's record: far beyond any test, far below what hurts. A record that forgot would hide a lost call.
MAX_RECORDED: Final = 500_000

ANY_AGENT: Final = "*"

CONTEXT_FIELDS: Final = ("eventName", "eventTime", "resourceName", "namespace", "eventMessage")


class FaultKind(StrEnum):
    """How an agent misbehaves. The first six start no run; the last three do."""

    REFUSE = "refuse"
    UNAUTHORIZED = "401"
    NOT_FOUND = "404"
    BUSY = "429"
    ERROR = "500"
    UNAVAILABLE = "503"
    DROP = "drop"
    """Accepts, then hangs up without an answer."""
    SLOW = "slow"
    """Accepts, and answers after `seconds`."""
    HANG = "hang"
    """Accepts, and never answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    kind: FaultKind
    seconds: float = 0.0
    """SLOW: the delay. BUSY, UNAVAILABLE: Retry-After, none at 0."""
    times: int | None = None
    """How many requests it meets; None: each one until the faults are set anew."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One piece of work that an agent took on."""

    agent: str
    """As the path named it."""
    call_id: str
    prompt: str
    context: Mapping[str, str]
    time: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "agent": self.agent,
            "callId": self.call_id,
            "prompt": self.prompt,
            "context": dict(self.context),
            "time": self.time.isoformat(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Run":
        return Run(
            agent=data["agent"],
            call_id=data["callId"],
            prompt=data["prompt"],
            context=data["context"],
            time=datetime.fromisoformat(data["time"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request as it came in: `end` is the HTTP status, or what the wire did instead of one."""

    agent: str
    call_id: str
    end: str
    time: datetime

    def to_json(self) -> dict[str, str]:
        return {"agent": self.agent, "callId": self.call_id, "end": self.end, "time": self.time.isoformat()}


class RecordFull(RuntimeError):
    """The record would have to forget: raise the limit, or start a new server."""


class Kagent:
    """Agents behind one key. `agents` None: every name exists. `honour_keys` False: a repeated key runs again."""

    def __init__(self, *, api_key: str, agents: Collection[str] | None = None, honour_keys: bool = True) -> None:
        self._api_key = api_key
        self._agents = None if agents is None else frozenset(agents)
        self._honour_keys = honour_keys
        self._faults: dict[str, deque[Fault]] = {}
        self._first: dict[tuple[str, str], tuple[bytes, Reply]] = {}
        self.runs: list[Run] = []
        self.attempts: list[Attempt] = []
        self.replayed = 0
        """Requests whose key had been answered before."""
        self.differing = 0
        """Of these, the ones whose body was not the first one's."""

    def change_key(self, api_key: str) -> None:
        self._api_key = api_key

    def set_faults(self, agent: str, faults: Iterable[Fault]) -> None:
        """What `agent` (or `ANY_AGENT`) does from now on, one after the other; none: it is well again."""
        self._faults[agent] = deque(faults)

    def execute(
        self,
        *,
        agent: str,
        authorization: str,
        call_id: str,
        body: bytes,
        now: datetime,
        drawn: Fault | None = None,
    ) -> Reply:
        """One POST. A scripted fault comes before a drawn one."""
        if len(self.attempts) >= MAX_RECORDED:
            raise RecordFull(f"{MAX_RECORDED} requests recorded")
        fault = self._next_fault(agent) or self._next_fault(ANY_AGENT) or drawn
        reply = self._reply(agent=agent, authorization=authorization, call_id=call_id, body=body, now=now, fault=fault)
        end = str(reply.status) if reply.wire is Wire.ANSWER else reply.wire.value
        self.attempts.append(Attempt(agent=agent, call_id=call_id, end=end, time=now))
        return reply

    def record(self) -> dict[str, Any]:
        """Everything above as JSON, for a test in another process."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "replayed": self.replayed,
            "differing": self.differing,
        }

    def _next_fault(self, agent: str) -> Fault | None:
        faults = self._faults.get(agent)
        if not faults:
            return None
        fault = faults[0]
        if fault.times is not None:
            faults.popleft()
            if fault.times > 1:
                faults.appendleft(Fault(kind=fault.kind, seconds=fault.seconds, times=fault.times - 1))
        return fault

    def _reply(
        self, *, agent: str, authorization: str, call_id: str, body: bytes, now: datetime, fault: Fault | None
    ) -> Reply:
        if fault and fault.kind is FaultKind.REFUSE:
            return Reply(wire=Wire.REFUSE)
        if authorization != f"Bearer {self._api_key}":
            return _error(401, "invalid API key")
        if self._agents is not None and agent not in self._agents:
            return _error(404, "agent not found")
        if fault and fault.kind in _WITHOUT_RUN:
            return _error(*_WITHOUT_RUN[fault.kind], retry_after_s=fault.seconds)
        parsed = _parse(body, agent=agent)
        if parsed is None:
            return _error(400, "the body is not an execute request for this agent")
        return _spoilt(self._accept(agent=agent, call_id=call_id, body=body, parsed=parsed, now=now), fault)

    def _accept(self, *, agent: str, call_id: str, body: bytes, parsed: dict[str, Any], now: datetime) -> Reply:
        first = self._first.get((agent, call_id)) if call_id and self._honour_keys else None
        if first is not None:
            self.replayed += 1
            self.differing += body != first[0]
            return first[1]
        self.runs.append(
            Run(agent=agent, call_id=call_id, prompt=parsed["prompt"], context=parsed["context"], time=now)
        )
        answer = {"status": "accepted", "runId": f"run-{len(self.runs)}", "result": "looking into it"}
        reply = Reply(status=200, body=orjson.dumps(answer), headers=_JSON)
        self._first[agent, call_id] = (body, reply)
        return reply


_JSON: Final = {"content-type": "application/json"}


def _error(status: int, text: str, *, retry_after_s: float = 0.0) -> Reply:
    headers = {**_JSON, "retry-after": f"{retry_after_s:.0f}"} if retry_after_s else _JSON
    return Reply(status=status, body=orjson.dumps({"error": text}), headers=headers)


_WITHOUT_RUN: Final = {
    FaultKind.UNAUTHORIZED: (401, "invalid API key"),
    FaultKind.NOT_FOUND: (404, "agent not found"),
    FaultKind.BUSY: (429, "too many requests"),
    FaultKind.ERROR: (500, "internal error"),
    FaultKind.UNAVAILABLE: (503, "unavailable"),
}


def _spoilt(reply: Reply, fault: Fault | None) -> Reply:
    """The reply to an accepted request, as the fault lets it through."""
    match fault.kind if fault else None:
        case FaultKind.DROP:
            return Reply(wire=Wire.HANG_UP)
        case FaultKind.HANG:
            return Reply(wire=Wire.HANG)
        case FaultKind.SLOW if fault:
            return Reply(status=reply.status, body=reply.body, headers=reply.headers, delay_s=fault.seconds)
        case _:
            return reply


def _parse(body: bytes, *, agent: str) -> dict[str, Any] | None:
    """The request, if it is one: as strict as a server that validates, so that a malformed body is seen here."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict) or set(parsed) != {"agentId", "prompt", "context"} or parsed["agentId"] != agent:
        return None
    prompt, context = parsed["prompt"], parsed["context"]
    if not isinstance(prompt, str) or not prompt or not isinstance(context, dict):
        return None
    strings = set(context) == set(CONTEXT_FIELDS) and all(isinstance(value, str) for value in context.values())
    return parsed if strings else None
