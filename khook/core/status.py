"""A Hook's `status` and the rows it holds: written in one place, read back by every later owner.

`render` and `restore` are each other's inverse. `restore` reads what anybody may have written (an older khook, the
Go controller, a person with kubectl): it never raises, drops what makes no sense and says how many. One row's own
JSON is `khook.core.rowjson`, the Ready condition `khook.core.condition`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from khook.core.incident import CallId, Row
from khook.core.moment import rfc3339_seconds
from khook.core.rowjson import render_row, restore_row

Json = dict[str, Any]

# `activeEvents` as JSON; the object with its spec (50 prompts of 16 KiB) has to fit into etcd's 1.5 MiB.
ACTIVE_EVENTS_MAX_BYTES: Final = 512 * 1024


class RenderedRows:
    """One Hook's rows as they were rendered last: from one write to the next nearly all of them are the same objects.

    A row is immutable, so the same one has the same JSON; what is handed out is shared and must not be changed.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Row, Json]] = {}
        """By identity, which stays a row's own as long as the row is held here."""

    def of(self, rows: Sequence[Row]) -> list[Json]:
        known = self._known
        rendered = [known.get(id(row)) or (row, render_row(row)) for row in rows]
        self._known = {id(row): one for row, one in zip(rows, rendered, strict=True)}
        return [event for _, event in rendered]


def render(
    rows: Sequence[Row],
    conditions: Sequence[Mapping[str, Any]],
    *,
    last_updated: datetime,
    rendered: RenderedRows | None = None,
) -> Json:
    """The `status` of a Hook. Above `ACTIVE_EVENTS_MAX_BYTES` the oldest answers of agents are left out first."""
    events = (rendered or RenderedRows()).of(rows)
    _fit(events)
    return {
        "activeEvents": events,
        "conditions": [dict(condition) for condition in conditions],
        "lastUpdated": rfc3339_seconds(last_updated),
    }


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a status says something new, apart from when it was written."""
    return _without_time(before) != _without_time(after)


def call_state(status: object, call_id: CallId) -> str | None:
    """The state in which a status that anybody may have written holds a call; None where it does not.

    An older CRD of the same group, version and kind prunes fields it does not know, and answers 200.
    """
    events = status.get("activeEvents") if isinstance(status, Mapping) else None
    for event in events if isinstance(events, list) else ():
        call = event.get("call") if isinstance(event, dict) else None
        if isinstance(call, dict) and call.get("id") == call_id:
            state = call.get("state")
            return state if isinstance(state, str) else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a status gave back; `dropped` counts elements, calls and facts that made no sense."""

    rows: tuple[Row, ...]
    dropped: int


def restore(status: object) -> Restored:
    """The rows of a Hook's `status` (None where there is none yet). Never raises."""
    events = status.get("activeEvents") if isinstance(status, Mapping) else None
    if events is None:
        return Restored(rows=(), dropped=0)
    if not isinstance(events, list):
        return Restored(rows=(), dropped=1)
    rows: list[Row] = []
    dropped = 0
    for event in events:
        row, lost = restore_row(event)
        dropped += lost
        rows += [] if row is None else [row]
    return Restored(rows=tuple(rows), dropped=dropped)


def _without_time(status: Mapping[str, Any]) -> Json:
    return {name: value for name, value in status.items() if name != "lastUpdated"}


def _fit(events: list[Json]) -> None:
    """Leaves results out, oldest first, until the rows are small enough: a call that ends grows by its answer."""
    over = len(orjson.dumps(events)) - ACTIVE_EVENTS_MAX_BYTES
    with_result = [at for at, event in enumerate(events) if event.get("call", {}).get("result")]
    for at in sorted(with_result, key=lambda at: str(events[at]["call"].get("endedTime"))):
        if over <= 0:
            return
        call = dict(events[at]["call"])
        over -= len(orjson.dumps({"result": call.pop("result")})) - 1
        events[at] = events[at] | {"call": call}  # the row's own JSON is shared
