"""A Hook's `status`: its rows, and the `Ready` condition that says whether its entries are at work.

`render` and `restore` are each other's inverse. `restore` reads what anybody may have written (an older khook, the
Go controller, a person with kubectl): it never raises, drops what makes no sense and says how many. The condition
follows metav1.Condition (k8s.io/apimachinery/pkg/apis/meta/v1): one table of precedence gives the reason, the message
names every problem, and `lastTransitionTime` moves only with the status.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from khook.api.v1alpha2 import EntryProblem
from khook.core.incident import CallId, CallReason, CallState, Row
from khook.core.moment import rfc3339_seconds
from khook.core.rowjson import render_row, restore_row
from khook.core.text import cut

Json = dict[str, Any]

# `activeEvents` as JSON; the object with its spec (50 prompts of 16 KiB) has to fit into etcd's 1.5 MiB.
ACTIVE_EVENTS_MAX_BYTES: Final = 512 * 1024
# metav1.Condition allows 32 KiB; a person reads a screen of it.
CONDITION_MESSAGE_MAX_BYTES: Final = 4096

READY: Final = "Ready"
CONFIGURED: Final = "HookConfigured"
CRD_OUTDATED: Final = (
    "the installed Hook CRD is older than this khook and drops its status fields, so no agent is called: "
    "upgrade the chart kagent-hook-crds"
)
WATCH_FORBIDDEN: Final = (
    "khook may not list and watch the pods and events of this namespace: check the ClusterRole kagent-hook-controller"
)
# What the end of the latest call says about the Hook. An agent whose run failed was reached all right.
CALL_TROUBLES: Final[Mapping[CallReason, tuple[str, str]]] = {
    CallReason.UNAUTHORIZED: ("KagentAPIError", "kagent refuses the credentials: check the secret kagent-credentials"),
    CallReason.UNREACHABLE: ("KagentAPIError", "kagent could not be reached: every attempt of the latest call failed"),
    CallReason.REJECTED: ("KagentAPIError", "kagent refused the latest call: its error stands in activeEvents"),
    CallReason.AGENT_NOT_FOUND: ("AgentNotFound", "kagent does not know the agent: its error stands in activeEvents"),
}


def render(rows: Sequence[Row], conditions: Sequence[Mapping[str, Any]], *, last_updated: datetime) -> Json:
    """The `status` of a Hook. Above `ACTIVE_EVENTS_MAX_BYTES` the oldest answers of agents are left out first."""
    events = [render_row(row) for row in rows]
    _fit(events)
    return {
        "activeEvents": events,
        "conditions": [dict(condition) for condition in conditions],
        "lastUpdated": rfc3339_seconds(last_updated),
    }


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a status says something new, apart from when it was written."""
    return _without_time(before) != _without_time(after)


def claim_survived(answer: Mapping[str, Any], claims: Mapping[CallId, CallState]) -> bool:
    """Whether the Hook that the API server answered with holds each call id with its state.

    An older CRD of the same group, version and kind prunes fields it does not know, and answers 200.
    """
    status = answer.get("status")
    events = status.get("activeEvents") if isinstance(status, dict) else None
    held = {
        (call.get("id"), call.get("state"))
        for event in (events if isinstance(events, list) else ())
        if isinstance(event, dict) and isinstance(call := event.get("call"), dict)
    }
    return all((call_id, state.value) in held for call_id, state in claims.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a status gave back; `unreadable` counts elements, calls and facts that made no sense."""

    rows: tuple[Row, ...]
    unreadable: int


def restore(status: object) -> Restored:
    """The rows of a Hook's `status` (None where there is none yet). Never raises."""
    events = status.get("activeEvents") if isinstance(status, Mapping) else None
    if events is None:
        return Restored(rows=(), unreadable=0)
    if not isinstance(events, list):
        return Restored(rows=(), unreadable=1)
    rows: list[Row] = []
    unreadable = 0
    for event in events:
        row, lost = restore_row(event)
        unreadable += lost
        rows += [] if row is None else [row]
    return Restored(rows=tuple(rows), unreadable=unreadable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyFacts:
    """What can keep a Hook from being Ready."""

    problems: Sequence[EntryProblem] = ()
    """Of its entries; the others work."""
    call_trouble: CallReason | None = None
    """How the latest call failed, until one succeeds."""
    forbidden: bool = False
    """Its namespace's pods or events may not be watched."""
    outdated: bool = False
    """The API server's CRD drops what khook writes."""
    suspended: bool = False
    left_out: int = 0
    """Incidents that found no room among the rows."""


def ready_condition(facts: ReadyFacts, *, previous: Mapping[str, Any] | None, generation: int, now: datetime) -> Json:
    """The `Ready` condition. Its reason is that of the first problem, its message names them all."""
    problems = _problems(facts)
    status = "False" if problems else "True"
    since = previous.get("lastTransitionTime") if previous and previous.get("status") == status else None
    lines = [line for _, line in problems] or ["every event configuration is at work"]
    return {
        "type": READY,
        "status": status,
        "reason": problems[0][0] if problems else CONFIGURED,
        "message": cut("; ".join(lines + _remarks(facts)), max_bytes=CONDITION_MESSAGE_MAX_BYTES),
        "observedGeneration": generation,
        "lastTransitionTime": since or rfc3339_seconds(now),
    }


def ready_of(status: object) -> Json | None:
    """The `Ready` condition in a `status` that anybody may have written."""
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    found = conditions if isinstance(conditions, list) else []
    return next((one for one in found if isinstance(one, dict) and one.get("type") == READY), None)


def _problems(facts: ReadyFacts) -> list[tuple[str, str]]:
    """(reason, line) of each, in the order of precedence: what stops most comes first."""
    trouble = CALL_TROUBLES.get(facts.call_trouble) if facts.call_trouble else None
    table = (
        (facts.outdated, [("CRDOutdated", CRD_OUTDATED)]),
        (facts.forbidden, [("WatchForbidden", WATCH_FORBIDDEN)]),
        (True, [("InvalidConfiguration", f"{problem.path}: {problem.reason}") for problem in facts.problems]),
        (True, [trouble] if trouble else []),
    )
    return [problem for holds, problems in table if holds for problem in problems]


def _remarks(facts: ReadyFacts) -> list[str]:
    remarks = ["suspended: no agent is called"] if facts.suspended else []
    if facts.left_out:
        remarks.append(f"incidents that found no room here and call no agent: {facts.left_out}")
    return remarks


def _without_time(status: Mapping[str, Any]) -> Json:
    return {name: value for name, value in status.items() if name != "lastUpdated"}


def _fit(events: Sequence[Json]) -> None:
    """Takes results away, oldest first, until the rows are small enough: a call that ends grows by its answer."""
    over = len(orjson.dumps(events)) - ACTIVE_EVENTS_MAX_BYTES
    with_result = [event["call"] for event in events if event.get("call", {}).get("result")]
    for call in sorted(with_result, key=lambda call: str(call.get("endedTime"))):
        if over <= 0:
            return
        over -= len(orjson.dumps(call.pop("result")))
