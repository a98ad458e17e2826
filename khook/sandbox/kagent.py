"""The embedded agent server as a pure state machine: what was asked, what was accepted, and which faults it plays.

It speaks `execute`, or kagent's `a2a` (`khook.sandbox.kagent_a2a`), or both, over one record. Here is `execute`: a
repeated `Idempotency-Key` gets the first answer again and starts nothing
(draft-ietf-httpapi-idempotency-key-header). Faults are scripted by agent, or drawn by the caller and handed in;
`now` is an argument. It knows neither sockets nor clocks: `khook.sandbox.kagent_routes` carries its `Reply` out.
"""

from collections.abc import Collection, Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import orjson

from khook.sandbox.exchange import Request
from khook.sandbox.kagent_a2a import A2aAgents, Behaviour
from khook.sandbox.kagent_faults import (
    ANY_AGENT,
    JSON,
    Fault,
    FaultKind,
    Faults,
    Reply,
    Step,
    Wire,
    json_reply,
    proxy_reply,
    spoilt,
    with_retry_after,
)
from khook.sandbox.kagent_record import Attempt, Record, RecordFull, Run

__all__ = [
    "ANY_AGENT",
    "Attempt",
    "Behaviour",
    "Fault",
    "FaultKind",
    "Kagent",
    "RecordFull",
    "Reply",
    "Run",
    "Speaks",
    "Step",
    "Wire",
]

CONTEXT_FIELDS: Final = ("eventName", "eventTime", "resourceName", "namespace", "eventMessage")


class Speaks(StrEnum):
    EXECUTE = "execute"
    """Only that: `GET /version` is 404, which is how a client learns of it."""
    A2A = "a2a"
    """As a kagent: `GET /version` tells it, and there is no `execute` route."""
    BOTH = "both"
    """As a kagent with an `execute` route beside it."""


class Kagent:
    """Agents behind one key. `agents` None: every name exists. `honour_keys` False: a repeated key runs again."""

    def __init__(
        self,
        *,
        api_key: str,
        agents: Collection[str] | None = None,
        honour_keys: bool = True,
        speaks: Speaks = Speaks.EXECUTE,
        behaviour: Behaviour | None = None,
    ) -> None:
        self._api_key = api_key
        self._agents = None if agents is None else frozenset(agents)
        self._honour_keys = honour_keys
        self._faults = Faults()
        self._first: dict[tuple[str, str], tuple[bytes, Reply]] = {}
        self._record = Record()
        self.runs = self._record.runs
        self.attempts = self._record.attempts
        self.requests = self._record.requests
        """How many there were of each step of `a2a`."""
        self.speaks = speaks
        self._a2a = A2aAgents(
            record=self._record, faults=self._faults, exists=self._exists, behaviour=behaviour or Behaviour()
        )

    @property
    def replayed(self) -> int:
        return self._record.replayed

    @property
    def differing(self) -> int:
        return self._record.differing

    def change_key(self, api_key: str) -> None:
        self._api_key = api_key

    def set_faults(self, agent: str, faults: Iterable[Fault]) -> None:
        """What `agent` (or `ANY_AGENT`) does from now on, one after the other; none: it is well again.

        An `a2a` agent is `namespace/name`; faults of requests that name no agent are `ANY_AGENT`'s.
        """
        self._faults.set(agent, faults)

    def record(self) -> dict[str, Any]:
        return self._record.to_json()

    def a2a(self, request: Request, *, now: datetime, drawn: Fault | None = None) -> Reply:
        """One request to any route of kagent's. A scripted fault comes before a drawn one."""
        return self._a2a.answer(request, api_key=self._api_key, now=now, drawn=drawn)

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
        fault = self._faults.next(agent, Step.SEND) or drawn
        reply = self._reply(agent=agent, authorization=authorization, call_id=call_id, body=body, now=now, fault=fault)
        self._record.attempted(Attempt(agent=agent, call_id=call_id, end=reply.end, time=now))
        return reply

    def _exists(self, agent: str) -> bool:
        """By the name as asked for, or by its last part: an `execute` agent may have no namespace."""
        return self._agents is None or agent in self._agents or agent.rpartition("/")[2] in self._agents

    def _reply(
        self, *, agent: str, authorization: str, call_id: str, body: bytes, now: datetime, fault: Fault | None
    ) -> Reply:
        if fault and fault.kind is FaultKind.REFUSE:
            return Reply(wire=Wire.REFUSE)
        if authorization != f"Bearer {self._api_key}":
            return _error(401, "invalid API key")
        if self._agents is not None and agent not in self._agents:
            return _error(404, "agent not found")
        failed = _without_run(fault) if fault else None
        if failed is not None and not (fault and fault.runs):
            return failed
        parsed = _parse(body, agent=agent)
        if parsed is None:
            return _error(400, "the body is not an execute request for this agent")
        accepted = self._accept(agent=agent, call_id=call_id, body=body, parsed=parsed, now=now)
        return failed or spoilt(accepted, fault)

    def _accept(self, *, agent: str, call_id: str, body: bytes, parsed: dict[str, Any], now: datetime) -> Reply:
        first = self._first.get((agent, call_id)) if call_id and self._honour_keys else None
        if first is not None:
            self._record.replayed += 1
            self._record.differing += body != first[0]
            return first[1]
        self.runs.append(
            Run(agent=agent, call_id=call_id, prompt=parsed["prompt"], context=parsed["context"], time=now)
        )
        answer = {"status": "accepted", "runId": f"run-{len(self.runs)}", "result": "looking into it"}
        reply = Reply(status=200, body=orjson.dumps(answer), headers=JSON)
        self._first[agent, call_id] = (body, reply)
        return reply


def _error(status: int, text: str) -> Reply:
    return json_reply(status, {"error": text})


_WITHOUT_RUN: Final = {
    FaultKind.UNAUTHORIZED: (401, "invalid API key"),
    FaultKind.NOT_FOUND: (404, "agent not found"),
    FaultKind.BUSY: (429, "too many requests"),
    FaultKind.ERROR: (500, "internal error"),
    FaultKind.ERROR_RPC: (500, "internal error"),
    FaultKind.INTERNAL: (500, "internal error"),
    FaultKind.DATABASE: (500, "internal error"),
    FaultKind.UNAVAILABLE: (503, "unavailable"),
}


def _without_run(fault: Fault) -> Reply | None:
    if fault.kind in _WITHOUT_RUN:
        return with_retry_after(_error(*_WITHOUT_RUN[fault.kind]), fault)
    return proxy_reply(fault)


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
