"""What a Pod and its Events say, as the worker reads them: each a signal with its row of the table, or a silence.

Pure. The classification is `khook.core`'s; here it is only put side by side with words for a person. A pod is read as
one that was never seen: every fact that its status holds is told, and the Hook's own rows say which are old news.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from khook.core import pods as pod_rules
from khook.core.classify import Depends, Rule, Silence, belongs_to_oom, classify_event, rule_for
from khook.core.moment import rfc3339_seconds
from khook.core.pending import PendingKind
from khook.core.pods import PodFacts
from khook.core.signal import EventLine, EventType, PodLine, Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was said about the pod. `signal` None: it means nothing to khook, and `words` say why."""

    source: str
    """`Event BackOff`, `pod status`."""
    row: str
    """The row of the classification table that it falls under."""
    signal: Signal | None = None
    words: str = ""
    pod_gone: bool = False
    """It would mean something if its pod were there."""
    oom: bool = False
    """A restart whose container was OOM-killed."""


_WORDS: Final = {
    Silence.NOT_A_POD: "it is not about a pod (involvedObject needs kind Pod, a name and a uid)",
    Silence.OWN_EVENT: "khook wrote it itself",
    Silence.REASON_IGNORED: "no row of the table has this reason",
    Silence.MESSAGE_IGNORED: "the table has this reason, but not with this message",
    Silence.STARTUP_PROBE: "a container that still starts: being killed for it is the signal",
    Silence.POD_NOT_PENDING: "it counts only while the pod is Pending, and it is not",
    Silence.POD_DELETING: "the pod is being deleted",
    Silence.NODE_SHUTDOWN: "the pod was ended by its node's shutdown",
    Silence.POD_GONE: "it counts only while the pod is Pending, and the pod is gone",
    Silence.TIMELESS: "it says no time at which it happened",
}

_POD_ROWS: Final = {
    EventType.OOM_KILL: "a container ended with OOMKilled, or the pod was evicted for memory",
    EventType.POD_RESTART: "a container's restart count rose",
    EventType.POD_PENDING: "Pending with a reason, or for long without one",
}


def facts_of_pod(
    line: PodLine, *, listed: bool, now: datetime, stuck_pending: timedelta
) -> tuple[PodFacts, tuple[Fact, ...]]:
    """The pod's record, and all that its status says now."""
    pod, signals = pod_rules.observe(None, line, listed=listed, now=now, stuck_pending=stuck_pending)
    stuck = pod_rules.stuck_signal(pod, now=now, stuck_pending=stuck_pending)
    told = (*signals, *(() if stuck is None else (stuck,)))
    if not told:
        return pod, (Fact(source="pod status", row="none", words=_quiet(pod, now=now, stuck_pending=stuck_pending)),)
    return pod, tuple(
        Fact(source="pod status", row=_POD_ROWS[one.type], signal=one, oom=belongs_to_oom(one, pod)) for one in told
    )


def fact_of_event(event: EventLine, pod: PodFacts | None, *, listed: bool) -> Fact:
    """`pod` None: it is gone, or nothing is known of it."""
    if pod is not None and not event.involved_object.uid:
        about = msgspec.structs.replace(event.involved_object, uid=pod.uid)
        event = msgspec.structs.replace(event, involved_object=about)
    source = f"Event {event.reason or ''}".rstrip()
    row = _row(rule_for(event.reason or "", event.message or ""))
    said = classify_event(event, pod, listed=listed)
    if isinstance(said, Silence):
        return Fact(source=source, row=row, words=_WORDS[said], pod_gone=said is Silence.POD_GONE)
    known = pod if pod is not None and pod.uid == said.pod_uid else None
    return Fact(source=source, row=row, signal=said, oom=belongs_to_oom(said, known))


def newest_first(facts: Sequence[Fact]) -> list[Fact]:
    """Signals, the newest first, then what is none."""
    signals = [(fact.signal.raw_time, at, fact) for at, fact in enumerate(facts) if fact.signal is not None]
    return [*(fact for *_, fact in sorted(signals, reverse=True)), *(fact for fact in facts if fact.signal is None)]


def _row(rule: Rule | Silence) -> str:
    if isinstance(rule, Silence):
        return "none"
    text = "any message" if rule.text is None else f"message ~ {rule.text.pattern}"
    match rule.means:
        case Depends.ON_RESTARTS:
            means = "pod-restart, of a container that never restarted pod-pending"
        case Depends.ON_MEMORY:
            means = "oom-kill if it names memory, else pod-restart"
        case Silence():
            means = "nothing"
        case kind:
            means = kind.value + (" while the pod is Pending" if rule.only_pending else "")
    return f"{rule.reason}, {text}: {means}"


def _quiet(pod: PodFacts, *, now: datetime, stuck_pending: timedelta) -> str:
    """Why a pod's status is no signal."""
    if pod.deleting:
        return _WORDS[Silence.POD_DELETING]
    if pod.ended_by_node:
        return _WORDS[Silence.NODE_SHUTDOWN]
    held = pod.pending
    if held is None:
        return f"no container restarted or was OOM-killed, and it is not Pending (phase {pod.phase or 'unknown'})"
    match held.kind:
        case PendingKind.GATED:
            return "Pending, held back by a scheduling gate: somebody's intention"
        case PendingKind.INITIALIZING:
            return "Pending while an init container runs"
        case _:
            due = held.since + stuck_pending
            return f"Pending without a reason, and stuck only from {rfc3339_seconds(due)} on (KHOOK_STUCK_PENDING)"
