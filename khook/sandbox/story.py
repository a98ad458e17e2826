"""What the pods do in `khook demo`: a timed list of steps, and the calls that each incident must lead to.

A step says what a kubelet, a scheduler or a person would write to the API server at that second; `writes` turns it
into requests and does no I/O. The shapes follow pkg/kubelet (events.go, kuberuntime), client-go's two event
recorders (core/v1 with `count`, events.k8s.io/v1 with `series`) and the scheduler's FailedScheduling.

`expected` is computed from what the steps show and from the Hooks' entries, `compare` sets it against the record of
the agents, prompts included. A call about a group may be named after any of its pods, and there must be one. Nothing
here knows khook: a lost or repeated call cannot be explained away.
"""

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from khook.core.signal import EventType
from khook.sandbox.kagent import Run

AGENT_NAMESPACE: Final = "kagent"
"""Where a bare `agentId` lives."""

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


@dataclass(frozen=True, slots=True, order=True)
class Expected:
    """One call that must be made once: (hook `namespace/name`, event type, resource, agent `namespace/name`)."""

    hook: str
    event_type: str
    resource: str
    """A pod; or of a group its owner, as `Kind name`."""
    agent: str
    opening: str = field(default="", compare=False)
    """How its prompt begins: up to the first field that only the event fills in."""
    pods: frozenset[str] = field(default=frozenset(), compare=False)
    """Of a group: those that fail. The call is named after one of them."""

    @property
    def namespace(self) -> str:
        return self.hook.split("/")[0]

    def __str__(self) -> str:
        return f"{self.hook} {self.event_type} {self.resource} -> {self.agent}"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`lost`: expected, never called. `repeated`: one entry for each call too many. `unexpected`: nobody's call.

    `misworded`: one entry for each call whose prompt is not its entry's.
    """

    lost: tuple[Expected, ...]
    repeated: tuple[Expected, ...]
    unexpected: tuple[Expected, ...]
    misworded: tuple[Expected, ...] = ()

    @property
    def clean(self) -> bool:
        return not (self.lost or self.repeated or self.unexpected or self.misworded)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """Pods that failed together, and the calls about any of them."""

    pods: int
    calls: int


def expected(story: Story) -> list[Expected]:
    """Every incident that a step shows and a Hook's entry asks for, once for each such entry."""
    steps = (*story.steps, *story.crash_loop.encore)
    return sorted(
        one
        for hook in story.hooks
        for entry in hook["spec"]["eventConfigurations"]
        for one in _of_entry(hook, entry, [step for step in steps if step.namespace == hook["metadata"]["namespace"]])
    )


def _of_entry(hook: Object, entry: Object, steps: Sequence[Step]) -> list[Expected]:
    """A call for each pod that shows what the entry asks for, or for each owner of such pods where it groups."""
    groups: dict[str, set[str]] = {}
    for step in steps:
        if step.shows is not None and step.shows.value == entry["eventType"]:
            owner = step.owner if entry.get("groupBy") == "Owner" else ""
            groups.setdefault(owner or step.pod, set()).add(step.pod)
    namespace, event_type, agent = hook["metadata"]["namespace"], entry["eventType"], qualified(entry["agentId"])
    return [
        Expected(
            f"{namespace}/{hook['metadata']['name']}",
            event_type,
            resource,
            agent,
            opening(
                entry["prompt"], namespace=namespace, pod=resource if resource in pods else "", event_type=event_type
            ),
            pods=frozenset() if resource in pods else frozenset(pods),
        )
        for resource, pods in groups.items()
    ]


def qualified(agent: str) -> str:
    """`namespace/name`: as kagent's own protocol names an agent that a Hook names with or without a namespace."""
    return agent if "/" in agent else f"{AGENT_NAMESPACE}/{agent}"


def opening(prompt: str, *, namespace: str, pod: str, event_type: str) -> str:
    """The beginning of an entry's prompt as an agent must receive it. `pod` is empty where it may be one of several."""
    known = {"{{.ResourceName}}": pod, "{{.Namespace}}": namespace, "{{.EventType}}": event_type}
    for written, value in known.items():
        if value:
            prompt = prompt.replace(written, value)
    return re.split(r"\{\{", prompt, maxsplit=1)[0]


def compare(wanted: Sequence[Expected], runs: Sequence[Run]) -> Verdict:
    """The agents' own record, of either protocol, against the story. A run's Hook is found by its namespace."""
    hooks = {one.namespace: one.hook for one in wanted}
    owners = {(one.hook, one.event_type, pod): one.resource for one in wanted for pod in one.pods}
    wanted_of = {one: one for one in wanted}
    made: Counter[Expected] = Counter()
    misworded: list[Expected] = []
    for run in runs:
        context = run.context
        hook = hooks.get(context["namespace"], f"{context['namespace']}/?")
        event_type, pod = context["eventName"], context["resourceName"]
        one = Expected(hook, event_type, owners.get((hook, event_type, pod), pod), qualified(run.agent))
        made[one] += 1
        if not _is_worded(run.prompt, wanted_of.get(one, one)):
            misworded.append(one)
    known = set(wanted)
    return Verdict(
        lost=tuple(sorted(known - set(made))),
        repeated=tuple(sorted(one for one, times in made.items() if one in known for _ in range(times - 1))),
        unexpected=tuple(sorted(one for one, times in made.items() if one not in known for _ in range(times))),
        misworded=tuple(sorted(misworded)),
    )


def _is_worded(prompt: str, wanted: Expected) -> bool:
    """The entry's prompt, rendered; one about a group names more than the pod that it is named after."""
    names_group = not wanted.pods or sum(pod in prompt for pod in wanted.pods) > 1
    return "{{" not in prompt and prompt.startswith(wanted.opening) and names_group


def storm(wanted: Sequence[Expected], runs: Sequence[Run]) -> Storm:
    """The pods that had to be one call for each of their owners, and the calls that they were."""
    pods = {(one.namespace, one.event_type, pod) for one in wanted for pod in one.pods}
    contexts = [run.context for run in runs]
    asked = [(one["namespace"], one["eventName"], one["resourceName"]) for one in contexts]
    return Storm(pods=len(pods), calls=sum(one in pods for one in asked))


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
