"""What users, kubelets and the scheduler do in a world, and the evidence that each step is.

They write past every fault: an API server that khook cannot reach may well serve others, and what happens while
nobody looks is what has to be found afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
from support.cluster import HOOKS
from support.objects import (
    Json,
    crash_looping,
    entry,
    event,
    hook,
    pod,
    restarted,
    rfc3339,
    running,
    scheduled,
    scheduling_event,
    unschedulable,
    workload,
)

from khook.sandbox.api_answers import answer
from khook.sandbox.api_routes import parse
from khook.sandbox.exchange import Request
from khook.sandbox.store import Store
from sim.history import EntryLife, History, Spell, Told
from sim.plan import Change, Edit, EntryPlan, HookPlan, How, PodPlan, Tell, Trouble, WorldPlan
from sim.replica import HOME

MERGE: Final = {"content-type": "application/merge-patch+json"}
AGENT_NAMESPACE: Final = "kagent"
STUCK_S: Final = 60.0 - 2.5
"""KHOOK_STUCK_PENDING, after which a pod that is Pending without a reason is a signal; by a clock that may be ahead."""

_EVENTS: Final = {
    Trouble.CRASH: ("BackOff", "Back-off restarting failed container app in pod", "Warning"),
    Trouble.OOM: ("BackOff", "Back-off restarting failed container app in pod", "Warning"),
    Trouble.IMAGE: ("BackOff", 'Back-off pulling image "registry.example/app:1"', "Normal"),
    Trouble.PROBE: ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", "Warning"),
    Trouble.KILLED: ("Killing", "Container app failed liveness probe, will be restarted", "Normal"),
}
_LEVELS: Final = frozenset({Trouble.UNSCHEDULABLE, Trouble.IMAGE, Trouble.QUIET})
_VERSIONS: Final = {"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "Job": "batch/v1", "CronJob": "batch/v1"}
"""Of the owners that are there to be read; others are names in their pods alone."""


class Cluster:
    """Writes straight into the store, as kubectl and kubelets would."""

    def __init__(self, store: Store, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def request(self, method: str, path: str, body: Json | None = None, headers: dict[str, str] | None = None) -> Json:
        request = Request(
            method=method,
            path=path,
            query={},
            headers=headers or {"content-type": "application/json"},
            body=b"" if body is None else orjson.dumps(body),
        )
        response = answer(self._store, parse(self._store, request), now=self._now())
        assert isinstance(response.body, bytes)
        found: Json = orjson.loads(response.body)
        return found

    def create(self, path: str, body: Json) -> Json:
        return self.request("POST", path, body)

    def patch(self, path: str, body: Json) -> Json:
        return self.request("PATCH", path, body, MERGE)

    def delete(self, path: str) -> None:
        self.request("DELETE", path, {"gracePeriodSeconds": 0})

    def get(self, path: str) -> Json:
        return self.request("GET", path)


@dataclass(slots=True)
class _Pod:
    plan: PodPlan
    made: Json | None = None
    restarts: int = 0
    event: Json | None = None
    repeats: int = 1
    pending: bool = False
    spell: Spell | None = None
    facts: list[int] = None  # type: ignore[assignment]
    """Where in `History.told` what this pod shows stands."""


class Story:
    """Carries out `Edit`s and `Tell`s, and writes down what was told and which entries stood when."""

    def __init__(
        self,
        plan: WorldPlan,
        *,
        cluster: Cluster,
        history: History,
        at_s: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._plan = plan
        self._cluster = cluster
        self._history = history
        self._at_s = at_s
        self._now = now
        self._pods = {one.key: _Pod(one, facts=[]) for one in plan.pods}
        self._hooks: dict[str, HookPlan] = {f"{one.namespace}/{one.name}": one for one in plan.hooks}
        self._uids: dict[str, str] = {}
        self._owners: dict[tuple[str, str], Json] = {}

    def begin(self) -> None:
        for namespace in dict.fromkeys((HOME, *(one.namespace for one in self._plan.hooks))):
            self._cluster.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
        later = {edit.hook for edit in self._plan.edits if edit.change is Change.CREATE}
        for key, one in self._hooks.items():
            if key not in later:
                self._create(key, one)
        for pod_ in self._pods.values():
            self._controller(pod_.plan)
            if pod_.plan.trouble not in _LEVELS:
                self._make(pod_, running(now=self._now()))

    # Owners.

    def _controller(self, one: PodPlan) -> Json | None:
        """What its pod names; made, with who made it, when it is first asked for."""
        if not one.controller:
            return None
        made_by = None if one.owner == one.controller else self._owner(one.namespace, one.owner, made_by=None)
        return self._owner(one.namespace, one.controller, made_by=made_by)

    def _owner(self, namespace: str, key: str, *, made_by: Json | None) -> Json:
        if (namespace, key) not in self._owners:
            kind, _, name = key.partition("/")
            version = _VERSIONS.get(kind, "apps/v1")
            made = workload(version, kind, name, namespace=namespace, owner=made_by)
            if kind in _VERSIONS:
                made = self._cluster.create(f"/apis/{version}/namespaces/{namespace}/{kind.lower()}s", made)
            else:
                made["metadata"]["uid"] = f"uid-of-{namespace}-{name}"
            self._owners[namespace, key] = made
        return self._owners[namespace, key]

    # Hooks.

    def edit(self, edit: Edit) -> None:
        one = self._hooks[edit.hook]
        path = f"{HOOKS.format(one.namespace)}/{one.name}"
        if edit.change is not Change.CREATE and edit.hook not in self._uids:
            return
        match edit.change:
            case Change.CREATE:
                self._create(edit.hook, one)
            case Change.DELETE:
                self._cluster.delete(path)
                del self._uids[edit.hook]
                self._end(edit.hook, lambda _: True)
            case Change.REPLACE:
                self._cluster.delete(path)
                self._end(edit.hook, lambda _: True)
                self._create(edit.hook, one)
            case Change.SUSPEND:
                self._cluster.patch(path, {"spec": {"suspend": True}})
                for life in self._living(edit.hook):
                    life.suspended.append((self._at_s(), float("inf")))
            case Change.RESUME:
                self._cluster.patch(path, {"spec": {"suspend": False}})
                for life in self._living(edit.hook):
                    life.suspended = [(since, min(until, self._at_s())) for since, until in life.suspended]
            case _:
                self._rewrite(edit, one, path)

    def _rewrite(self, edit: Edit, one: HookPlan, path: str) -> None:
        entries, words = one.entries, "{{.EventMessage}}"
        match edit.change:
            case Change.REWORD:
                words = "Look at this: {{.EventMessage}}"
            case Change.REORDER:
                entries = tuple(reversed(entries))
            case Change.ADD if edit.entry is not None:
                entries = (*entries, edit.entry)
            case Change.REMOVE:
                entries = tuple(kept for kept in entries if kept != edit.entry)
        self._hooks[edit.hook] = replace(one, entries=entries)
        spec = {"eventConfigurations": [_entry(one, words) for one in entries]}
        if not entries:
            self._cluster.delete(path)
            del self._uids[edit.hook]
        else:
            self._cluster.patch(path, {"spec": spec})
        if edit.change is Change.ADD and edit.entry is not None:
            self._history.entries.append(self._life(edit.hook, edit.entry))
        if edit.change is Change.REMOVE and edit.entry is not None:
            gone = (edit.entry.event_type, f"{AGENT_NAMESPACE}/{edit.entry.agent}")
            self._end(edit.hook, lambda life: (life.event_type, life.agent) == gone)

    def touch_all(self) -> None:
        """Somebody labels every Hook."""
        for key in self._uids:
            one = self._hooks[key]
            labels = {"touched": f"{self._at_s():.3f}"}
            self._cluster.patch(f"{HOOKS.format(one.namespace)}/{one.name}", {"metadata": {"labels": labels}})

    def hook_paths(self) -> list[tuple[str, str, str]]:
        """(namespace, uid, path) of those that are there."""
        return [
            (self._hooks[key].namespace, uid, f"{HOOKS.format(self._hooks[key].namespace)}/{self._hooks[key].name}")
            for key, uid in self._uids.items()
        ]

    def _create(self, key: str, one: HookPlan) -> None:
        body = hook(one.name, *(_entry(e, "{{.EventMessage}}") for e in one.entries), namespace=one.namespace)
        made = self._cluster.create(HOOKS.format(one.namespace), body)
        self._uids[key] = made["metadata"]["uid"]
        self._history.entries.extend(self._life(key, e) for e in one.entries)

    def _life(self, key: str, one: EntryPlan) -> EntryLife:
        return EntryLife(
            hook=key,
            uid=self._uids[key],
            event_type=one.event_type,
            agent=f"{AGENT_NAMESPACE}/{one.agent}",
            cooldown_s=one.cooldown_s,
            label=one.label,
            from_s=self._at_s(),
            groups=one.groups,
            hold_s=one.hold_s,
        )

    def _living(self, key: str) -> list[EntryLife]:
        return [life for life in self._history.entries if life.hook == key and life.until_s == float("inf")]

    def _end(self, key: str, which: Callable[[EntryLife], bool]) -> None:
        for life in self._living(key):
            if which(life):
                life.until_s = self._at_s()

    # Pods.

    def tell(self, tell: Tell) -> float | None:
        """Seconds until `quiet_due` of this pod, where one is needed."""
        pod_ = self._pods[tell.pod]
        match tell.how:
            case How.GONE:
                self._recreate(pod_)
            case How.WELL:
                self._well(pod_)
            case How.EVENT:
                self._say(pod_, again=False)
            case How.REPEAT:
                self._say(pod_, again=True)
            case How.STATUS:
                return self._show(pod_)
        return None

    def quiet_due(self, key: str, uid: str) -> None:
        """A pod has been Pending without a word for its time."""
        pod_ = self._pods[key]
        if pod_.made is not None and pod_.made["metadata"]["uid"] == uid and pod_.pending:
            self._told(pod_, is_event=False)

    def uid(self, key: str) -> str:
        made = self._pods[key].made
        return "" if made is None else str(made["metadata"]["uid"])

    def _make(self, pod_: _Pod, status: Json) -> None:
        one = pod_.plan
        made = self._cluster.create(
            f"/api/v1/namespaces/{one.namespace}/pods",
            pod(one.name, namespace=one.namespace, labels={"app": one.label}, owner=self._controller(one)),
        )
        pod_.made, pod_.restarts, pod_.event = made, 0, None
        self._status(pod_, status)

    def _status(self, pod_: _Pod, status: Json) -> None:
        one = pod_.plan
        path = f"/api/v1/namespaces/{one.namespace}/pods/{one.name}/status"
        # A merge patch keeps what it does not name: a kubelet names everything.
        pod_.made = self._cluster.patch(path, {"status": {"containerStatuses": None} | status})

    def _unmake(self, pod_: _Pod) -> None:
        one = pod_.plan
        if pod_.made is not None:
            self._cluster.delete(f"/api/v1/namespaces/{one.namespace}/pods/{one.name}")
            pod_.made = None
            pod_.pending = False
            self._recovers(pod_)
            self._hide(pod_, events_too=True)

    def _hide(self, pod_: _Pod, *, events_too: bool) -> None:
        for index in pod_.facts:
            told = self._history.told[index]
            if told.until_s is None and (events_too or not told.is_event):
                self._history.told[index] = replace(told, until_s=self._at_s())

    def _recreate(self, pod_: _Pod) -> None:
        self._unmake(pod_)
        pod_.facts = []
        if pod_.plan.trouble not in _LEVELS:
            self._make(pod_, running(now=self._now()))

    def _well(self, pod_: _Pod) -> None:
        if pod_.made is not None:
            self._status(pod_, running(now=self._now()))
            pod_.pending = False
            self._recovers(pod_)
            self._hide(pod_, events_too=False)

    def _falls_ill(self, pod_: _Pod) -> None:
        pod_.spell = pod_.spell or Spell(from_s=self._at_s())

    def _recovers(self, pod_: _Pod) -> None:
        if pod_.spell is not None:
            pod_.spell.until_s = self._at_s()
            pod_.spell = None

    def _show(self, pod_: _Pod) -> float | None:
        now, trouble = self._now(), pod_.plan.trouble
        if trouble in _LEVELS:
            if pod_.pending:
                self._say(pod_, again=False)
                return None
            self._recreate(pod_)
            self._make(pod_, _pending(trouble, now))
            pod_.pending = True
            self._falls_ill(pod_)
            if trouble is Trouble.QUIET:
                return STUCK_S
        elif trouble is Trouble.PROBE:
            if pod_.made is None:
                self._make(pod_, running(now=now))
            if pod_.spell is None:
                self._status(pod_, running(now=now, ready=False))
                self._falls_ill(pod_)
            self._say(pod_, again=False)
            return None
        else:
            if pod_.made is None:
                self._make(pod_, running(now=now))
            pod_.restarts += 1
            how = {"reason": "OOMKilled", "exit_code": 137} if trouble is Trouble.OOM else {}
            shape = crash_looping if pod_.restarts % 2 else restarted
            self._status(pod_, shape(now=now, restarts=pod_.restarts, **how))  # type: ignore[arg-type]
        self._told(pod_, is_event=False)
        return None

    def _say(self, pod_: _Pod, *, again: bool) -> None:
        now, trouble = self._now(), pod_.plan.trouble
        if pod_.made is None or trouble is Trouble.QUIET:
            return
        path = f"/api/v1/namespaces/{pod_.plan.namespace}/events"
        if again and pod_.event is not None:
            pod_.repeats += 1
            count = {"count": pod_.repeats, "lastTimestamp": rfc3339(now)}
            self._cluster.patch(f"{path}/{pod_.event['metadata']['name']}", count)
        elif trouble is Trouble.UNSCHEDULABLE:
            body = scheduling_event(of=pod_.made, now=now)
            self._cluster.create(f"/apis/events.k8s.io/v1/namespaces/{pod_.plan.namespace}/events", body)
        else:
            reason, message, kind = _EVENTS[trouble]
            pod_.event = event(reason, message, of=pod_.made, now=now, type=kind)
            pod_.repeats = 1
            self._cluster.create(path, pod_.event)
        self._told(pod_, is_event=True)

    def _told(self, pod_: _Pod, *, is_event: bool) -> None:
        pod_.facts.append(len(self._history.told))
        self._history.told.append(
            Told(
                at_s=self._at_s(),
                namespace=pod_.plan.namespace,
                pod=pod_.plan.name,
                label=pod_.plan.label,
                trouble=pod_.plan.trouble,
                is_event=is_event,
                oom=pod_.plan.trouble is Trouble.OOM and pod_.restarts > 0,
                spell=pod_.spell,
                controller=pod_.plan.controller,
                owner=pod_.plan.owner,
            )
        )


def _pending(trouble: Trouble, now: datetime) -> dict[str, Any]:
    match trouble:
        case Trouble.UNSCHEDULABLE:
            return unschedulable(now=now)
        case Trouble.IMAGE:
            waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "app:1"'}}
            container = {"name": "app", "image": "app:1", "imageID": "", "ready": False, "restartCount": 0}
            return scheduled(now=now) | {"containerStatuses": [container | {"state": waiting, "lastState": {}}]}
        case _:
            return scheduled(now=now)


def _entry(one: EntryPlan, words: str) -> Json:
    more: Json = {"cooldown": f"{one.cooldown_s}s"}
    if one.groups:
        more["groupBy"] = "Owner"
    if one.hold_s:
        more["holdFor"] = f"{one.hold_s}s"
    if one.label:
        more["selector"] = {"matchLabels": {"app": one.label}}
    return entry(one.event_type, one.agent, prompt=f"{{{{.EventType}}}} of {{{{.ResourceName}}}}: {words}", **more)
