"""What becomes of one signal at one entry: mute, hold back, or the incident's verdict.

The worker acts on it and `khook explain` shows it, so that what a person is told is what the controller does. Above
`verdict.judge` stand two things that need more than the row: rows which belong to no entry and only mute, and an
entry's `holdFor`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from khook.core import rows as row_rules
from khook.core.incident import IncidentRules, Row, Verdict
from khook.core.match import Entry
from khook.core.signal import Signal
from khook.core.verdict import judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict, and whether something keeps it from having effect."""

    verdict: Verdict
    muted: bool = False
    """By a row that names no entry: counted as a repetition, and nothing else."""
    held: bool = False
    """It would open an incident, and waits for its entry's `holdFor`."""


def decide(
    entry: Entry,
    row: Row | None,
    signal: Signal,
    *,
    may_be_held: bool,
    legacy: Sequence[Row],
    suspended: bool,
    has_room: Callable[[], bool],
    now: datetime,
    rules: IncidentRules,
) -> Decision:
    """`row` is the one of this entry and this resource. `may_be_held`: the pod is there, and was not held out yet.

    `has_room` is asked only where there is no row.
    """
    if row is None and row_rules.muted_by_legacy(
        legacy, signal, event_type=entry.event_type, now=now, cooldown=entry.cooldown
    ):
        return Decision(verdict=Verdict.REPEAT, muted=True)
    verdict = judge(
        row,
        signal,
        now=now,
        cooldown=entry.cooldown,
        suspended=suspended,
        has_room=row is not None or has_room(),
        rules=rules,
    )
    return Decision(verdict=verdict, held=may_be_held and _is_held(entry, verdict, row))


def _is_held(entry: Entry, verdict: Verdict, row: Row | None) -> bool:
    """What would open an incident waits for `holdFor`; what one that is open has to be told does not."""
    opens = verdict in (Verdict.FIRE, Verdict.REFIRE) or (row is None and verdict is Verdict.SUSPENDED)
    return opens and bool(entry.hold_for)
