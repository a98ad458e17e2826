"""What the pods do in `khook demo`: a timed list of steps.

A step says what a kubelet, a scheduler or a person would write to the API server at that second; `writes` turns it
into requests and does no I/O. The shapes follow pkg/kubelet (events.go, kuberuntime), client-go's two event
recorders (core/v1 with `count`, events.k8s.io/v1 with `series`) and the scheduler's FailedScheduling. What calls all of
it must lead to is `khook.sandbox.reckoning`'s.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from khook.core.signal import EventType

NODE: Final = "node-1"
IMAGE: Final = "registry.example/app:1.4.2"
MEMORY_LIMIT: Final = "256Mi"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One request to the API server; a PATCH is a JSON merge patch (RFC 7386)."""

    verb: Literal["POST", "PATCH"]
    path: str
    body: Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a step cannot know beforehand: the time, and the uids that the API server gave (by `uid_key`)."""

    now: datetime
    uids: Mapping[str, str] = field(default_factory=dict)


def uid_key(created: Object) -> str:
    """Where `Moment.uids` has it: `namespace/pod`, and `namespace/Kind/name` of anything else."""
    kind, metadata = created["kind"], created["metadata"]
    return f"{metadata.get('namespace', '')}/{'' if kind == 'Pod' else f'{kind}/'}{metadata['name']}"


Action = Callable[[str, Moment], list[Write]]
"""(namespace, moment) → what is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    at_s: float
    namespace: str
    words: str
    """For a person; empty where it is not worth a line."""
    action: Action
    pod: str = ""
    owner: str = ""
    """The controller at the top of the pod's owners, as `Kind name`; empty: it has none."""
    shows: EventType | None = None
    """The incident that this step is evidence of, whoever asked for it; None: nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An agent that nobody reaches for a while."""

    agent: str
    """`namespace/name`."""
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashLoop:
    """The worker that owns a namespace dies each time it comes back, until its slot is broken."""

    namespace: str
    from_s: float
    encore: tuple[Step, ...]
    """What happens in the namespace once another worker has it; `at_s` counts from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    hooks: tuple[Object, ...]
    steps: tuple[Step, ...]
    kill_at_s: float
    """When the demo kills a worker: steps before and after it show incidents, new ones and old ones."""
    outage: Outage
    crash_loop: CrashLoop

    @property
    def duration_s(self) -> float:
        return max(step.at_s for step in self.steps)


def writes(step: Step, moment: Moment) -> list[Write]:
    """What the step sends to the API server, in order."""
    return step.action(step.namespace, moment)


# --- people -----------------------------------------------------------------------------------------------------


def namespace_with_hook(hook: Object) -> Action:
    def act(namespace: str, _moment: Moment) -> list[Write]:
        created = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        return [
            Write(verb="POST", path="/api/v1/namespaces", body=created),
            Write(verb="POST", path=f"/apis/kagent.dev/v1alpha2/namespaces/{namespace}/hooks", body=hook),
        ]

    return act


# --- kubelet ----------------------------------------------------------------------------------------------------


def pod_created(pod: str, *, scheduled: bool = True) -> Action:
    """The pod, bound to a node unless the scheduler still has to."""

    def act(namespace: str, _moment: Moment) -> list[Write]:
        container = {"name": "app", "image": IMAGE, "resources": {"limits": {"memory": MEMORY_LIMIT}}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": namespace, "labels": {"app": pod.rsplit("-", 1)[0]}},
            "spec": {"containers": [container], **({"nodeName": NODE} if scheduled else {})},
        }
        return [Write(verb="POST", path=f"/api/v1/namespaces/{namespace}/pods", body=body)]

    return act


def pod_running(pod: str) -> Action:
    def act(namespace: str, moment: Moment) -> list[Write]:
        state = {"running": {"startedAt": seconds(moment.now)}}
        return [_status(namespace, pod, _pod_status(moment, state=state, ready=True))]

    return act


def pod_not_ready(pod: str) -> Action:
    """Runs, and its readiness probe says no."""

    def act(namespace: str, moment: Moment) -> list[Write]:
        state = {"running": {"startedAt": seconds(moment.now)}}
        return [_status(namespace, pod, _pod_status(moment, state=state))]

    return act


def container_ended(pod: str, *, reason: str, exit_code: int) -> Action:
    """Ended and not restarted yet: `state` says why, `restartCount` does not."""

    def act(namespace: str, moment: Moment) -> list[Write]:
        state = {"terminated": _terminated(moment, reason, exit_code)}
        return [_status(namespace, pod, _pod_status(moment, state=state))]

    return act


def container_restarted(
    pod: str, *, reason: str, exit_code: int, count: int, looping: bool = False, ended_ago_s: float = 0.0
) -> Action:
    """Restarted, or waiting in CrashLoopBackOff to be: `lastState` says why."""

    def act(namespace: str, moment: Moment) -> list[Write]:
        waiting = {"reason": "CrashLoopBackOff", "message": f"back-off 10s restarting failed container=app pod={pod}"}
        state = {"waiting": waiting} if looping else {"running": {"startedAt": seconds(moment.now)}}
        last = {"terminated": _terminated(moment, reason, exit_code, ended_ago_s=ended_ago_s)}
        return [_status(namespace, pod, _pod_status(moment, state=state, last=last, count=count, ready=not looping))]

    return act


def image_not_pulled(pod: str) -> Action:
    def act(namespace: str, moment: Moment) -> list[Write]:
        state = {"waiting": {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{IMAGE}"'}}
        return [_status(namespace, pod, _pod_status(moment, state=state, phase="Pending"))]

    return act


def kubelet_event(pod: str, *, reason: str, message: str, kind: str = "Warning", count: int = 1) -> Action:
    """A core/v1 Event as client-go's recorder writes it: created once, then patched with a rising `count`."""

    def act(namespace: str, moment: Moment) -> list[Write]:
        name = f"{pod}.{zlib.crc32(f'{reason} {message}'.encode()):08x}"
        path = f"/api/v1/namespaces/{namespace}/events"
        now = seconds(moment.now)
        if count > 1:
            return [Write(verb="PATCH", path=f"{path}/{name}", body={"count": count, "lastTimestamp": now})]
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {**_reference(namespace, pod, moment), "fieldPath": "spec.containers{app}"},
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "eventTime": None,
            "source": {"component": "kubelet", "host": NODE},
            "reportingComponent": "kubelet",
            "reportingInstance": NODE,
        }
        return [Write(verb="POST", path=path, body=body)]

    return act


# --- scheduler --------------------------------------------------------------------------------------------------

UNSCHEDULABLE: Final = "0/3 nodes are available: 3 Insufficient memory. preemption: not eligible."


def pod_unschedulable(pod: str) -> Action:
    def act(namespace: str, moment: Moment) -> list[Write]:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": UNSCHEDULABLE,
            "lastTransitionTime": seconds(moment.now),
        }
        return [_status(namespace, pod, {"phase": "Pending", "conditions": [condition]})]

    return act


def failed_scheduling(pod: str, *, count: int = 1) -> Action:
    """An events.k8s.io/v1 Event: microsecond `eventTime`, repeats in `series`."""

    def act(namespace: str, moment: Moment) -> list[Write]:
        name = f"{pod}.{zlib.crc32(UNSCHEDULABLE.encode()):08x}"
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        now = moment.now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if count > 1:
            series = {"count": count, "lastObservedTime": now}
            return [Write(verb="PATCH", path=f"{path}/{name}", body={"series": series})]
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "regarding": _reference(namespace, pod, moment),
            "reason": "FailedScheduling",
            "action": "Scheduling",
            "note": UNSCHEDULABLE,
            "type": "Warning",
            "eventTime": now,
            "reportingController": "default-scheduler",
            "reportingInstance": "default-scheduler-control-plane",
        }
        return [Write(verb="POST", path=path, body=body)]

    return act


# --- shapes -----------------------------------------------------------------------------------------------------


def seconds(moment: datetime) -> str:
    """A metav1.Time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reference(namespace: str, pod: str, moment: Moment) -> Object:
    uid = moment.uids[f"{namespace}/{pod}"]
    return {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": pod, "uid": uid}


def _terminated(moment: Moment, reason: str, exit_code: int, *, ended_ago_s: float = 0.0) -> Object:
    ended = seconds(moment.now - timedelta(seconds=ended_ago_s))
    return {"reason": reason, "exitCode": exit_code, "startedAt": ended, "finishedAt": ended}


def _pod_status(
    moment: Moment,
    *,
    state: Object,
    last: Object | None = None,
    count: int = 0,
    ready: bool = False,
    phase: str = "Running",
) -> Object:
    now = seconds(moment.now)
    answer = "True" if ready else "False"
    conditions = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
        {"type": "Ready", "status": answer, "lastTransitionTime": now},
    ]
    container = {
        "name": "app",
        "image": IMAGE,
        "imageID": "",
        "ready": ready,
        "restartCount": count,
        "state": state,
        "lastState": last or {},
    }
    return {"phase": phase, "startTime": now, "conditions": conditions, "containerStatuses": [container]}


def _status(namespace: str, pod: str, status: Object) -> Write:
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/status"
    return Write(verb="PATCH", path=path, body={"status": status})
