"""Which entries of a Hook a signal concerns.

An `Entry` is one valid element of `eventConfigurations`, with every default filled in and its identity worked
out: (type, agent, groupBy, canonical selector, k-th among those equal in all of these), so that reordering a
Hook's entries or editing a prompt neither forgets an incident nor fires an old one again.
"""

from dataclasses import dataclass
from datetime import timedelta

from khook.core.incident import EntryId
from khook.core.signal import EventType


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
    prompt: str
    cooldown: timedelta
    selector: Selector | None
    group_by_owner: bool = False
    hold_for: timedelta = timedelta(0)
