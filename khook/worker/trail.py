"""What one Hook says to people: its Kubernetes Events, and the problems that its Ready condition names.

Words only: what happened has been decided. Kubernetes Events name the incident where it matters which one; where
hundreds may say the same at once (an outage, a budget), the words are the same for all, so that the trail counts them.
"""

from collections.abc import Sequence
from typing import Final

from khook.api.v1alpha2 import EntryProblem
from khook.core.condition import Problem
from khook.core.incident import CallReason, Row
from khook.core.rows import MAX_ROWS
from khook.kube.audit import AuditTrail, Reason
from khook.kube.hooks import HookRef
from khook.log import Log

CRD_OUTDATED: Final = "the Hook CRD drops khook's status fields: upgrade kagent-hook-crds"
WATCH_FORBIDDEN: Final = "khook may not watch pods or events in this namespace (RBAC)"


class HookTrail:
    def __init__(self, *, ref: HookRef, audit: AuditTrail, log: Log) -> None:
        self._ref = ref
        self._audit = audit
        self._log = log
        self._trouble: tuple[Problem, str] | None = None
        """What the last call failed of; a call that succeeds clears it."""

    def problems(
        self, *, outdated: bool, forbidden: bool, invalid: Sequence[EntryProblem]
    ) -> dict[Problem, Sequence[str]]:
        """What is wrong with the Hook now, as lines of its Ready condition."""
        problems: dict[Problem, Sequence[str]] = {}
        if outdated:
            problems[Problem.CRD_OUTDATED] = [CRD_OUTDATED]
        if forbidden:
            problems[Problem.WATCH_FORBIDDEN] = [WATCH_FORBIDDEN]
        if invalid:
            problems[Problem.INVALID_CONFIGURATION] = [f"{one.path}: {one.reason}" for one in invalid]
        if self._trouble is not None:
            problem, line = self._trouble
            problems[problem] = [line]
        return problems

    def invalid(self, problems: Sequence[EntryProblem]) -> None:
        for problem in problems:
            self._warn(Reason.INVALID_CONFIGURATION, f"{problem.path}: {problem.reason}")

    def resolved(self, row: Row) -> None:
        self._log.info("incident resolved", hook=self._ref.key, event_type=row.event_type)
        self._say(Reason.INCIDENT_RESOLVED, f"{_about(row)} is over")

    # Calls.

    def accepted(self, row: Row, how: str) -> None:
        """An agent has the call: the API is well."""
        self._trouble = None
        self._say(Reason.AGENT_CALLED, f"agent {row.agent} was asked about {_about(row)}: {how}", of=row)

    def failed(self, row: Row, reason: CallReason, error: str) -> None:
        """A call ended without an agent having it: shown until one succeeds."""
        if reason is CallReason.AGENT_NOT_FOUND:
            self._trouble = (Problem.AGENT_NOT_FOUND, f"agent {row.agent} is not known to kagent")
        elif reason is not CallReason.CLAIM_REFUSED:
            self._trouble = (Problem.KAGENT_API_ERROR, f"agent {row.agent} could not be asked: {error}")
        self._warn(
            Reason.AGENT_CALL_FAILED, f"agent {row.agent} could not be asked about {_about(row)}: {error}", of=row
        )

    def parked(self, row: Row, error: str) -> None:
        """A call waits for its agent: shown until one gets through."""
        self._trouble = (Problem.KAGENT_API_ERROR, f"agent {row.agent} cannot be asked yet: {error}")
        self._warn(Reason.AGENT_CALL_PARKED, f"calls wait: {error}")

    def run_failed(self, row: Row, how: str) -> None:
        """The agent had the call and its run ended badly; `how` is our own words."""
        self._warn(Reason.AGENT_CALL_FAILED, f"agent {row.agent}, asked about {_about(row)}: {how}", of=row)

    def ended_unasked(self, row: Row, error: str) -> None:
        """A restored call that nobody carries on: says nothing about the agent, so the condition stays."""
        self._warn(
            Reason.AGENT_CALL_FAILED, f"the call to agent {row.agent} about {_about(row)} ended: {error}", of=row
        )

    # Storms.

    def full(self) -> None:
        """A new incident found no room."""
        self._warn(
            Reason.CALLS_SUPPRESSED,
            f"this Hook holds {MAX_ROWS} incidents, as many as it may: new ones call no agent",
        )

    def over_budget(self, calls_an_hour: int) -> None:
        """A call waits for the budget."""
        self._warn(
            Reason.CALLS_SUPPRESSED,
            f"this Hook has made its {calls_an_hour} calls an hour: new incidents wait for their calls",
        )

    def given_up(self, calls_an_hour: int) -> None:
        """A call that waited for the budget is not made any more."""
        self._warn(
            Reason.AGENT_CALL_FAILED,
            f"incidents ended, or made room, before this Hook's {calls_an_hour} calls an hour allowed their calls",
        )

    def _say(self, reason: Reason, message: str, *, of: Row | None = None) -> None:
        self._audit.record(self._ref, reason, message, warning=False, call_id=_call_id(of))

    def _warn(self, reason: Reason, message: str, *, of: Row | None = None) -> None:
        self._audit.record(self._ref, reason, message, warning=True, call_id=_call_id(of))


def _call_id(row: Row | None) -> str:
    return "" if row is None or row.call is None else row.call.id


def _about(row: Row) -> str:
    return f"{row.event_type} of {row.resource_kind} {row.resource_name}"
