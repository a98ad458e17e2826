"""The Tables that `kubectl get` shows: columns, rows and watches, on both API servers."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.api_servers import HOOK_CRD, MERGE, Cluster, install_crd, version, watching

Json = dict[str, Any]

TABLE = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
AGE = re.compile(r"\d+s")
DELETED = "deleted"
POD_SPEC: Json = {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]}
TEMPLATE: Json = {"metadata": {"labels": {"app": "a"}}, "spec": POD_SPEC}
ONCE: Json = {"metadata": {"labels": {"app": "a"}}, "spec": POD_SPEC | {"restartPolicy": "Never"}}
SELECTOR: Json = {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]}


def time(ago_s: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=ago_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(cluster: Cluster, path: str, **params: str) -> Json:
    answer = cluster.admin.get(path, headers=TABLE, params=params)
    assert answer.status_code == 200, answer.text
    shown: Json = answer.json()
    assert (shown["kind"], shown["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    return shown


def columns(shown: Json) -> str:
    """Names, and in brackets those of `-o wide`."""
    names = [(one["name"], one["priority"]) for one in shown["columnDefinitions"]]
    return " ".join(f"({name})" if priority else name for name, priority in names)


def masked(cells: list[Any]) -> list[Any]:
    return ["AGE" if isinstance(cell, str) and AGE.fullmatch(cell) else cell for cell in cells]


def make(cluster: Cluster, path: str, body: Json, status: Json | None = None) -> Json:
    answer = cluster.admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    if status is not None:
        name = body["metadata"]["name"]
        answer = cluster.admin.patch(f"{path}/{name}/status", json={"status": status}, headers=MERGE)
        assert answer.status_code == 200, answer.text
    made: Json = answer.json()
    return made


# -- pods


def running(name: str, *, ready: bool = True, **more: Any) -> Json:
    state = {"running": {"startedAt": "2024-01-01T00:00:00Z"}}
    return {"name": name, "ready": ready, "image": "i", "imageID": "", "restartCount": 0, "state": state} | more


def waiting(name: str, reason: str, **more: Any) -> Json:
    return running(name, ready=False, state={"waiting": {"reason": reason}}, **more)


def terminated(name: str, reason: str = "", *, exit_code: int = 1, signal: int = 0, **more: Any) -> Json:
    ended = {"exitCode": exit_code, "reason": reason, "signal": signal}
    return running(name, ready=False, state={"terminated": ended}, **more)


def ready(status: str) -> list[Json]:
    return [{"type": "Ready", "status": status}, {"type": "Initialized", "status": "True"}]


RESTARTED: Json = {"restartCount": 3, "lastState": {"terminated": {"exitCode": 137, "finishedAt": time(7_260)}}}
SIDECAR: Json = {"name": "s", "image": "i", "restartPolicy": "Always"}
INITIAL: Json = {"initContainers": [{"name": "x", "image": "i"}, {"name": "y", "image": "i"}]}


@pytest.mark.parametrize(
    ("spec", "status", "shown"),
    [
        ({}, {}, ["0/2", "Pending", "0"]),
        ({}, {"phase": "Running", "containerStatuses": [running("c"), running("d")]}, ["2/2", "Running", "0"]),
        (
            {},
            {"phase": "Running", "containerStatuses": [waiting("c", "CrashLoopBackOff", **RESTARTED), running("d")]},
            ["1/2", "CrashLoopBackOff", "3 (121m ago)"],
        ),
        (
            {},
            {"phase": "Running", "containerStatuses": [terminated("c", "OOMKilled", restartCount=2), running("d")]},
            ["1/2", "OOMKilled", "2"],
        ),
        (
            {},
            {"phase": "Failed", "containerStatuses": [terminated("c", signal=9), terminated("d", exit_code=3)]},
            ["0/2", "Signal:9", "0"],
        ),
        (
            {},
            {"phase": "Failed", "containerStatuses": [terminated("c", exit_code=3), terminated("d", "Error")]},
            ["0/2", "ExitCode:3", "0"],
        ),
        (
            {},
            {
                "phase": "Running",
                "conditions": ready("True"),
                "containerStatuses": [terminated("c", "Completed", exit_code=0), running("d")],
            },
            ["1/2", "Running", "0"],
        ),
        (
            {},
            {
                "phase": "Running",
                "conditions": ready("False"),
                "containerStatuses": [terminated("c", "Completed", exit_code=0), running("d")],
            },
            ["1/2", "NotReady", "0"],
        ),
        ({}, {"phase": "Failed", "reason": "Evicted"}, ["0/2", "Evicted", "0"]),
        (
            {},
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
            ["0/2", "SchedulingGated", "0"],
        ),
        (
            INITIAL,
            {
                "initContainerStatuses": [
                    terminated("x", "Completed", exit_code=0),
                    waiting("y", "PodInitializing", restartCount=1),
                ],
                "containerStatuses": [waiting("c", "PodInitializing"), waiting("d", "PodInitializing")],
            },
            ["0/2", "Init:1/2", "1"],
        ),
        (
            INITIAL,
            {"initContainerStatuses": [waiting("x", "ErrImagePull"), waiting("y", "PodInitializing")]},
            ["0/2", "Init:ErrImagePull", "0"],
        ),
        (INITIAL, {"initContainerStatuses": [terminated("x", "Error")]}, ["0/2", "Init:Error", "0"]),
        (INITIAL, {"initContainerStatuses": [terminated("x", signal=9)]}, ["0/2", "Init:Signal:9", "0"]),
        (INITIAL, {"initContainerStatuses": [terminated("x", exit_code=2)]}, ["0/2", "Init:ExitCode:2", "0"]),
        (
            {"initContainers": [SIDECAR]},
            {
                "phase": "Running",
                "conditions": ready("True"),
                "initContainerStatuses": [running("s", started=True, restartCount=2)],
                "containerStatuses": [running("c"), running("d", restartCount=1)],
            },
            ["3/3", "Running", "3"],
        ),
        ({"nodeName": "n"}, {"phase": "Running", "deleted": True}, ["0/2", "Terminating", "0"]),
        ({"nodeName": "n"}, {"phase": "Running", "reason": "NodeLost", "deleted": True}, ["0/2", "Unknown", "0"]),
    ],
)
def test_a_pod_is_told_in_one_word(
    cluster: Cluster, namespace: str, spec: Json, status: Json, shown: list[str]
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    told = {key: value for key, value in status.items() if key != DELETED}
    make(cluster, path, {"metadata": {"name": "p"}, "spec": POD_SPEC | spec}, told)
    if DELETED in status:
        assert cluster.admin.delete(f"{path}/p", params={"gracePeriodSeconds": "30"}).status_code == 200
    [row] = table(cluster, path)["rows"]
    assert masked(row["cells"])[:5] == ["p", *shown, "AGE"]


def test_a_wide_pod(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    spec = POD_SPEC | {"nodeName": "n", "readinessGates": [{"conditionType": "a.io/x"}, {"conditionType": "a.io/y"}]}
    status = {
        "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
        "conditions": [{"type": "a.io/x", "status": "True"}],
    }
    make(cluster, path, {"metadata": {"name": "p"}, "spec": spec}, status)
    shown = table(cluster, path)
    assert columns(shown) == "Name Ready Status Restarts Age (IP) (Node) (Nominated Node) (Readiness Gates)"
    assert shown["rows"][0]["cells"][5:] == ["10.0.0.7", "n", "<none>", "1/2"]


# -- other kinds


@pytest.mark.parametrize(
    ("group_version", "plural", "body", "status", "header", "cells"),
    [
        (
            "/apis/apps/v1",
            "deployments",
            {"spec": {"replicas": 3, "selector": SELECTOR, "template": TEMPLATE}},
            {"replicas": 3, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1},
            "Name Ready Up-to-date Available Age (Containers) (Images) (Selector)",
            ["k", "1/3", 2, 1, "AGE", "c,d", "i,i", "app=a,app"],
        ),
        (
            "/apis/apps/v1",
            "replicasets",
            {"spec": {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE}},
            {"replicas": 1, "readyReplicas": 1},
            "Name Desired Current Ready Age (Containers) (Images) (Selector)",
            ["k", 1, 1, 1, "AGE", "c,d", "i,i", "app=a"],
        ),
        (
            "/apis/batch/v1",
            "cronjobs",
            {"spec": {"schedule": "* * * * *", "suspend": True, "jobTemplate": {"spec": {"template": ONCE}}}},
            None,
            "Name Schedule Timezone Suspend Active Last Schedule Age (Containers) (Images) (Selector)",
            ["k", "* * * * *", "<none>", "True", 0, "<none>", "AGE", "c,d", "i,i", "<none>"],
        ),
        (
            "/apis/coordination.k8s.io/v1",
            "leases",
            {"spec": {"holderIdentity": "me"}},
            None,
            "Name Holder Age",
            ["k", "me", "AGE"],
        ),
        (
            "/api/v1",
            "secrets",
            {"data": {"a": "", "b": ""}},
            None,
            "Name Type Data Age",
            ["k", "Opaque", 2, "AGE"],
        ),
        (
            "/api/v1",
            "configmaps",
            {"data": {"a": ""}, "binaryData": {"b": ""}},
            None,
            "Name Data Age",
            ["k", 2, "AGE"],
        ),
        ("/api/v1", "serviceaccounts", {}, None, "Name Age", ["k", "AGE"]),
    ],
)
def test_the_columns_and_cells_of_a_kind(
    cluster: Cluster,
    namespace: str,
    group_version: str,
    plural: str,
    body: Json,
    status: Json | None,
    header: str,
    cells: list[Any],
) -> None:
    path = f"{group_version}/namespaces/{namespace}/{plural}"
    make(cluster, path, {"metadata": {"name": "k"}} | body, status)
    shown = table(cluster, path)
    assert columns(shown) == header
    assert [masked(row["cells"]) for row in shown["rows"]] == [cells]


JOB_ENDED: Json = {"startTime": time(600), "completionTime": time(300), "succeeded": 1, "ready": 0}
JOB_TRUE: Json = {"status": "True", "lastProbeTime": None, "lastTransitionTime": None}


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({}, {}, ["Running", "0/1", ""]),
        ({"completions": 5, "parallelism": 2}, {"startTime": time(65), "active": 2}, ["Running", "0/5", "AGE"]),
        (
            {},
            JOB_ENDED | {"conditions": [{"type": one} | JOB_TRUE for one in ("SuccessCriteriaMet", "Complete")]},
            ["Complete", "1/1", "5m"],
        ),
        ({}, {"conditions": [{"type": "Suspended"} | JOB_TRUE]}, ["Suspended", "0/1", ""]),
    ],
)
def test_how_a_job_stands(cluster: Cluster, namespace: str, spec: Json, status: Json, cells: list[str]) -> None:
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    make(cluster, path, {"metadata": {"name": "k"}, "spec": {"template": ONCE} | spec}, status)
    [row] = table(cluster, path)["rows"]
    assert masked(row["cells"])[:5] == ["k", *cells, "AGE"]


def test_events_of_both_apis_look_alike(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/events"
    about = {"kind": "Pod", "namespace": namespace, "name": "p", "fieldPath": "spec.containers{c}"}
    old = {
        "metadata": {"name": "old"},
        "involvedObject": about,
        "reason": "BackOff",
        "message": " Back-off\n",
        "type": "Warning",
        "count": 4,
        "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": time(3600 * 5),
        "lastTimestamp": time(600),
    }
    new = {
        "metadata": {"name": "new"},
        "involvedObject": {"kind": "Pod", "namespace": namespace},
        "reason": "Failed",
        "type": "Normal",
        "action": "x",
        "reportingComponent": "scheduler",
        "reportingInstance": "s-1",
        "eventTime": time(90).replace("Z", ".000000Z"),
    }
    series = {"count": 7, "lastObservedTime": time(30).replace("Z", ".000000Z")}
    for body in (old, new, new | {"metadata": {"name": "series"}, "series": series}):
        make(cluster, path, body)
    for of_api in (path, f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"):
        shown = table(cluster, of_api)
        assert columns(shown) == (
            "Last Seen Type Reason Object (Subobject) (Source) Message (First Seen) (Count) (Name)"
        )
        assert [masked(row["cells"]) for row in shown["rows"]] == [
            ["AGE", "Normal", "Failed", "pod", "", "scheduler, s-1", "", "AGE", 1, "new"],
            ["10m", "Warning", "BackOff", "pod/p", "spec.containers{c}", "kubelet, n", "Back-off", "5h", 4, "old"],
            ["AGE", "Normal", "Failed", "pod", "", "scheduler, s-1", "", "AGE", 7, "series"],
        ]


def test_namespaces_and_definitions(cluster: Cluster, namespace: str) -> None:
    assert columns(table(cluster, "/api/v1/namespaces")) == "Name Status Age"
    [row] = table(cluster, f"/api/v1/namespaces/{namespace}")["rows"]
    assert masked(row["cells"]) == [namespace, "Active", "AGE"]
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{HOOK_CRD['metadata']['name']}"
    shown = table(cluster, path)
    created = cluster.admin.get(path).json()["metadata"]["creationTimestamp"]
    assert (columns(shown), shown["rows"][0]["cells"]) == ("Name Created At", ["hooks.contract.khook.dev", created])


# -- custom resources


def hook(name: str) -> Json:
    spec: Json = {"entries": [{"type": "oom-kill", "id": "a", "times": 3}, {"type": "pod-restart", "id": "b"}]}
    return {"apiVersion": "contract.khook.dev/v1", "kind": "Hook", "metadata": {"name": name}, "spec": spec}


def test_a_custom_resource_has_a_name_and_an_age_where_its_definition_says_nothing(
    cluster: Cluster, namespace: str
) -> None:
    path = f"/apis/contract.khook.dev/v1/namespaces/{namespace}/hooks"
    make(cluster, path, hook("h"))
    shown = table(cluster, path)
    assert (columns(shown), masked(shown["rows"][0]["cells"])) == ("Name Age", ["h", "AGE"])


PRINTED = [
    ("Type", "string", ".spec.entries[0].type", "oom-kill"),
    ("Last", "string", ".spec.entries[1].id", "b"),
    ("Every", "string", ".spec.entries[*].id", "a"),
    ("Chosen", "string", '.spec.entries[?(@.type=="pod-restart")].id', "b"),
    ("Missing", "string", ".spec.entries[7].id", None),
    ("Times", "integer", ".spec.entries[0].times", 3),
    ("Word", "string", ".spec.entries[0].times", "3"),
    ("NoNumber", "integer", ".spec.mode", None),
    ("NoFlag", "boolean", ".spec.suspend", None),
    ("Label", "string", r".metadata.labels.a\.b/c", "x"),
    ("Updated", "date", ".status.updated", "5h"),
    ("NoDate", "date", ".spec.mode", "<invalid>"),
    ("Object", "string", ".spec.labels", '{"k":"v"}'),
]


def test_printer_columns_follow_their_paths(cluster: Cluster, namespace: str) -> None:
    group = f"{namespace}.dev"
    asked: list[Json] = [{"name": name, "type": of, "jsonPath": path} for name, of, path, _ in PRINTED]
    asked[0] |= {"priority": 1, "description": "What for"}
    version_ = HOOK_CRD["spec"]["versions"][0] | {"additionalPrinterColumns": asked}
    crd = HOOK_CRD | {
        "metadata": {"name": f"hooks.{group}"},
        "spec": HOOK_CRD["spec"] | {"group": group, "versions": [version_]},
    }
    install_crd(cluster.admin, crd)
    path = f"/apis/{group}/v1/namespaces/{namespace}/hooks"
    body = hook("h") | {"apiVersion": f"{group}/v1"}
    body["metadata"]["labels"] = {"a.b/c": "x"}
    body["spec"]["labels"] = {"k": "v"}
    make(cluster, path, body, {"updated": time(3600 * 5)})
    shown = table(cluster, path)
    assert columns(shown) == " ".join(["Name", "(Type)", *(one[0] for one in PRINTED[1:])])
    assert shown["columnDefinitions"][1] == {
        "name": "Type",
        "type": "string",
        "format": "",
        "description": "What for",
        "priority": 1,
    }
    assert shown["rows"][0]["cells"] == ["h", *(cell for *_, cell in PRINTED)]


# -- what stands beside the cells


@pytest.mark.parametrize(
    ("include", "kind"), [("", "PartialObjectMetadata"), ("Metadata", "PartialObjectMetadata"), ("Object", "Pod")]
)
def test_a_row_carries_as_much_of_its_object_as_was_asked_for(
    cluster: Cluster, namespace: str, include: str, kind: str
) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    made = make(cluster, path, {"metadata": {"name": "p"}, "spec": POD_SPEC})
    [row] = table(cluster, path, **({"includeObject": include} if include else {}))["rows"]
    assert (row["object"]["kind"], row["object"]["metadata"]) == (kind, made["metadata"])
    assert ("spec" in row["object"]) is (kind == "Pod")
    assert table(cluster, path, includeObject="None")["rows"][0]["object"] is None
    bad = cluster.admin.get(path, headers=TABLE, params={"includeObject": "Bad"})
    assert (bad.status_code, bad.json()["reason"]) == (400, "BadRequest")


def test_a_table_has_the_version_of_its_list_and_pages_like_it(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    for name in "abc":
        make(cluster, path, {"metadata": {"name": name}, "spec": POD_SPEC})
    first = table(cluster, path, limit="2")
    assert (len(first["rows"]), first["metadata"]["remainingItemCount"]) == (2, 1)
    rest = table(cluster, path, limit="2", **{"continue": first["metadata"]["continue"]})
    assert [row["cells"][0] for row in rest["rows"]] == ["c"]
    assert version(rest) == version(first)
    one = table(cluster, f"{path}/a")
    assert version(one) == version(one["rows"][0]["object"])
    assert table(cluster, f"/api/v1/namespaces/{namespace}/configmaps", labelSelector="a=b")["rows"] == []


def test_a_watched_table_has_its_columns_once(cluster: Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    start = version(cluster.admin.get(path).json())
    made = make(cluster, path, {"metadata": {"name": "c"}})
    cluster.admin.patch(f"{path}/c", json={"data": {"a": "b"}}, headers=MERGE)
    cluster.admin.delete(f"{path}/c")
    cluster.admin.headers["accept"], before = TABLE["accept"], cluster.admin.headers["accept"]
    try:
        with watching(cluster.admin, path, resourceVersion=start) as lines:
            seen = [next(lines) for _ in range(3)]
    finally:
        cluster.admin.headers["accept"] = before
    assert [line["type"] for line in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [line["object"]["rows"][0]["cells"][:2] for line in seen] == [["c", 0], ["c", 1], ["c", 1]]
    assert [line["object"]["columnDefinitions"] is not None for line in seen] == [True, False, False]
    assert version(seen[0]["object"]) == version(made)


@pytest.mark.parametrize(
    ("accept", "code", "kind"),
    [
        ("application/json;as=Table;v=v1beta1;g=meta.k8s.io", 200, "Table"),
        ("application/json;as=Table;v=v2;g=meta.k8s.io", 406, "Status"),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", 200, "Namespace"),
        ("application/cbor-never-heard-of,application/json", 200, "Namespace"),
        ("text/html", 406, "Status"),
        ("*/*", 200, "Namespace"),
    ],
)
def test_the_first_form_that_can_be_had_is_had(cluster: Cluster, accept: str, code: int, kind: str) -> None:
    answer = cluster.admin.get("/api/v1/namespaces/default", headers={"accept": accept})
    assert (answer.status_code, answer.json()["kind"]) == (code, kind)
