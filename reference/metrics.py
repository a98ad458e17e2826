"""The tables of metrics in docs/operations.md: each metric, and every value that each of its labels can have.

`LABELS` is the closed list. The sets come from the enums that the code counts with; the few values that are no enum's
are written down here, and a test looks that nothing else is ever counted.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from khook import metrics as counted
from khook.agents.a2a import A2aProtocol
from khook.agents.execute import ExecuteProtocol
from khook.agents.outcome import OutcomeKind
from khook.core.breaker import BreakerState
from khook.core.classify import Silence
from khook.core.incident import CallReason, Verdict
from khook.core.parking import ParkReason
from khook.core.signal import EventType
from khook.kube.resources import EVENTS, HOOKS_METADATA, PODS
from khook.kube.terms import Relist, Skip, WatchEnd
from khook.sizing import MAX_WORKERS
from khook.worker.process import OVER_BUDGET
from khook.worker.rowbook import NO_ROOM
from khook.worker.table import DROPPED, HELD
from reference.tables import code, members, table
from shards.policy import Phase

Meanings = Mapping[str, str]
"""Every value of a label, and what it says; an empty text where the value says it itself."""


def _of(owner: type[StrEnum]) -> Meanings:
    return dict(members(owner))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


_FAILED: Final = "`Failed`: "
"""How a call's reason says that it is one of a failure."""
_EVENT_TYPES: Final = {one.value: "" for one in EventType}
_PROTOCOLS: Final = {A2aProtocol.name: "", ExecuteProtocol.name: ""}
_WATCHED: Final = {
    PODS.name: "Of a namespace.",
    EVENTS.name: "Of a namespace.",
    HOOKS_METADATA.name: "The supervisor's watch on Hooks.",
}
_VERDICTS: Final = {
    **_of(Verdict),
    HELD: "Kept back by `holdFor`; judged once more when that is over.",
    DROPPED: "Its entry was deleted before its call was sent.",
    Silence.POD_GONE.value: "An Event about a pod that was gone before it could be looked at.",
}
_FAILURES: Final = {
    value: _sentence(said.partition(_FAILED)[2]) for value, said in members(CallReason) if _FAILED in said
}
_SUPPRESSED: Final = {
    CallReason.BUDGET.value: "Its Hook's budget was used up: the call waits for it.",
    NO_ROOM: "Its Hook's status was full: the incident is not shown, and nobody is called.",
}
_PARKED: Final = {**_of(ParkReason), OVER_BUDGET: "Its Hook's budget is used up."}
_ROLES: Final = {"leader": "", "standby": ""}
_NAMESPACES: Final = {
    "live": "Its watches are live.",
    "starting": "It was given to a worker, and has not been live yet.",
    "forbidden": "RBAC does not let khook watch it.",
    "deaf": "It has had no live watch for 90 s.",
}
_SLOTS: Final = {f"w{number}": "" for number in range(MAX_WORKERS)}

LABELS: Final[Mapping[str, Mapping[str, Meanings]]] = {
    "kagent_hook_events_total": {"event_type": _EVENT_TYPES, "verdict": _VERDICTS},
    "kagent_hook_active_events": {"event_type": _EVENT_TYPES},
    "kagent_hook_api_calls_total": {"protocol": _PROTOCOLS, "outcome": _of(OutcomeKind)},
    "kagent_hook_api_call_duration_seconds": {"protocol": _PROTOCOLS},
    "kagent_hook_calls_failed_total": {"reason": _FAILURES},
    "kagent_hook_calls_suppressed_total": {"reason": _SUPPRESSED},
    "kagent_hook_parked_calls": {"reason": _PARKED},
    "kagent_hook_breakers": {"state": _of(BreakerState)},
    "kagent_hook_role": {"role": _ROLES},
    "kagent_hook_slots": {"state": _of(Phase)},
    "kagent_hook_namespaces": {"state": _NAMESPACES},
    "kagent_hook_worker_restarts_total": {"slot": _SLOTS},
    "kagent_hook_watch_ends_total": {"resource": _WATCHED, "cause": _of(WatchEnd)},
    "kagent_hook_relists_total": {"resource": _WATCHED, "cause": _of(Relist)},
    "kagent_hook_watch_lines_skipped_total": {"resource": _WATCHED, "cause": _of(Skip)},
    "kagent_hook_watch_forbidden": {"resource": {PODS.name: "", EVENTS.name: ""}},
}
"""By the name of the metric and of the label."""


def exist() -> dict[str, MetricWrapperBase]:
    """Every metric that khook has, by its name as it is scraped."""
    found = (one for one in counted._REGISTRY._collector_to_names if isinstance(one, MetricWrapperBase))
    return {one._name + ("_total" if one._type == "counter" else ""): one for one in found}


def metrics() -> str:
    """The metrics, then what the values of their labels say."""
    known = exist()
    rows = [
        (
            f"`{name}`",
            str(known[name]._type),
            "; ".join(_label(*one) for one in labels.items()),
            known[name]._documentation,
        )
        for name, labels in LABELS.items()
    ]
    said = table(("metric", "type", "labels and all their values", "counts"), rows)
    return said + "".join(f"\n`{where}`:\n\n{meanings}" for where, meanings in _explained())


def _label(name: str, values: Meanings) -> str:
    if values is _SLOTS:
        return f"`{name}`: `w0` to `w{MAX_WORKERS - 1}`"
    return f"`{name}`: {code(values)}"


def _explained() -> Iterator[tuple[str, str]]:
    """A table for each label whose values want words; one for labels that share their values."""
    told: list[Meanings] = []
    for metric, labels in LABELS.items():
        for label, values in labels.items():
            if any(values.values()) and values not in told:
                told.append(values)
                yield f"{metric}{{{label}}}", table(("value", "is"), [(f"`{v}`", said) for v, said in values.items()])
