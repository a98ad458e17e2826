"""`khook explain --call`: one request to the agent, made by hand and marked as a test wherever a person may see it.

One attempt, as the worker makes it: the same connection, the same protocol, the same bytes but for the mark. It is in
no Hook's status, it is not repeated, and it mutes nothing.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from khook.agents.auto import Undecided
from khook.agents.outcome import AgentProtocol, AgentRequest, Outcome, OutcomeKind, Progress, Working, poll_wait_s
from khook.errors import KhookError
from khook.log import register_secret
from khook.messages import AgentAccess
from khook.seams import Clock, Transports, fresh_uuid
from khook.settings import Settings
from khook.supervisor.agent_credentials import SecretFiles, agent_config, merge, read_secret
from khook.worker.kagent import connect

TEST: Final = (
    "This is a test, sent by hand with `khook explain --call`. Answer as you would, and say that it is a test."
)

Say = Callable[[str], None]


def agent_access(settings: Settings) -> AgentAccess:
    """Where kagent is and with which key, as `khook run` has it. Raises SettingsError."""
    directory = settings.kagent_credentials_dir
    try:
        files = SecretFiles() if directory is None else read_secret(Path(directory))
    except OSError as error:
        raise KhookError(f"KAGENT_CREDENTIALS_DIR: {directory} cannot be read: {error.strerror or error}") from None
    access = merge(settings, files)
    register_secret(access.api_key)
    return access


def marked(request: AgentRequest, *, call_id: str) -> AgentRequest:
    """As a test: in the session's name, in the context, and in the prompt's first line."""
    return replace(
        request,
        call_id=call_id,
        prompt=f"{TEST}\n\n{request.prompt}",
        context=replace(request.context, event_name=f"test {request.context.event_name}"),
    )


async def call(
    request: AgentRequest, *, settings: Settings, access: AgentAccess, transports: Transports, clock: Clock, say: Say
) -> bool:
    """Send it once and follow its run to the end; True: the agent answered. Raises KhookError before anything is sent.

    `say` is told each step.
    """
    call_id = fresh_uuid(random.SystemRandom())
    protocols = connect(access, agents=agent_config(settings), transports=transports, clock=clock)
    try:
        protocol = await protocols.choose()
        if isinstance(protocol, Undecided):
            raise KhookError(f"kagent at {access.base_url}: {protocol.error}")
        say(f"call {call_id} to agent {request.agent} over {protocol.name}")
        sent = marked(request, call_id=call_id)
        outcome = await protocol.call(sent, Progress())
        if outcome.kind is OutcomeKind.ACCEPTED and outcome.task_id:
            say(f"accepted as task {outcome.task_id}: waiting for its end")
            outcome = await _followed(protocol, sent, outcome, within_s=settings.run_deadline_s)
        say(_words(outcome))
        return outcome.kind in (OutcomeKind.COMPLETED, OutcomeKind.ACCEPTED)
    finally:
        await protocols.aclose()


async def _followed(protocol: AgentProtocol, sent: AgentRequest, accepted: Outcome, *, within_s: float) -> Outcome:
    polls = 0
    waited_s = 0.0
    while waited_s < within_s:
        wait_s = poll_wait_s(polls)
        await asyncio.sleep(wait_s)
        waited_s += wait_s
        polls += 1
        polled = await protocol.poll(sent, accepted.task_id)
        if not isinstance(polled, Working):
            return polled
    return accepted


def _words(outcome: Outcome) -> str:
    said = outcome.error or outcome.result
    return f"{outcome.kind.value} ({outcome.reason.value})" + (f": {said}" if said else "")
