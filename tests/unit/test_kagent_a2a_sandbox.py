"""The embedded kagent: it answers in the shapes of a real one, records what it accepted, and plays its faults."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

import orjson
import pytest
from support.kagent_recorded import recorded, shape

from khook.agents.a2a import A2aProtocol
from khook.agents.a2a_wire import Wire as A2aWire
from khook.agents.a2a_wire import get_task_body, send_body, session_body
from khook.agents.outcome import AgentRequest, Context, Finding, Outcome, OutcomeKind, Progress, Working
from khook.sandbox.exchange import Request, Response
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.kagent import ANY_AGENT, Behaviour, Fault, FaultKind, Kagent, Run, Speaks, Step
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.virtual_time import VirtualClock, run

K = OutcomeKind
USER = "khook@example.org"
CALL_ID = "f8350f7f-1b8f-48d2-820b-8821caa3c6f2"
CALL = AgentRequest(
    call_id=CALL_ID,
    agent="kagent/diag-agent",
    agent_id="kagent/diag-agent",
    prompt="sleep 2",
    context=Context(
        event_name="oom-kill",
        event_time=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        resource_name="web-1",
        namespace="shop",
        event_message="OOMKilled",
    ),
    hook="shop/h",
)
A2A_PATH = "/api/a2a/kagent/diag-agent/"
LIST_PATH = f"/api/sessions/{CALL_ID}/tasks"


def kagent(**more: Any) -> Kagent:
    return Kagent(api_key="key", speaks=Speaks.A2A, **more)


class Here:
    """A kagent in memory, a client of it, and raw requests to it."""

    def __init__(self, server: Kagent) -> None:
        self.server = server
        self.service = KagentService(server, clock=VirtualClock())
        transport = InMemoryTransports({"http://kagent": self.service}).exact(tls=None)
        self.client = A2aProtocol(
            base_url="http://kagent", user_id=USER, api_key="key", transport=transport, clock=VirtualClock()
        )

    async def call(self, call: AgentRequest = CALL) -> Outcome:
        return await self.client.call(call, Progress())

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        sent = {"authorization": "Bearer key", "x-user-id": USER} | {k.replace("_", "-"): v for k, v in headers.items()}
        return await self.service.handle(
            Request(method=method, path=path, query={}, headers={k: v for k, v in sent.items() if v}, body=body)
        )


def body(response: Response) -> Any:
    assert isinstance(response.body, bytes)
    return orjson.loads(response.body)


def content_type(response: Response) -> str:
    return response.headers["content-type"]


# --- shapes -----------------------------------------------------------------------------------------------------


def full_get(task_id: str) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": "1", "method": "tasks/get", "params": {"id": task_id}})


def test_its_answers_have_the_shapes_of_a_real_one() -> None:
    """Same status, content type, keys and types as each recorded answer; ours carry the metadata we send along."""

    async def main() -> dict[str, Response]:
        here = Here(kagent(agents={"kagent/diag-agent"}))
        answers = {
            "health": await here.ask("GET", "/health"),
            "session_201": await here.ask("POST", "/api/sessions", session_body(CALL)),
            "session_400_unknown_agent": await here.ask(
                "POST", "/api/sessions", session_body(replace(CALL, agent="kagent/nope"))
            ),
            "a2a_404_unknown_agent": await here.ask("POST", "/api/a2a/kagent/nope/", send_body(CALL, A2aWire.V0_3)),
            "send_nonblocking_submitted": await here.ask("POST", A2A_PATH, send_body(CALL, A2aWire.V0_3)),
            "tasks_get_unknown": await here.ask("POST", A2A_PATH, full_get("no-such-task")),
        }
        task_id = here.server.runs[0].task_id
        await asyncio.sleep(1)
        answers["tasks_get_working"] = await here.ask("POST", A2A_PATH, full_get(task_id))
        await asyncio.sleep(1)
        answers["tasks_get_completed"] = await here.ask("POST", A2A_PATH, full_get(task_id))
        answers["session_tasks"] = await here.ask("GET", LIST_PATH)
        here.server.set_faults(ANY_AGENT, [Fault(kind=FaultKind.FAILED)])
        await here.ask("POST", A2A_PATH, send_body(CALL, A2aWire.V0_3))
        await asyncio.sleep(2)
        answers["send_blocking_failed"] = await here.ask("POST", A2A_PATH, full_get(here.server.runs[1].task_id))
        return answers

    for name, answer in run(main()).items():
        sample = recorded(name)
        assert (answer.status, content_type(answer)) == (sample.status, sample.content_type), name
        if sample.content_type == "application/json":
            assert shape(_without_ours(body(answer))) == shape(sample.answer), name
        else:
            assert answer.body == sample.body, name


def _without_ours(value: Any) -> Any:
    """Without the metadata of our own message: the recorded one carried none."""
    if isinstance(value, list):
        return [_without_ours(one) for one in value]
    if isinstance(value, dict):
        ours = "kagent.dev/hook" in value.get("metadata", {})
        return {key: _without_ours(one) for key, one in value.items() if not (ours and key == "metadata")}
    return value


def test_an_unknown_agents_words_are_the_real_ones() -> None:
    async def main() -> list[Any]:
        here = Here(kagent(agents=set()))
        unknown = replace(CALL, agent="kagent/nope")
        return [body(await here.ask("POST", "/api/sessions", session_body(unknown))), (await here.call(unknown)).kind]

    assert run(main()) == [recorded("session_400_unknown_agent").answer, K.NOT_FOUND]


def test_an_empty_list_is_left_out() -> None:
    async def main() -> Any:
        here = Here(kagent())
        await here.ask("POST", "/api/sessions", session_body(CALL))
        return body(await here.ask("GET", LIST_PATH))

    assert run(main()) == {"error": False, "message": "Successfully retrieved session tasks"}


# --- a run's life -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wires", [("0.3", "1.0"), ("1.0",)])
def test_a_run_is_recorded_worked_at_and_completed_on_either_wire(wires: tuple[str, ...]) -> None:
    async def main() -> tuple[list[Run], list[Any]]:
        here = Here(kagent(behaviour=Behaviour(run_s=5, wires=wires)))
        sent = await here.call()
        seen: list[Any] = [sent.kind]
        for _ in range(3):
            seen.append(await here.client.poll(CALL, sent.task_id))
            seen.append(await here.client.reconcile(CALL))
            await asyncio.sleep(2.5)
        return here.server.runs, seen

    (made,), seen = run(main())
    assert (made.agent, made.call_id, made.prompt, made.protocol) == ("kagent/diag-agent", CALL_ID, "sleep 2", "a2a")
    assert made.message_id == str(uuid5(UUID(CALL_ID), "1"))
    expected = {
        "eventName": "oom-kill",
        "resourceName": "web-1",
        "namespace": "shop",
        "eventTime": "",
        "eventMessage": "",
    }
    assert made.context == expected
    assert Run.from_json(orjson.loads(orjson.dumps(made.to_json()))) == made
    accepted, *later = seen
    assert accepted is K.ACCEPTED
    kinds = [one.kind if isinstance(one, Outcome) else one for one in later]
    working = Working(seen=True)
    assert kinds == [working, K.ACCEPTED, working, K.ACCEPTED, K.COMPLETED, K.COMPLETED]
    assert later[-1].result == "looking into it"


def test_the_same_message_sent_twice_is_two_runs() -> None:
    async def main() -> tuple[list[str], list[str]]:
        here = Here(kagent())
        for _ in range(2):
            await here.call()
        return [made.task_id for made in here.server.runs], [made.message_id for made in here.server.runs]

    task_ids, message_ids = run(main())
    assert (len(set(task_ids)), len(set(message_ids))) == (2, 1)


def test_sessions_and_tasks_are_their_users() -> None:
    async def main() -> list[int]:
        here = Here(kagent())
        sent = await here.call()
        asked = [
            await here.ask("GET", LIST_PATH),
            await here.ask("GET", LIST_PATH, x_user_id="another"),
            await here.ask("GET", LIST_PATH, x_user_id=""),
            await here.ask("GET", f"/api/sessions/{CALL_ID}"),
        ]
        foreign = await here.ask("POST", A2A_PATH, get_task_body(sent.task_id, A2aWire.V0_3), x_user_id="another")
        return [answer.status for answer in asked] + [body(foreign)["error"]["code"]]

    assert run(main()) == [200, 404, 404, 200, -32001]


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("POST", A2A_PATH.rstrip("/"), b"", 404, None),
        ("GET", "/v1/agents/x/execute", b"", 404, None),
        ("POST", "/v1/agents/x/execute", b"", 404, None),
        ("POST", "/api/sessions", b"{}", 400, None),
        ("POST", "/api/sessions", b'{"agent_ref":"no-namespace","name":"n","id":"i"}', 400, None),
        ("POST", A2A_PATH, b"not json", 200, -32600),
        ("POST", A2A_PATH, b'{"jsonrpc":"2.0","id":"1","method":"message/stream","params":{}}', 200, -32601),
        ("POST", A2A_PATH, b'{"jsonrpc":"2.0","id":"1","method":"SendMessage","params":{}}', 200, -32601),
        ("POST", A2A_PATH, b'{"jsonrpc":"2.0","id":"1","method":"message/send","params":{}}', 200, -32602),
    ],
)
def test_what_is_wrong_starts_no_run(method: str, path: str, sent: bytes, status: int, code: int | None) -> None:
    async def main() -> tuple[Response, list[Run]]:
        here = Here(kagent())
        return await here.ask(method, path, sent), here.server.runs

    answer, runs = run(main())
    assert (answer.status, runs) == (status, [])
    if code:
        assert body(answer)["error"]["code"] == code


def changed(**message: Any) -> bytes:
    sent = orjson.loads(send_body(CALL, A2aWire.V0_3))
    for key, value in message.items():
        if value is None:
            del sent["params"]["message"][key]
        else:
            sent["params"]["message"][key] = value
    return orjson.dumps(sent)


@pytest.mark.parametrize(
    "sent",
    [
        changed(messageId=None),
        changed(contextId=None),
        changed(role="ROLE_USER"),
        changed(kind=None),
        changed(parts=[{"text": "of the other wire"}]),
        changed(parts=[]),
        send_body(CALL, A2aWire.V0_3).replace(b'"blocking":false', b'"blocking":true'),
        send_body(CALL, A2aWire.V0_3).replace(b'"blocking":false', b""),
    ],
)
def test_a_send_that_a_real_one_might_take_differently_is_refused(sent: bytes) -> None:
    async def main() -> Any:
        return body(await Here(kagent()).ask("POST", A2A_PATH, sent))

    assert run(main())["error"]["code"] == -32602


def test_a_key_is_demanded_where_there_is_one_and_a_kagent_without_any_takes_all() -> None:
    async def main() -> list[int]:
        locked, open_to_all = Here(kagent()), Here(Kagent(api_key="", speaks=Speaks.A2A))
        asked = [("POST", "/api/sessions", session_body(CALL)), ("POST", A2A_PATH, send_body(CALL, A2aWire.V0_3))]
        return [(await here.ask(*one, authorization="")).status for here in (locked, open_to_all) for one in asked] + [
            (await locked.ask("GET", path, authorization="")).status for path in ("/health", "/version")
        ]

    assert run(main()) == [401, 401, 201, 200, 200, 200]


# --- faults -----------------------------------------------------------------------------------------------------

# a send's fault, what the client makes of it, how many runs there are
SEND_FAULTS: list[tuple[Fault, OutcomeKind, int]] = [
    (Fault(kind=FaultKind.REFUSE), K.RETRY, 0),
    (Fault(kind=FaultKind.UNAUTHORIZED), K.UNAUTHORIZED, 0),
    (Fault(kind=FaultKind.NOT_FOUND), K.NOT_FOUND, 0),
    (Fault(kind=FaultKind.BUSY, seconds=7), K.RETRY_AFTER, 0),
    (Fault(kind=FaultKind.ERROR), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.ERROR_RPC), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.ERROR_RPC, runs=True), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.INTERNAL), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.INTERNAL, runs=True), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.BAD_GATEWAY), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.GATEWAY_TIMEOUT, runs=True), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.UNAVAILABLE), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.CUT_OFF, runs=True), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.DATABASE), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.CUT), K.AMBIGUOUS, 0),
    (Fault(kind=FaultKind.DROP), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.SLOW, seconds=8), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.SLOW, seconds=40), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.HANG), K.AMBIGUOUS, 1),
    (Fault(kind=FaultKind.FAILED), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.INPUT_REQUIRED), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.ENDLESS), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.LOST), K.ACCEPTED, 1),
    (Fault(kind=FaultKind.MESSAGE), K.COMPLETED, 1),
]


@pytest.mark.parametrize(("fault", "kind", "runs"), SEND_FAULTS)
def test_a_fault_of_a_send_is_told_as_it_should_and_reconciled_to_the_truth(
    fault: Fault, kind: OutcomeKind, runs: int
) -> None:
    async def main() -> tuple[Outcome, int, Outcome | Finding, int]:
        here = Here(kagent())
        here.server.set_faults(CALL.agent, [fault])
        outcome = await here.call()
        return outcome, len(here.server.runs), await here.client.reconcile(CALL), len(here.server.attempts)

    outcome, made, found, attempts = run(main())
    assert (outcome.kind, made, attempts) == (kind, runs, 1)
    if outcome.kind is K.AMBIGUOUS:
        assert (found if made == 0 else isinstance(found, Outcome)) == (Finding.NO_TRACE if made == 0 else True)
        assert outcome.doubt_s == (0 if fault.kind is FaultKind.UNAVAILABLE else 10)
    if fault.kind is FaultKind.BUSY:
        assert outcome.retry_after_s == 7


def test_every_fault_has_a_row() -> None:
    assert {row[0].kind for row in SEND_FAULTS} == set(FaultKind)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.FAILED, K.RUN_FAILED),
        (FaultKind.INPUT_REQUIRED, K.INPUT_REQUIRED),
        (FaultKind.ENDLESS, Working(seen=True)),
        (FaultKind.LOST, K.RUN_LOST),
    ],
)
def test_a_run_ends_as_its_fault_says(kind: FaultKind, expected: OutcomeKind | Working) -> None:
    async def main() -> Outcome | Working:
        here = Here(kagent())
        here.server.set_faults(ANY_AGENT, [Fault(kind=kind)])
        sent = await here.call()
        await asyncio.sleep(3_600)
        return await here.client.poll(CALL, sent.task_id)

    polled = run(main())
    assert (polled.kind if isinstance(polled, Outcome) else polled) == expected


def test_a_task_may_be_listed_late() -> None:
    async def main() -> list[Outcome | Finding]:
        here = Here(kagent())
        here.server.set_faults(ANY_AGENT, [Fault(kind=FaultKind.DROP, late_s=3)])
        await here.call()
        found = [await here.client.reconcile(CALL)]
        await asyncio.sleep(3)
        return [*found, await here.client.reconcile(CALL)]

    early, later = run(main())
    assert early is Finding.NO_TRACE
    assert isinstance(later, Outcome)
    assert later.kind is K.COMPLETED


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (FaultKind.REFUSE, K.RETRY),
        (FaultKind.UNAUTHORIZED, K.UNAUTHORIZED),
        (FaultKind.NOT_FOUND, K.NOT_FOUND),
        (FaultKind.DATABASE, K.RETRY),
        (FaultKind.ERROR, K.RETRY),
        (FaultKind.UNAVAILABLE, K.RETRY),
        (FaultKind.DROP, K.RETRY),
        (FaultKind.HANG, K.RETRY),
    ],
)
def test_a_fault_of_the_session_sends_nothing(fault: FaultKind, kind: OutcomeKind) -> None:
    async def main() -> tuple[OutcomeKind, int]:
        here = Here(kagent())
        here.server.set_faults(CALL.agent, [Fault(kind=fault, on=Step.SESSION, times=1)])
        outcome = await here.call()
        assert (await here.call()).kind is K.ACCEPTED
        return outcome.kind, len(here.server.attempts)

    assert run(main()) == (kind, 1)


def test_a_fault_of_the_list_or_of_all_steps_leaves_it_open() -> None:
    async def main() -> list[Any]:
        here = Here(kagent())
        sent = await here.call()
        found: list[Any] = []
        for kind in (FaultKind.DATABASE, FaultKind.ERROR, FaultKind.REFUSE, FaultKind.UNAUTHORIZED):
            here.server.set_faults(CALL.agent, [Fault(kind=kind, on=Step.LIST)])
            found.append(await here.client.reconcile(CALL))
        here.server.set_faults(ANY_AGENT, [Fault(kind=FaultKind.REFUSE, on=None)])
        here.server.set_faults(CALL.agent, [])
        found.append(await here.client.poll(CALL, sent.task_id))
        here.server.set_faults(ANY_AGENT, [Fault(kind=FaultKind.INTERNAL, on=Step.POLL)])
        await asyncio.sleep(2)
        found.append(await here.client.poll(CALL, sent.task_id))
        return found

    *lists, refused, by_list = run(main())
    assert lists == [Finding.CANNOT_TELL] * 4
    assert refused == Working(seen=False)
    assert by_list.kind is K.COMPLETED, "kagent's database answers with the agent down"


def test_without_a_session_nothing_was_sent() -> None:
    async def main() -> Outcome | Finding:
        return await Here(kagent()).client.reconcile(CALL)

    assert run(main()) is Finding.NOT_SENT


def test_a_kagent_without_session_routes_is_called_all_the_same() -> None:
    async def main() -> tuple[OutcomeKind, Outcome | Finding]:
        here = Here(kagent(behaviour=Behaviour(session_routes=False)))
        return (await here.call()).kind, await here.client.reconcile(CALL)

    assert run(main()) == (K.ACCEPTED, Finding.CANNOT_TELL)


def test_one_server_may_speak_both_over_one_record() -> None:
    async def main() -> tuple[list[str], dict[str, Any]]:
        here = Here(Kagent(api_key="key", speaks=Speaks.BOTH))
        await here.call()
        context = dict.fromkeys(("eventName", "eventTime", "resourceName", "namespace", "eventMessage"), "x")
        sent = orjson.dumps({"agentId": "medic", "prompt": "Look.", "context": context})
        await here.ask("POST", "/v1/agents/medic/execute", sent, idempotency_key="c1")
        answer = await here.ask("GET", "/sandbox/record")
        return [made.protocol for made in here.server.runs], body(answer)

    made, record = run(main())
    assert made == ["a2a", "execute"] == [one["protocol"] for one in record["runs"]]
    assert record["requests"] == {"session": 1, "send": 1}
    assert [one["end"] for one in record["attempts"]] == ["200", "200"]


def test_faults_for_a_step_can_be_set_over_http() -> None:
    async def main() -> tuple[OutcomeKind, OutcomeKind]:
        here = Here(kagent())
        fault = {"kind": "502", "on": "send", "runs": True, "lateSeconds": 3, "times": 1}
        wish = {"agent": "*", "faults": [{"kind": "refuse", "on": "*", "times": 1}, fault]}
        assert (await here.ask("POST", "/sandbox/faults", orjson.dumps(wish))).status == 200
        kinds = (await here.call()).kind, (await here.call()).kind
        assert await here.client.reconcile(CALL) is Finding.NO_TRACE
        return kinds

    assert run(main()) == (K.RETRY, K.AMBIGUOUS)
