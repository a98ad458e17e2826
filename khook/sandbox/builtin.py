"""What kube-apiserver itself adds to, checks in and converts between built-in objects.

Only what a client of Events, Pods and Leases can notice: nulls and zero values that Go's encoding writes
(`eventTime: null`, `state: {}`), whole-second times against six-decimal ones, the rules for Events of both APIs,
and the same Event in the words of `core/v1` and `events.k8s.io/v1`. Stored Events are `core/v1`.
Sources: `pkg/apis/core/validation/events.go`, `pkg/apis/events/v1/conversion.go`, `meta/v1/time.go`,
`meta/v1/micro_time.go`.
"""

import re
from typing import Any, Final

from khook.sandbox.api_errors import ApiError, Cause, bad_request, invalid
from khook.sandbox.kinds import EVENTS, EVENTS_V1, LEASES, NAMESPACES, PODS, Kind
from khook.sandbox.workloads import kept, missing

Json = dict[str, Any]

MICRO_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_FRACTION: Final = re.compile(r"\.\d+")
_POD_STATUS_LISTS: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
_RENAMED: Final = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_RENAMED_BACK: Final = {new: old for old, new in _RENAMED.items()}


def to_storage(kind: Kind, item: Json) -> Json:
    """From the words of the endpoint to those of the stored object."""
    if kind != EVENTS_V1:
        return item
    return {_RENAMED_BACK.get(key, key): value for key, value in item.items() if key not in _RENAMED}


def from_storage(kind: Kind, item: Json) -> Json:
    """The stored object in the words of the endpoint, with its apiVersion and kind."""
    head = {"kind": kind.kind, "apiVersion": kind.api_version}
    if kind == EVENTS_V1:
        return head | {_RENAMED.get(key, key): value for key, value in item.items() if key not in head}
    return head | {key: value for key, value in item.items() if key not in head}


def normalized(kind: Kind, item: Json, *, creating: bool) -> Json:
    """The object as Go would write it back. Raises ApiError 400 for a time that does not parse."""
    if kind in (EVENTS, EVENTS_V1):
        return _event(kind, item)
    if kind == PODS:
        return _pod(item, creating=creating)
    if kind == LEASES:
        spec = item.get("spec") or {}
        for key in ("acquireTime", "renewTime"):
            _check_micro_time(kind, spec.get(key))
        return item | {"spec": spec}
    if kind == NAMESPACES:
        labels = {"kubernetes.io/metadata.name": item["metadata"]["name"]}
        metadata = item["metadata"] | {"labels": (item["metadata"].get("labels") or {}) | labels}
        rest = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
        return item | {"metadata": metadata} | rest
    return kept(kind, item, creating=creating)


def _event(kind: Kind, item: Json) -> Json:
    _check_micro_time(kind, item.get("eventTime"))
    series = item.get("series")
    if series:
        _check_micro_time(kind, series.get("lastObservedTime"))
    zero: Json = {
        "involvedObject": {},
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "eventTime": None,
        "reportingComponent": "",
        "reportingInstance": "",
    }
    times = {key: _whole_seconds(item.get(key)) for key in ("firstTimestamp", "lastTimestamp")}
    return zero | {key: value for key, value in item.items() if value is not None} | times


def _pod(item: Json, *, creating: bool) -> Json:
    status = dict(item.get("status") or {})
    if creating:
        spec = {"restartPolicy": "Always", "terminationGracePeriodSeconds": 30} | (item.get("spec") or {})
        return item | {"spec": spec, "status": {"phase": "Pending", "qosClass": "BestEffort"}}
    for name in _POD_STATUS_LISTS:
        if status.get(name):
            status[name] = [_container_status(one) for one in status[name]]
    if status.get("conditions"):
        nulls: Json = {"lastProbeTime": None, "lastTransitionTime": None}
        status["conditions"] = [nulls | one for one in status["conditions"]]
    return item | {"status": status}


def _container_status(one: Json) -> Json:
    zero: Json = {"state": {}, "lastState": {}, "ready": False, "restartCount": 0, "image": "", "imageID": ""}
    result = zero | {key: value for key, value in one.items() if value is not None}
    for state_name in ("state", "lastState"):
        state = dict(result[state_name])
        if "terminated" in state:
            times = {key: _whole_seconds(state["terminated"].get(key)) for key in ("startedAt", "finishedAt")}
            state["terminated"] = {"exitCode": 0} | state["terminated"] | times
        if "running" in state:
            state["running"] = {"startedAt": _whole_seconds(state["running"].get("startedAt"))}
        result[state_name] = state
    return result


def _whole_seconds(value: str | None) -> str | None:
    return None if value is None else _FRACTION.sub("", value)


def _check_micro_time(kind: Kind, value: str | None) -> None:
    if value is None or MICRO_TIME.fullmatch(value):
        return
    raise bad_request(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: parsing time "{value}" '
        'as "2006-01-02T15:04:05.000000Z07:00"'
    )


def check(kind: Kind, item: Json, *, creating: bool) -> None:
    """What the server refuses to keep. Raises ApiError 422."""
    causes = _event_causes(kind, item) if creating and kind.kind == EVENTS.kind else missing(kind, item)
    if causes:
        raise _core_invalid(kind, item, causes)


def _core_invalid(kind: Kind, item: Json, causes: list[Cause]) -> ApiError:
    named = EVENTS if kind == EVENTS_V1 else kind
    return invalid(named, item["metadata"].get("name", ""), causes)


def _event_causes(kind: Kind, item: Json) -> list[Cause]:
    namespace = item["metadata"].get("namespace", "")
    about = (item.get("involvedObject") or {}).get("namespace", "")
    causes = []
    if about != namespace and (about or namespace not in ("default", "kube-system")):
        sentence = f'Invalid value: "{about}": does not match event.namespace'
        causes.append(Cause("involvedObject.namespace", "FieldValueInvalid", sentence))
    if kind == EVENTS_V1 and not item.get("eventTime"):
        causes.append(Cause("eventTime", "FieldValueRequired", "Required value"))
    if item.get("eventTime"):
        shown = "reportingController" if kind == EVENTS_V1 else "reportingComponent"
        causes += [
            Cause(shown if key == "reportingComponent" else key, "FieldValueRequired", "Required value")
            for key in ("reportingComponent", "reportingInstance", "action", "reason")
            if not item.get(key)
        ]
    if kind == EVENTS_V1 and item.get("type") not in ("Normal", "Warning"):
        value = item.get("type") or ""
        causes.append(Cause("type", "FieldValueInvalid", f'Invalid value: "{value}": has invalid value: {value}'))
    return causes
