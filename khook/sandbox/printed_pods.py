"""A pod's row: how many containers are ready, one word for its state, its restarts and when the last one was.

The word is what people see first in `kubectl get pods` (CrashLoopBackOff, OOMKilled, Init:0/2, Terminating), and the
order in which its sources are looked at is the whole of the rule. Source: `pkg/printers/internalversion` (printPod).
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from khook.sandbox.ages import human, parsed, since

Json = dict[str, Any]


@dataclass(slots=True)
class _Tally:
    """What is counted while one goes over the containers."""

    ready: int = 0
    restarts: int = 0
    last_restart_times: list[datetime] = field(default_factory=list)

    def add(self, status: Json) -> None:
        self.restarts += status.get("restartCount", 0)
        ended = parsed(((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt"))
        if ended is not None:
            self.last_restart_times.append(ended)

    def words(self, now: datetime) -> str:
        if not self.restarts or not self.last_restart_times:
            return str(self.restarts)
        return f"{self.restarts} ({human(now - max(self.last_restart_times))} ago)"


def pod_row(pod: Json, now: datetime) -> list[Any]:
    """Name, Ready, Status, Restarts, Age, IP, Node, Nominated Node, Readiness Gates."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = {one["name"] for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"}
    word, tally = _state(pod, spec, status, sidecars)
    total = len(spec.get("containers") or []) + len(sidecars)
    ips = [one.get("ip") for one in status.get("podIPs") or []]
    return [
        pod["metadata"].get("name", ""),
        f"{tally.ready}/{total}",
        word,
        tally.words(now),
        since(pod["metadata"].get("creationTimestamp"), now),
        next(iter(ips), None) or "<none>",
        spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>",
        _gates(spec, status),
    ]


def _state(pod: Json, spec: Json, status: Json, sidecars: set[str]) -> tuple[str, _Tally]:
    word = status.get("reason") or status.get("phase", "")
    if any(one.get("reason") == "SchedulingGated" for one in _conditions(status, "PodScheduled")):
        word = "SchedulingGated"
    tally = _Tally()
    waits_for = _initializing(spec, status, sidecars, tally)
    if waits_for is None or _is_true(status, "Initialized"):
        after = _Tally(ready=tally.ready)
        for one in status.get("initContainerStatuses") or []:
            if one["name"] in sidecars:
                after.add(one)
        tally = after
        word = _running(status, waits_for or word, tally)
    else:
        word = waits_for
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            word = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            word = "Terminating"
    return word, tally


def _initializing(spec: Json, status: Json, sidecars: set[str], tally: _Tally) -> str | None:
    """The word of the first init container that is not done; None when all are."""
    for index, one in enumerate(status.get("initContainerStatuses") or []):
        tally.add(one)
        state = one.get("state") or {}
        terminated, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason")
        if terminated and not terminated.get("exitCode"):
            continue
        if one["name"] in sidecars and one.get("started"):
            tally.ready += bool(one.get("ready"))
            continue
        if terminated:
            return f"Init:{_how_it_ended(terminated)}"
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(spec.get('initContainers') or [])}"
    return None


def _running(status: Json, word: str, tally: _Tally) -> str:
    """The first container that waits or ended has the word."""
    runs = False
    for one in reversed(status.get("containerStatuses") or []):
        tally.add(one)
        state = one.get("state") or {}
        waiting, terminated = (state.get("waiting") or {}).get("reason"), state.get("terminated")
        if waiting:
            word = waiting
        elif terminated:
            word = _how_it_ended(terminated)
        elif one.get("ready") and state.get("running") is not None:
            runs = True
            tally.ready += 1
    if word == "Completed" and runs:
        return "Running" if _is_true(status, "Ready") else "NotReady"
    return word


def _how_it_ended(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _conditions(status: Json, of_type: str) -> list[Json]:
    return [one for one in status.get("conditions") or [] if one.get("type") == of_type]


def _is_true(status: Json, of_type: str) -> bool:
    return any(one.get("status") == "True" for one in _conditions(status, of_type))


def _gates(spec: Json, status: Json) -> str:
    gates = [one.get("conditionType", "") for one in spec.get("readinessGates") or []]
    return f"{sum(_is_true(status, gate) for gate in gates)}/{len(gates)}" if gates else "<none>"
