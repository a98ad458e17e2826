"""The A2A messages that kagent understands: requests as bytes, answers as what they say.

Two wires: 0.3 (`message/send`, every released kagent) and 1.0 (`SendMessage`, states `TASK_STATE_*`, parts without a
kind, a task wrapped in `task` where it answers a send). What is read is read leniently and in both wires' words,
because kagent's own database may answer in either; whatever does not fit is None, never an exception.
Sources: A2A specification 0.3.0 and 1.0, kagent-dev/kagent `go/core/internal/httpserver/handlers/sessions.go`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final
from uuid import UUID, uuid5

import orjson

from khook.agents.answer import kept
from khook.agents.exchange import json_object
from khook.agents.outcome import AgentRequest

# A task id is written into a Hook's status; kagent's are UUIDs.
MAX_TASK_ID_CHARS: Final = 128

TASK_NOT_FOUND: Final = -32001
VERSION_NOT_SUPPORTED: Final = -32009


class Wire(Enum):
    """The value is what the header `A2A-Version` says; 0.3 is what no header means."""

    V0_3 = "0.3"
    V1_0 = "1.0"


class TaskState(StrEnum):
    """In the words of 0.3."""

    SUBMITTED = "submitted"
    WORKING = "working"
    INPUT_REQUIRED = "input-required"
    AUTH_REQUIRED = "auth-required"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    """Anything else: no end, so it is polled on."""


_STATES: Final = {state.value: state for state in TaskState}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A run, as far as khook cares. `text` is what the agent said of it, at most 1 KiB."""

    id: str
    state: TaskState
    text: str
    message_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """An agent's answer without a run (some bring-your-own agents do this)."""

    text: str


@dataclass(frozen=True, slots=True)
class RpcError:
    code: int


Result = Task | DirectMessage | RpcError


def message_id(call_id: str) -> str:
    """The same for every attempt of a call, also one after a crash. Raises ValueError where that is no UUID."""
    return str(uuid5(UUID(call_id), "1"))


# --- requests ---------------------------------------------------------------------------------------------------


def session_body(request: AgentRequest) -> bytes:
    """For `POST /api/sessions`: the call id is the session's, so that creating it again changes nothing."""
    name = f"{request.context.event_name} {request.context.resource_name}"
    return orjson.dumps({"agent_ref": request.agent, "name": name, "id": request.call_id})


def send_body(request: AgentRequest, wire: Wire) -> bytes:
    """A send that does not wait for the run. The same request always gives the same bytes."""
    metadata = {"kagent.dev/hook": request.hook, "kagent.dev/eventType": request.context.event_name}
    message: dict[str, Any] = {"messageId": message_id(request.call_id), "contextId": request.call_id}
    if wire is Wire.V0_3:
        message |= {"kind": "message", "role": "user", "parts": [{"kind": "text", "text": request.prompt}]}
        method, configuration = "message/send", {"blocking": False}
    else:
        message |= {"role": "ROLE_USER", "parts": [{"text": request.prompt}]}
        method, configuration = "SendMessage", {"returnImmediately": True}
    message["metadata"] = metadata
    return _rpc(method, message["messageId"], {"message": message, "configuration": configuration})


def get_task_body(task_id: str, wire: Wire) -> bytes:
    method = "tasks/get" if wire is Wire.V0_3 else "GetTask"
    return _rpc(method, task_id, {"id": task_id, "historyLength": 0})


def _rpc(method: str, rpc_id: str, params: dict[str, Any]) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params})


# --- answers ----------------------------------------------------------------------------------------------------


def read_result(body: bytes) -> Result | None:
    """What a JSON-RPC answer says, whatever the HTTP status was; None: it is none, or none that we can use."""
    answer = json_object(body)
    error, result = _object(answer.get("error")), _object(answer.get("result"))
    code = error.get("code")
    if isinstance(code, int) and not isinstance(code, bool):
        return RpcError(code)
    wrapped = _object(result.get("task"))
    if wrapped or "status" in result:
        return _task(wrapped or result)
    message = _object(result.get("message")) or result
    return DirectMessage(kept(_texts(message))) if "parts" in message else None


def read_session_tasks(body: bytes) -> list[Task] | None:
    """The tasks of a session, oldest first as kagent lists them; empty lists come without `data`.

    None where the answer, or one of its tasks, cannot be read: that task might be ours.
    """
    answer = json_object(body)
    listed = answer.get("data")
    if answer.get("error") is not False:
        return None
    if listed is None:
        return []
    if not isinstance(listed, list):
        return None
    tasks = [_task(_object(one)) for one in listed]
    return [task for task in tasks if task is not None] if None not in tasks else None


def _task(raw: dict[str, Any]) -> Task | None:
    task_id, status = raw.get("id"), _object(raw.get("status"))
    if not isinstance(task_id, str) or not 0 < len(task_id) <= MAX_TASK_ID_CHARS or not task_id.isprintable():
        return None
    said = _object(status.get("message"))
    history = list(_objects(raw.get("history")))
    ids = (one.get("messageId") for one in (*history, said))
    return Task(
        id=task_id,
        state=_state(status.get("state")),
        text=_text(raw, said, history),
        message_ids=frozenset(one for one in ids if isinstance(one, str)),
    )


def _state(raw: object) -> TaskState:
    if not isinstance(raw, str):
        return TaskState.UNKNOWN
    return _STATES.get(raw.removeprefix("TASK_STATE_").lower().replace("_", "-"), TaskState.UNKNOWN)


def _text(task: dict[str, Any], said: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """The artifacts' text, else what the status says, else the agent's last message."""
    artifacts = " ".join(text for one in _objects(task.get("artifacts")) if (text := _texts(one)))
    if artifacts:
        return kept(artifacts)
    from_agent = (_texts(one) for one in (said, *reversed(history)) if _by_agent(one))
    return kept(next((text for text in from_agent if text), ""))


def _by_agent(message: dict[str, Any]) -> bool:
    return message.get("role") in ("agent", "ROLE_AGENT")


def _texts(holder: dict[str, Any]) -> str:
    texts = (part.get("text") for part in _objects(holder.get("parts")))
    return " ".join(text for text in texts if isinstance(text, str))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterator[dict[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
