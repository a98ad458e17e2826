"""Strategic merge patches of built-in kinds, which kubectl sends for apply, patch and set; on both API servers."""

from typing import Any

import httpx
import pytest
from support.api_servers import MERGE, Cluster, version

from khook.sandbox.kinds import BUILT_IN, Kind
from khook.sandbox.merge_keys import RULES, Rules

Json = dict[str, Any]

STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
A: Json = {
    "name": "a",
    "image": "i",
    "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
    "ports": [{"containerPort": 80}],
}
POD_SPEC: Json = {"containers": [A, {"name": "b", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]}
DEPLOYMENT: Json = {
    "metadata": {"name": "d"},
    "spec": {
        "selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": POD_SPEC},
    },
}


def deployments(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments"


@pytest.fixture
def patched(cluster: Cluster, namespace: str) -> Any:
    """Patches the Deployment `d` strategically."""
    made = cluster.admin.post(deployments(namespace), json=DEPLOYMENT)
    assert made.status_code == 201, made.text

    def patch(body: Any) -> httpx.Response:
        return cluster.admin.patch(f"{deployments(namespace)}/d", json=body, headers=STRATEGIC)

    return patch


def of_pod(spec: Json) -> Json:
    return {"spec": {"template": {"spec": spec}}}


def containers(answer: httpx.Response) -> list[tuple[str, str, str, list[int]]]:
    """(name, image, env, ports) of each container, in order."""
    assert answer.status_code == 200, answer.text
    return [
        (
            one["name"],
            one["image"],
            " ".join(variable["name"] + variable.get("value", "") for variable in one.get("env", ())),
            [port["containerPort"] for port in one.get("ports", ())],
        )
        for one in answer.json()["spec"]["template"]["spec"]["containers"]
    ]


B_OLD: tuple[str, str, str, list[int]] = ("b", "i", "", [])
A_OLD: tuple[str, str, str, list[int]] = ("a", "i", "X1 Y2", [80])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": [{"name": "b", "image": "j"}]}, [A_OLD, ("b", "j", "", [])]),
        ({"containers": [{"name": "c", "image": "j"}]}, [("c", "j", "", []), A_OLD, B_OLD]),
        (
            {"containers": [{"name": "b", "image": "j"}, {"name": "0", "image": "j"}]},
            [A_OLD, ("b", "j", "", []), ("0", "j", "", [])],
        ),
        ({"containers": [{"name": "a", "$patch": "delete"}]}, [B_OLD]),
        ({"containers": [{"$patch": "replace"}, {"name": "z", "image": "i"}]}, [("z", "i", "", [])]),
        (
            {"containers": [{"name": "a", "env": [{"name": "Y", "$patch": "delete"}, {"name": "Z", "value": "3"}]}]},
            [("a", "i", "Z3 X1", [80]), B_OLD],
        ),
        (
            {"containers": [{"name": "a", "ports": [{"containerPort": 81}, {"containerPort": 80, "name": "x"}]}]},
            [("a", "i", "X1 Y2", [81, 80]), B_OLD],
        ),
        (
            {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [
                    {
                        "name": "a",
                        "$setElementOrder/env": [{"name": "Z"}, {"name": "X"}],
                        "env": [{"name": "Z", "value": "3"}],
                    }
                ],
            },
            [B_OLD, ("a", "i", "Z3 X1 Y2", [80])],
        ),
        ({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}, [B_OLD, A_OLD]),
        ({"containers": []}, [A_OLD, B_OLD]),
        ({"containers": [{"name": "a", "env": None}]}, [("a", "i", "", [80]), B_OLD]),
        ({"containers": [{"name": "a", "env": [{"name": "X", "value": None}]}]}, [("a", "i", "X Y2", [80]), B_OLD]),
    ],
)
def test_containers_are_told_apart_by_their_names(patched: Any, spec: Json, expected: list[Any]) -> None:
    assert containers(patched(of_pod(spec))) == expected


def test_another_kind_of_volume_takes_the_place_of_the_old_one(patched: Any) -> None:
    volume = {"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}
    [found] = patched(of_pod({"volumes": [volume]})).json()["spec"]["template"]["spec"]["volumes"]
    assert ("emptyDir" in found, found["configMap"]["name"]) == (False, "c")
    assert "volumes" not in patched(of_pod({"volumes": None})).json()["spec"]["template"]["spec"]


@pytest.mark.parametrize("directive", [{"$retainKeys": ["type"]}, {"$patch": "replace"}])
def test_a_strategy_can_be_replaced_as_a_whole(patched: Any, directive: Json) -> None:
    answer = patched({"spec": {"strategy": {"type": "Recreate"} | directive}})
    assert answer.json()["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"finalizers": ["x.io/d"]}, ["x.io/d", "x.io/a", "x.io/b"]),
        ({"$deleteFromPrimitiveList/finalizers": ["x.io/a"]}, ["x.io/b"]),
        ({"finalizers": None}, None),
    ],
)
def test_finalizers_are_a_set(
    cluster: Cluster, namespace: str, patched: Any, metadata: Json, expected: list[str] | None
) -> None:
    first = {"metadata": {"finalizers": ["x.io/a", "x.io/b"]}}
    cluster.admin.patch(f"{deployments(namespace)}/d", json=first, headers=MERGE)
    assert patched({"metadata": metadata}).json()["metadata"].get("finalizers") == expected


@pytest.mark.parametrize(
    ("body", "code", "reason", "words"),
    [
        (of_pod({"containers": [{"image": "x"}]}), 500, None, "does not contain declared merge key: name"),
        (of_pod({"containers": [{"name": "a", "$patch": "bogus"}]}), 500, None, "unknown patch type: bogus in map: "),
        (of_pod({"$patch": "bogus"}), 500, None, "unknown patch type: bogus in map: "),
        (
            of_pod({"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/"}}]}),
            400,
            "BadRequest",
            "invalid patch format of retainKeys",
        ),
        ([1], 400, "BadRequest", "into Go value of type map[string]interface {}"),
        (
            of_pod({"containers": [{"name": "z", "$patch": "replace"}]}),
            422,
            "Invalid",
            "spec.template.spec.containers: Required value",
        ),
    ],
)
def test_a_patch_that_cannot_be_followed(patched: Any, body: Any, code: int, reason: str | None, words: str) -> None:
    answer = patched(body)
    assert (answer.status_code, answer.json().get("reason")) == (code, reason)
    assert words in answer.json()["message"]


def test_a_patch_that_changes_nothing_changes_no_version(cluster: Cluster, namespace: str, patched: Any) -> None:
    before = cluster.admin.get(f"{deployments(namespace)}/d").json()
    same = patched(of_pod({"containers": [{"name": "b", "image": "i"}]})).json()
    assert (version(same), same["metadata"]["generation"]) == (version(before), 1)
    changed = patched(of_pod({"containers": [{"name": "b", "image": "j"}]})).json()
    assert changed["metadata"]["generation"] == 2


def test_a_pods_conditions_are_merged_by_type(cluster: Cluster, namespace: str) -> None:
    """As a kubelet patches them."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.admin.post(path, json={"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    for condition in ({"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}):
        body = {"status": {"conditions": [condition]}}
        answer = cluster.admin.patch(f"{path}/p/status", json=body, headers=STRATEGIC)
        assert answer.status_code == 200, answer.text
    found = {one["type"]: one["status"] for one in answer.json()["status"]["conditions"]}
    assert found == {"Ready": "False", "Initialized": "True"}


# -- the table of merge keys


@pytest.mark.parametrize("kind", [kind for kind in BUILT_IN if not kind.storage], ids=lambda kind: kind.plural)
def test_the_merge_keys_are_those_that_the_server_publishes(cluster: Cluster, kind: Kind) -> None:
    path = f"apis/{kind.api_version}" if kind.group else f"api/{kind.api_version}"
    schemas = cluster.admin.get(f"/openapi/v3/{path}").json()["components"]["schemas"]
    wanted = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    [schema] = [one for one in schemas.values() if wanted in one.get("x-kubernetes-group-version-kind", ())]
    assert published(schema, schemas) == written(RULES[kind.storage_key])


def published(schema: Json, schemas: Json, path: str = "") -> dict[str, tuple[str, str]]:
    """(strategy, merge key) of each field that is not simply replaced, as far as patches go item by item."""
    found: dict[str, tuple[str, str]] = {}
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        strategy = field.get("x-kubernetes-patch-strategy", "")
        if strategy:
            found[here] = (strategy, field.get("x-kubernetes-patch-merge-key", ""))
        is_list = field.get("type") == "array"
        if not is_list or "merge" in strategy:
            found |= published(resolved(field["items"] if is_list else field, schemas), schemas, here)
    return found


def resolved(schema: Json, schemas: Json) -> Json:
    references = [one["$ref"] for one in (schema, *schema.get("allOf", ())) if "$ref" in one]
    if not references or "JSONSchemaProps" in references[0]:  # a schema of schemas never ends
        return {}
    found: Json = schemas[references[0].rpartition("/")[2]]
    return found


def written(rules: Rules, path: str = "") -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for name, rule in rules.items():
        strategies = ["merge"] * (rule.key is not None) + ["retainKeys"] * rule.retain
        if strategies:
            found[f"{path}.{name}"] = (",".join(strategies), rule.key or "")
        found |= written(rule.inside, f"{path}.{name}")
    return found
