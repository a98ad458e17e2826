"""The embedded agent server: what it records is what it accepted, whatever it answered."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from khook.agents.execute import encode
from khook.agents.outcome import AgentRequest, Context
from khook.sandbox.exchange import HangUp, Refuse, Request, Response
from khook.sandbox.kagent import ANY_AGENT, Fault, FaultKind, Kagent, Reply, Run, Wire
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.virtual_time import VirtualClock, run

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
CALL = AgentRequest(
    call_id="c1",
    agent="kagent/medic",
    agent_id="medic",
    prompt="Look.",
    context=Context(
        event_name="oom-kill", event_time=NOW, resource_name="web-1", namespace="shop", event_message="OOMKilled"
    ),
    hook="shop/h",
)


def post(kagent: Kagent, call: AgentRequest = CALL, **changes: Any) -> Reply:
    arguments: dict[str, Any] = {
        "agent": call.agent_id,
        "authorization": "Bearer key",
        "call_id": call.call_id,
        "body": encode(call),
        "now": NOW,
    }
    return kagent.execute(**{**arguments, **changes})


def test_an_accepted_request_is_a_run_with_all_that_was_asked() -> None:
    kagent = Kagent(api_key="key")
    reply = post(kagent)
    assert (reply.status, reply.wire) == (200, Wire.ANSWER)
    assert kagent.runs == [
        Run(
            agent="medic",
            call_id="c1",
            prompt="Look.",
            context={
                "eventName": "oom-kill",
                "eventTime": "2024-01-15T10:30:00Z",
                "resourceName": "web-1",
                "namespace": "shop",
                "eventMessage": "OOMKilled",
            },
            time=NOW,
        )
    ]
    assert Run.from_json(orjson.loads(orjson.dumps(kagent.record()))["runs"][0]) == kagent.runs[0]


def test_a_repeated_key_gets_the_first_answer_and_starts_nothing() -> None:
    kagent = Kagent(api_key="key")
    first = post(kagent)
    assert post(kagent, now=NOW + timedelta(seconds=5)) == first
    assert (len(kagent.runs), kagent.replayed, kagent.differing, len(kagent.attempts)) == (1, 1, 0, 2)
    post(kagent, replace(CALL, prompt="Another."))
    assert (len(kagent.runs), kagent.replayed, kagent.differing) == (1, 2, 1)
    assert post(kagent, replace(CALL, call_id="c2")) != first
    assert post(kagent, replace(CALL, agent_id="other")) != first
    assert len(kagent.runs) == 3


def test_a_server_without_idempotency_runs_a_repeated_key_again() -> None:
    kagent = Kagent(api_key="key", honour_keys=False)
    assert [post(kagent).status, post(kagent).status, len(kagent.runs)] == [200, 200, 2]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer other"}, 401),
        ({"agent": "stranger"}, 404),
        ({"body": b"{"}, 400),
        ({"body": b"[]"}, 400),
        ({"body": encode(replace(CALL, agent_id="ops/medic"))}, 400),
        ({"body": encode(replace(CALL, prompt=""))}, 400),
        ({"body": b'{"agentId":"medic","prompt":"x","context":{}}'}, 400),
        ({"body": b'{"agentId":"medic","prompt":"x"}'}, 400),
        ({"body": b'{"agentId":"medic","prompt":"x","context":1}'}, 400),
    ],
)
def test_what_is_wrong_starts_no_run(changes: dict[str, Any], status: int) -> None:
    kagent = Kagent(api_key="key", agents={"medic", "ops/medic"})
    assert post(kagent, **changes).status == status
    assert (kagent.runs, [a.end for a in kagent.attempts]) == ([], [str(status)])
    assert post(kagent).status == 200


def test_a_changed_key_is_the_one_that_counts() -> None:
    kagent = Kagent(api_key="old")
    kagent.change_key("key")
    assert (post(kagent).status, post(kagent, authorization="Bearer old").status) == (200, 401)


@pytest.mark.parametrize(
    ("fault", "expected", "runs"),
    [
        (Fault(kind=FaultKind.REFUSE), (0, Wire.REFUSE), 0),
        (Fault(kind=FaultKind.UNAUTHORIZED), (401, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.NOT_FOUND), (404, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.BUSY, seconds=2), (429, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.ERROR), (500, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.UNAVAILABLE), (503, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.DROP), (0, Wire.HANG_UP), 1),
        (Fault(kind=FaultKind.SLOW, seconds=3), (200, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.HANG), (0, Wire.HANG), 1),
        (Fault(kind=FaultKind.CUT), (0, Wire.HANG_UP), 0),
        (Fault(kind=FaultKind.BAD_GATEWAY), (502, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.GATEWAY_TIMEOUT), (504, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.GATEWAY_TIMEOUT, runs=True), (504, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.CUT_OFF), (503, Wire.ANSWER), 0),
        # what only kagent's own protocol can say
        *((Fault(kind=kind), (500, Wire.ANSWER), 0) for kind in (FaultKind.ERROR_RPC, FaultKind.INTERNAL)),
        (Fault(kind=FaultKind.DATABASE), (500, Wire.ANSWER), 0),
        (Fault(kind=FaultKind.FAILED), (200, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.INPUT_REQUIRED), (200, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.ENDLESS), (200, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.LOST), (200, Wire.ANSWER), 1),
        (Fault(kind=FaultKind.MESSAGE), (200, Wire.ANSWER), 1),
    ],
)
def test_a_fault_answers_and_records_as_it_should(fault: Fault, expected: tuple[int, Wire], runs: int) -> None:
    for scripted in (True, False):
        kagent = Kagent(api_key="key")
        if scripted:
            kagent.set_faults("medic", [fault])
        reply = post(kagent, drawn=None if scripted else fault)
        assert (reply.status, reply.wire) == expected
        assert len(kagent.runs) == runs
        assert reply.headers.get("retry-after") == ("2" if fault.kind is FaultKind.BUSY else None)
        assert reply.delay_s == (3 if fault.kind is FaultKind.SLOW else 0)


def test_every_fault_has_a_row() -> None:
    marks: Any = test_a_fault_answers_and_records_as_it_should
    assert {row[0].kind for row in marks.pytestmark[0].args[1]} == set(FaultKind)


def test_scripted_faults_come_in_turn_and_by_agent() -> None:
    kagent = Kagent(api_key="key")
    kagent.set_faults(
        "medic", [Fault(kind=FaultKind.BUSY, times=2), Fault(kind=FaultKind.DROP, times=1), Fault(kind=FaultKind.ERROR)]
    )
    kagent.set_faults(ANY_AGENT, [Fault(kind=FaultKind.UNAVAILABLE, times=1)])
    assert post(kagent, replace(CALL, agent_id="other")).status == 503
    assert [post(kagent).status for _ in range(5)] == [429, 429, 0, 500, 500]
    kagent.set_faults("medic", [])
    assert post(kagent).status == 200, "the dropped answer, played again"
    assert (len(kagent.runs), kagent.replayed) == (1, 1)


# --- the routes -------------------------------------------------------------------------------------------------


def exchange(method: str, path: str, body: bytes = b"") -> Request:
    headers = {"authorization": "Bearer key", "idempotency-key": "c1"}
    return Request(method=method, path=path, query={}, headers=headers, body=body)


async def execute(service: KagentService, call: AgentRequest = CALL) -> Response:
    return await service.handle(exchange("POST", f"/v1/agents/{call.agent_id}/execute", encode(call)))


def test_the_routes_say_that_this_is_an_execute_server() -> None:
    async def main() -> list[int]:
        service = KagentService(Kagent(api_key="key"), clock=VirtualClock())
        asked = [("GET", "/health"), ("GET", "/version"), ("GET", "/"), ("GET", "/v1/agents/medic/execute")]
        return [(await service.handle(exchange(*one))).status for one in asked]

    assert run(main()) == [200, 404, 404, 404]


def test_an_agent_with_a_namespace_is_found_in_the_decoded_path() -> None:
    async def main() -> str:
        service = KagentService(Kagent(api_key="key", agents={"ops/medic"}), clock=VirtualClock())
        assert (await execute(service, replace(CALL, agent_id="ops/medic"))).status == 200
        return service.kagent.runs[0].agent

    assert run(main()) == "ops/medic"


def test_faults_set_over_http_reach_the_wire_and_the_record_tells() -> None:
    async def main() -> tuple[list[str], float, dict[str, Any]]:
        service = KagentService(Kagent(api_key="key"), clock=VirtualClock())
        kinds = ["refuse", "drop", "slow", "hang"]
        faults = [{"kind": kind, "seconds": 7, "times": 1} for kind in kinds]
        wish = exchange("POST", "/sandbox/faults", orjson.dumps({"agent": "medic", "faults": faults}))
        assert (await service.handle(wish)).status == 200
        ends = []
        for _ in kinds:
            try:
                async with asyncio.timeout(60):
                    ends.append(str((await execute(service)).status))
            except (Refuse, HangUp, TimeoutError) as end:
                ends.append(type(end).__name__)
        answer = await service.handle(exchange("GET", "/sandbox/record"))
        assert isinstance(answer.body, bytes)
        return ends, asyncio.get_running_loop().time(), orjson.loads(answer.body)

    ends, took_s, record = run(main())
    assert ends == ["Refuse", "HangUp", "200", "TimeoutError"]
    assert took_s == 67
    assert [attempt["end"] for attempt in record["attempts"]] == ["refuse", "hang up", "200", "hang"]
    assert (len(record["runs"]), record["replayed"]) == (1, 2)


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"agent":"a","faults":[{"kind":"gremlin"}]}', b'{"faults":[]}', b"[]"])
def test_a_malformed_wish_for_faults_is_refused(body: bytes) -> None:
    async def main() -> int:
        service = KagentService(Kagent(api_key="key"), clock=VirtualClock())
        return (await service.handle(exchange("POST", "/sandbox/faults", body))).status

    assert run(main()) == 400


def test_drawn_faults_come_as_often_as_they_weigh_and_replay_with_their_seed() -> None:
    weights = {Fault(kind=FaultKind.ERROR): 0.3, Fault(kind=FaultKind.BUSY): 0.2}

    async def main(seed: int) -> list[int]:
        service = KagentService(
            Kagent(api_key="key"), clock=VirtualClock(), randomness=random.Random(seed), weights=weights
        )
        return [(await execute(service)).status for _ in range(1_000)]

    statuses = run(main(1))
    assert statuses == run(main(1))
    assert statuses != run(main(2))
    for status, weight in ((500, 0.3), (429, 0.2), (200, 0.5)):
        assert statuses.count(status) == pytest.approx(1_000 * weight, abs=60)


def test_drawn_faults_without_randomness_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="randomness"):
        KagentService(Kagent(api_key="key"), clock=VirtualClock(), weights={Fault(kind=FaultKind.DROP): 1.0})
