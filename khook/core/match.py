"""Which entries of a Hook a signal concerns.

An `Entry` is one valid element of `eventConfigurations`, with every default filled in and its identity worked
out: (type, agent, groupBy, canonical selector, k-th among those equal in all of these), so that reordering a
Hook's entries or editing a prompt neither forgets an incident nor fires an old one again.

One OOM kill, one agent: a restart whose container was OOM-killed is a signal of the pod's `oom-kill` incident where
the Hook has an `oom-kill` entry for that pod, and then of no `pod-restart` incident.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from khook.core.incident import EntryId
from khook.core.signal import EventType, Signal
from khook.core.template import Template

# 64 bits tell a Hook's at most 50 entries apart; the identity stands in every row of the status.
_DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A label selector (meta/v1 LabelSelector): all of `match_labels` and all of `expressions` must hold."""

    match_labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """(key, operator In | NotIn | Exists | DoesNotExist, values)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry that works. `index` is its place in the Hook today, `identity` what an incident remembers."""

    index: int
    identity: EntryId
    event_type: EventType
    agent: str
    """`namespace/name`, for limits, identity and display."""
    agent_id: str
    """As the `execute` protocol names it: the Hook's string as written, `namespace/name` for an agentRef."""
    template: Template
    """Its prompt, as it was read."""
    cooldown: timedelta
    selector: Selector | None
    group_by_owner: bool = False
    hold_for: timedelta = timedelta(0)


class Mismatch(StrEnum):
    """Why an entry has nothing to do with a signal; `explain` shows it."""

    NO_ENTRY_OF_TYPE = "no_entry_of_type"
    SELECTOR = "selector"
    TAKEN_BY_OOM = "taken_by_oom"
    """A restart after an OOM kill, which is the business of the Hook's oom-kill entry."""
    POD_GONE = "pod_gone"
    """The pod is not there any more, and this entry needs its labels, its owner or its state."""


def match(
    entries: Sequence[Entry], signal: Signal, *, pod_labels: Mapping[str, str] | None, pod_known: bool, oom: bool
) -> list[Entry]:
    """The entries whose incidents `signal` belongs to.

    `oom`: the latest termination of the signal's container is an OOM kill. `pod_known` is False where the pod is
    gone; then its labels are not looked at.
    """
    judged = consider(entries, signal, pod_labels=pod_labels, pod_known=pod_known, oom=oom)
    return [entry for entry, mismatch in judged if mismatch is None]


def consider(
    entries: Sequence[Entry], signal: Signal, *, pod_labels: Mapping[str, str] | None, pod_known: bool, oom: bool
) -> list[tuple[Entry, Mismatch | None]]:
    """Every entry with why it does not take the signal, None where it does."""
    labels = (pod_labels or {}) if pod_known else None

    def of_type(entry: Entry, wanted: EventType) -> Mismatch | None:
        return _pod_mismatch(entry, labels) if entry.event_type is wanted else Mismatch.NO_ENTRY_OF_TYPE

    restart_by_oom = oom and signal.type is EventType.POD_RESTART
    if not restart_by_oom or all(of_type(entry, EventType.OOM_KILL) for entry in entries):
        return [(entry, of_type(entry, signal.type)) for entry in entries]
    return [
        (entry, Mismatch.TAKEN_BY_OOM if entry.event_type is signal.type else of_type(entry, EventType.OOM_KILL))
        for entry in entries
    ]


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether the selector selects these labels, as apimachinery's `labels.Requirement.Matches` does."""
    return all(labels.get(key) == value for key, value in selector.match_labels) and all(
        _holds(operator, labels.get(key), values) for key, operator, values in selector.expressions
    )


def identity(
    *, event_type: EventType, agent: str, group_by_owner: bool, selector: Selector | None, kth: int
) -> EntryId:
    """What an incident remembers of its entry; `kth` counts from 0 among the Hook's entries equal in the rest."""
    canonical = json.dumps([event_type, agent, group_by_owner, _canonical(selector)], separators=(",", ":"))
    digest = blake2b(canonical.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return EntryId(f"{event_type}-{digest}" + (f"-{kth + 1}" if kth else ""))


def with_identities(entries: Sequence[Entry]) -> list[Entry]:
    """The entries of one Hook, in the Hook's order, each with its identity filled in."""
    seen: Counter[EntryId] = Counter()
    named = []
    for entry in entries:
        first, kth = _identity_of(entry, 0), seen[_identity_of(entry, 0)]
        seen[first] += 1
        named.append(replace(entry, identity=_identity_of(entry, kth)))
    return named


def _identity_of(entry: Entry, kth: int) -> EntryId:
    return identity(
        event_type=entry.event_type,
        agent=entry.agent,
        group_by_owner=entry.group_by_owner,
        selector=entry.selector,
        kth=kth,
    )


def _pod_mismatch(entry: Entry, labels: Mapping[str, str] | None) -> Mismatch | None:
    """`labels` is None for a pod that is gone: what needs its labels, its owner or its state cannot fire."""
    if labels is None:
        needs_pod = entry.group_by_owner or entry.hold_for or not _selects_all(entry.selector)
        return Mismatch.POD_GONE if needs_pod else None
    return None if entry.selector is None or matches(entry.selector, labels) else Mismatch.SELECTOR


def _selects_all(selector: Selector | None) -> bool:
    return selector is None or not (selector.match_labels or selector.expressions)


def _holds(operator: str, value: str | None, values: tuple[str, ...]) -> bool:
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:  # DoesNotExist, the only other one that the API lets in
            return value is None


def _canonical(selector: Selector | None) -> list[object]:
    """The same for selectors that differ in order and repetition only; an empty one is the same as none."""
    if selector is None:
        return []
    expressions = {(key, operator, tuple(sorted(set(values)))) for key, operator, values in selector.expressions}
    return [sorted(set(selector.match_labels)), sorted(expressions)] if not _selects_all(selector) else []
