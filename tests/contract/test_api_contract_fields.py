"""Fields that a kind does not have, and rehearsals: what `kubectl apply` and `create` ask for; on both API servers."""

from typing import Any

import httpx
import pytest
from support.api_servers import MERGE, Cluster, version

Json = dict[str, Any]

JSON = {"content-type": "application/json"}
STRATEGIC = {"content-type": "application/strategic-merge-patch+json"}
STRICT = {"fieldValidation": "Strict"}
KUBECTL = {"fieldValidation": "Ignore", "fieldManager": "kubectl-create"}


def hooks(namespace: str) -> str:
    return f"/apis/contract.khook.dev/v1/namespaces/{namespace}/hooks"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def hook(**more: Any) -> Json:
    spec = {"entries": [{"type": "oom-kill", "id": "a"} | more.pop("entry", {})]} | more.pop("spec", {})
    return {"apiVersion": "contract.khook.dev/v1", "kind": "Hook", "metadata": {"name": "h"}, "spec": spec} | more


def pod(spec: Json | None = None, metadata: Json | None = None, **more: Any) -> Json:
    spec = {"containers": [{"name": "c", "image": "i"}]} | (spec or {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"} | (metadata or {}), "spec": spec} | more


ODD_HOOK = hook(entry={"zip": 1}, spec={"bogus": True}, extra=1)
ODD_POD = pod(
    {"foo": 1, "containers": [{"name": "c", "image": "i", "imagge": "x", "env": [{"name": "a", "valu": "b"}]}]},
    {"foo": 1},
    bogus=2,
)
ODD_HOOK_FIELDS = ["extra", "spec.bogus", "spec.entries[0].zip"]
ODD_POD_FIELDS = [
    "bogus",
    "metadata.foo",
    "spec.containers[0].env[0].valu",
    "spec.containers[0].imagge",
    "spec.foo",
]


def message(answer: httpx.Response) -> str:
    return str(answer.json()["message"])


@pytest.mark.parametrize(
    ("path", "body", "head", "fields"),
    [
        (hooks, ODD_HOOK, 'Hook in version "v1" cannot be handled as a Hook: ', ODD_HOOK_FIELDS),
        (pods, ODD_POD, 'Pod in version "v1" cannot be handled as a Pod: ', ODD_POD_FIELDS),
    ],
)
def test_strict_names_every_unknown_field_and_refuses(
    cluster: Cluster, namespace: str, path: Any, body: Json, head: str, fields: list[str]
) -> None:
    answer = cluster.admin.post(path(namespace), json=body, params=STRICT)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    start, _, listed = message(answer).partition("strict decoding error: ")
    assert start == head
    assert sorted(listed.split(", ")) == [f'unknown field "{field}"' for field in fields]
    assert cluster.admin.get(path(namespace)).json()["items"] == []


@pytest.mark.parametrize(
    ("path", "body", "fields"), [(hooks, ODD_HOOK, ODD_HOOK_FIELDS), (pods, ODD_POD, ODD_POD_FIELDS)]
)
def test_warn_creates_and_warns_and_ignore_is_silent(
    cluster: Cluster, namespace: str, path: Any, body: Json, fields: list[str]
) -> None:
    warned = cluster.admin.post(path(namespace), json=body, params={"fieldValidation": "Warn"})
    found = warned.headers.get_list("warning", split_commas=True)
    assert warned.status_code == 201
    assert sorted(one.strip() for one in found) == [f'299 - "unknown field \\"{field}\\""' for field in fields]
    other = body | {"metadata": {"name": "other"}}
    silent = cluster.admin.post(path(namespace), json=other, params={"fieldValidation": "Ignore"})
    assert (silent.status_code, "warning" in silent.headers) == (201, False)


def test_a_field_that_stands_twice_is_named(cluster: Cluster, namespace: str) -> None:
    text = """{"apiVersion": "contract.khook.dev/v1", "kind": "Hook", "metadata": {"name": "d"},
        "spec": {"entries": [{"type": "oom-kill", "id": "a", "id": "b"}], "mode": "plain", "mode": "x"}}"""
    answer = cluster.admin.post(hooks(namespace), content=text, headers=JSON, params=STRICT)
    assert (answer.status_code, message(answer)) == (
        400,
        'Hook in version "v1" cannot be handled as a Hook: strict decoding error: '
        'duplicate field "spec.entries[0].id", duplicate field "spec.mode"',
    )


@pytest.mark.parametrize(
    ("path", "made", "patch", "headers", "field"),
    [
        (hooks, hook(), {"spec": {"foo": 1}}, MERGE, "spec.foo"),
        (pods, pod(), {"spec": {"foo": 1}}, MERGE, "spec.foo"),
        (pods, pod(), {"spec": {"containers": [{"name": "c", "x": 1}]}}, STRATEGIC, "spec.containers[0].x"),
    ],
)
def test_strict_holds_for_what_a_patch_makes(
    cluster: Cluster, namespace: str, path: Any, made: Json, patch: Json, headers: dict[str, str], field: str
) -> None:
    one = f"{path(namespace)}/{made['metadata']['name']}"
    before = cluster.admin.post(path(namespace), json=made).json()
    refused = cluster.admin.patch(one, json=patch, headers=headers, params=STRICT)
    assert (refused.status_code, refused.json()["reason"]) == (422, "Invalid")
    assert message(refused).startswith(' "" is invalid: patch: Invalid value: ')
    assert message(refused).endswith(f': strict decoding error: unknown field "{field}"')
    assert [cause["field"] for cause in refused.json()["details"]["causes"]] == ["patch"]
    assert version(cluster.admin.get(one).json()) == version(before)
    warned = cluster.admin.patch(one, json=patch, headers=headers, params={"fieldValidation": "Warn"})
    assert (warned.status_code, warned.headers["warning"]) == (200, f'299 - "unknown field \\"{field}\\""')


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            pod({"containers": "x"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            pod({"containers": [{"name": 1}]}),
            "json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string",
        ),
        (
            pod({"terminationGracePeriodSeconds": 1.5}),
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.terminationGracePeriodSeconds "
            "of type int64",
        ),
        (
            pod({"hostNetwork": "yes"}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
        ),
        (
            pod(metadata={"labels": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            pod(metadata={"labels": ["a"]}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        ({"spec": "x"}, "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
    ],
)
def test_a_wrong_type_reads_as_go_says_it(cluster: Cluster, namespace: str, body: Json, why: str) -> None:
    answer = cluster.admin.post(pods(namespace), json=body, params=KUBECTL)
    assert (answer.status_code, message(answer)) == (400, f'Pod in version "v1" cannot be handled as a Pod: {why}')


def test_a_quantity_may_be_a_number_and_a_port_a_name(cluster: Cluster, namespace: str) -> None:
    probe = {"httpGet": {"port": "http"}}
    container = {"name": "c", "image": "i", "resources": {"limits": {"cpu": 2}}, "livenessProbe": probe}
    answer = cluster.admin.post(pods(namespace), json=pod({"containers": [container]}), params=STRICT | KUBECTL)
    assert answer.status_code == 201, answer.text


def test_a_patch_to_a_wrong_type_is_422(cluster: Cluster, namespace: str) -> None:
    cluster.admin.post(pods(namespace), json=pod())
    body = {"spec": {"containers": "x"}}
    for headers in (MERGE, STRATEGIC):
        answer = cluster.admin.patch(
            f"{pods(namespace)}/p", json=body, headers=headers, params={"fieldManager": "kubectl-patch"}
        )
        assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
        assert message(answer).startswith(' "" is invalid: patch: Invalid value: ')


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("fieldValidation", "Bad", 'Unsupported value: "Bad": supported values: "", "Ignore", "Strict", "Warn"'),
        ("dryRun", "Some", 'Unsupported value: ["Some"]: supported values: "All"'),
    ],
)
def test_an_option_that_there_is_not_is_422(
    cluster: Cluster, namespace: str, parameter: str, value: str, words: str
) -> None:
    answer = cluster.admin.post(hooks(namespace), json=hook(), params={parameter: value})
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert message(answer) == f'CreateOptions.meta.k8s.io "" is invalid: {parameter}: {words}'


# -- rehearsals


def test_a_dry_run_answers_as_ever_and_keeps_nothing(cluster: Cluster, namespace: str) -> None:
    collection, one, dry = hooks(namespace), f"{hooks(namespace)}/h", {"dryRun": "All"}
    rehearsed = cluster.admin.post(collection, json=hook(), params=dry)
    assert (rehearsed.status_code, rehearsed.json()["spec"]["mode"]) == (201, "plain")
    assert cluster.admin.get(one).status_code == 404
    made = cluster.admin.post(collection, json=hook()).json()
    patched = cluster.admin.patch(one, json={"spec": {"suspend": True}}, headers=MERGE, params=dry).json()
    assert (patched["spec"]["suspend"], patched["metadata"]["generation"]) == (True, 2)
    invalid = cluster.admin.patch(one, json={"spec": {"suspend": "x"}}, headers=MERGE, params=dry)
    assert invalid.status_code == 422
    assert cluster.admin.request("DELETE", one, json={"dryRun": ["All"]}).status_code == 200
    assert cluster.admin.get(one).json() == made
