"""The `a2a` protocol against an agent server that is not ours: a2a-sdk, unmodified, over HTTP, on both wires.

The SDK knows no sessions: kagent's two routes for them stand in front of it, over the SDK's own store of tasks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import pytest
from a2a.helpers import new_task_from_user_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.routes.common import serialize_list_tasks_response
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, ListTasksRequest, Message, Part, Role
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from support.asgi import App, served

from khook.agents.a2a import A2aProtocol
from khook.agents.outcome import AgentRequest, Context, Finding, Outcome, OutcomeKind, Progress, Working
from khook.seams import SystemClock

T = TypeVar("T")
K = OutcomeKind
PATH = "/api/a2a/kagent/peer/"
CALL = AgentRequest(
    call_id="f8350f7f-1b8f-48d2-820b-8821caa3c6f2",
    agent="kagent/peer",
    agent_id="kagent/peer",
    prompt="work",
    context=Context(
        event_name="oom-kill",
        event_time=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        resource_name="web-1",
        namespace="shop",
        event_message="OOMKilled",
    ),
    hook="shop/h",
)


@dataclass
class Agent(AgentExecutor):
    """Does what its prompt says, once `go` is set. Remembers what reached it."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[Message] = field(default_factory=list)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        self.heard.append(message)
        prompt = context.get_user_input()
        if prompt == "talk":
            said = Message(message_id="m1", context_id=context.context_id or "", role=Role.ROLE_AGENT)
            said.parts.append(Part(text="just an answer"))
            await event_queue.enqueue_event(said)
            return
        task = new_task_from_user_message(message)
        task.id, task.context_id = context.task_id or "", context.context_id or ""
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await self.go.wait()
        answer = updater.new_agent_message([Part(text=f"{prompt}: done")])
        match prompt:
            case "fail":
                await updater.failed(answer)
            case "ask":
                await updater.requires_input(answer)
            case _:
                await updater.add_artifact([Part(text=f"{prompt}: artifact")])
                await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def application(agent: Agent, *, old_wire: bool) -> App:
    url = "http://127.0.0.1" + PATH
    card = AgentCard(
        name="peer",
        description="a peer",
        version="1",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        capabilities=AgentCapabilities(),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
    )
    handler = DefaultRequestHandler(agent_executor=agent, task_store=InMemoryTaskStore(), agent_card=card)
    sessions: set[str] = set()

    async def create_session(request: Request) -> JSONResponse:
        wanted = await request.json()
        sessions.add(wanted["id"])
        return JSONResponse({"error": False, "data": wanted, "message": "ok"}, status_code=201)

    async def list_tasks(request: Request) -> JSONResponse:
        session_id = request.path_params["session_id"]
        if session_id not in sessions:
            return JSONResponse({"error": "Session not found: record not found"}, status_code=404)
        wanted = ListTasksRequest(context_id=session_id, include_artifacts=True)
        listed = await handler.on_list_tasks(wanted, ServerCallContext())
        tasks = serialize_list_tasks_response(listed, include_artifacts=True)["tasks"]
        return JSONResponse({"error": False, **({"data": tasks} if tasks else {}), "message": "ok"})

    routes = [
        Route("/api/sessions", create_session, methods=["POST"]),
        Route("/api/sessions/{session_id}/tasks", list_tasks),
        *create_jsonrpc_routes(handler, PATH, enable_v0_3_compat=old_wire),
    ]
    return Starlette(routes=routes)


def refusing(app: App, seen: list[str]) -> App:
    """Demands the version in a header, in kagent's words, in front of an application that knows 1.0 alone."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        if scope["path"] == PATH:
            seen.append(headers.get(b"a2a-version", b"").decode())
            if headers.get(b"a2a-version") != b"1.0":
                refusal = PlainTextResponse('missing required A2A-Version header; expected "1.0"\n', 400)
                await refusal(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def with_peer(
    story: Callable[[A2aProtocol, Agent], Awaitable[T]], *, old_wire: bool = True, seen: list[str] | None = None
) -> T:
    async def main() -> T:
        agent = Agent()
        app = application(agent, old_wire=old_wire)
        async with served(app if old_wire else refusing(app, seen if seen is not None else [])) as url:
            kagent = A2aProtocol(
                base_url=url,
                user_id="admin@kagent.dev",
                api_key="",
                transport=httpx.AsyncHTTPTransport(),
                clock=SystemClock(),
                read_timeout_s=10,
            )
            try:
                async with asyncio.timeout(20):
                    return await story(kagent, agent)
            finally:
                await kagent.aclose()

    return asyncio.run(main())


async def end_of(kagent: A2aProtocol, call: AgentRequest, task_id: str) -> Outcome:
    while isinstance(polled := await kagent.poll(call, task_id), Working):
        assert polled.seen
    return polled


BOTH_WIRES = pytest.mark.parametrize("old_wire", [True, False], ids=["0.3", "1.0"])


@BOTH_WIRES
@pytest.mark.parametrize(
    ("prompt", "kind", "result"),
    [
        ("work", K.COMPLETED, "work: artifact"),
        ("fail", K.RUN_FAILED, "fail: done"),
        ("ask", K.INPUT_REQUIRED, "ask: done"),
    ],
)
def test_a_run_is_sent_found_again_and_polled_to_its_end(
    prompt: str, kind: OutcomeKind, result: str, old_wire: bool
) -> None:
    call = replace(CALL, prompt=prompt)

    async def story(kagent: A2aProtocol, agent: Agent) -> tuple[Outcome, Any, Any, Outcome, Any, list[Message]]:
        sent = await kagent.call(call, Progress())
        working = await kagent.poll(call, sent.task_id)
        adopted = await kagent.reconcile(call)
        agent.go.set()
        ended = await end_of(kagent, call, sent.task_id)
        return sent, working, adopted, ended, await kagent.reconcile(call), agent.heard

    sent, working, adopted, ended, found, heard = with_peer(story, old_wire=old_wire)
    assert (sent.kind, bool(sent.task_id), sent.error) == (K.ACCEPTED, True, "")
    assert working == Working(seen=True)
    assert (adopted.kind, adopted.task_id) == (K.ACCEPTED, sent.task_id)
    assert (ended.kind, ended.result) == (kind, result) == (found.kind, found.result)
    (message,) = heard
    assert message.context_id == call.call_id
    assert dict(message.metadata.items()) == {"kagent.dev/hook": "shop/h", "kagent.dev/eventType": "oom-kill"}


@BOTH_WIRES
def test_an_answer_without_a_run_completes_the_call(old_wire: bool) -> None:
    async def story(kagent: A2aProtocol, _agent: Agent) -> Outcome:
        return await kagent.call(replace(CALL, prompt="talk"), Progress())

    outcome = with_peer(story, old_wire=old_wire)
    assert (outcome.kind, outcome.result) == (K.COMPLETED, "just an answer")


@BOTH_WIRES
def test_an_unknown_task_is_lost_and_what_was_never_sent_is_known(old_wire: bool) -> None:
    async def story(kagent: A2aProtocol, agent: Agent) -> tuple[Any, Any, Any]:
        before = await kagent.reconcile(CALL)
        await kagent.call(CALL, Progress())
        other = replace(CALL, call_id="5f0a6a0e-6a5e-4a0c-9d3d-3a1c8f1f2b11")
        lost = await kagent.poll(CALL, "no-such-task")
        agent.go.set()
        return before, await kagent.reconcile(other), lost

    before, other, lost = with_peer(story, old_wire=old_wire)
    assert (before, other) == (Finding.NOT_SENT, Finding.NOT_SENT)
    assert lost.kind is K.RUN_LOST


def test_a_server_that_refuses_the_old_wire_is_asked_on_it_once() -> None:
    seen: list[str] = []

    async def story(kagent: A2aProtocol, agent: Agent) -> int:
        agent.go.set()
        for _ in range(2):
            sent = await kagent.call(CALL, Progress())
            await end_of(kagent, CALL, sent.task_id)
        return len(agent.heard)

    assert with_peer(story, old_wire=False, seen=seen) == 2, "a refusal is not a run; the same message twice is two"
    assert seen[:2] == ["", "1.0"]
    assert set(seen[1:]) == {"1.0"}


def test_an_unknown_agent_of_the_peer_is_our_mistake() -> None:
    """Starlette's 404 is not kagent's: the address is wrong, not the agent unknown."""

    async def story(kagent: A2aProtocol, _agent: Agent) -> Outcome:
        return await kagent.call(replace(CALL, agent="kagent/nope"), Progress())

    outcome = with_peer(story)
    assert (outcome.kind, outcome.status) == (K.REJECTED, 404)
