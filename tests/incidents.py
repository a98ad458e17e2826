"""Signals, rows and entries for tests that say only what matters to them. `at(60)` is a minute after the start."""

from datetime import UTC, datetime, timedelta
from typing import Any

from khook.core.incident import (
    Call,
    CallId,
    CallReason,
    CallState,
    EntryId,
    Facts,
    IncidentRules,
    LastSignal,
    Row,
    RowStatus,
)
from khook.core.match import Entry, with_identities
from khook.core.signal import EventType, Namespace, PodUid, Signal, Source
from khook.core.template import parse

START = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
COOLDOWN = timedelta(minutes=10)
RULES = IncidentRules(resolve_after=timedelta(minutes=2), max_signal_age=timedelta(minutes=15))


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def a_signal(seconds: float = 0, **changes: Any) -> Signal:
    """A live restart of pod my-app that happened at `seconds`."""
    given: dict[str, Any] = {
        "type": EventType.POD_RESTART,
        "source": Source.EVENT,
        "namespace": Namespace("shop"),
        "pod": "my-app",
        "pod_uid": PodUid("uid-1"),
        "container": "app",
        "reason": "BackOff",
        "message": "Back-off restarting failed container app",
        "raw_time": at(seconds),
        "listed": False,
    }
    return Signal(**given | changes)


def an_entry(**changes: Any) -> Entry:
    given: dict[str, Any] = {
        "index": 0,
        "identity": EntryId(""),
        "event_type": EventType.POD_RESTART,
        "agent": "kagent/k8s-agent",
        "agent_id": "k8s-agent",
        "template": parse("Why?"),
        "cooldown": COOLDOWN,
        "selector": None,
    }
    return with_identities([Entry(**given | changes)])[0]


def a_call(state: CallState, reason: CallReason | None = None, **changes: Any) -> Call:
    """Claimed at the start; give the times that matter."""
    given: dict[str, Any] = {"id": CallId("call-1"), "state": state, "reason": reason, "claimed_time": START}
    return Call(**given | changes)


def a_row(call: Call | None, **changes: Any) -> Row:
    """A firing row, opened by `a_signal()`."""
    given: dict[str, Any] = {
        "entry": an_entry().identity,
        "event_type": EventType.POD_RESTART,
        "resource_kind": "Pod",
        "resource_name": "my-app",
        "agent": "kagent/k8s-agent",
        "pod_uid": PodUid("uid-1"),
        "first_seen": START,
        "last_seen": START,
        "status": RowStatus.FIRING,
        "count": 1,
        "last_signal": LastSignal(pod_uid=PodUid("uid-1"), raw_time=START),
        "facts": Facts(container="app", reason="BackOff", message="m", time=START, pod="my-app"),
        "call": call,
    }
    return Row(**given | changes)


def a_legacy_row(seconds: float = 0, **changes: Any) -> Row:
    """As the Go controller's status gives it back."""
    seen = at(seconds)
    given: dict[str, Any] = {
        "entry": EntryId(""),
        "resource_kind": "",
        "agent": "",
        "pod_uid": PodUid(""),
        "first_seen": seen,
        "last_seen": seen,
        "last_signal": LastSignal(pod_uid=PodUid(""), raw_time=seen),
        "facts": None,
    }
    return a_row(None, **given | changes)
