"""An Event's row: the same for old Events (a count, two timestamps) and new ones (`eventTime`, a series).

Source: `pkg/printers/internalversion` (printEvent). Events are read as they are stored, as core/v1.
"""

from datetime import datetime
from typing import Any

from khook.sandbox.ages import since

Json = dict[str, Any]


def event_row(event: Json, now: datetime) -> list[Any]:
    """Last Seen, Type, Reason, Object, Subobject, Source, Message, First Seen, Count, Name."""
    about, series = event.get("involvedObject") or {}, event.get("series") or {}
    first = since(event.get("firstTimestamp") or event.get("eventTime"), now)
    last = since(event["lastTimestamp"], now) if event.get("lastTimestamp") else first
    count = event.get("count") or 1
    if series:
        last, count = since(series.get("lastObservedTime"), now), series.get("count", 0)
    kind, name = about.get("kind", "").lower(), about.get("name")
    return [
        last,
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{name}" if name else kind,
        about.get("fieldPath", ""),
        _source(event),
        (event.get("message") or "").strip(),
        first,
        count,
        event["metadata"].get("name", ""),
    ]


def _source(event: Json) -> str:
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    instance = source.get("host") or event.get("reportingInstance") or ""
    return f"{component}, {instance}" if instance else component
