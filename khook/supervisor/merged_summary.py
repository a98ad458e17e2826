"""What all workers told, as one: incidents in one order, agents with the breakers that each worker has of them.

Pure. The lists keep their workers' limits, so that the whole is bounded by the number of slots; the counts are whole.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime

import msgspec

from khook.summary import HeldBack, HookTrouble, IncidentSummary, WorkerSummary


class AgentBreaker(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    slot: str
    state: str
    retry_in_seconds: float | None


class AgentStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    agent: str
    calls: dict[str, int]
    """Of the incidents that are remembered, by the call's state."""
    breakers: list[AgentBreaker]
    """Those that are not closed: each worker has its own."""
    parked: dict[str, int]
    """Calls that wait for it, by reason."""

    @property
    def troubled(self) -> bool:
        return bool(self.breakers or self.parked)


class MergedSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    hooks: int
    suspended_hooks: int
    hooks_in_trouble_count: int
    firing: int
    resolved: int
    held_signals: int
    calls: dict[str, int]
    incidents: list[IncidentSummary]
    held_back: list[HeldBack]
    agents: list[AgentStatus]
    hooks_in_trouble: list[HookTrouble]


def merge(summaries: Mapping[str, WorkerSummary]) -> MergedSummary:
    """`summaries` by slot. Namespaces have one owner, so that only agents occur in several."""
    told = summaries.values()
    calls: Counter[str] = Counter()
    for summary in told:
        calls.update(summary.calls)
    return MergedSummary(
        hooks=sum(summary.hooks for summary in told),
        suspended_hooks=sum(summary.suspended_hooks for summary in told),
        hooks_in_trouble_count=sum(summary.hooks_in_trouble_count for summary in told),
        firing=sum(summary.firing for summary in told),
        resolved=sum(summary.resolved for summary in told),
        held_signals=sum(summary.held_signals for summary in told),
        calls=dict(sorted(calls.items())),
        incidents=sorted(
            (one for summary in told for one in summary.incidents),
            key=lambda one: (one.status == "firing", _when(one)),
            reverse=True,
        ),
        held_back=sorted(
            (one for summary in told for one in summary.held_back),
            key=lambda one: (-one.calls, one.namespace, one.hook, one.reason, one.agent),
        ),
        agents=_agents(summaries),
        hooks_in_trouble=sorted(
            (one for summary in told for one in summary.hooks_in_trouble), key=lambda one: (one.namespace, one.hook)
        ),
    )


def _when(incident: IncidentSummary) -> datetime:
    return incident.resolved_time or incident.last_seen


def _agents(summaries: Mapping[str, WorkerSummary]) -> list[AgentStatus]:
    """Those in trouble first; of the others, those with most calls."""
    calls: dict[str, Counter[str]] = {}
    parked: dict[str, Counter[str]] = {}
    breakers: dict[str, list[AgentBreaker]] = {}
    for slot, summary in summaries.items():
        for one in summary.agents:
            calls.setdefault(one.agent, Counter()).update(one.calls)
            parked.setdefault(one.agent, Counter()).update(one.parked)
            mine = breakers.setdefault(one.agent, [])
            if one.breaker is not None:
                retry_in_s = one.breaker.retry_in_seconds
                mine.append(AgentBreaker(slot=slot, state=one.breaker.state, retry_in_seconds=retry_in_s))
    agents = [
        AgentStatus(agent=name, calls=dict(calls[name]), breakers=breakers[name], parked=dict(parked[name]))
        for name in calls
    ]
    return sorted(agents, key=lambda one: (not one.troubled, -sum(one.calls.values()), one.agent))
