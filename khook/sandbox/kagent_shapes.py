"""The JSON that a kagent 0.10 answers with, field by field as recorded from a real one with its real agent runtime.

A task is a plain value here; its state is what it is at the moment that is asked for. The 1.0 wire is the 0.3 one
without kinds and with the names of protocol buffers' enumerations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

import orjson

from khook.sandbox.kagent_faults import JSON, Reply, json_reply

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    id: str
    name: str
    user_id: str
    agent: str
    """`namespace/name`."""
    created_time: datetime
    updated_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    session_id: str
    user_id: str
    agent: str
    message: Mapping[str, Any]
    """As it was sent, in either wire's words."""
    prompt: str
    end_state: str
    """`completed`, `failed`, `input-required`, or `working` for a run without an end."""
    said: str
    accepted_time: datetime
    ends_time: datetime
    visible_time: datetime
    """When its session's list has it."""
    known: bool = True

    def ended(self, now: datetime) -> bool:
        return now >= self.ends_time and self.end_state != "working"


def stamp(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def identifier(agent: str) -> str:
    """`kagent/k8s-agent` → `kagent__NS__k8s_agent`."""
    return agent.replace("/", "__NS__").replace("-", "_")


def session_reply(session: Session) -> Reply:
    return json_reply(201, {"error": False, "data": _session(session), "message": "Successfully created session"})


def session_get_reply(session: Session) -> Reply:
    data = {"session": _session(session), "events": []}
    return json_reply(200, {"error": False, "data": data, "message": "Successfully retrieved session"})


def session_tasks_reply(tasks: list[Task], now: datetime, *, v1: bool) -> Reply:
    """Go leaves an empty list out: then there is no `data`."""
    listed = [_listed(task_json(task, now)) for task in tasks]
    data: Json = {"data": [as_v1(one) if v1 else one for one in listed]} if listed else {}
    return json_reply(200, {"error": False, **data, "message": "Successfully retrieved session tasks"})


def rpc_reply(rpc_id: object, result: Json) -> Reply:
    return json_reply(200, {"jsonrpc": "2.0", "id": rpc_id, "result": result})


def rpc_error(rpc_id: object, code: int, message: str, *, status: int = 200, data: list[Json] | None = None) -> Reply:
    error: Json = {"code": code, "message": message} | ({"data": data} if data else {})
    body = {"jsonrpc": "2.0", "id": rpc_id, "error": error}
    return Reply(status=status, body=orjson.dumps(body), headers=JSON)


def task_not_found(rpc_id: object, now: datetime) -> Reply:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "domain": "a2a-protocol.org",
        "metadata": {"timestamp": stamp(now.replace(microsecond=0))},
        "reason": "TASK_NOT_FOUND",
    }
    return rpc_error(rpc_id, -32001, "Task not found", data=[info])


def submitted_json(task: Task) -> Json:
    """The answer to a send that does not wait."""
    asked = _asked(task)
    status = {"message": asked, "state": "submitted", "timestamp": stamp(task.accepted_time)}
    return {"kind": "task", "id": task.id, "contextId": task.session_id, "history": [asked], "status": status}


def message_json(task: Task) -> Json:
    """A direct answer, without a run."""
    return {"kind": "message", "messageId": _id(task, "answer"), "contextId": task.session_id, **_said(task.said)}


def task_json(task: Task, now: datetime) -> Json:
    ended = task.ended(now)
    state = task.end_state if ended else "working"
    asked = _asked(task)
    metadata: Json = {
        "kagent_app_name": identifier(task.agent),
        "kagent_session_id": task.session_id,
        "kagent_user_id": task.user_id,
    }
    shape: Json = {"kind": "task", "id": task.id, "contextId": task.session_id, "history": [asked, asked]}
    status: Json = {"state": state, "timestamp": stamp(task.ends_time if ended else task.accepted_time)}
    if state == "completed":
        metadata = {
            "kagent_adk_partial": None,
            "kagent_author": identifier(task.agent).partition("__NS__")[2],
            "kagent_invocation_id": f"e-{_id(task, 'invocation')}",
            **metadata,
        }
        parts = [{"kind": "text", "text": task.said}]
        shape["artifacts"] = [{"artifactId": _id(task, "artifact"), "parts": parts}]
        answer = {"kind": "message", "messageId": _id(task, "answer"), "contextId": task.session_id}
        shape["history"].append({**answer, "metadata": metadata, **_said(task.said), "taskId": task.id})
    elif ended:
        status["message"] = {"kind": "message", "messageId": _id(task, "answer"), **_said(task.said)}
    return {**shape, "metadata": metadata, "status": status}


def as_v1(value: Any) -> Any:
    """The same in the words of A2A 1.0."""
    if isinstance(value, list):
        return [as_v1(one) for one in value]
    if not isinstance(value, dict):
        return value
    names = {"role": "ROLE_", "state": "TASK_STATE_"}
    return {
        key: f"{names[key]}{one.upper().replace('-', '_')}"
        if key in names
        else one
        if key == "metadata"
        else as_v1(one)
        for key, one in value.items()
        if key != "kind"
    }


def _session(session: Session) -> Json:
    return {
        "id": session.id,
        "name": session.name,
        "user_id": session.user_id,
        "created_at": stamp(session.created_time),
        "updated_at": stamp(session.updated_time),
        "agent_id": identifier(session.agent),
    }


def _listed(task: Json) -> Json:
    """kagent's database spells an artifact's empty fields out."""
    if "artifacts" not in task:
        return task
    return {**task, "artifacts": [{"name": "", "description": "", **one} for one in task["artifacts"]]}


def _asked(task: Task) -> Json:
    asked: Json = {
        "kind": "message",
        "messageId": task.message["messageId"],
        "contextId": task.session_id,
        "parts": [{"kind": "text", "text": task.prompt}],
        "role": "user",
        "taskId": task.id,
    }
    return asked | ({"metadata": task.message["metadata"]} if "metadata" in task.message else {})


def _said(text: str) -> Json:
    return {"parts": [{"kind": "text", "text": text}], "role": "agent"}


def _id(task: Task, what: str) -> str:
    return str(uuid5(UUID(task.id), what))
