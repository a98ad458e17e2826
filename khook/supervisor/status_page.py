"""The status document as one HTML page, which needs nothing but itself.

Every text in it was written by others (names in Kubernetes, an identity in a Lease) or may quote them: it is made
printable and cut on its way into the template, escaped by the template, and no script can come of it, for the page's
policy lets the browser run only what has the hash of `page/refresh.js`. Pure but for reading the three files beside
it, once. Bounded: what has no limit in the document is shown up to one here, and the rest is counted.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from khook.summary import IncidentSummary
from khook.supervisor.status_document import OwnedNamespace, SlotStatus, Status

SHOWN_FIRING: Final = 100
SHOWN_RESOLVED: Final = 40
SHOWN_HELD_BACK: Final = 40
SHOWN_AGENTS: Final = 40
SHOWN_HOOKS: Final = 20
SHOWN_NAMESPACES: Final = 60
"""Of a slot, those in trouble first, then the busiest: 16 slots make a thousand, and `khook shards --all` has all."""
SHOWN_NAMED: Final = 20
"""Of the namespaces without a worker."""
TEXT_MOST_CHARS: Final = 400
"""More than any name in Kubernetes has, and than any error of ours."""

HELD_WORDS: Final = {
    "Parked": "the agent cannot be asked just now",
    "Budget": "the Hook has used up its calls for now",
    "Grouping": "waits a moment for more of the same",
    "Suspended": "the Hook is suspended",
    "Queued": "others are before it: the agent has as many calls as it may",
}
PARKED_WORDS: Final = {
    "outage": "not reached",
    "breaker": "breaker open",
    "unauthorized": "key refused",
    "protocol": "protocol not known yet",
    "queue": "too many in the queue",
}
TROUBLE_WORDS: Final = {
    "CRDOutdated": "the Hook CRD drops khook's status fields: upgrade kagent-hook-crds",
    "WatchForbidden": "khook may not watch pods or events in this namespace (RBAC)",
    "InvalidConfiguration": "an entry is not valid",
    "KagentAPIError": "its last call to an agent failed",
    "AgentNotFound": "kagent does not know its agent",
    "Full": "it holds as many incidents as it may: new ones call nobody",
}
_TONES: Final = {
    "Completed": "good",
    "Accepted": "busy",
    "Calling": "busy",
    "Pending": "warn",
    "Failed": "bad",
    "running": "good",
    "starting": "busy",
    "waiting": "warn",
    "stopping": "warn",
    "doomed": "bad",
    "broken": "bad",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the template needs beyond the document: what is shown of each list."""

    status: Status
    now: datetime | None
    firing: Sequence[IncidentSummary]
    resolved: Sequence[IncidentSummary]
    serving_mean: float
    """The load of the slots that own something, on average."""

    @property
    def title(self) -> str:
        if not self.status.leading:
            return "khook stands by"
        firing = self.status.totals.firing
        return f"{firing} firing · khook" if firing else "khook"


def render(status: Status) -> bytes:
    page = Page(
        status=status,
        now=status.generated_time,
        firing=[one for one in status.incidents if one.status == "firing"][:SHOWN_FIRING],
        resolved=[one for one in status.incidents if one.status != "firing"][:SHOWN_RESOLVED],
        serving_mean=_mean(status.slots),
    )
    return _TEMPLATE.render(page=page, status=status, totals=status.totals).encode()


def top_namespaces(namespaces: Iterable[OwnedNamespace]) -> list[OwnedNamespace]:
    """What a slot's list begins with: those that have not started, then the busiest."""
    order = nsmallest(SHOWN_NAMESPACES, namespaces, key=lambda one: (one.problem is None, one.started, -one.weight))
    return sorted(order, key=lambda one: (one.problem is None, one.started, -one.weight, one.namespace))


def _mean(slots: Sequence[SlotStatus]) -> float:
    serving = [slot.load for slot in slots if slot.state != "broken" and not slot.on_probation]
    return sum(serving) / len(serving) if serving else 0.0


# How values are written.


def printable(text: str) -> str:
    """Without what would turn the reading direction or hide itself (bidi marks, zero widths), and not without end."""
    text = text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)
    return text if len(text) <= TEXT_MOST_CHARS else text[:TEXT_MOST_CHARS] + "…"


def duration(seconds: float) -> str:
    """To two places, as a person says it: `3 d 4 h`, `12 min`, `8 s`."""
    left = max(0, int(seconds))
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2] if parts[:1] and parts[0][-1] in "dh" else parts[:1]) or "0 s"


def ago(time: datetime | None, now: datetime | None) -> str:
    if time is None or now is None:
        return "-"
    seconds = (now - time).total_seconds()
    return "now" if seconds < 1 else f"{duration(seconds)} ago"


def number(value: float) -> str:
    """`12,345`, `12.3`, `0`."""
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def tone(word: str) -> str:
    """Which colour a state has; the word always stands beside it."""
    return _TONES.get(word, "plain")


def _finalize(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _file(name: str) -> str:
    return resources.files("khook.supervisor").joinpath("page", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE: Final = _file("status.css")
_SCRIPT: Final = _file("refresh.js")
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The Content-Security-Policy of the page: the style and the script in it, by their hashes, and nothing else."""


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_finalize, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "ago": ago, "duration": duration, "number": number, "tone": tone, "top_namespaces": top_namespaces,
    }  # fmt: skip
    environment.globals |= {
        "style": Markup(_STYLE),  # noqa: S704 - files of ours
        "script": Markup(_SCRIPT),  # noqa: S704
        "many": many,
        "held_words": HELD_WORDS,
        "parked_words": PARKED_WORDS,
        "trouble_words": TROUBLE_WORDS,
        "shown_held_back": SHOWN_HELD_BACK,
        "shown_agents": SHOWN_AGENTS,
        "shown_hooks": SHOWN_HOOKS,
        "shown_named": SHOWN_NAMED,
    }
    return environment.from_string(_file("status.html"))


_TEMPLATE: Final = _template()
