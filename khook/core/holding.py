"""Signals that wait to see whether the trouble passes by itself: an entry's `holdFor`.

A pod that is Pending while its node is being made, or whose probe fails while it warms up, is nobody's business yet.
Its first signal is the first evidence; it is judged only when the pod has been Pending, or not Ready, without a break
from then until `holdFor` is over. A pod that recovers in between is forgotten, and its next signal begins anew.

Nothing is written while a signal is held. Whoever has the namespace after a crash reckons the first evidence from what
the API server still tells: since when the pod is Pending or not Ready, and when the Event was first seen.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from khook.core.incident import EntryId
from khook.core.match import Entry
from khook.core.pending import PENDING
from khook.core.pods import ENDED_PHASES, PodFacts
from khook.core.signal import EventType, PodUid, Signal

LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One entry's signal about one pod: the newest, with the time of the first evidence."""

    entry: Entry
    signal: Signal
    evidence_time: datetime
    due_time: datetime
    was_pending: bool
    """The pod was Pending: then it must be so still; one that runs and cannot be restarted must be not Ready."""


class Holds:
    """What one Hook holds back. At most one signal for each of its entries and each pod of the namespace."""

    def __init__(self) -> None:
        self._held: dict[PodUid, dict[EntryId, Held]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def hold(self, entry: Entry, signal: Signal, pod: PodFacts) -> None:
        """Keep it until its time. A newer signal takes the place of the one that waits, and waits no longer.

        What a LIST tells of a pod that has recovered since is not kept.
        """
        before = self._held.get(pod.uid, {}).get(entry.identity)
        if before is not None:
            newer = signal if signal.raw_time >= before.signal.raw_time else before.signal
            held = replace(before, signal=newer)
        else:
            evidence_time = first_evidence(signal, pod)
            held = Held(
                entry=entry,
                signal=signal,
                evidence_time=evidence_time,
                due_time=due_time(evidence_time, entry),
                was_pending=pod.phase == PENDING,
            )
        if before is not None or not _is_over(held, pod):
            self._held.setdefault(pod.uid, {})[entry.identity] = held

    def seen(self, pod: PodFacts) -> None:
        """A new line of this pod: those that it shows to be over are forgotten."""
        waiting = self._held.get(pod.uid)
        if waiting is None:
            return
        self._held[pod.uid] = kept = {
            entry: left for entry, held in waiting.items() if (left := _left_of(held, pod)) is not None
        }
        if not kept:
            del self._held[pod.uid]

    def due(self, now: datetime) -> list[tuple[EntryId, PodUid, Held]]:
        """Those whose time has come, longest overdue first; they are held no more."""
        found = [
            (entry, uid, held)
            for uid, waiting in self._held.items()
            for entry, held in waiting.items()
            if held.due_time <= now
        ]
        for entry, uid, _ in found:
            del self._held[uid][entry]
            if not self._held[uid]:
                del self._held[uid]
        return sorted(found, key=lambda one: one[2].due_time)

    def keep(self, entries: Collection[EntryId]) -> None:
        """Forget what belongs to other entries."""
        for uid, waiting in list(self._held.items()):
            self._held[uid] = {entry: held for entry, held in waiting.items() if entry in entries}
            if not self._held[uid]:
                del self._held[uid]


def due_time(evidence_time: datetime, entry: Entry) -> datetime:
    """When `holdFor` is over. An Event may claim any time: one at the calendar's end must not end its worker."""
    return min(evidence_time, LATEST - entry.hold_for) + entry.hold_for


def lasts(held: Held, pod: PodFacts | None) -> bool:
    """Whether the pod is still in the state that was held for."""
    return pod is not None and _lasts(held, pod)


def first_evidence(signal: Signal, pod: PodFacts) -> datetime:
    """Since when this trouble is known to last without a break; the signal's own time where no more is known.

    A LIST may show an Event that is older than the pod's being not Ready: it tells of trouble that has passed.
    """
    since = signal.since_time or signal.raw_time
    if signal.type is EventType.POD_PENDING and pod.pending is not None:
        return min(signal.raw_time, max(since, pod.pending.since))
    if not pod.ready and pod.ready_time is not None:
        return max(since, pod.ready_time)
    return signal.raw_time


def _lasts(held: Held, pod: PodFacts) -> bool:
    if pod.silenced or pod.phase in ENDED_PHASES:
        return False
    if held.signal.type is EventType.POD_PENDING and held.was_pending:
        return pod.phase == PENDING
    return not pod.ready


def _is_over(held: Held, pod: PodFacts) -> bool:
    """It recovered after the evidence, or ended. A pod is Ready still when its probe first fails: no recovery."""
    ready_since_before = pod.ready and pod.ready_time is not None and pod.ready_time <= held.evidence_time
    return not _lasts(held, pod) and not ready_since_before


def _left_of(held: Held, pod: PodFacts) -> Held | None:
    """What a new line of its pod leaves of a hold; None: it is over.

    After a time in which nobody told of the pods, Events overtake lines: what they told since the recovery that this
    line shows is trouble of its own, and its hold begins with it.
    """
    if not _is_over(held, pod):
        return held
    told_since = pod.ready and pod.ready_time is not None and held.signal.raw_time > pod.ready_time
    if not told_since:
        return None
    evidence_time = held.signal.raw_time
    return replace(held, evidence_time=evidence_time, due_time=due_time(evidence_time, held.entry))
