"""The `a2a` protocol: every symptom of its table, what the recorded kagent said, and what is asked in which order."""

from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid5

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kagent_recorded import recorded, shape

from khook.agents.a2a import A2aProtocol
from khook.agents.a2a_symptoms import MATRIX, STATES, Symptom
from khook.agents.a2a_wire import TaskState, message_id
from khook.agents.outcome import (
    DOUBT_S,
    AgentRequest,
    Context,
    Finding,
    Outcome,
    OutcomeKind,
    OutcomeReason,
    Progress,
    Working,
    poll_wait_s,
)
from khook.sandbox.virtual_time import VirtualClock, run

T = TypeVar("T")
K, R = OutcomeKind, OutcomeReason

KEY = "s3cret-key"
USER = "khook@example.org"
# The recorded session's id, so that what was recorded is an answer to this very call.
CALL_ID = "f8350f7f-1b8f-48d2-820b-8821caa3c6f2"
TASK_ID = "a568ee8b-6090-4d93-a7cb-51472c8ce107"
OURS = str(uuid5(UUID(CALL_ID), "1"))
RECORDED_MESSAGE = "9ef1817d-bec1-4a64-b555-7d2ba31c314f"
REQUEST = AgentRequest(
    call_id=CALL_ID,
    agent="kagent/diag-agent",
    agent_id="diag-agent",
    prompt="sleep 2",
    context=Context(
        event_name="pod-restart",
        event_time=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        resource_name="my-app-1",
        namespace="production",
        event_message="password=hunter2",
    ),
    hook="production/monitoring",
)
Then = httpx.Response | Exception


def status(code: int, body: bytes | dict[str, Any] = b"", headers: dict[str, str] | None = None) -> httpx.Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return httpx.Response(code, headers=headers, stream=httpx.ByteStream(raw))


def rpc(result: Any) -> httpx.Response:
    return status(200, {"jsonrpc": "2.0", "id": "1", "result": result})


def error(code: int, *, http: int = 200) -> httpx.Response:
    return status(http, {"jsonrpc": "2.0", "id": "1", "error": {"code": code, "message": KEY}})


def task(state: str, **more: Any) -> dict[str, Any]:
    return {"kind": "task", "id": "t1", "contextId": CALL_ID, "status": {"state": state}, **more}


def ours(**more: Any) -> dict[str, Any]:
    return {"history": [{"messageId": OURS, "role": "user"}], **more}


def listed(*tasks: Any) -> httpx.Response:
    return status(200, {"error": False, **({"data": list(tasks)} if tasks else {}), "message": "ok"})


SESSION = status(201, {"error": False, "data": {"id": CALL_ID}})
NO_SESSION = status(
    404, {"error": f"Session not found for given ID: failed to get session {CALL_ID}: record not found"}
)


class Scripted(httpx.AsyncBaseTransport):
    """Answers the creation of a session, and then one question after the other."""

    def __init__(self, *then: Then, session: Then = SESSION, written: bool = True) -> None:
        self.then = list(then)
        self.session = session
        self.written = written
        self.seen: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.written:
            await request.extensions["trace"]("http11.send_request_body.complete", {})
        creates = request.method == "POST" and request.url.path == "/api/sessions"
        then = self.session if creates else self.then.pop(0)
        if isinstance(then, Exception):
            raise then
        return then

    @property
    def bodies(self) -> list[Any]:
        return [orjson.loads(request.content) for request in self.seen]


def protocol(transport: Scripted, *, api_key: str = KEY) -> A2aProtocol:
    return A2aProtocol(
        base_url="http://kagent:8083/", user_id=USER, api_key=api_key, transport=transport, clock=VirtualClock()
    )


def in_time(coro: Coroutine[Any, Any, T]) -> T:
    return run(coro)


def call(transport: Scripted, request: AgentRequest = REQUEST, progress: Progress | None = None) -> Outcome:
    async def main() -> Outcome:
        return await protocol(transport).call(request, progress or Progress())

    return in_time(main())


def reconcile(transport: Scripted, request: AgentRequest = REQUEST) -> Outcome | Finding:
    async def main() -> Outcome | Finding:
        return await protocol(transport).reconcile(request)

    return in_time(main())


def poll(transport: Scripted, task_id: str = "t1", request: AgentRequest = REQUEST) -> Outcome | Working:
    async def main() -> Outcome | Working:
        return await protocol(transport).poll(request, task_id)

    return in_time(main())


class Breaking(httpx.AsyncByteStream):
    async def __aiter__(self) -> Any:
        yield b'{"jsonrpc":"2.0",'
        raise httpx.ReadError("cut")


# --- the table --------------------------------------------------------------------------------------------------

S = Symptom
ENVOY = b"upstream connect error or disconnect/reset before headers. reset reason: connection termination"
VERSION = b'missing required A2A-Version header; expected "1.0"\n'

SENDS: list[tuple[Symptom, Then | tuple[Then, Then], bool, OutcomeKind, OutcomeReason, float]] = [
    (S.NO_SLOT, httpx.PoolTimeout(""), False, K.RETRY, R.NO_SLOT, 0),
    (S.NO_CONNECTION, httpx.ConnectError(""), False, K.RETRY, R.UNREACHABLE, 0),
    (S.CONNECT_TIMEOUT, httpx.ConnectTimeout(""), False, K.RETRY, R.TIMEOUT, 0),
    (S.WRITE_TIMEOUT, httpx.WriteTimeout(""), False, K.RETRY, R.TIMEOUT, 0),
    (S.READ_TIMEOUT, httpx.ReadTimeout(""), True, K.AMBIGUOUS, R.NO_ANSWER, 10),
    (S.BROKEN, httpx.WriteError(""), False, K.RETRY, R.RESET, 0),
    (S.BROKEN_WRITTEN, httpx.ReadError(""), True, K.AMBIGUOUS, R.RESET, 10),
    (S.BROKEN_WRITTEN, httpx.RemoteProtocolError(""), True, K.AMBIGUOUS, R.RESET, 10),
    (S.UNSENDABLE, httpx.LocalProtocolError(KEY), False, K.REJECTED, R.BAD_REQUEST, 0),
    (S.BODY_BROKEN, httpx.Response(200, stream=Breaking()), True, K.AMBIGUOUS, R.UNREADABLE, 10),
    (S.BODY_BROKEN, httpx.Response(503, stream=Breaking()), True, K.AMBIGUOUS, R.UNREADABLE, 10),
    (S.RPC_REFUSED, error(-32600), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.RPC_REFUSED, error(-32601, http=404), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.RPC_REFUSED, error(-32602, http=400), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.RPC_INTERNAL, error(-32603), True, K.AMBIGUOUS, R.AGENT_UNREACHABLE, 10),
    (S.RPC_INTERNAL, error(-32603, http=500), True, K.AMBIGUOUS, R.AGENT_UNREACHABLE, 10),
    (S.RPC_INTERNAL, error(-32603, http=503), True, K.AMBIGUOUS, R.AGENT_UNREACHABLE, 10),
    (S.RPC_OTHER, error(-32000), True, K.AMBIGUOUS, R.SERVER_ERROR, 10),
    (S.RPC_OTHER, error(-32006), True, K.AMBIGUOUS, R.SERVER_ERROR, 10),
    (S.STATUS_2XX, status(200, b"<html>"), True, K.AMBIGUOUS, R.UNREADABLE, 10),
    (S.STATUS_2XX, rpc({"kind": "task", "status": {}}), True, K.AMBIGUOUS, R.UNREADABLE, 10),
    (S.STATUS_2XX, status(202), True, K.AMBIGUOUS, R.UNREADABLE, 10),
    (S.STATUS_3XX, status(308, headers={"location": "http://evil/"}), True, K.REJECTED, R.REDIRECTED, 0),
    (
        S.STATUS_400_VERSION,
        (status(400, VERSION), status(400, b'unsupported A2A-Version "1.0"')),
        True,
        K.REJECTED,
        R.BAD_REQUEST,
        0,
    ),
    (S.STATUS_401, status(401, b"Unauthorized\n"), True, K.UNAUTHORIZED, R.BAD_KEY, 0),
    (S.STATUS_403, status(403), True, K.UNAUTHORIZED, R.BAD_KEY, 0),
    (S.STATUS_404_AGENT, recorded("a2a_404_unknown_agent").response(), True, K.NOT_FOUND, R.AGENT_NOT_FOUND, 0),
    (S.STATUS_408, status(408), True, K.AMBIGUOUS, R.GATEWAY, 10),
    (S.STATUS_429, status(429), True, K.RETRY_AFTER, R.THROTTLED, 0),
    (S.STATUS_4XX, status(400, b"bad"), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.STATUS_4XX, status(404, b"404 page not found\n"), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.STATUS_4XX, status(413), True, K.REJECTED, R.BAD_REQUEST, 0),
    (S.STATUS_502, status(502), True, K.AMBIGUOUS, R.GATEWAY, 10),
    (S.STATUS_503, status(503, b"no healthy upstream"), True, K.AMBIGUOUS, R.UNAVAILABLE, 0),
    (S.STATUS_503, status(503), True, K.AMBIGUOUS, R.UNAVAILABLE, 0),
    (S.STATUS_503_CUT_OFF, status(503, ENVOY), True, K.AMBIGUOUS, R.RESET, 10),
    (S.STATUS_504, status(504), True, K.AMBIGUOUS, R.GATEWAY, 10),
    (S.STATUS_5XX, status(500, b"oops"), True, K.AMBIGUOUS, R.SERVER_ERROR, 10),
    (S.STATUS_ODD, status(999), True, K.AMBIGUOUS, R.SERVER_ERROR, 10),
]

BUSY_DATABASE = {
    "error": "Agent ref is invalid, please check the agent ref a/b: failed to get agent: dial tcp: refused"
}
NO_ROW = {"error": "Agent ref is invalid, please check the agent ref a/b: failed to get agent: no rows in result set"}
SESSIONS: list[tuple[Symptom, Then, OutcomeKind, OutcomeReason]] = [
    (S.SESSION_NO_AGENT, recorded("session_400_unknown_agent").response(), K.NOT_FOUND, R.AGENT_NOT_FOUND),
    (S.SESSION_NO_AGENT, status(400, NO_ROW), K.NOT_FOUND, R.AGENT_NOT_FOUND),
    (S.SESSION_FAILED, status(400, BUSY_DATABASE), K.RETRY, R.SERVER_ERROR),
    (S.SESSION_FAILED, status(400, {"error": "agent_ref is required"}), K.RETRY, R.SERVER_ERROR),
    (S.SESSION_FAILED, status(500, {"error": "Failed to create session"}), K.RETRY, R.SERVER_ERROR),
    (S.SESSION_FAILED, status(503), K.RETRY, R.SERVER_ERROR),
    (S.SESSION_FAILED, status(504), K.RETRY, R.SERVER_ERROR),
    (S.SESSION_SILENT, httpx.ReadTimeout(""), K.RETRY, R.TIMEOUT),
    (S.BROKEN, httpx.ReadError(""), K.RETRY, R.RESET),
    (S.NO_CONNECTION, httpx.ConnectError(""), K.RETRY, R.UNREACHABLE),
    (S.STATUS_401, status(401, b"Unauthorized\n"), K.UNAUTHORIZED, R.BAD_KEY),
    (S.STATUS_429, status(429, headers={"retry-after": "7"}), K.RETRY_AFTER, R.THROTTLED),
    (S.STATUS_4XX, status(409, {"error": "…only one chat session"}), K.REJECTED, R.BAD_REQUEST),
    (S.STATUS_3XX, status(302), K.REJECTED, R.REDIRECTED),
]


@pytest.mark.parametrize(("symptom", "then", "written", "kind", "reason", "doubt_s"), SENDS)
def test_each_symptom_of_a_send_means_what_its_row_says(
    symptom: Symptom, then: Any, written: bool, kind: OutcomeKind, reason: OutcomeReason, doubt_s: float
) -> None:
    answers = then if isinstance(then, tuple) else (then,)
    transport = Scripted(*answers, written=written)
    progress = Progress()
    outcome = call(transport, progress=progress)
    row = MATRIX[symptom]
    assert (
        (kind, reason, doubt_s)
        == (outcome.kind, outcome.reason, outcome.doubt_s)
        == (row.kind, row.reason, row.doubt_s)
    )
    assert row.words in outcome.error
    assert len(transport.seen) == 1 + len(answers), "a session and one send, never a retry"
    assert progress.written == written


@pytest.mark.parametrize(("symptom", "then", "kind", "reason"), SESSIONS)
def test_each_symptom_of_a_session_means_what_its_row_says_and_nothing_is_sent(
    symptom: Symptom, then: Then, kind: OutcomeKind, reason: OutcomeReason
) -> None:
    transport = Scripted(session=then)
    progress = Progress()
    outcome = call(transport, progress=progress)
    assert (kind, reason) == (outcome.kind, outcome.reason) == (MATRIX[symptom].kind, MATRIX[symptom].reason)
    assert len(transport.seen) == 1
    assert not progress.written, "progress is the send's"
    assert outcome.kind is not K.AMBIGUOUS, "a session starts no work"


def test_every_row_of_the_matrix_has_a_case() -> None:
    assert {row[0] for row in SENDS} | {row[0] for row in SESSIONS} | {S.BAD_NAME} == set(Symptom) == set(MATRIX)


@pytest.mark.parametrize("code", [404, 405])
def test_a_kagent_without_the_session_route_is_sent_to_all_the_same(code: int) -> None:
    transport = Scripted(rpc(task("working")), NO_SESSION, session=status(code, b"404 page not found\n"))

    async def main() -> tuple[Outcome, Outcome | Finding]:
        kagent = protocol(transport)
        return await kagent.call(REQUEST, Progress()), await kagent.reconcile(REQUEST)

    outcome, found = in_time(main())
    assert (outcome.kind, outcome.task_id) == (K.ACCEPTED, "t1")
    assert found is Finding.NO_TRACE, "no session is no proof where none was made"


def test_what_may_be_sent_again_and_what_a_breaker_counts() -> None:
    outcomes = {
        symptom: Outcome(kind=row.kind, reason=row.reason, retry_after_s=row.retry_after_s)
        for symptom, row in MATRIX.items()
    }
    assert outcomes[S.STATUS_404_AGENT].again
    assert not outcomes[S.SESSION_NO_AGENT].again
    assert not any(outcome.again for outcome in outcomes.values() if outcome.kind is K.AMBIGUOUS)
    never = {symptom for symptom in Symptom if symptom.name.startswith("STATUS_4") and symptom is not S.STATUS_408}
    counted = {symptom for symptom, outcome in outcomes.items() if outcome.outage}
    assert not counted & {*never, S.NO_SLOT, S.RPC_REFUSED, S.BAD_NAME, S.UNSENDABLE, S.SESSION_NO_AGENT}
    assert counted >= {S.NO_CONNECTION, S.RPC_INTERNAL, S.STATUS_503, S.READ_TIMEOUT, S.SESSION_FAILED}


@pytest.mark.parametrize(
    ("then", "expected_s"),
    [
        (status(429, headers={"retry-after": "7"}), 7.0),
        (status(503, headers={"retry-after": "3"}), 3.0),
        (status(429, b'{"retry_after": 2.5}'), 2.5),
        (status(429), None),
        (recorded("a2a_404_unknown_agent").response(), 15.0),
        (status(401, headers={"retry-after": "7"}), None),
    ],
)
def test_the_wait_that_is_asked_for_is_told(then: httpx.Response, expected_s: float | None) -> None:
    assert call(Scripted(then)).retry_after_s == expected_s


# --- tasks and messages -----------------------------------------------------------------------------------------

STATE_ROWS = [
    ("submitted", K.ACCEPTED, R.ANSWERED),
    ("working", K.ACCEPTED, R.ANSWERED),
    ("unknown", K.ACCEPTED, R.ANSWERED),
    ("dreaming", K.ACCEPTED, R.ANSWERED),
    ("completed", K.COMPLETED, R.ANSWERED),
    ("failed", K.RUN_FAILED, R.FAILED),
    ("canceled", K.RUN_FAILED, R.CANCELED),
    ("rejected", K.RUN_FAILED, R.AGENT_REJECTED),
    ("input-required", K.INPUT_REQUIRED, R.INPUT_REQUIRED),
    ("auth-required", K.INPUT_REQUIRED, R.AUTH_REQUIRED),
]


def test_every_state_has_a_row() -> None:
    assert set(STATES) == set(TaskState)
    assert {row[0] for row in STATE_ROWS} > {state.value for state in TaskState}


@pytest.mark.parametrize(("state", "kind", "reason"), STATE_ROWS)
def test_a_tasks_state_decides_whoever_tells_it_on_either_wire(
    state: str, kind: OutcomeKind, reason: OutcomeReason
) -> None:
    """A failed run is a 200 without an error."""
    v1 = {"id": "t1", "status": {"state": f"TASK_STATE_{state.upper().replace('-', '_')}"}}
    for result in (task(state), {"task": v1}, v1):
        sent = call(Scripted(rpc(result)))
        assert (sent.kind, sent.reason, sent.task_id) == (kind, reason, "t1")
        assert (sent.error == "") == (reason is R.ANSWERED)
        polled = poll(Scripted(rpc(result)))
        assert polled == (Working(seen=True) if kind is K.ACCEPTED else replace(sent))
    found = reconcile(Scripted(listed(task(state, **ours()))))
    assert isinstance(found, Outcome)
    assert (found.kind, found.task_id) == (kind, "t1")


@pytest.mark.parametrize("result", [
    {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": "it was the\nprobe"}]},
    {"message": {"role": "ROLE_AGENT", "parts": [{"text": "it was the"}, {"data": {}}, {"text": "probe"}]}},
])  # fmt: skip
def test_a_direct_answer_completes_the_call(result: Any) -> None:
    outcome = call(Scripted(rpc(result)))
    assert (outcome.kind, outcome.result, outcome.task_id) == (K.COMPLETED, "it was the probe", "")


SAID = {"role": "agent", "parts": [{"kind": "text", "text": "from the status"}]}
HISTORY = [
    {"role": "user", "parts": [{"kind": "text", "text": "the prompt"}]},
    {"role": "agent", "parts": [{"kind": "text", "text": "first"}]},
    {"role": "ROLE_AGENT", "parts": [{"text": "last"}]},
    {"role": "user", "parts": [{"kind": "text", "text": "another prompt"}]},
]
ARTIFACTS = [{"parts": [{"kind": "text", "text": "one"}, {"kind": "data"}]}, {"parts": [{"text": "two"}]}]


@pytest.mark.parametrize(
    ("more", "said", "expected"),
    [
        ({"artifacts": ARTIFACTS, "history": HISTORY}, SAID, "one two"),
        ({"artifacts": [], "history": HISTORY}, SAID, "from the status"),
        ({"history": HISTORY}, None, "last"),
        ({"history": HISTORY}, {**SAID, "role": "user"}, "last"),
        ({"history": HISTORY[:1]}, None, ""),
        ({"artifacts": [{"parts": [{"text": "\x1b[31m" + "ü" * 600}]}]}, None, "ü" * 512),
    ],
)
def test_the_result_is_what_the_agent_said_last(more: Any, said: Any, expected: str) -> None:
    result = task("completed", **more)
    if said:
        result["status"]["message"] = said
    assert call(Scripted(rpc(result))).result == expected


# --- what is asked ----------------------------------------------------------------------------------------------


def test_the_requests_are_those_of_the_recorded_kagent() -> None:
    transport = Scripted(rpc(task("working", id=TASK_ID)), rpc(task("working", id=TASK_ID)), listed())

    async def main() -> None:
        kagent = protocol(transport)
        await kagent.call(REQUEST, Progress())
        await kagent.poll(REQUEST, TASK_ID)
        await kagent.reconcile(REQUEST)

    in_time(main())
    samples = ("session_201", "send_nonblocking_submitted", "tasks_get_working", "session_tasks")
    for sent, name in zip(transport.seen, samples, strict=True):
        sample = recorded(name)
        assert (sent.method, sent.url.path) == (sample.method, sample.path)
        assert sent.url.params["user_id"] == sent.headers["x-user-id"] == USER
        assert sent.headers["authorization"] == f"Bearer {KEY}"
        assert "a2a-version" not in sent.headers
        assert sent.extensions["timeout"] == {"connect": 5.0, "write": 10.0, "read": 30.0, "pool": 1.0}
        if sample.asked is not None:
            ours_only = frozenset({"metadata", "historyLength"})
            assert shape(orjson.loads(sent.content), without=ours_only) == shape(sample.asked)


def test_the_bodies_to_the_byte() -> None:
    transport = Scripted(rpc(task("working")), rpc(task("working")))

    async def main() -> None:
        kagent = protocol(transport)
        await kagent.call(REQUEST, Progress())
        await kagent.poll(REQUEST, "t1")

    in_time(main())
    session, send, get = transport.bodies
    assert session == {"agent_ref": "kagent/diag-agent", "name": "pod-restart my-app-1", "id": CALL_ID}
    metadata = {"kagent.dev/hook": "production/monitoring", "kagent.dev/eventType": "pod-restart"}
    assert send == {
        "jsonrpc": "2.0",
        "id": OURS,
        "method": "message/send",
        "params": {
            "message": {
                "kind": "message",
                "role": "user",
                "messageId": OURS,
                "contextId": CALL_ID,
                "parts": [{"kind": "text", "text": "sleep 2"}],
                "metadata": metadata,
            },
            "configuration": {"blocking": False},
        },
    }
    assert get == {"jsonrpc": "2.0", "id": "t1", "method": "tasks/get", "params": {"id": "t1", "historyLength": 0}}


def test_without_a_key_nobody_is_authorized() -> None:
    async def main() -> list[httpx.Request]:
        transport = Scripted(rpc(task("working")), rpc(task("working")))
        kagent = protocol(transport, api_key="")
        await kagent.call(REQUEST, Progress())
        kagent.replace_key("new")
        await kagent.call(REQUEST, Progress())
        return transport.seen

    seen = in_time(main())
    assert [sent.headers.get("authorization") for sent in seen] == [None, None, "Bearer new", "Bearer new"]


def test_every_attempt_of_a_call_sends_the_same_bytes() -> None:
    transport = Scripted(status(502), rpc(task("working")))
    call(transport)
    call(transport)
    first, second = [sent.content for sent in transport.seen if sent.url.path != "/api/sessions"]
    assert first == second
    assert message_id(CALL_ID) == OURS


@pytest.mark.parametrize("bad", [
    {"agent": "diag-agent"}, {"agent": "../x"}, {"agent": "kagent/.."}, {"agent": "a/b/c"}, {"agent": "kagent/A"},
    {"agent": "kagent/a?b"}, {"call_id": "c1"}, {"call_id": "../../x"}, {"call_id": "{" + CALL_ID + "}"},
])  # fmt: skip
def test_only_names_and_ids_go_into_an_address(bad: dict[str, str]) -> None:
    request = replace(REQUEST, **bad)  # type: ignore[arg-type]
    transport = Scripted()
    assert call(transport, request).kind is K.REJECTED
    assert reconcile(transport, request) is Finding.CANNOT_TELL
    polled = poll(transport, request=request)
    assert isinstance(polled, Outcome)
    assert polled.kind is K.RUN_LOST
    assert transport.seen == []


# --- the other wire ---------------------------------------------------------------------------------------------

REFUSED = [
    VERSION,
    b'unsupported A2A version ""\n',
    b'unsupported A2A-Version "0.3"; expected "1.0"\n',
    b'{"error":"Unsupported A2A version: missing required A2A-Version header"}',
]


@pytest.mark.parametrize("refusal", REFUSED)
def test_a_server_that_demands_the_1_0_wire_gets_it_once_and_from_then_on(refusal: bytes) -> None:
    v1 = {"id": "t1", "status": {"state": "TASK_STATE_WORKING"}}
    transport = Scripted(status(400, refusal), rpc({"task": v1}), rpc(v1), listed())

    async def main() -> tuple[Outcome, Progress, Outcome | Working]:
        kagent, progress = protocol(transport), Progress()
        sent = await kagent.call(REQUEST, progress)
        polled = await kagent.poll(REQUEST, "t1")
        await kagent.reconcile(REQUEST)
        return sent, progress, polled

    sent, progress, polled = in_time(main())
    assert (sent.kind, sent.task_id, progress.written, polled) == (K.ACCEPTED, "t1", True, Working(seen=True))
    versions = [request.headers.get("a2a-version") for request in transport.seen]
    assert versions == [None, None, "1.0", "1.0", "1.0"]
    send, get = orjson.loads(transport.seen[2].content), orjson.loads(transport.seen[3].content)
    assert (send["method"], get["method"]) == ("SendMessage", "GetTask")
    assert send["params"]["configuration"] == {"returnImmediately": True}
    message = send["params"]["message"]
    assert (message["role"], message["parts"], "kind" in message) == ("ROLE_USER", [{"text": "sleep 2"}], False)
    assert (message["messageId"], message["contextId"]) == (OURS, CALL_ID)


def test_a_refused_wire_was_not_a_send() -> None:
    """The second send breaks before it is out: nothing was delivered, whatever the first one wrote."""

    class Half(Scripted):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.written = "a2a-version" not in request.headers
            return await super().handle_async_request(request)

    progress = Progress()
    outcome = call(Half(status(400, VERSION), httpx.WriteError("")), progress=progress)
    assert (outcome.kind, progress.written) == (K.RETRY, False)


def test_a_server_that_goes_back_to_the_old_wire_is_followed() -> None:
    work = rpc(task("working"))
    transport = Scripted(status(400, VERSION), work, error(-32009), work, work)

    async def main() -> list[OutcomeKind]:
        kagent = protocol(transport)
        return [(await kagent.call(REQUEST, Progress())).kind for _ in range(3)]

    assert in_time(main()) == [K.ACCEPTED] * 3
    sends = [sent.headers.get("a2a-version") for sent in transport.seen if "a2a" in sent.url.path]
    assert sends == [None, "1.0", "1.0", None, None]


# --- reconcile --------------------------------------------------------------------------------------------------

RECONCILED: list[tuple[Then, Finding | OutcomeKind]] = [
    (listed(task("working", **ours())), K.ACCEPTED),
    (listed(task("completed", id="t0", history=[{"messageId": "another"}]), task("working", **ours())), K.ACCEPTED),
    (listed(task("completed", status={"state": "working", "message": {"messageId": OURS}})), K.ACCEPTED),
    (listed(task("completed", **ours())), K.COMPLETED),
    (listed(task("failed", **ours())), K.RUN_FAILED),
    (listed(task("working")), K.ACCEPTED),
    (listed(task("working", history=[{"messageId": "another"}])), Finding.NO_TRACE),
    (listed(), Finding.NO_TRACE),
    (status(200, {"error": False, "data": None}), Finding.NO_TRACE),
    (NO_SESSION, Finding.NOT_SENT),
    (
        status(404, {"error": "Session not found for given ID: failed to get session x: no rows in result set"}),
        Finding.NOT_SENT,
    ),
    (
        status(404, {"error": "Session not found for given ID: failed to get session x: dial tcp: i/o timeout"}),
        Finding.CANNOT_TELL,
    ),
    (status(404, b"404 page not found\n"), Finding.CANNOT_TELL),
    (status(200, {"error": True, "data": []}), Finding.CANNOT_TELL),
    (status(200, {"error": False, "data": [{"no": "id"}]}), Finding.CANNOT_TELL),
    (status(200, {"error": False, "data": {}}), Finding.CANNOT_TELL),
    (status(200, b"<html>"), Finding.CANNOT_TELL),
    (httpx.Response(200, stream=Breaking()), Finding.CANNOT_TELL),
    (status(401), Finding.CANNOT_TELL),
    (status(429), Finding.CANNOT_TELL),
    (status(500, {"error": "Failed to get session runs"}), Finding.CANNOT_TELL),
    (status(503), Finding.CANNOT_TELL),
    (httpx.ConnectError(""), Finding.CANNOT_TELL),
    (httpx.ReadTimeout(""), Finding.CANNOT_TELL),
]


@pytest.mark.parametrize(("then", "expected"), RECONCILED)
def test_reconcile_believes_only_kagents_own_word(then: Then, expected: Finding | OutcomeKind) -> None:
    transport = Scripted(then)
    found = reconcile(transport)
    assert (found.kind if isinstance(found, Outcome) else found) == expected
    assert [sent.method for sent in transport.seen] == ["GET"], "nothing that starts work"


def test_a_large_history_is_cut_and_proves_nothing() -> None:
    history = [{"messageId": OURS, "parts": [{"text": "x" * 1024 * 1024}]}]
    assert reconcile(Scripted(listed(task("completed", history=history)))) is Finding.CANNOT_TELL


# --- polls ------------------------------------------------------------------------------------------------------

GONE = K.RUN_LOST
POLLED: list[tuple[list[Then], OutcomeKind | Working]] = [
    ([rpc(task("working"))], Working(seen=True)),
    ([rpc(task("completed"))], K.COMPLETED),
    ([rpc(task("completed", id="another"))], Working(seen=False)),
    ([error(-32001), listed(task("completed"))], K.COMPLETED),
    ([error(-32001), listed(task("working"))], Working(seen=True)),
    ([error(-32001), listed()], GONE),
    ([error(-32001), listed(task("completed", id="another"))], GONE),
    ([error(-32001), NO_SESSION], GONE),
    ([error(-32001), status(500)], Working(seen=False)),
    ([error(-32603), listed()], Working(seen=False)),
    ([error(-32603, http=500), listed(task("failed"))], K.RUN_FAILED),
    ([recorded("a2a_404_unknown_agent").response(), listed(task("completed"))], K.COMPLETED),
    ([status(502)], Working(seen=False)),
    ([status(401)], Working(seen=False)),
    ([status(429, headers={"retry-after": "9"})], Working(seen=False, retry_after_s=9.0)),
    ([httpx.Response(200, stream=Breaking())], Working(seen=False)),
    ([httpx.ReadTimeout("")], Working(seen=False)),
    ([httpx.ConnectError("")], Working(seen=False)),
]


@pytest.mark.parametrize(("then", "expected"), POLLED)
def test_a_poll_ends_a_run_only_on_kagents_word(then: list[Then], expected: OutcomeKind | Working) -> None:
    transport = Scripted(*then)
    polled = poll(transport)
    assert (polled.kind if isinstance(polled, Outcome) else polled) == expected
    assert transport.then == []


def test_polls_come_less_and_less_often() -> None:
    waits_s = [poll_wait_s(polls) for polls in range(40)]
    assert waits_s[:3] == [2.0, 3.0, 4.5]
    assert waits_s == sorted(waits_s)
    assert max(waits_s) == waits_s[-1] == 30.0
    assert poll_wait_s(10**9) == 30.0


# --- the recorded answers ---------------------------------------------------------------------------------------


def test_what_a_real_kagent_answered_is_read_as_what_it_meant() -> None:
    real = {
        name: recorded(name).response() for name in ("session_201", "send_nonblocking_submitted", "tasks_get_working")
    }
    transport = Scripted(
        real["send_nonblocking_submitted"],
        real["tasks_get_working"],
        recorded("tasks_get_completed").response(),
        recorded("tasks_get_unknown").response(),
        recorded("session_tasks").response(),
        recorded("send_blocking_failed").response(),
        session=real["session_201"],
    )

    async def main() -> list[Any]:
        kagent = protocol(transport)
        sent = await kagent.call(REQUEST, Progress())
        polls = [await kagent.poll(REQUEST, sent.task_id) for _ in range(3)]
        return [sent, *polls, await kagent.call(REQUEST, Progress())]

    sent, working, completed, from_list, failed = in_time(main())
    assert (sent.kind, sent.task_id, sent.result, sent.error) == (K.ACCEPTED, TASK_ID, "", "")
    assert working == Working(seen=True)
    assert (completed.kind, completed.result) == (K.COMPLETED, "echo: sleep 2")
    assert from_list == completed, "the agent lost it, kagent's database has it"
    assert (failed.kind, failed.result) == (K.RUN_FAILED, "agent exploded")
    assert failed.error == "agent kagent/diag-agent: the run failed"


def test_a_recorded_session_is_searched_for_our_message() -> None:
    mine = recorded("session_tasks").body.replace(RECORDED_MESSAGE.encode(), OURS.encode())
    adopted = reconcile(Scripted(status(200, mine)))
    assert isinstance(adopted, Outcome)
    assert (adopted.kind, adopted.task_id, adopted.result) == (K.COMPLETED, TASK_ID, "echo: sleep 2")
    assert reconcile(Scripted(recorded("session_tasks").response())) is Finding.NO_TRACE


# --- whatever comes ---------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["result", "error", "code", "task", "message", "status", "state", "id", "kind", "parts", "text", "history",
             "artifacts", "data", "role", "messageId", "retry_after"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(code=st.sampled_from([200, 400, 404, 500, 503]), value=json_values, raw=st.none() | st.binary(max_size=32))
def test_any_answer_gives_an_outcome(code: int, value: Any, raw: bytes | None) -> None:
    body = raw if raw is not None else orjson.dumps(value)
    outcome = call(Scripted(status(code, body), status(code, body)))
    assert len(outcome.error) <= 256
    assert len(outcome.result.encode()) <= 1024
    assert (outcome.doubt_s == DOUBT_S) <= (outcome.kind is K.AMBIGUOUS)
    reconcile(Scripted(status(code, body), status(code, body)))
    poll(Scripted(*(status(code, body) for _ in range(4))))


@pytest.mark.parametrize("then", [row[1] for row in SENDS if not isinstance(row[1], tuple)])
def test_no_error_text_tells_a_secret_or_the_event(then: Then) -> None:
    """The peer echoes everything it was sent, key and event text and all."""
    echo = f"{KEY} {REQUEST.prompt} hunter2"
    answer = status(then.status_code, echo.encode()) if isinstance(then, httpx.Response) else type(then)(echo)
    for transport in (Scripted(answer), Scripted(session=answer)):
        if isinstance(answer, httpx.Response) and answer.status_code in (200, 202, 404):
            transport.then.append(status(418, echo.encode()))
        outcome = call(transport, replace(REQUEST, agent="n/" + "a" * 253, prompt="the prompt"))
        assert len(outcome.error) <= 256
        for secret in (KEY, "hunter2", "the prompt", "sleep 2"):
            assert secret not in outcome.error
