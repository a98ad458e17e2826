"""One signal against one Hook, entry by entry, decided by the worker's own functions.

Pure. `configure` reads the Hook, `status.restore` its rows, `consider` finds the entries, `decide` gives the verdict;
only then come the obstacles that wait behind one: the budget, the key, the agent and its breaker. What the running
khook alone knows (`Live`) may be missing: then those obstacles are not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from khook.agents.outcome import AgentRequest
from khook.api.v1alpha2 import EntryProblem
from khook.cli.explain_live import Live
from khook.cli.explain_outcome import Outcome, Reason
from khook.core import rows as row_rules
from khook.core import status as status_rules
from khook.core.budget import Budget
from khook.core.condition import Problem, find_condition
from khook.core.configure import AgentNotAllowed, Configured, configure
from khook.core.decision import Decision, decide
from khook.core.holding import Held, due_time, first_evidence, lasts
from khook.core.incident import Call, CallId, CallReason, CallState, IncidentRules, Row, Verdict
from khook.core.match import Entry, Mismatch, consider
from khook.core.moment import rfc3339_seconds
from khook.core.owner import ResourceRef
from khook.core.pending import PENDING
from khook.core.pods import PodFacts
from khook.core.signal import EventType, Signal
from khook.core.verdict import window_end
from khook.kube.hooks import HookObject, HookRef
from khook.settings import Settings
from khook.worker.asking import request_for

SHOWN_AS: Final = CallId("00000000-0000-4000-8000-000000000000")
"""The call id of a prompt that is only shown; a real one is random."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """All that a decision needs beside the pod, its facts and the Hooks."""

    settings: Settings
    now: datetime
    live: Live | None = None
    """None: khook's status page was not reachable."""
    key_missing: bool = False
    """The protocol is known to need a key, and there is none here."""
    notes: Sequence[str] = field(default=())


class HookJudge:
    """One Hook and one signal."""

    def __init__(
        self,
        hook: HookObject,
        signal: Signal,
        *,
        oom: bool,
        pod: PodFacts | None,
        owner: ResourceRef | None,
        around: Surroundings,
    ) -> None:
        settings, meta = around.settings, hook["metadata"]
        self._hook, self._signal, self._oom, self._pod, self._owner = hook, signal, oom, pod, owner
        self._around = around
        self._ref = HookRef(namespace=signal.namespace, name=str(meta.get("name", "")), uid=str(meta.get("uid", "")))
        self._configured = configured(hook, settings)
        self._status = hook.get("status") or {}
        rows = status_rules.restore(self._status).rows
        self._legacy = tuple(row for row in rows if row.legacy)
        self._rows = {(row.entry, row.resource): row for row in rows if not row.legacy}
        self._rules = IncidentRules(resolve_after=settings.resolve_after, max_signal_age=settings.max_signal_age)

    def outcomes(self) -> list[Outcome]:
        judged = consider(
            self._configured.entries,
            self._signal,
            pod_labels=None if self._pod is None else self._pod.labels,
            pod_known=self._pod is not None,
            oom=self._oom,
        )
        found = [self._of_entry(entry, mismatch) for entry, mismatch in judged]
        found += [self._of_problem(problem) for problem in self._configured.problems if self._may_be_meant(problem)]
        return found or [no_entry(self._signal.type, self._ref.key)]

    # Entries that do not work.

    def _may_be_meant(self, problem: EntryProblem) -> bool:
        """It is about an entry of the signal's type, about one whose type is not to be read, or about all entries."""
        configuration = self._raw_entry(problem)
        if configuration is None:
            return problem.path in ("spec", "spec.eventConfigurations")
        kind = configuration.get("eventType")
        return kind == self._signal.type.value or kind not in {one.value for one in EventType}

    def _raw_entry(self, problem: EntryProblem) -> Mapping[str, Any] | None:
        index = _entry_index(problem)
        spec = self._hook.get("spec")
        entries = spec.get("eventConfigurations") if isinstance(spec, dict) else None
        if index is None or not isinstance(entries, list) or index >= len(entries):
            return None
        return entries[index] if isinstance(entries[index], dict) else {}

    def _of_problem(self, problem: EntryProblem) -> Outcome:
        refused = isinstance(problem, AgentNotAllowed)
        return Outcome(
            reason=Reason.AGENT_NOT_ALLOWED if refused else Reason.INVALID_ENTRY,
            words=f"{problem.path}: {problem.reason}",
            hook=self._ref.key,
            entry=_entry_index(problem),
        )

    # Entries that do.

    def _of_entry(self, entry: Entry, mismatch: Mismatch | None) -> Outcome:
        match mismatch:
            case None:
                return self._of_match(entry)
            case Mismatch.NO_ENTRY_OF_TYPE:
                return no_entry(self._signal.type, self._ref.key, entry)
            case Mismatch.SELECTOR:
                return self._silent(entry, Reason.SELECTOR, "its selector does not select the pod's labels")
            case Mismatch.TAKEN_BY_OOM:
                words = "the container was OOM-killed: that incident is the oom-kill entry's, and its alone"
                return self._silent(entry, Reason.TAKEN_BY_OOM, words)
            case Mismatch.POD_GONE:
                words = "the pod is not there any more, and this entry needs its labels, its owner or its state"
                return self._silent(entry, Reason.POD_GONE, words)

    def _of_match(self, entry: Entry) -> Outcome:
        by_owner = entry.group_by_owner and self._owner is not None
        resource = self._owner if by_owner and self._owner is not None else row_rules.pod_of(self._signal)
        row = self._rows.get((entry.identity, resource))
        decision = decide(
            entry,
            row,
            self._signal,
            may_be_held=self._pod is not None,
            legacy=self._legacy,
            suspended=self._configured.suspended,
            has_room=self._has_room,
            now=self._around.now,
            rules=self._rules,
        )
        call = None if row is None else row.call
        outcome = self._decided(entry, decision, call) or Outcome(
            reason=None,
            words=f"agent {entry.agent} is asked about {resource.kind} {resource.name}",
            hook=self._ref.key,
            entry=entry.index,
            agent=entry.agent,
        )
        return replace(outcome, request=self._request(entry, decision.verdict, row, resource))

    def _decided(self, entry: Entry, decision: Decision, call: Call | None) -> Outcome | None:
        """None: it fires."""
        if decision.held and (held := self._held(entry)) is not None:
            return held
        stuck = None if call is None else self._stuck_call(entry, call)
        match decision.verdict:
            case Verdict.FIRE | Verdict.REFIRE:
                return self._obstacle(entry)
            case Verdict.SUSPENDED:
                return self._silent(entry, Reason.SUSPENDED, "the Hook is suspended (spec.suspend): no agent is asked")
            case Verdict.HISTORY:
                age = timedelta(seconds=round((self._around.now - self._signal.raw_time).total_seconds()))
                words = f"it happened {age} ago; what a LIST shows from before KHOOK_MAX_SIGNAL_AGE is history"
                return self._silent(entry, Reason.TOO_OLD, words)
            case Verdict.NO_ROOM:
                words = f"the Hook holds all the incidents that it may ({row_rules.MAX_ROWS}, 512 KiB)"
                return self._silent(entry, Reason.NO_ROOM, words)
            case _ if stuck is not None:
                return stuck
            case Verdict.IN_FLIGHT:
                return self._silent(entry, Reason.IN_FLIGHT, f"the incident has a call that is {_said(call)}")
            case Verdict.REPEAT:
                return self._repeat(entry, call)
            case _:
                return self._stale(entry, call)

    def _stale(self, entry: Entry, call: Call | None) -> Outcome:
        words = "khook has judged this very signal, or a newer one, already"
        if call is None:
            return self._silent(entry, Reason.STALE, words)
        words += f"; the incident's call is {_said(call)}"
        if call.accepted_time is None:
            return self._silent(entry, Reason.STALE, words)
        until = window_end(call, cooldown=entry.cooldown)
        words += f", and a new signal can call again from {rfc3339_seconds(until)}"
        return self._silent(entry, Reason.STALE, words, until_time=until)

    def _repeat(self, entry: Entry, call: Call | None) -> Outcome:
        if call is None:
            return self._silent(
                entry, Reason.REPEAT, "a row of an earlier controller, which names no entry, says that this was told"
            )
        accepted = call.accepted_time is not None
        until = window_end(call, cooldown=entry.cooldown) if accepted else _ended(call) + self._rules.retry_gap
        why = "its agent was asked, and the cooldown lasts" if accepted else f"its call is {_said(call)}; tried again"
        words = f"{why} {'until' if accepted else 'from'} {rfc3339_seconds(until)}"
        return self._silent(entry, Reason.REPEAT, words, until_time=until)

    def _held(self, entry: Entry) -> Outcome | None:
        """None: it was held for long enough, and the trouble lasts."""
        assert self._pod is not None, "only what has a pod is held"
        evidence_time = first_evidence(self._signal, self._pod)
        due = due_time(evidence_time, entry)
        held = Held(
            entry=entry,
            signal=self._signal,
            evidence_time=evidence_time,
            due_time=due,
            was_pending=self._pod.phase == PENDING,
        )
        if not lasts(held, self._pod):
            words = "holdFor waits for trouble that lasts, and the pod is not Pending, or is Ready, by now"
            return self._silent(entry, Reason.HELD, words)
        if due > self._around.now:
            words = f"holdFor: asked only if the pod is like this until {rfc3339_seconds(due)}"
            return self._silent(entry, Reason.HELD, words, until_time=due)
        return None

    def _stuck_call(self, entry: Entry, call: Call) -> Outcome | None:
        """What keeps the incident's own call from its agent, where something does."""
        error = f": {call.error}" if call.error else ""
        match call.state, call.reason:
            case CallState.PENDING, CallReason.SUSPENDED:
                return self._silent(entry, Reason.SUSPENDED, "its call was not sent, as the Hook was suspended")
            case CallState.PENDING, CallReason.PARKED:
                return self._silent(entry, Reason.PARKED, f"its call is parked until its agent can be asked{error}")
            case CallState.PENDING, CallReason.BUDGET:
                return self._silent(entry, Reason.OVER_BUDGET, self._budget_words())
            case CallState.FAILED, CallReason.AGENT_NOT_FOUND:
                return self._silent(entry, Reason.AGENT_NOT_FOUND, f"kagent does not know agent {entry.agent}{error}")
            case CallState.FAILED, CallReason.UNAUTHORIZED:
                return self._silent(entry, Reason.NO_KEY, f"its call failed, for kagent refused the key{error}")
            case _:
                return None

    # What would fire.

    def _obstacle(self, entry: Entry) -> Outcome | None:
        """What still stands between a verdict and an agent."""
        live = self._around.live
        if not self._affords():
            return self._silent(entry, Reason.OVER_BUDGET, self._budget_words())
        ready = find_condition(self._status) or {}
        if ready.get("reason") == Problem.AGENT_NOT_FOUND and f"agent {entry.agent} is " in str(ready.get("message")):
            words = f"kagent did not know agent {entry.agent} when it was asked last; the next call asks again"
            return self._silent(entry, Reason.AGENT_NOT_FOUND, words)
        if self._around.key_missing if live is None else live.key_missing:
            command = None if live is None else live.key_command
            words = "kagent needs a key, and khook has none" + (f": {command}" if command else "")
            return self._silent(entry, Reason.NO_KEY, words)
        opened = None if live is None else live.breaker(entry.agent, self._ref.namespace)
        if opened is not None:
            words = f"agent {entry.agent} failed, and its circuit breaker is open: the call is parked{opened}"
            return self._silent(entry, Reason.BREAKER_OPEN, words)
        return None

    def _request(self, entry: Entry, verdict: Verdict, row: Row | None, resource: ResourceRef) -> AgentRequest:
        """What the agent is asked; where it is not asked, what it would be for a new incident."""
        fires = verdict in (Verdict.FIRE, Verdict.REFIRE)
        fired = row_rules.apply(
            row if fires else None,
            self._signal,
            verdict if fires else Verdict.FIRE,
            now=self._around.now,
            entry=entry,
            resource=resource,
            call_id=SHOWN_AS,
        )
        return request_for(
            fired,
            entry=entry,
            ref=self._ref,
            call_id=SHOWN_AS,
            cluster=self._around.settings.cluster_name or "",
        )

    def _has_room(self) -> bool:
        return row_rules.make_room(
            list(self._rows.values()),
            now=self._around.now,
            cooldown_of=self._cooldown_of,
            rules=self._rules,
        ).has_room

    def _cooldown_of(self, row: Row) -> timedelta:
        found = (entry.cooldown for entry in self._configured.entries if entry.identity == row.entry)
        return next(found, self._around.settings.cooldown)

    def _affords(self) -> bool:
        size = self._around.settings.calls_per_hook_hour
        rows = self._rows.values()
        if any(map(row_rules.waits_for_budget, rows)):
            return False  # behind those that wait
        return not size or Budget(size, now=self._around.now, charged=row_rules.charged(rows)).take(self._around.now)

    def _budget_words(self) -> str:
        return f"the Hook has used up its {self._around.settings.calls_per_hook_hour} calls an hour; the call waits"

    def _silent(self, entry: Entry, reason: Reason, words: str, *, until_time: datetime | None = None) -> Outcome:
        return Outcome(
            reason=reason,
            words=words,
            hook=self._ref.key,
            entry=entry.index,
            agent=entry.agent,
            until_time=until_time,
        )


def configured(hook: HookObject, settings: Settings) -> Configured:
    """The Hook as the worker reads it."""
    return configure(
        hook,
        default_cooldown=settings.cooldown,
        agent_namespace=settings.agent_namespace,
        allowed_agent_namespaces=settings.allowed_agent_namespaces,
    )


def no_entry(kind: EventType, hook: str, entry: Entry | None = None) -> Outcome:
    words = f"no entry is for {kind.value}" if entry is None else f"the entry is for {entry.event_type.value}"
    return Outcome(
        reason=Reason.NO_ENTRY,
        words=words,
        hook=hook,
        entry=None if entry is None else entry.index,
        agent="" if entry is None else entry.agent,
    )


def _entry_index(problem: EntryProblem) -> int | None:
    number = problem.path.removeprefix("spec.eventConfigurations[").partition("]")[0]
    return int(number) if number.isdecimal() else None


def _said(call: Call | None) -> str:
    if call is None:
        return "none"
    reason = f"/{call.reason.value}" if call.reason is not None else ""
    when = call.ended_time or call.accepted_time or call.claimed_time
    return f"{call.state.value}{reason} since {rfc3339_seconds(when)}" + (f" ({call.error})" if call.error else "")


def _ended(call: Call) -> datetime:
    return call.ended_time or call.claimed_time
