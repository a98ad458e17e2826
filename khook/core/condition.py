"""A Hook's `Ready` condition: one line that says whether its entries are at work, and if not, what stops them.

Follows metav1.Condition (k8s.io/apimachinery/pkg/apis/meta/v1): one table of precedence gives the reason, the message
names every problem, and `lastTransitionTime` moves only with the status. Conditions of other types belong to somebody
else and stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from khook.core.moment import rfc3339_seconds
from khook.core.text import cut

Json = dict[str, Any]

READY: Final = "Ready"
CONFIGURED: Final = "HookConfigured"
# metav1.Condition allows 32 KiB; a person reads a screen of it.
MESSAGE_MAX_BYTES: Final = 4096


class Problem(StrEnum):
    """Why a Hook is not Ready, in the order of precedence: what stops most comes first."""

    CRD_OUTDATED = "CRDOutdated"
    """The CRD drops fields of the status, so no claim can be kept and no agent is called."""
    WATCH_FORBIDDEN = "WatchForbidden"
    """RBAC does not let khook watch pods or events in this namespace."""
    INVALID_CONFIGURATION = "InvalidConfiguration"
    """A part of the spec does not work; the other entries do."""
    KAGENT_API_ERROR = "KagentAPIError"
    """The latest call could not be made, or waits for its agent or a key."""
    AGENT_NOT_FOUND = "AgentNotFound"
    """kagent does not know the agent of the latest call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyFacts:
    """What is known about a Hook: `problems` has the lines to show for each problem that it has now."""

    entries: int
    """How many entries work."""
    suspended: bool = False
    full: bool = False
    """Its rows leave no room for a new incident."""
    over_budget: int = 0
    """Incidents whose calls wait for its budget."""
    calls_an_hour: int = 0
    """That budget."""
    problems: Mapping[Problem, Sequence[str]] = field(default_factory=dict)


def ready_condition(facts: ReadyFacts, *, previous: Mapping[str, Any] | None, generation: int, now: datetime) -> Json:
    """The `Ready` condition. Its reason is the first problem's; its message names all of them."""
    problems = [problem for problem in Problem if facts.problems.get(problem)]
    status = "False" if problems else "True"
    since = previous.get("lastTransitionTime") if previous and previous.get("status") == status else None
    return {
        "type": READY,
        "status": status,
        "reason": problems[0].value if problems else CONFIGURED,
        "message": cut(_message(facts, problems), max_bytes=MESSAGE_MAX_BYTES),
        "observedGeneration": generation,
        "lastTransitionTime": since or rfc3339_seconds(now),
    }


def find_condition(status: object, condition_type: str = READY) -> Json | None:
    """The condition of this type in a `status` that anybody may have written."""
    return next((found for found in _conditions(status) if found.get("type") == condition_type), None)


def with_condition(status: object, condition: Json) -> list[Json]:
    """The status' conditions with this one in the place of its type; the others are somebody else's and stay."""
    return [other for other in _conditions(status) if other.get("type") != condition["type"]] + [condition]


def _message(facts: ReadyFacts, problems: Sequence[Problem]) -> str:
    lines = [line for problem in problems for line in facts.problems[problem]]
    if not lines:
        lines.append(f"{facts.entries} event configuration{'' if facts.entries == 1 else 's'} at work")
    if facts.suspended:
        lines.append("suspended: no agent is called")
    if facts.full:
        lines.append("full: new incidents find no room in the status and call no agent")
    if facts.over_budget:
        waits = "1 call waits" if facts.over_budget == 1 else f"{facts.over_budget} calls wait"
        lines.append(f"{waits} for this Hook's budget of {facts.calls_an_hour} calls an hour")
    return "; ".join(lines)


def _conditions(status: object) -> list[Json]:
    found = status.get("conditions") if isinstance(status, Mapping) else None
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
