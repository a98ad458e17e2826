"""The one story that `khook demo` tells: four teams, four Hooks, two agents, and a bad minute.

Half-way through its first quarter a worker is killed. Before it, six incidents open; while its slot is empty and after,
four more do, and the first go on making noise, which must call nobody again. Between them stands what a healthy cluster
says. About then one agent is away for several seconds: two of the four incidents are its own, so their calls have to
wait. All the while the worker of the fourth team is killed whenever it comes back, until its slot is broken: one
incident more, in its namespace, shows that another worker has it. At the end the first team rolls out a version of
which no pod stays up: its Hook groups by owner, so that the storm is one incident, of the Deployment, and one call.
"""

from dataclasses import replace
from typing import Final

from khook.core.signal import EventType
from khook.sandbox.reckoning import qualified
from khook.sandbox.rollout import (
    DEPLOYMENT,
    deployment_applied,
    replica_created,
    replica_names,
    replica_set_created,
)
from khook.sandbox.story import (
    IMAGE,
    Action,
    CrashLoop,
    Object,
    Outage,
    Step,
    Story,
    container_ended,
    container_restarted,
    failed_scheduling,
    image_not_pulled,
    kubelet_event,
    namespace_with_hook,
    pod_created,
    pod_not_ready,
    pod_running,
    pod_unschedulable,
)

RESPONDER: Final = "incident-responder"
PLANNER: Final = "capacity-planner"
AGENTS: Final = (RESPONDER, PLANNER)

_RESTART = EventType.POD_RESTART
_PENDING = EventType.POD_PENDING
_OOM = EventType.OOM_KILL
_PROBE = EventType.PROBE_FAILED


def _hook(namespace: str, name: str, *entries: Object) -> Object:
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Hook",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"eventConfigurations": list(entries)},
    }


def _entry(event_type: EventType, agent: str, prompt: str, **fields: str) -> Object:
    return {"eventType": event_type.value, "agentId": agent, "prompt": prompt, **fields}


HOOKS: Final = (
    _hook(
        "shop",
        "storefront",
        _entry(
            _RESTART,
            RESPONDER,
            "Pod {{.ResourceName}} in {{.Namespace}} restarted at {{.EventTime}}: {{.EventMessage}}",
            groupBy="Owner",
        ),
        _entry(_OOM, PLANNER, "OOM kill of {{.ResourceName}} at {{.EventTime}}. Which memory limit does it need?"),
    ),
    _hook(
        "payments",
        "month-end",
        _entry(_PENDING, PLANNER, "{{.ResourceName}} cannot run ({{.Reason}}): {{.Message}}"),
        _entry(_RESTART, RESPONDER, "{{.ResourceName}} restarted at {{.Timestamp}} during month end. Find out why."),
    ),
    _hook(
        "search",
        "latency",
        _entry(_PROBE, RESPONDER, "{{.EventType}} on {{.ResourceName}}: {{.EventMessage}}"),
        _entry(_OOM, PLANNER, "The index of {{.Namespace}}/{{.ResourceName}} ran out of memory at {{.EventTime}}."),
    ),
    _hook(
        "batch",
        "nightly",
        _entry(
            _RESTART, RESPONDER, "The nightly job {{.ResourceName}} restarted: {{.EventMessage}}. Does it lose data?"
        ),
    ),
)

HEALTHY: Final = (
    "shop/web-1",
    "shop/cart-1",
    "shop/orders-1",
    "payments/ledger-1",
    "search/query-1",
    "search/query-2",
    "search/index-1",
    "batch/import-1",
    "batch/export-1",
)


def _opening() -> list[Step]:
    steps = [
        Step(
            at_s=0.0,
            namespace=hook["metadata"]["namespace"],
            words=f"Hook {hook['metadata']['name']} is applied",
            action=namespace_with_hook(hook),
        )
        for hook in HOOKS
    ]
    for where in HEALTHY:
        pod = where.split("/")[1]
        steps += [
            _step(0.5, where, "", pod_created(pod)),
            _step(0.6, where, "", _normal(pod, "Scheduled", f"Successfully assigned {pod}")),
            _step(0.8, where, "", _normal(pod, "Pulled", f'Pulled image "{IMAGE}"')),
            _step(1.0, where, "runs", pod_running(pod)),
            _step(1.1, where, "", _normal(pod, "Started", "Started container app")),
        ]
    return steps


def _step(at_s: float, where: str, words: str, action: Action, *, shows: EventType | None = None) -> Step:
    """`where` is namespace/pod."""
    namespace, pod = where.split("/")
    told = f"{pod} {words}" if words else ""
    return Step(at_s=at_s, namespace=namespace, pod=pod, words=told, action=action, shows=shows)


def _normal(pod: str, reason: str, message: str) -> Action:
    return kubelet_event(pod, reason=reason, message=message, kind="Normal")


def _back_off(pod: str, *, count: int = 1) -> Action:
    return kubelet_event(
        pod, reason="BackOff", message=f"Back-off restarting failed container app in pod {pod}", count=count
    )


def _image_back_off(pod: str, *, count: int = 1) -> Action:
    return kubelet_event(pod, reason="BackOff", message=f'Back-off pulling image "{IMAGE}"', kind="Normal", count=count)


def _readiness(pod: str, *, count: int = 1) -> Action:
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    return kubelet_event(pod, reason="Unhealthy", message=message, count=count)


def _liveness(pod: str) -> Action:
    message = "Liveness probe failed: HTTP probe failed with statuscode: 500"
    return kubelet_event(pod, reason="Unhealthy", message=message)


def _killed_for_liveness(pod: str) -> Action:
    return _normal(pod, "Killing", "Container app failed liveness probe, will be restarted")


def _crashed(pod: str, *, count: int, looping: bool = False) -> Action:
    return container_restarted(pod, reason="Error", exit_code=1, count=count, looping=looping)


def _oom_looping(pod: str, *, count: int, ended_ago_s: float = 0.0) -> Action:
    return container_restarted(
        pod, reason="OOMKilled", exit_code=137, count=count, looping=True, ended_ago_s=ended_ago_s
    )


def _oom_killed(pod: str) -> Action:
    return container_ended(pod, reason="OOMKilled", exit_code=137)


def _before_the_kill() -> list[Step]:
    return [
        _step(1.3, "batch/import-1", "crashes and is restarted", _crashed("import-1", count=1), shows=_RESTART),
        _step(1.4, "batch/import-1", "backs off", _back_off("import-1"), shows=_RESTART),
        _step(1.5, "shop/web-1", "crashes and is restarted", _crashed("web-1", count=1), shows=_RESTART),
        _step(1.7, "shop/web-1", "backs off", _back_off("web-1"), shows=_RESTART),
        _step(2.5, "payments/report-1", "is created", pod_created("report-1", scheduled=False)),
        _step(2.7, "payments/report-1", "fits no node", failed_scheduling("report-1"), shows=_PENDING),
        _step(2.8, "payments/report-1", "hangs in Pending", pod_unschedulable("report-1"), shows=_PENDING),
        _step(3.5, "shop/cart-1", "is OOM-killed", _oom_killed("cart-1"), shows=_OOM),
        _step(
            4.1, "shop/cart-1", "waits for its restart", _oom_looping("cart-1", count=1, ended_ago_s=0.6), shows=_OOM
        ),
        _step(4.7, "shop/cart-1", "backs off", _back_off("cart-1"), shows=_OOM),
        _step(5.0, "search/query-1", "fails its readiness probe", _readiness("query-1"), shows=_PROBE),
        _step(5.1, "search/query-1", "is not ready", pod_not_ready("query-1")),
        _step(
            6.0, "payments/ledger-1", "restarts, and no Event says so", _crashed("ledger-1", count=1), shows=_RESTART
        ),
        _step(7.0, "shop/web-1", "backs off again", _back_off("web-1", count=2), shows=_RESTART),
        _step(7.5, "search/query-1", "fails its probe again", _readiness("query-1", count=2), shows=_PROBE),
        _step(8.0, "payments/report-1", "still fits no node", failed_scheduling("report-1", count=2), shows=_PENDING),
        _step(8.5, "shop/cart-1", "backs off again", _back_off("cart-1", count=2), shows=_OOM),
    ]


def _after_the_kill() -> list[Step]:
    return [
        _step(9.1, "search/index-1", "is OOM-killed", _oom_killed("index-1"), shows=_OOM),
        _step(9.2, "shop/orders-1", "crashes and is restarted", _crashed("orders-1", count=1), shows=_RESTART),
        _step(9.3, "payments/invoice-1", "is created", pod_created("invoice-1")),
        _step(9.5, "payments/invoice-1", "cannot pull its image", _image_back_off("invoice-1"), shows=_PENDING),
        _step(9.6, "payments/invoice-1", "hangs in Pending", image_not_pulled("invoice-1"), shows=_PENDING),
        _step(11.0, "search/query-2", "fails its liveness probe", _liveness("query-2"), shows=_PROBE),
        _step(11.5, "search/query-2", "is killed for it", _killed_for_liveness("query-2"), shows=_RESTART),
        _step(12.0, "search/query-2", "is restarted", _crashed("query-2", count=1), shows=_RESTART),
        _step(13.0, "shop/web-1", "crashes again", _crashed("web-1", count=2, looping=True), shows=_RESTART),
        _step(13.2, "shop/web-1", "backs off again", _back_off("web-1", count=3), shows=_RESTART),
        _step(13.5, "search/query-1", "fails its probe again", _readiness("query-1", count=3), shows=_PROBE),
        _step(14.0, "payments/report-1", "still fits no node", failed_scheduling("report-1", count=3), shows=_PENDING),
        _step(14.2, "payments/invoice-1", "backs off again", _image_back_off("invoice-1", count=2), shows=_PENDING),
        _step(14.5, "shop/cart-1", "is OOM-killed again", _oom_looping("cart-1", count=2), shows=_OOM),
        _step(
            15.0,
            "search/index-1",
            "waits for its restart",
            _oom_looping("index-1", count=1, ended_ago_s=5.9),
            shows=_OOM,
        ),
        _step(15.2, "search/index-1", "backs off", _back_off("index-1"), shows=_OOM),
        _step(15.5, "payments/ledger-1", "restarts again", _crashed("ledger-1", count=2), shows=_RESTART),
        _step(16.0, "shop/orders-1", "backs off", _back_off("orders-1"), shows=_RESTART),
    ]


ROLLOUT_AT_S: Final = 44.0
"""The parked calls have been made and answered by then; its own call comes with what follows the broken slot."""
CHECKOUT: Final = "checkout"
CHECKOUT_SET: Final = f"{CHECKOUT}-6c9f7d8b54"
CHECKOUT_PODS: Final = tuple(replica_names(CHECKOUT_SET, 40))
# One after the other, and the last well inside the 5 s for which the call of a group waits for more of its pods.
CRASHES_AT_S: Final = ROLLOUT_AT_S + 1.5
CRASHES_FOR_S: Final = 3.0


def _rollout() -> list[Step]:
    count, where = len(CHECKOUT_PODS), f"shop/{CHECKOUT}"
    told = {0: "crash-loops", count - 1: f"crash-loops, the last of {count}"}
    steps = [
        _step(ROLLOUT_AT_S, where, f"rolls out {count} pods", deployment_applied(CHECKOUT, replicas=count)),
        _step(ROLLOUT_AT_S, where, "", replica_set_created(CHECKOUT_SET, deployment=CHECKOUT, replicas=count)),
    ]
    for number, pod in enumerate(CHECKOUT_PODS):
        turn = number / count
        made_at_s, crashes_at_s = ROLLOUT_AT_S + 0.1 + turn, CRASHES_AT_S + CRASHES_FOR_S * turn
        crash = _crashed(pod, count=1, looping=True)
        steps += [
            _of_checkout(made_at_s, pod, "", replica_created(pod, replica_set=CHECKOUT_SET)),
            _of_checkout(crashes_at_s, pod, told.get(number, ""), crash, shows=_RESTART),
            _of_checkout(crashes_at_s + 0.3, pod, "", _back_off(pod), shows=_RESTART),
        ]
    return steps


def _of_checkout(at_s: float, pod: str, words: str, action: Action, *, shows: EventType | None = None) -> Step:
    return replace(_step(at_s, f"shop/{pod}", words, action, shows=shows), owner=f"{DEPLOYMENT} {CHECKOUT}")


_STEPS = [*_opening(), *_before_the_kill(), *_after_the_kill(), *_rollout()]

OUTAGE: Final = Outage(agent=qualified(PLANNER), from_s=8.5, until_s=16.0)
"""Longer than the attempts of one delivery take, and over before the first of the breaker's probes half a minute on."""

CRASH_LOOP: Final = CrashLoop(
    namespace="batch",
    from_s=2.2,
    encore=(
        _step(0.0, "batch/import-1", "crashes again", _crashed("import-1", count=2, looping=True), shows=_RESTART),
        _step(0.5, "batch/export-1", "crashes and is restarted", _crashed("export-1", count=1), shows=_RESTART),
        _step(1.0, "batch/export-1", "backs off", _back_off("export-1"), shows=_RESTART),
    ),
)
"""Once the first call of the namespace is made: the pool's own back-off takes some 46 s to break a slot."""

DEMO: Final = Story(
    hooks=HOOKS,
    steps=tuple(sorted(_STEPS, key=lambda step: step.at_s)),
    kill_at_s=9.0,
    outage=OUTAGE,
    crash_loop=CRASH_LOOP,
)
