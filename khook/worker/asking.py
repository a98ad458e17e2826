"""One incident as the request that an agent gets: the rendered prompt, and the context beside it.

Made of the row, its entry and nothing else, so that whoever makes it again, after a crash or to show it to a person,
makes the same one.
"""

from dataclasses import replace
from typing import Final

from khook.agents.outcome import AgentRequest, Context
from khook.core.incident import CallId, Row
from khook.core.match import Entry
from khook.core.prompt import Told, render_prompt
from khook.core.signal import Signal
from khook.core.text import plain
from khook.kube.hooks import HookRef
from khook.log import redacted

WORDS_MAX_BYTES: Final = 64 * 1024
"""Of a message that is searched for secrets. What is kept of it is 1 KiB; core/v1 lets an Event have any length."""


def request_for(row: Row, *, entry: Entry, ref: HookRef, call_id: CallId, cluster: str) -> AgentRequest:
    """`row` still has its facts; `cluster` is its name for agents, or empty."""
    assert row.facts is not None, "a call is made only with its facts"
    told = Told(
        event_type=row.event_type,
        namespace=ref.namespace,
        hook=ref.key,
        resource_kind=row.resource_kind,
        resource_name=row.resource_name,
        pod=row.facts.pod,
        container=row.facts.container,
        reason=row.facts.reason,
        message=row.facts.message,
        time=row.facts.time,
        first_time=row.first_seen,
        count=row.facts.count,
        pods=tuple((pod.name, pod.reason) for pod in row.facts.pods),
        pod_count=row.facts.pod_count,
        cluster=cluster,
        call_id=call_id,
    )
    return AgentRequest(
        call_id=call_id,
        agent=row.agent,
        agent_id=entry.agent_id,
        prompt=render_prompt(entry.template, told),
        context=Context(
            event_name=row.event_type.value,
            event_time=row.facts.time,
            resource_name=row.facts.pod,
            namespace=ref.namespace,
            event_message=row.facts.message,
        ),
        hook=ref.key,
    )


def without_secrets(signal: Signal) -> Signal:
    """Its words go into the Hook's status and to an agent; a pod may print anything, and so may a probe."""
    # Cleaned first: a key with an invisible character in it is the key again once that is gone.
    message, reason = (redacted(plain(text, max_bytes=WORDS_MAX_BYTES)) for text in (signal.message, signal.reason))
    if (message, reason) == (signal.message, signal.reason):
        return signal  # nearly always: a copy costs more than the look
    return replace(signal, message=message, reason=reason)
