"""The `a2a` protocol: kagent 0.7 to 0.10, a session, a task in it, and the task polled to its end.

A call's id is its session's id, and its message's id follows from it, so that kagent can be asked later what became
of a send. kagent does not deduplicate messages: the same message sent twice is two runs, and a client that gives up
does not stop one. Hence a send that may have been taken is AMBIGUOUS, and only `reconcile` makes it certain.

Never waits for a run (`blocking: false`), follows no agent card, and asks nothing twice, with one exception: a server
that refuses our wire's version has done nothing, so the same is put once more on the other wire.
"""

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote, urlencode

import httpx

from khook.agents.a2a_symptoms import (
    ANSWERED,
    CALLED_OFF,
    GONE,
    MATRIX,
    STATES,
    Row,
    Symptom,
    names_no_agent,
    no_row,
    refuses_version,
    symptom_of_send,
    symptom_of_session,
)
from khook.agents.a2a_wire import (
    TASK_NOT_FOUND,
    DirectMessage,
    RpcError,
    Task,
    Wire,
    get_task_body,
    message_id,
    read_result,
    read_session_tasks,
    send_body,
    session_body,
)
from khook.agents.exchange import Answer, Exchange, NoAnswer, retry_after_s
from khook.agents.outcome import (
    MAX_ERROR_CHARS,
    AgentRequest,
    Finding,
    Outcome,
    OutcomeKind,
    Progress,
    Working,
)
from khook.api import names
from khook.seams import Clock


class A2aProtocol:
    """`a2a` at one base URL. The transport is the exact one of `khook.seams.Transports`; `aclose` closes it."""

    name: Final = "a2a"

    def __init__(
        self,
        *,
        base_url: str,
        user_id: str,
        api_key: str,
        transport: httpx.AsyncBaseTransport,
        clock: Clock,
        read_timeout_s: float = 30.0,
    ) -> None:
        """`api_key` may be empty; `user_id` scopes sessions and tasks, so it must not change while calls are open."""
        self._exchange = Exchange(
            base_url=base_url, api_key=api_key, transport=transport, clock=clock, read_timeout_s=read_timeout_s
        )
        self._user_id = user_id
        self._query = urlencode({"user_id": user_id}, quote_via=quote)
        self._wire = Wire.V0_3
        self._without_session = False

    def replace_key(self, api_key: str) -> None:
        self._exchange.replace_key(api_key)

    async def call(self, request: AgentRequest, progress: Progress) -> Outcome:
        """The session, then one send; see `a2a_symptoms.MATRIX`. `progress` is about the send alone."""
        if not _addressable(request):
            return self._outcome(MATRIX[Symptom.BAD_NAME], request)
        opened = await self._exchange.ask(
            "POST", f"/api/sessions?{self._query}", body=session_body(request), headers=self._headers(self._wire)
        )
        symptom = symptom_of_session(opened)
        if symptom is not None:
            return self._failed(symptom, request, opened)
        self._without_session |= isinstance(opened, Answer) and opened.status in (404, 405)
        if not progress.may_send:
            return self._outcome(CALLED_OFF, request)
        answer = await self._rpc(request, lambda wire: send_body(request, wire), progress=progress)
        said = read_result(answer.body) if isinstance(answer, Answer) and answer.whole else None
        match said:
            case Task():
                return self._run(said, request, status=_status(answer))
            case DirectMessage():
                return self._outcome(ANSWERED, request, result=said.text, status=_status(answer))
            case _:
                return self._failed(symptom_of_send(answer, written=progress.written), request, answer)

    async def reconcile(self, request: AgentRequest) -> Outcome | Finding:
        """Asks kagent's database, which answers with the agent down. Adopts the task that holds our message.

        NOT_SENT: no session, and a send only ever follows one. NO_TRACE: a session without a task of ours.
        """
        tasks = await self._session_tasks(request)
        if isinstance(tasks, Finding):
            return tasks
        ours = message_id(request.call_id)
        # The session is this call's alone: a task that keeps no history (some agents' do not) can only be ours.
        adopted = next((task for task in tasks if ours in task.message_ids or not task.message_ids), None)
        return Finding.NO_TRACE if adopted is None else self._run(adopted, request)

    async def poll(self, request: AgentRequest, task_id: str) -> Outcome | Working:
        """`tasks/get`; where the agent cannot tell, kagent's database is asked in the same poll."""
        if not _addressable(request):
            return self._outcome(GONE, request)
        answer = await self._rpc(request, lambda wire: get_task_body(task_id, wire))
        if isinstance(answer, NoAnswer):
            return Working(seen=False)
        said = read_result(answer.body) if answer.whole else None
        if isinstance(said, Task) and said.id == task_id:
            return self._polled(said, request)
        if isinstance(said, RpcError) or names_no_agent(answer):
            return await self._poll_session(request, task_id, unknown=said == RpcError(TASK_NOT_FOUND))
        return Working(seen=False, retry_after_s=retry_after_s(answer, self._exchange.clock.now()))

    async def aclose(self) -> None:
        await self._exchange.aclose()

    async def _poll_session(self, request: AgentRequest, task_id: str, *, unknown: bool) -> Outcome | Working:
        tasks = await self._session_tasks(request)
        if tasks is Finding.CANNOT_TELL:
            return Working(seen=False)
        found = next((task for task in tasks if task.id == task_id), None) if isinstance(tasks, list) else None
        if found is not None:
            return self._polled(found, request)
        return self._outcome(GONE, request) if unknown else Working(seen=False)

    async def _session_tasks(self, request: AgentRequest) -> list[Task] | Finding:
        if not _addressable(request):
            return Finding.CANNOT_TELL
        answer = await self._on_either_wire(
            lambda wire: self._exchange.ask(
                "GET", f"/api/sessions/{request.call_id}/tasks?{self._query}", headers=self._headers(wire)
            )
        )
        if isinstance(answer, NoAnswer) or not answer.whole:
            return Finding.CANNOT_TELL
        if answer.status == 404 and no_row(answer):
            # "No session" means "nothing sent" only where every send had one before it.
            return Finding.NO_TRACE if self._without_session else Finding.NOT_SENT
        tasks = read_session_tasks(answer.body) if answer.status == 200 else None
        return Finding.CANNOT_TELL if tasks is None else tasks

    async def _rpc(
        self, request: AgentRequest, body: Callable[[Wire], bytes], *, progress: Progress | None = None
    ) -> Answer | NoAnswer:
        namespace, _, name = request.agent.partition("/")
        # With the slash at its end: without it kagent's router answers 404.
        path = f"/api/a2a/{quote(namespace, safe='')}/{quote(name, safe='')}/?{self._query}"

        async def post(wire: Wire) -> Answer | NoAnswer:
            if progress is not None:
                progress.written = False
            headers = self._headers(wire)
            return await self._exchange.ask("POST", path, body=body(wire), headers=headers, progress=progress)

        return await self._on_either_wire(post)

    async def _on_either_wire(self, ask: Callable[[Wire], Awaitable[Answer | NoAnswer]]) -> Answer | NoAnswer:
        """On the wire that worked last; where its version is refused, once on the other."""
        answer = await ask(self._wire)
        if isinstance(answer, NoAnswer) or not refuses_version(answer):
            return answer
        other = Wire.V1_0 if self._wire is Wire.V0_3 else Wire.V0_3
        answer = await ask(other)
        if isinstance(answer, Answer) and not refuses_version(answer):
            self._wire = other
        return answer

    def _headers(self, wire: Wire) -> dict[str, str]:
        """No version header on 0.3: every released kagent takes that for it, the oldest know no such header."""
        return {"X-User-Id": self._user_id} | ({"A2A-Version": wire.value} if wire is Wire.V1_0 else {})

    def _polled(self, task: Task, request: AgentRequest) -> Outcome | Working:
        outcome = self._run(task, request)
        return Working(seen=True) if outcome.kind is OutcomeKind.ACCEPTED else outcome

    def _run(self, task: Task, request: AgentRequest, *, status: int = 200) -> Outcome:
        row = STATES[task.state]
        text = "" if row.kind is OutcomeKind.ACCEPTED else task.text
        return self._outcome(row, request, result=text, task_id=task.id, status=status)

    def _failed(self, symptom: Symptom, request: AgentRequest, answer: Answer | NoAnswer) -> Outcome:
        row = MATRIX[symptom]
        if isinstance(answer, NoAnswer):
            return self._outcome(row, request, hint=answer.hint)
        waits = row.kind in (OutcomeKind.RETRY, OutcomeKind.RETRY_AFTER, OutcomeKind.AMBIGUOUS)
        stated_s = retry_after_s(answer, self._exchange.clock.now()) if waits else None
        return self._outcome(row, request, status=answer.status, stated_s=stated_s, before=f"HTTP {answer.status}: ")

    @staticmethod
    def _outcome(
        row: Row,
        request: AgentRequest,
        *,
        before: str = "",
        hint: str = "",
        result: str = "",
        task_id: str = "",
        stated_s: float | None = None,
        status: int = 0,
    ) -> Outcome:
        return Outcome(
            kind=row.kind,
            reason=row.reason,
            error=f"agent {request.agent}: {before}{row.words}{hint}"[:MAX_ERROR_CHARS] if row.words else "",
            result=result,
            retry_after_s=row.retry_after_s if stated_s is None else stated_s,
            doubt_s=row.doubt_s,
            task_id=task_id,
            status=status,
        )


def _addressable(request: AgentRequest) -> bool:
    """What goes into an address: a namespace, an agent's name and a UUID, and nothing else."""
    namespace, slash, name = request.agent.partition("/")
    try:
        names.namespace(namespace)
        names.agent(name)
        message_id(request.call_id)
    except ValueError:
        return False
    return bool(slash) and set(request.call_id) <= set("0123456789abcdefABCDEF-")


def _status(answer: Answer | NoAnswer) -> int:
    return answer.status if isinstance(answer, Answer) else 0
