"""What a client can learn of the server itself before it asks for anything; on both API servers."""

from typing import Any

import pytest
from support.api_servers import Cluster

from khook.sandbox import builtin_schemas
from khook.sandbox.kinds import BUILT_IN, Kind

Json = dict[str, Any]

HOOK = {"group": "contract.khook.dev", "version": "v1", "kind": "Hook"}


def prefix(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.api_version}"


def operations(document: Json, gvk: Json, verb: str) -> list[Json]:
    return [
        path[verb]
        for path in document["paths"].values()
        if path.get(verb, {}).get("x-kubernetes-group-version-kind") == gvk
    ]


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: f"{kind.plural}.{kind.group}")
def test_a_kind_goes_by_the_same_names(cluster: Cluster, kind: Kind) -> None:
    resources = cluster.admin.get(f"/{prefix(kind)}").json()["resources"]
    [row] = [one for one in resources if one["name"] == kind.plural]
    assert (row["kind"], row["namespaced"], row["singularName"]) == (kind.kind, kind.namespaced, kind.kind.lower())
    assert sorted(row.get("shortNames", ())) == sorted(kind.short_names)
    assert sorted(row.get("categories", ())) == sorted(kind.categories)
    assert {"create", "delete", "get", "list", "patch", "update", "watch"} <= set(row["verbs"])
    assert any(one["name"] == f"{kind.plural}/status" for one in resources) is kind.status_subresource


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: f"{kind.plural}.{kind.group}")
def test_the_schema_of_a_built_in_kind_has_the_same_fields(cluster: Cluster, kind: Kind) -> None:
    """The embedded server's are read off the Python client: should one fall behind, this says which field."""
    document = cluster.admin.get(f"/openapi/v3/{prefix(kind)}").json()
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    [schema] = [
        one
        for one in document["components"]["schemas"].values()
        if gvk in one.get("x-kubernetes-group-version-kind", ())
    ]
    expected = builtin_schemas.schemas(kind)[builtin_schemas.root(kind)]
    assert set(schema["properties"]) == set(expected["properties"])
    assert set(schema.get("required", ())) <= set(expected.get("required", ()))
    [patch] = [one for one in operations(document, gvk, "patch") if one["x-kubernetes-action"] == "patch"][:1]
    assert "fieldValidation" in [one["name"] for one in patch["parameters"]]
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_a_custom_resources_schema_is_published(cluster: Cluster) -> None:
    index = cluster.admin.get("/openapi/v3").json()["paths"]
    url = index["apis/contract.khook.dev/v1"]["serverRelativeURL"]
    document = cluster.admin.get(url).json()
    schemas = document["components"]["schemas"]
    [schema] = [one for one in schemas.values() if HOOK in one.get("x-kubernetes-group-version-kind", ())]
    assert schema["properties"]["spec"]["properties"]["entries"]["type"] == "array"
    assert schema["properties"]["spec"]["required"] == ["entries"]
    [reference] = [one["$ref"] for one in schema["properties"]["metadata"]["allOf"]]
    assert "labels" in schemas[reference.rpartition("/")[2]]["properties"]
    assert operations(document, HOOK, "get")
    for patch in operations(document, HOOK, "patch"):
        assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]


def test_a_document_may_be_kept_under_its_hash(cluster: Cluster) -> None:
    url = cluster.admin.get("/openapi/v3").json()["paths"]["api/v1"]["serverRelativeURL"]
    answer = cluster.admin.get(url)
    assert answer.headers["cache-control"] == "public, immutable"
    known = {"if-none-match": answer.headers["etag"]}
    assert cluster.admin.get(url, headers=known).status_code == 304
    assert cluster.admin.get("/openapi/v3/apis/no.such.group/v1").status_code == 404


# -- reviews


def review(cluster: Cluster, group: str, kind: str, plural: str, spec: Json) -> Json:
    body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": spec}
    answer = cluster.admin.post(f"/apis/{group}/v1/{plural}", json=body)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    assert (made["kind"], made["apiVersion"]) == (kind, f"{group}/v1")
    return made


def test_one_may_ask_what_one_may_do(cluster: Cluster, namespace: str) -> None:
    spec = {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": namespace}}
    arguments = ("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", spec)
    allowed = review(cluster, *arguments)
    assert (allowed["spec"], allowed["status"]["allowed"]) == (spec, True)
    with cluster.user_may_nothing() as client:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        denied = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=body)
        assert (denied.status_code, denied.json()["status"]["allowed"]) == (201, False)


def test_one_may_ask_for_the_rules_and_who_one_is(cluster: Cluster, namespace: str) -> None:
    rules = review(
        cluster, "authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews", {"namespace": namespace}
    )
    assert {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]} in rules["status"]["resourceRules"]
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    me = cluster.admin.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json=body).json()
    assert "system:authenticated" in me["status"]["userInfo"]["groups"]
