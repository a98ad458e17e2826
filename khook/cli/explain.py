"""`khook explain`: what one Event or Pod means, which agent is asked with which prompt, or why nobody is.

It reads (the Hooks with their status, the pod, its Events, khook's own status page), and changes nothing. The
decisions are the worker's own functions (`explain_judge`).
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from rich.console import Console

from khook import log, settings
from khook.agents.auto import EXECUTE
from khook.cli import explain_live, explain_view
from khook.cli.documents import BadDocument
from khook.cli.explain_call import agent_access, call
from khook.cli.explain_facts import Fact, fact_of_event, facts_of_pod, newest_first
from khook.cli.explain_hook import Surroundings, configured
from khook.cli.explain_input import Question, hooks_in, question
from khook.cli.explain_judge import explain
from khook.cli.explain_outcome import Explanation
from khook.cli.reach import Cluster, reached
from khook.core.owner import ResourceRef
from khook.core.pods import PodFacts
from khook.core.text import plain
from khook.errors import EXIT_OK, EXIT_SETTINGS, EXIT_UNEXPECTED, KhookError
from khook.kube.hooks import HookObject
from khook.kube.transports import NetworkTransports
from khook.seams import Clock, SystemClock
from khook.settings import Settings

WITHOUT_CLUSTER: Final = "the pod is not in the file, and no cluster was asked: it is taken as gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The command line."""

    target: str
    hooks: str | None = None
    as_new: bool = False
    """As a line of a live watch: whatever its age."""
    with_prompt: bool = False
    as_json: bool = False
    call: bool = False
    yes: bool = False
    address: str | None = None


def run(wanted: Wanted, environ: Mapping[str, str] | None = None) -> int:
    """The exit code. Raises a KhookError for what a person has to mend."""
    environ = dict(os.environ if environ is None else environ)
    if wanted.address is not None:
        environ["KHOOK_STATUS_ADDRESS"] = wanted.address
    log.configure(level="error", format="text")
    chosen = settings.load(environ)
    _has_key(chosen)
    console = Console()
    try:
        asked = question(wanted.target, default_namespace="default")
        explanation = asyncio.run(explained(asked, wanted, chosen, environ))
    except BadDocument as error:
        print(plain(f"khook: {error}", max_bytes=explain_view.LINE_MAX_BYTES), file=sys.stderr)
        return EXIT_SETTINGS
    if wanted.as_json:
        print(orjson.dumps(explain_view.document(explanation), option=orjson.OPT_INDENT_2).decode())
    else:
        explain_view.show(console, explanation, with_prompt=wanted.with_prompt)
    return _call(explanation, wanted, chosen) if wanted.call else EXIT_OK


async def explained(
    asked: Question, wanted: Wanted, chosen: Settings, environ: Mapping[str, str], **seams: Any
) -> Explanation:
    """`seams`: see `reached`. Raises BadDocument and KhookErrors."""
    is_live = asked.line is None and not asked.events
    only_events = asked.line is None and bool(asked.events)
    async with AsyncExitStack() as stack:
        cluster: Cluster | None = None
        if is_live or wanted.hooks is None:
            cluster = await stack.enter_async_context(reached(environ, **seams))
        clock: Clock = SystemClock() if cluster is None else cluster.clock
        if is_live and cluster is not None:
            asked = await _read(asked, cluster)
        elif asked.line is None and cluster is not None:
            asked = replace(asked, line=await cluster.pod(asked.namespace, asked.name))
        hooks = await _hooks(asked, wanted, cluster)
        around = _around(chosen, clock=clock, cluster=cluster, asked=asked)
        pod, facts = _facts(asked, around, listed=not wanted.as_new, only_events=only_events)
        owner = await _owner(asked.namespace, pod, hooks, chosen, cluster)
    return explain(facts, namespace=asked.namespace, name=asked.name, pod=pod, owner=owner, hooks=hooks, around=around)


def _has_key(chosen: Settings) -> bool:
    """And what it is, is blotted out of all that is shown."""
    try:
        return bool(agent_access(chosen).api_key)
    except KhookError:
        return False  # `khook check` says what is wrong with it


async def _read(asked: Question, cluster: Cluster) -> Question:
    line = await cluster.pod(asked.namespace, asked.name)
    events = await cluster.events(asked.namespace, asked.name)
    if line is None and not events:
        raise KhookError(f"there is no pod {asked.namespace}/{asked.name}, and no Event about one")
    return replace(asked, line=line, events=tuple(events))


async def _hooks(asked: Question, wanted: Wanted, cluster: Cluster | None) -> Sequence[HookObject]:
    if wanted.hooks is not None:
        return hooks_in(wanted.hooks, namespace=asked.namespace)
    assert cluster is not None, "Hooks are read from a file or from the cluster"
    return await cluster.hooks(asked.namespace)


def _around(chosen: Settings, *, clock: Clock, cluster: Cluster | None, asked: Question) -> Surroundings:
    notes = []
    live = None
    if cluster is not None:
        looked = explain_live.look(chosen.status_address)
        if isinstance(looked, str):
            notes.append(f"owner of the namespace, breakers and key: {looked}")
        else:
            live = looked
    elif asked.line is None:
        notes.append(WITHOUT_CLUSTER)
    return Surroundings(
        settings=chosen,
        now=clock.now() if cluster is None else cluster.client.server_now(),
        live=live,
        key_missing=chosen.kagent_protocol == EXECUTE and not _has_key(chosen),
        notes=notes,
    )


def _facts(
    asked: Question, around: Surroundings, *, listed: bool, only_events: bool
) -> tuple[PodFacts | None, Sequence[Fact]]:
    """`only_events`: nobody asked about the pod itself, and what its status says is not told."""
    stuck_pending = around.settings.stuck_pending
    facts: list[Fact] = []
    pod: PodFacts | None = None
    if asked.line is not None:
        pod, told = facts_of_pod(asked.line, listed=listed, now=around.now, stuck_pending=stuck_pending)
        facts += () if only_events else told
    facts += [fact_of_event(event, pod, listed=listed) for event in asked.events]
    return pod, newest_first(facts)


async def _owner(
    namespace: str,
    pod: PodFacts | None,
    hooks: Sequence[HookObject],
    chosen: Settings,
    cluster: Cluster | None,
) -> ResourceRef | None:
    """Looked up only where an entry groups by it."""
    if pod is None or not any(entry.group_by_owner for hook in hooks for entry in configured(hook, chosen).entries):
        return None
    if cluster is not None:
        return await cluster.owner(namespace, pod)
    return pod.ref if pod.controller is None else pod.controller.ref


def _call(explanation: Explanation, wanted: Wanted, chosen: Settings) -> int:
    request = next(
        (outcome.request for told in explanation.told for outcome in told.outcomes if outcome.request is not None), None
    )
    if request is None:
        raise KhookError("no entry matches, so there is nothing to send")

    def say(line: str) -> None:
        print(plain(line, max_bytes=explain_view.LINE_MAX_BYTES), file=sys.stderr if wanted.as_json else sys.stdout)

    access = agent_access(chosen)
    if not wanted.yes and not _confirmed(f"Send this once to agent {request.agent} at {access.base_url}?"):
        say("nothing was sent")
        return EXIT_UNEXPECTED
    answered = asyncio.run(
        call(request, settings=chosen, access=access, transports=NetworkTransports(), clock=SystemClock(), say=say)
    )
    return EXIT_OK if answered else EXIT_UNEXPECTED


def _confirmed(question_: str) -> bool:
    """Raises KhookError where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise KhookError("--call asks before it sends, and stdin is no terminal: say --yes")
    print(f"{question_} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
