"""Kubernetes objects as kubelet, scheduler and users write them, one function a shape."""

from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

PROMPT = "{{.EventType}} of {{.ResourceName}} in {{.Namespace}}: {{.Reason}}: {{.EventMessage}}"


def rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def entry(event_type: str, agent: str = "agent", **fields: Any) -> Json:
    return {"eventType": event_type, "agentId": agent, "prompt": PROMPT} | fields


def hook(name: str, *entries: Json, namespace: str, **spec: Any) -> Json:
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Hook",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"eventConfigurations": list(entries)} | spec,
    }


def workload(api_version: str, kind: str, name: str, *, namespace: str, owner: Json | None = None) -> Json:
    """A controller of pods, or of such a one; `owner` is its own controller, as the API server answered it."""
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app:1"}]},
    }
    spec: Json = {"template": template}
    match kind:
        case "Job":
            template["spec"]["restartPolicy"] = "Never"  # type: ignore[index]
        case "CronJob":
            template["spec"]["restartPolicy"] = "Never"  # type: ignore[index]
            spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}
        case "StatefulSet":
            spec |= {"selector": {"matchLabels": labels}, "serviceName": name}
        case _:
            spec |= {"selector": {"matchLabels": labels}}
    metadata = {"name": name, "namespace": namespace} | controlled_by(owner)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def controlled_by(owner: Json | None) -> Json:
    """The part of an object's metadata that names its controller."""
    if owner is None:
        return {}
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    return {"ownerReferences": [reference | {key: owner["metadata"][key] for key in ("name", "uid")}]}


def pod(
    name: str,
    *,
    namespace: str,
    labels: dict[str, str] | None = None,
    containers: tuple[str, ...] = ("app",),
    owner: Json | None = None,
) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}} | controlled_by(owner),
        "spec": {
            "containers": [
                {"name": container, "image": "registry.example/app:1", "resources": {"limits": {"memory": "64Mi"}}}
                for container in containers
            ]
        },
    }


def running(*, now: datetime, ready: bool = True, container: str = "app", restarts: int = 0) -> Json:
    """The status of a pod that is well, or up and not Ready."""
    return {
        "phase": "Running",
        "startTime": rfc3339(now),
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(now)},
            {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": rfc3339(now)},
        ],
        "containerStatuses": [
            container_status(container, ready=ready, restarts=restarts, state={"running": {"startedAt": rfc3339(now)}})
        ],
    }


def container_status(name: str, *, ready: bool, restarts: int, state: Json, last_state: Json | None = None) -> Json:
    return {
        "name": name,
        "image": "registry.example/app:1",
        "imageID": "sha256:1",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last_state or {},
    }


def restarted(
    *, now: datetime, reason: str = "Error", exit_code: int = 1, restarts: int = 1, container: str = "app"
) -> Json:
    """Running again after a termination."""
    status = running(now=now, container=container)
    last = {"terminated": terminated(reason=reason, exit_code=exit_code, now=now)}
    status["containerStatuses"] = [
        container_status(
            container,
            ready=True,
            restarts=restarts,
            state={"running": {"startedAt": rfc3339(now)}},
            last_state=last,
        )
    ]
    return status


def crash_looping(
    *, now: datetime, reason: str = "Error", exit_code: int = 1, restarts: int = 1, container: str = "app"
) -> Json:
    """Waiting in CrashLoopBackOff after a termination."""
    status = running(now=now, ready=False, container=container)
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    last = {"terminated": terminated(reason=reason, exit_code=exit_code, now=now)}
    status["containerStatuses"] = [
        container_status(container, ready=False, restarts=restarts, state=waiting, last_state=last)
    ]
    return status


def terminated(*, reason: str, exit_code: int, now: datetime) -> Json:
    return {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": rfc3339(now),
        "finishedAt": rfc3339(now),
        "containerID": "containerd://1",
    }


def unschedulable(*, now: datetime, reason: str = "Unschedulable") -> Json:
    return {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": "0/3 nodes are available: 3 Insufficient cpu.",
                "lastTransitionTime": rfc3339(now),
            }
        ],
    }


def scheduled(*, now: datetime) -> Json:
    """On its node, and nothing says yet what it waits for."""
    condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(now)}
    return {"phase": "Pending", "conditions": [condition]}


def event(
    reason: str,
    message: str,
    *,
    of: Json,
    now: datetime,
    type: str = "Warning",  # noqa: A002 - the field's name
    name: str = "",
    component: str = "kubelet",
    count: int = 1,
    container: str | None = "app",
) -> Json:
    """A core/v1 Event as the kubelet's recorder writes it (`eventTime` null)."""
    meta = of["metadata"]
    involved = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "namespace": meta["namespace"]}
    involved["uid"] = meta["uid"]
    if container is not None:
        involved["fieldPath"] = f"spec.containers{{{container}}}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "namespace": meta["namespace"],
            "name": name or f"{meta['name']}.{reason.lower()}.{int(now.timestamp() * 1e6):x}",
        },
        "involvedObject": involved,
        "reason": reason,
        "message": message,
        "type": type,
        "count": count,
        "firstTimestamp": rfc3339(now),
        "lastTimestamp": rfc3339(now),
        "source": {"component": component, "host": "node-1"},
        "reportingComponent": component,
        "reportingInstance": "node-1",
    }


def scheduling_event(*, of: Json, now: datetime, message: str = "0/3 nodes are available: 3 Insufficient cpu.") -> Json:
    """An events.k8s.io/v1 Event as the scheduler's recorder writes it."""
    meta = of["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": meta["namespace"], "name": f"{meta['name']}.{int(now.timestamp() * 1e6):x}"},
        "eventTime": micro(now),
        "reportingController": "default-scheduler",
        "reportingInstance": "default-scheduler-node-0",
        "action": "Scheduling",
        "reason": "FailedScheduling",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "note": message,
        "type": "Warning",
    }
