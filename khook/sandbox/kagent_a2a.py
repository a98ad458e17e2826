"""kagent's own API as a pure state machine: sessions, sends, and tasks that work for a while and end.

As measured on kagent 0.10: a message sent twice is two runs, a client that gives up does not stop one, a failed run
is a 200, a session created again is the same one, and sessions and tasks belong to the user of the request
(`user_id`, else `X-User-Id`). Strict where the real one is lenient, so that a malformed request is seen here.
Sources: kagent-dev/kagent `go/core/internal/a2a/a2a_handler_mux.go`, `httpserver/handlers/sessions.go`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import orjson

from khook.sandbox.exchange import Request
from khook.sandbox.kagent_faults import (
    ANY_AGENT,
    Fault,
    FaultKind,
    Faults,
    Reply,
    Step,
    Wire,
    json_reply,
    proxy_reply,
    spoilt,
    text_reply,
    with_retry_after,
)
from khook.sandbox.kagent_record import Attempt, Record, Run
from khook.sandbox.kagent_shapes import (
    Session,
    Task,
    as_v1,
    message_json,
    rpc_error,
    rpc_reply,
    session_get_reply,
    session_reply,
    session_tasks_reply,
    submitted_json,
    task_json,
    task_not_found,
)

DEFAULT_USER: Final = "admin@kagent.dev"
V0_3: Final = "0.3"
V1_0: Final = "1.0"

_SENDS: Final = {V0_3: "message/send", V1_0: "SendMessage"}
_GETS: Final = {V0_3: "tasks/get", V1_0: "GetTask"}
# What a run comes to: its last state, and what the agent says.
_ENDS: Final = {
    FaultKind.FAILED: ("failed", "agent exploded"),
    FaultKind.INPUT_REQUIRED: ("input-required", "May I delete the pod?"),
    FaultKind.ENDLESS: ("working", ""),
}
_AFAR: Final = "failed to connect to `user=kagent database=kagent`: dial tcp 10.0.0.9:5432: connect: connection refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What kind of kagent it is."""

    run_s: float = 2.0
    """From acceptance to the end of a run."""
    said: str = "looking into it"
    wires: tuple[str, ...] = (V0_3, V1_0)
    """Without 0.3 it demands the header `A2A-Version`."""
    session_routes: bool = True
    version: str = "0.10.4"


class A2aAgents:
    def __init__(self, *, record: Record, faults: Faults, exists: Callable[[str], bool], behaviour: Behaviour) -> None:
        self._record = record
        self._faults = faults
        self._exists = exists
        self._behaviour = behaviour
        self._sessions: dict[tuple[str, str], Session] = {}
        self._tasks: dict[str, Task] = {}

    def answer(self, request: Request, *, api_key: str, now: datetime, drawn: Fault | None) -> Reply:
        """One request to any of kagent's routes."""
        looked_at = self._looked_at(request, api_key=api_key)
        if looked_at is not None:
            return looked_at
        step, agent = self._step(request)
        if step is None:
            return text_reply(404, "404 page not found")
        self._record.requests[step] += 1
        fault = self._faults.next(agent, step) or (drawn if step is Step.SEND else None)
        reply = self._reply(request, step=step, agent=agent, api_key=api_key, now=now, fault=fault)
        if step is Step.SEND:
            call_id = str(_get(_rpc(request.body), "params", "message", "contextId") or "")
            self._record.attempted(Attempt(agent=agent, call_id=call_id, end=reply.end, time=now))
        return reply

    def _looked_at(self, request: Request, *, api_key: str) -> Reply | None:
        """What is asked for its own sake and is no step of a call: a user's sessions, an agent's card."""
        match request.method, request.path.split("/")[1:]:
            case "GET", ["api", "sessions"]:
                reply = json_reply(200, {"error": False, "data": [], "message": "Successfully listed sessions"})
            case "GET", ["api", "a2a", namespace, name, ".well-known", "agent-card.json"]:
                agent = f"{namespace}/{name}"
                card = {"name": name.replace("-", "_"), "protocolVersion": "0.3", "skills": []}
                reply = json_reply(200, card) if self._exists(agent) else text_reply(404, f"Agent {agent} not found")
            case _:
                return None
        if api_key and request.headers.get("authorization") != f"Bearer {api_key}":
            return text_reply(401, "Unauthorized")
        return reply

    def _step(self, request: Request) -> tuple[Step | None, str]:
        match request.method, request.path.split("/")[1:]:
            case "GET", ["health"]:
                return Step.HEALTH, ANY_AGENT
            case "GET", ["version"]:
                return Step.VERSION, ANY_AGENT
            case "POST", ["api", "sessions"] if self._behaviour.session_routes:
                return Step.SESSION, str(_rpc(request.body).get("agent_ref", ANY_AGENT))
            case "GET", ["api", "sessions", session_id, *tasks] if self._behaviour.session_routes and (
                tasks in ([], ["tasks"])
            ):
                session = self._sessions.get((session_id, _user(request)))
                return Step.LIST, session.agent if session else ANY_AGENT
            case "POST", ["api", "a2a", namespace, name, ""]:
                sends = _rpc(request.body).get("method") not in _GETS.values()
                return Step.SEND if sends else Step.POLL, f"{namespace}/{name}"
        return None, ""

    def _reply(
        self, request: Request, *, step: Step, agent: str, api_key: str, now: datetime, fault: Fault | None
    ) -> Reply:
        failed = _failed(fault, request, step=step, agent=agent) if fault else None
        if fault and failed is not None and not (fault.runs and step is Step.SEND):
            return failed
        if step is Step.HEALTH:
            return json_reply(200, {"error": False, "data": {"status": "OK"}, "message": "OK"})
        if step is Step.VERSION:
            version = {"kagent_version": self._behaviour.version, "git_commit": "5a1d9c4", "build_date": "2026-11-02"}
            return _waited(json_reply(200, version), fault)
        if api_key and request.headers.get("authorization") != f"Bearer {api_key}":
            return text_reply(401, "Unauthorized")
        match step:
            case Step.SESSION:
                return _waited(self._create_session(request, now), fault)
            case Step.LIST:
                return _waited(self._session(request, now), fault)
            case _:
                taken = self._a2a(request, agent=agent, now=now, fault=fault)
                return failed or taken

    # --- sessions ---

    def _create_session(self, request: Request, now: datetime) -> Reply:
        body = _rpc(request.body)
        agent, session_id, name = (body.get(key) for key in ("agent_ref", "id", "name"))
        if not isinstance(agent, str):
            return json_reply(400, {"error": "agent_ref is required"})
        if agent.count("/") != 1 or not self._exists(agent):
            return json_reply(400, {"error": _no_agent(agent, "record not found")})
        if not isinstance(session_id, str) or not isinstance(name, str):
            return json_reply(400, {"error": "Invalid request body"})
        return session_reply(self._upsert(session_id, agent=agent, name=name, user_id=_user(request), now=now))

    def _upsert(self, session_id: str, *, agent: str, name: str, user_id: str, now: datetime) -> Session:
        known = self._sessions.get((session_id, user_id))
        session = Session(
            id=session_id,
            name=name,
            user_id=user_id,
            agent=agent,
            created_time=known.created_time if known else now,
            updated_time=now,
        )
        self._sessions[session_id, user_id] = session
        return session

    def _session(self, request: Request, now: datetime) -> Reply:
        session_id, _, tasks = request.path.removeprefix("/api/sessions/").partition("/")
        session = self._sessions.get((session_id, _user(request)))
        if session is None:
            before = "Session not found for given ID" if tasks else "Session not found"
            return json_reply(404, {"error": f"{before}: failed to get session {session_id}: record not found"})
        if not tasks:
            return session_get_reply(session)
        held = [
            task
            for task in self._tasks.values()
            if (task.session_id, task.user_id) == (session.id, session.user_id)
            and now >= task.visible_time
            and task.known
        ]
        return session_tasks_reply(held, now, v1=_version(request) == V1_0)

    # --- agents ---

    def _a2a(self, request: Request, *, agent: str, now: datetime, fault: Fault | None) -> Reply:
        if not self._exists(agent):
            return text_reply(404, f"Agent {agent} not found")
        wire = _version(request)
        if wire not in self._behaviour.wires:
            return text_reply(400, _refusal(request))
        rpc, user_id = _rpc(request.body), _user(request)
        rpc_id, method, params = rpc.get("id"), rpc.get("method"), rpc.get("params")
        if rpc.get("jsonrpc") != "2.0" or not rpc_id or not isinstance(params, dict):
            return rpc_error(rpc_id, -32600, "Invalid Request")
        if method == _SENDS[wire]:
            return self._send(rpc_id, params, wire=wire, agent=agent, user_id=user_id, now=now, fault=fault)
        if method == _GETS[wire]:
            return _waited(self._get(rpc_id, params, wire=wire, user_id=user_id, now=now), fault)
        return rpc_error(rpc_id, -32601, "Method not found")

    def _send(
        self,
        rpc_id: object,
        params: Mapping[str, Any],
        *,
        wire: str,
        agent: str,
        user_id: str,
        now: datetime,
        fault: Fault | None,
    ) -> Reply:
        message, prompt = _message(params, wire)
        if message is None:
            return rpc_error(rpc_id, -32602, "Invalid params")
        task = self._accept(message, prompt, agent=agent, user_id=user_id, now=now, fault=fault)
        if fault and fault.kind is FaultKind.MESSAGE:
            said = message_json(task)
            return rpc_reply(rpc_id, {"message": as_v1(said)} if wire == V1_0 else said)
        submitted = submitted_json(task)
        return spoilt(rpc_reply(rpc_id, {"task": as_v1(submitted)} if wire == V1_0 else submitted), fault)

    def _accept(
        self, message: Mapping[str, Any], prompt: str, *, agent: str, user_id: str, now: datetime, fault: Fault | None
    ) -> Task:
        session_id = message["contextId"]
        session = self._sessions.get((session_id, user_id))
        if session is None:  # the agent's runtime makes one itself
            session = self._upsert(session_id, agent=agent, name="", user_id=user_id, now=now)
        kind = fault.kind if fault else FaultKind.SLOW
        end_state, said = _ENDS.get(kind, ("completed", self._behaviour.said))
        task = Task(
            id=str(uuid5(NAMESPACE_OID, f"{session_id} {len(self._record.runs)}")),
            session_id=session_id,
            user_id=user_id,
            agent=agent,
            message=message,
            prompt=prompt,
            end_state=end_state,
            said=said,
            accepted_time=now,
            ends_time=now + timedelta(seconds=self._behaviour.run_s),
            visible_time=now + timedelta(seconds=fault.late_s if fault else 0.0),
            known=kind not in (FaultKind.LOST, FaultKind.MESSAGE),
        )
        self._tasks[task.id] = task
        self._record.runs.append(_run(task, session))
        return task

    def _get(self, rpc_id: object, params: Mapping[str, Any], *, wire: str, user_id: str, now: datetime) -> Reply:
        task = self._tasks.get(str(params.get("id")))
        if task is None or not task.known or task.user_id != user_id:
            return task_not_found(rpc_id, now)
        shape = task_json(task, now)
        if params.get("historyLength") == 0:
            del shape["history"]
        return rpc_reply(rpc_id, as_v1(shape) if wire == V1_0 else shape)


def _run(task: Task, session: Session) -> Run:
    metadata = task.message.get("metadata", {})
    return Run(
        agent=task.agent,
        call_id=task.session_id,
        prompt=task.prompt,
        context={
            "eventName": metadata.get("kagent.dev/eventType", ""),
            "eventTime": "",
            "resourceName": session.name.partition(" ")[2],
            "namespace": metadata.get("kagent.dev/hook", "").partition("/")[0],
            "eventMessage": "",
        },
        time=task.accepted_time,
        protocol="a2a",
        task_id=task.id,
        message_id=task.message["messageId"],
    )


def _failed(fault: Fault, request: Request, *, step: Step, agent: str) -> Reply | None:
    """The answer of a fault that accepts nothing; None: the request goes through."""
    reply = proxy_reply(fault)
    if reply is None and step is not Step.SEND and fault.kind in (FaultKind.DROP, FaultKind.HANG):
        reply = Reply(wire=Wire.HANG if fault.kind is FaultKind.HANG else Wire.HANG_UP)
    if reply is not None:
        return reply
    rpc_id = _rpc(request.body).get("id")
    match fault.kind:
        case FaultKind.UNAUTHORIZED:
            return text_reply(401, "Unauthorized")
        case FaultKind.BUSY:
            return with_retry_after(text_reply(429, "Too Many Requests"), fault)
        case FaultKind.ERROR:
            return text_reply(500, "Internal Server Error")
        case FaultKind.ERROR_RPC:
            return rpc_error(rpc_id, -32603, "Internal error", status=500)
        case FaultKind.INTERNAL:
            return rpc_error(rpc_id, -32603, "Internal error")
        case FaultKind.NOT_FOUND:
            return _not_there(request, step=step, agent=agent, why="record not found")
        case FaultKind.DATABASE if step in (Step.SESSION, Step.LIST):
            return _not_there(request, step=step, agent=agent, why=_AFAR)
        case _:
            return None


def _not_there(request: Request, *, step: Step, agent: str, why: str) -> Reply:
    if step is Step.SESSION:
        return json_reply(400, {"error": _no_agent(agent, why)})
    if step is Step.LIST:
        session_id = request.path.removeprefix("/api/sessions/").partition("/")[0]
        error = f"Session not found for given ID: failed to get session {session_id}: {why}"
        return json_reply(404, {"error": error})
    return text_reply(404, f"Agent {agent} not found" if step in (Step.SEND, Step.POLL) else "404 page not found")


def _no_agent(agent: str, why: str) -> str:
    known_as = agent.replace("/", "__NS__").replace("-", "_")
    return f"Agent ref is invalid, please check the agent ref {agent}: failed to get agent {known_as}: {why}"


def _waited(reply: Reply, fault: Fault | None) -> Reply:
    slow = fault is not None and fault.kind is FaultKind.SLOW
    return replace(reply, delay_s=fault.seconds) if fault and slow else reply


def _user(request: Request) -> str:
    return request.query.get("user_id") or request.headers.get("x-user-id") or DEFAULT_USER


def _version(request: Request) -> str:
    return request.headers.get("a2a-version") or V0_3


def _refusal(request: Request) -> str:
    stated = request.headers.get("a2a-version")
    return f'unsupported A2A version "{stated}"' if stated else 'missing required A2A-Version header; expected "1.0"'


def _message(params: Mapping[str, Any], wire: str) -> tuple[Mapping[str, Any] | None, str]:
    """The message and its text, if this is a send that does not wait, as its wire wants it."""
    message = params.get("message")
    if not isinstance(message, dict) or not all(
        isinstance(message.get(key), str) for key in ("messageId", "contextId")
    ):
        return None, ""
    v1 = wire == V1_0
    waits = not _get(params, "configuration", "returnImmediately") if v1 else _get(params, "configuration", "blocking")
    if waits is not False or message.get("role") != ("ROLE_USER" if v1 else "user"):
        return None, ""
    if message.get("kind") != (None if v1 else "message"):
        return None, ""
    match message.get("parts"):
        case [{"text": str(text), **rest}] if text and rest == ({} if v1 else {"kind": "text"}):
            return message, text
    return None, ""


def _rpc(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _get(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
