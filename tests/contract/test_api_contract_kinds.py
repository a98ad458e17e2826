"""Kinds that are only kept: what owns a pod, and what an installation is made of; on both API servers."""

from typing import Any

import pytest
from support.api_servers import MERGE, Cluster, watching

Json = dict[str, Any]

POD_SPEC: Json = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
TEMPLATE: Json = {"metadata": {"labels": {"app": "a"}}, "spec": POD_SPEC | {"restartPolicy": "Always"}}
SELECTED: Json = {"selector": {"matchLabels": {"app": "a"}}, "template": TEMPLATE}
JOB_SPEC: Json = {"template": {"spec": POD_SPEC}}
PARTIAL = {"accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}

KEPT = {
    "/api/v1 secrets": {"stringData": {"a": "b"}},
    "/api/v1 configmaps": {"data": {"a": "b"}},
    "/api/v1 serviceaccounts": {},
    "/apis/apps/v1 deployments": {"spec": SELECTED},
    "/apis/apps/v1 replicasets": {"spec": SELECTED},
    "/apis/batch/v1 jobs": {"spec": JOB_SPEC},
    "/apis/batch/v1 cronjobs": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": JOB_SPEC}}},
}
FILLED_IN: dict[str, Json] = {
    "/api/v1 secrets": {"type": "Opaque", "data": {"a": "Yg=="}},
    "/apis/apps/v1 deployments": {"spec": {"replicas": 1, "revisionHistoryLimit": 10}, "status": {}},
    "/apis/apps/v1 replicasets": {"spec": {"replicas": 1}, "status": {"replicas": 0}},
    "/apis/batch/v1 jobs": {"spec": {"parallelism": 1, "completions": 1, "backoffLimit": 6}, "status": {}},
    "/apis/batch/v1 cronjobs": {"spec": {"concurrencyPolicy": "Allow", "suspend": False}, "status": {}},
}


def collection(kind: str, namespace: str) -> str:
    group_version, plural = kind.split()
    return f"{group_version}/namespaces/{namespace}/{plural}"


@pytest.mark.parametrize("kind", KEPT)
def test_a_kind_that_nobody_acts_on_is_kept_as_it_was_written(cluster: Cluster, namespace: str, kind: str) -> None:
    path = collection(kind, namespace)
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": True}
    start = cluster.admin.get(path).json()["metadata"]["resourceVersion"]
    made = cluster.admin.post(path, json={"metadata": {"name": "k", "ownerReferences": [owner]}} | KEPT[kind])
    assert made.status_code == 201, made.text
    labelled = cluster.admin.patch(f"{path}/k", json={"metadata": {"labels": {"z": "1"}}}, headers=MERGE)
    assert labelled.json()["metadata"]["labels"]["z"] == "1"
    assert cluster.admin.delete(f"{path}/k", params={"propagationPolicy": "Background"}).status_code == 200
    assert cluster.admin.get(f"{path}/k").status_code == 404
    with watching(cluster.admin, path, resourceVersion=start) as lines:
        assert [next(lines)["type"] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


@pytest.mark.parametrize("kind", FILLED_IN)
def test_the_server_fills_in_what_was_left_out(cluster: Cluster, namespace: str, kind: str) -> None:
    path = collection(kind, namespace)
    made = cluster.admin.post(path, json={"metadata": {"name": "k"}} | KEPT[kind]).json()
    assert "stringData" not in made
    for field, wanted in FILLED_IN[kind].items():
        shown = {key: made[field][key] for key in wanted} if isinstance(wanted, dict) else made[field]
        assert shown == wanted


@pytest.mark.parametrize("kind", ["/apis/apps/v1 replicasets", "/apis/batch/v1 jobs"])
def test_who_owns_a_replicaset_or_a_job_can_be_asked_for_by_metadata_alone(
    cluster: Cluster, namespace: str, kind: str
) -> None:
    """How a pod's owner is found: ReplicaSet to Deployment, Job to CronJob."""
    path = collection(kind, namespace)
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u", "controller": True}
    cluster.admin.post(path, json={"metadata": {"name": "k", "ownerReferences": [owner]}} | KEPT[kind])
    partial = cluster.admin.get(f"{path}/k", headers=PARTIAL).json()
    assert (partial["kind"], partial["apiVersion"], set(partial)) == (
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
        {"kind", "apiVersion", "metadata"},
    )
    assert partial["metadata"]["ownerReferences"] == [owner]
    missing = cluster.admin.get(f"{path}/none", headers=PARTIAL)
    assert (missing.status_code, missing.json()["reason"]) == (404, "NotFound")


def test_a_job_selects_its_pods_by_its_uid(cluster: Cluster, namespace: str) -> None:
    made = cluster.admin.post(
        collection("/apis/batch/v1 jobs", namespace), json={"metadata": {"name": "k"}, "spec": JOB_SPEC}
    ).json()
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert made["spec"]["template"]["metadata"]["labels"] == made["metadata"]["labels"]
    assert made["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "k"
