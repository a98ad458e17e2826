"""What a write may rely on, and what a refusal looks like, held against the embedded API server and a real one."""

from copy import deepcopy
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from support.api_servers import HOOK_CRD, JSON_PATCH, MERGE, Cluster, install_crd, version, wait_served, watching

Json = dict[str, Any]

GOOD_SPEC: Json = {"entries": [{"type": "oom-kill", "id": "a"}]}


def hooks(namespace: str) -> str:
    return f"/apis/contract.khook.dev/v1/namespaces/{namespace}/hooks"


def leases(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def hook(name: str, spec: Json = GOOD_SPEC, **rest: Any) -> Json:
    return {"apiVersion": "contract.khook.dev/v1", "kind": "Hook", "metadata": {"name": name}, "spec": spec} | rest


def lease(name: str, *, resource_version: str | None = None, **spec: Any) -> Json:
    metadata = {"name": name} | ({"resourceVersion": resource_version} if resource_version else {})
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


@pytest.fixture
def a_hook(cluster: Cluster, namespace: str) -> Json:
    answer = cluster.admin.post(hooks(namespace), json=hook("h"))
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def patch_status(cluster: Cluster, namespace: str, body: Any, headers: dict[str, str] = MERGE) -> httpx.Response:
    return cluster.admin.patch(f"{hooks(namespace)}/h/status", json=body, headers=headers)


def failure(answer: httpx.Response) -> Json:
    """The Status without what all failures have in common."""
    status: Json = answer.json()
    assert (status["kind"], status["apiVersion"], status["metadata"]) == ("Status", "v1", {})
    assert (status["status"], status["code"]) == ("Failure", answer.status_code)
    return {key: status[key] for key in ("message", "reason", "details") if key in status}


# -- status patches


def test_an_identical_status_patch_changes_no_version(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    body = {"status": {"rows": [{"name": "a"}], "updated": "2024-01-01T00:00:00Z"}}
    first, second = (patch_status(cluster, namespace, body).json() for _ in range(2))
    assert version(first) != version(a_hook)
    assert first == second


def test_a_status_patch_computed_from_an_older_version_is_409(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    metadata = {"uid": a_hook["metadata"]["uid"], "resourceVersion": version(a_hook)}
    fresh = patch_status(cluster, namespace, {"metadata": metadata, "status": {"rows": [{"name": "a"}]}})
    stale = patch_status(cluster, namespace, {"metadata": metadata, "status": {"rows": []}})
    assert (fresh.status_code, stale.status_code) == (200, 409)
    assert failure(stale) == {
        "message": 'Operation cannot be fulfilled on hooks.contract.khook.dev "h": the object has been modified; '
        "please apply your changes to the latest version and try again",
        "reason": "Conflict",
        "details": {"name": "h", "group": "contract.khook.dev", "kind": "hooks"},
    }


def test_a_uid_in_a_status_merge_patch_protects_nothing_the_version_does(
    cluster: Cluster, namespace: str, a_hook: Json
) -> None:
    """The status strategy of custom resources takes metadata from the stored object, after the version check."""
    foreign = {"uid": "00000000-0000-4000-8000-000000000000"}
    alone = patch_status(cluster, namespace, {"metadata": foreign, "status": {"rows": [{"name": "a"}]}})
    assert (alone.status_code, alone.json()["metadata"]["uid"]) == (200, a_hook["metadata"]["uid"])
    both = {"metadata": foreign | {"resourceVersion": version(a_hook)}, "status": {"rows": []}}
    assert patch_status(cluster, namespace, both).status_code == 409


def test_a_recreated_hook_answers_409_to_its_predecessors_version(
    cluster: Cluster, namespace: str, a_hook: Json
) -> None:
    cluster.admin.delete(f"{hooks(namespace)}/h")
    assert cluster.admin.post(hooks(namespace), json=hook("h")).status_code == 201
    metadata = {"uid": a_hook["metadata"]["uid"], "resourceVersion": version(a_hook)}
    assert patch_status(cluster, namespace, {"metadata": metadata, "status": {"rows": []}}).status_code == 409


def test_a_json_patch_whose_test_fails_is_422(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    write = {"op": "add", "path": "/status", "value": {"rows": [{"name": "a"}]}}
    other = [{"op": "test", "path": "/metadata/uid", "value": "x"}, write]
    same = [{"op": "test", "path": "/metadata/uid", "value": a_hook["metadata"]["uid"]}, write]
    refused = patch_status(cluster, namespace, other, JSON_PATCH)
    written = patch_status(cluster, namespace, same, JSON_PATCH)
    assert (refused.status_code, refused.json()["reason"]) == (422, "Invalid")
    assert (written.status_code, written.json()["status"]) == (200, {"rows": [{"name": "a"}]})


def test_unknown_status_fields_are_pruned_with_a_200(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    """What an older CRD does to a newer controller's claim."""
    answer = patch_status(cluster, namespace, {"status": {"rows": [{"name": "a", "call": {"id": "c"}}], "more": 1}})
    assert (answer.status_code, answer.json()["status"]) == (200, {"rows": [{"name": "a"}]})


def test_status_and_spec_are_written_apart_and_only_the_spec_is_a_generation(
    cluster: Cluster, namespace: str, a_hook: Json
) -> None:
    assert a_hook["metadata"]["generation"] == 1
    path = f"{hooks(namespace)}/h"
    body = {"spec": {"suspend": True}, "status": {"rows": [{"name": "a"}]}, "metadata": {"labels": {"a": "b"}}}
    by_status = patch_status(cluster, namespace, body).json()
    assert ("suspend" in by_status["spec"], "labels" in by_status["metadata"]) == (False, False)
    assert (by_status["metadata"]["generation"], by_status["status"]) == (1, {"rows": [{"name": "a"}]})
    by_spec = cluster.admin.patch(path, json=body | {"status": {"rows": []}}, headers=MERGE).json()
    assert (by_spec["spec"]["suspend"], by_spec["metadata"]["generation"]) == (True, 2)
    assert by_spec["status"] == {"rows": [{"name": "a"}]}
    labelled = cluster.admin.patch(path, json={"metadata": {"labels": {"a": "c"}}}, headers=MERGE).json()
    assert labelled["metadata"]["generation"] == 2
    assert version(labelled) != version(by_spec)


def test_a_status_of_the_wrong_type_is_422(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    answer = patch_status(cluster, namespace, {"status": {"updated": "yesterday", "rows": [{"name": 7}]}})
    causes = {(cause["field"], cause["reason"]) for cause in failure(answer)["details"]["causes"]}
    assert answer.status_code == 422
    assert causes == {("status.updated", "FieldValueTypeInvalid"), ("status.rows[0].name", "FieldValueTypeInvalid")}


def test_a_pod_status_patch_for_another_uid_is_422(cluster: Cluster, namespace: str) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    cluster.admin.post(pods(namespace), json={"metadata": {"name": "p"}, "spec": spec})
    body = {"metadata": {"uid": "x"}, "status": {"phase": "Running"}}
    answer = cluster.admin.patch(f"{pods(namespace)}/p/status", json=body, headers=MERGE)
    assert answer.status_code == 422
    assert failure(answer)["message"] == 'Pod "p" is invalid: metadata.uid: Invalid value: "x": field is immutable'


def test_a_malformed_version_in_a_patch_is_500(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    answer = patch_status(cluster, namespace, {"metadata": {"resourceVersion": "x"}, "status": {"rows": []}})
    assert failure(answer) == {"message": 'strconv.ParseUint: parsing "x": invalid syntax'}
    assert answer.status_code == 500


# -- Hooks against their schema


def test_a_new_hook_is_defaulted_pruned_and_without_status(cluster: Cluster, namespace: str) -> None:
    spec = {"entries": [{"type": "oom-kill", "id": "a", "zip": 1}], "labels": {"any": "key"}, "bogus": True}
    made = cluster.admin.post(hooks(namespace), json=hook("h", spec, status={"rows": []}, extra=1)).json()
    assert made["spec"] == {"entries": [{"type": "oom-kill", "id": "a"}], "labels": {"any": "key"}, "mode": "plain"}
    assert ("status" in made, "extra" in made) == (False, False)
    assert version(made) == version(cluster.admin.get(f"{hooks(namespace)}/h").json())


@pytest.mark.parametrize(
    ("spec", "causes"),
    [
        ({}, {("spec.entries", "FieldValueRequired")}),
        ({"entries": []}, {("spec.entries", "FieldValueInvalid")}),
        ({"entries": GOOD_SPEC["entries"] * 4}, {("spec.entries", "FieldValueTooMany")}),
        ({**GOOD_SPEC, "suspend": "no"}, {("spec.suspend", "FieldValueTypeInvalid")}),
        ({**GOOD_SPEC, "suspend": None, "mode": None}, set()),
        ({"entries": [None]}, {("spec.entries[0]", "FieldValueTypeInvalid")}),
        ({**GOOD_SPEC, "labels": {"a": 1}}, {("spec.labels.a", "FieldValueTypeInvalid")}),
        ({"entries": [{"type": "other", "id": "a"}]}, {("spec.entries[0].type", "FieldValueNotSupported")}),
        ({"entries": [{"type": "oom-kill", "id": ""}]}, {("spec.entries[0].id", "FieldValueInvalid")}),
        ({"entries": [{"type": "oom-kill", "id": "x" * 11}]}, {("spec.entries[0].id", "FieldValueTooLong")}),
        ({"entries": [{"type": "oom-kill", "id": "äöüäöüäöüä"}]}, set()),
        (
            {"entries": [{"type": "oom-kill", "id": "a", "cooldown": "1h"}]},
            {("spec.entries[0].cooldown", "FieldValueInvalid")},
        ),
        (
            {"entries": [{"type": "oom-kill", "id": "a", "cooldown": "1m\n"}]},
            {("spec.entries[0].cooldown", "FieldValueInvalid")},
        ),
        ({"entries": [{"type": "oom-kill", "id": "a", "times": 9}]}, {("spec.entries[0].times", "FieldValueInvalid")}),
        ({"entries": [{"type": "oom-kill", "id": "a", "ref": {"name": "b"}}]}, {("<nil>", "FieldValueInvalid")}),
        (
            {"entries": [{"type": "oom-kill"}]},
            {("<nil>", "FieldValueInvalid"), ("spec.entries[0].id", "FieldValueRequired")},
        ),
        ({"entries": [{"type": "oom-kill", "ref": {}}]}, {("spec.entries[0].ref.name", "FieldValueRequired")}),
    ],
)
def test_the_schema_is_enforced(cluster: Cluster, namespace: str, spec: Json, causes: set[tuple[str, str]]) -> None:
    answer = cluster.admin.post(hooks(namespace), json=hook("h", spec))
    if not causes:
        assert answer.status_code == 201, answer.text
        return
    assert answer.status_code == 422, answer.text
    details = failure(answer)["details"]
    assert {(cause["field"], cause["reason"]) for cause in details["causes"]} == causes
    assert (details["name"], details["group"], details["kind"]) == ("h", "contract.khook.dev", "Hook")


def test_one_violation_reads_as_the_server_writes_it(cluster: Cluster, namespace: str) -> None:
    answer = cluster.admin.post(hooks(namespace), json=hook("h", {"entries": [{"type": "other", "id": "a"}]}))
    assert failure(answer)["message"] == (
        'Hook.contract.khook.dev "h" is invalid: spec.entries[0].type: Unsupported value: "other": '
        'supported values: "oom-kill", "pod-restart"'
    )


def test_a_put_of_a_hook_needs_its_version(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    path = f"{hooks(namespace)}/h"
    blind = cluster.admin.put(path, json=hook("h"))
    assert blind.status_code == 422
    assert failure(blind)["message"].endswith(
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    )
    changed = a_hook | {"spec": a_hook["spec"] | {"suspend": True}}
    assert cluster.admin.put(path, json=changed).json()["metadata"]["generation"] == 2
    assert cluster.admin.put(path, json=changed).status_code == 409
    assert cluster.admin.put(f"{hooks(namespace)}/none", json=hook("none")).status_code == 404


# -- leases


def test_a_put_of_a_missing_lease_creates_it_and_a_post_of_an_existing_one_is_409(
    cluster: Cluster, namespace: str
) -> None:
    put = cluster.admin.put(f"{leases(namespace)}/l", json=lease("l", holderIdentity="a"))
    post = cluster.admin.post(leases(namespace), json=lease("l", holderIdentity="b"))
    assert (put.status_code, post.status_code) == (201, 409)
    assert failure(post) == {
        "message": 'leases.coordination.k8s.io "l" already exists',
        "reason": "AlreadyExists",
        "details": {"name": "l", "group": "coordination.k8s.io", "kind": "leases"},
    }


def test_a_lease_is_updated_only_from_its_present_version(cluster: Cluster, namespace: str) -> None:
    path = f"{leases(namespace)}/l"
    made = cluster.admin.post(leases(namespace), json=lease("l", holderIdentity="a")).json()
    renewed = cluster.admin.put(path, json=lease("l", resource_version=version(made), holderIdentity="b"))
    stale = cluster.admin.put(path, json=lease("l", resource_version=version(made), holderIdentity="c"))
    blind = cluster.admin.put(path, json=lease("l", holderIdentity="c"))
    assert [one.status_code for one in (renewed, stale, blind)] == [200, 409, 422]
    assert failure(stale)["reason"] == "Conflict"
    assert cluster.admin.get(path).json()["spec"] == {"holderIdentity": "b"}


def test_a_lease_of_another_uid_is_409(cluster: Cluster, namespace: str) -> None:
    made = cluster.admin.post(leases(namespace), json=lease("l")).json()
    foreign = made | {"metadata": made["metadata"] | {"uid": "x"}}
    answer = cluster.admin.put(f"{leases(namespace)}/l", json=foreign)
    assert (answer.status_code, failure(answer)["reason"]) == (409, "Conflict")
    assert "UID in precondition: x" in failure(answer)["message"]


def test_renew_time_has_six_decimals(cluster: Cluster, namespace: str) -> None:
    good = cluster.admin.post(leases(namespace), json=lease("a", renewTime="2024-01-01T00:00:00.123456Z"))
    bad = cluster.admin.post(leases(namespace), json=lease("b", renewTime="2024-01-01T00:00:00Z"))
    assert good.json()["spec"] == {"renewTime": "2024-01-01T00:00:00.123456Z"}
    assert (bad.status_code, failure(bad)["reason"]) == (400, "BadRequest")


# -- Events and Pods


def test_an_event_of_the_new_api_is_a_core_event(cluster: Cluster, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {
        "metadata": {"name": "e"},
        "eventTime": "2024-01-01T00:00:00.000001Z",
        "reportingController": "default-scheduler",
        "reportingInstance": "i",
        "action": "Scheduling",
        "reason": "FailedScheduling",
        "type": "Warning",
        "note": "0/1 nodes are available",
        "regarding": about,
    }
    made = cluster.admin.post(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", json=body)
    assert made.status_code == 201, made.text
    core = cluster.admin.get(f"/api/v1/namespaces/{namespace}/events/e").json()
    del core["metadata"]
    assert core == {
        "kind": "Event",
        "apiVersion": "v1",
        "involvedObject": about,
        "reason": "FailedScheduling",
        "message": "0/1 nodes are available",
        "source": {},
        "firstTimestamp": None,
        "lastTimestamp": None,
        "type": "Warning",
        "eventTime": "2024-01-01T00:00:00.000001Z",
        "action": "Scheduling",
        "reportingComponent": "default-scheduler",
        "reportingInstance": "i",
    }


def test_a_core_event_carries_a_null_event_time(cluster: Cluster, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "lastTimestamp": "2024-01-01T00:00:00.9Z", "count": 1}
    made = cluster.admin.post(f"/api/v1/namespaces/{namespace}/events", json=body).json()
    assert made["eventTime"] is None
    assert (made["firstTimestamp"], made["lastTimestamp"]) == (None, "2024-01-01T00:00:00Z")
    shown = cluster.admin.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events/e").json()
    assert (shown["deprecatedCount"], shown["regarding"]) == (1, about)


def test_a_core_event_with_event_time_must_say_who_reports_what(cluster: Cluster, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "eventTime": "2024-01-01T00:00:00.000000Z"}
    answer = cluster.admin.post(f"/api/v1/namespaces/{namespace}/events", json=body)
    assert answer.status_code == 422
    fields = {cause["field"] for cause in failure(answer)["details"]["causes"]}
    assert fields == {"reportingComponent", "reportingInstance", "action", "reason"}


def test_an_event_lies_in_the_namespace_of_what_it_is_about(cluster: Cluster, namespace: str) -> None:
    body = {"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}}
    answer = cluster.admin.post(f"/api/v1/namespaces/{namespace}/events", json=body)
    assert answer.status_code == 422
    assert failure(answer)["details"]["causes"] == [
        {
            "reason": "FieldValueInvalid",
            "message": 'Invalid value: "default": does not match event.namespace',
            "field": "involvedObject.namespace",
        }
    ]


def test_a_pod_status_comes_back_as_go_writes_it(cluster: Cluster, namespace: str) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    made = cluster.admin.post(pods(namespace), json={"metadata": {"name": "p"}, "spec": spec}).json()
    assert (made["status"]["phase"], made["metadata"]["generation"]) == ("Pending", 1)
    killed = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2024-01-01T00:00:00Z"}}
    container = {"name": "c", "restartCount": 2, "image": "i", "imageID": "", "ready": False, "lastState": killed}
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [container]}
    answer = cluster.admin.patch(f"{pods(namespace)}/p/status", json={"status": status}, headers=MERGE).json()
    assert answer["status"]["containerStatuses"] == [
        container | {"state": {}, "lastState": {"terminated": killed["terminated"] | {"startedAt": None}}}
    ]
    assert answer["metadata"]["generation"] == 1


def test_a_scheduled_pod_is_deleted_twice(cluster: Cluster, namespace: str) -> None:
    """First a deletionTimestamp, which asks the kubelet; then the kubelet's own DELETE with no grace."""
    path = f"{pods(namespace)}/p"
    spec = {"containers": [{"name": "c", "image": "i"}]}
    cluster.admin.post(pods(namespace), json={"metadata": {"name": "p"}, "spec": spec | {"nodeName": "n"}})
    first = cluster.admin.delete(path)
    assert (first.status_code, first.json()["metadata"]["deletionGracePeriodSeconds"]) == (200, 30)
    assert "deletionTimestamp" in cluster.admin.get(path).json()["metadata"]
    assert cluster.admin.delete(path, params={"gracePeriodSeconds": "0"}).status_code == 200
    assert cluster.admin.get(path).status_code == 404


# -- deletion, names, refusals


def test_a_deletion_of_another_uid_is_409(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    path, uid = f"{hooks(namespace)}/h", a_hook["metadata"]["uid"]
    refused = cluster.admin.request("DELETE", path, json={"preconditions": {"uid": "zz"}})
    done = cluster.admin.request("DELETE", path, json={"preconditions": {"uid": uid}})
    assert (refused.status_code, failure(refused)["reason"]) == (409, "Conflict")
    assert done.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "h", "group": "contract.khook.dev", "kind": "hooks", "uid": uid},
    }


def test_a_generated_name_keeps_its_prefix(cluster: Cluster, namespace: str) -> None:
    made = [cluster.admin.post(hooks(namespace), json=hook("") | {"metadata": {"generateName": "g-"}}) for _ in "ab"]
    first, second = (answer.json()["metadata"]["name"] for answer in made)
    assert (first[:2], len(first), first != second) == ("g-", 7, True)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (hook("h", kind="Hok"), 422, 'Hok.contract.khook.dev "h" is invalid: kind: Invalid value: "Hok": must be Hook'),
        (
            hook("h") | {"metadata": {}},
            422,
            'Hook.contract.khook.dev "" is invalid: metadata.name: Required value: name or generateName is required',
        ),
        (
            hook("h") | {"metadata": {"name": "h", "namespace": "other"}},
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            hook("h") | {"metadata": {"name": "h", "resourceVersion": "1"}},
            500,
            "resourceVersion should not be set on objects to be created",
        ),
    ],
)
def test_what_cannot_be_created(cluster: Cluster, namespace: str, body: Json, code: int, message: str) -> None:
    answer = cluster.admin.post(hooks(namespace), json=body)
    assert (answer.status_code, failure(answer)["message"]) == (code, message)


def test_a_name_is_a_dns_subdomain(cluster: Cluster, namespace: str) -> None:
    answer = cluster.admin.post(hooks(namespace), json=hook("Bad_"))
    assert answer.status_code == 422
    subject = 'Hook.contract.khook.dev "Bad_" is invalid: metadata.name: Invalid value: "Bad_"'
    assert failure(answer)["message"].startswith(f"{subject}: a lowercase RFC 1123 subdomain")


def test_nothing_is_created_in_a_missing_namespace(cluster: Cluster) -> None:
    expected = {
        "message": 'namespaces "nope" not found',
        "reason": "NotFound",
        "details": {"name": "nope", "kind": "namespaces"},
    }
    for path, body in ((hooks("nope"), hook("h")), (leases("nope"), lease("l"))):
        answer = cluster.admin.post(path, json=body)
        assert (answer.status_code, failure(answer)) == (404, expected)


def test_401_and_404_bodies(cluster: Cluster, namespace: str) -> None:
    with cluster.anonymous() as client:
        unauthorized = client.get(pods(namespace))
    missing = cluster.admin.get(f"{hooks(namespace)}/none")
    unknown = cluster.admin.get("/api/v1/zzz")
    group = cluster.admin.get("/apis/no.such.group/v1/things")
    assert unauthorized.status_code == 401
    assert failure(unauthorized) == {"message": "Unauthorized", "reason": "Unauthorized"}
    assert failure(missing) == {
        "message": 'hooks.contract.khook.dev "none" not found',
        "reason": "NotFound",
        "details": {"name": "none", "group": "contract.khook.dev", "kind": "hooks"},
    }
    assert failure(unknown)["message"] == "the server could not find the requested resource"
    assert (group.status_code, group.headers["content-type"].split(";")[0]) == (404, "text/plain")
    assert group.text == "404 page not found\n"


def test_403_bodies_name_who_may_not_do_what_where(cluster: Cluster, namespace: str) -> None:
    with cluster.user_may_nothing() as client:
        everywhere = client.get("/api/v1/pods")
        watched = client.get(pods(namespace), params={"watch": "true"})
        patched = client.patch(f"{hooks(namespace)}/h/status", json={}, headers=MERGE)
    assert [answer.status_code for answer in (everywhere, watched, patched)] == [403] * 3
    assert failure(everywhere)["message"] == (
        'pods is forbidden: User "plain" cannot list resource "pods" in API group "" at the cluster scope'
    )
    assert failure(watched) == {
        "message": 'pods is forbidden: User "plain" cannot watch resource "pods" in API group "" '
        f'in the namespace "{namespace}"',
        "reason": "Forbidden",
        "details": {"kind": "pods"},
    }
    assert failure(patched) == {
        "message": 'hooks.contract.khook.dev "h" is forbidden: User "plain" cannot patch resource "hooks/status" '
        f'in API group "contract.khook.dev" in the namespace "{namespace}"',
        "reason": "Forbidden",
        "details": {"name": "h", "group": "contract.khook.dev", "kind": "hooks"},
    }


def test_wrong_methods_and_patch_types(cluster: Cluster, namespace: str, a_hook: Json) -> None:
    wrong = cluster.admin.put(pods(namespace), json={})
    strategic = {"content-type": "application/strategic-merge-patch+json"}
    untyped = cluster.admin.patch(f"{hooks(namespace)}/h", json={}, headers=strategic)
    broken = cluster.admin.patch(f"{hooks(namespace)}/h", content=b"xx", headers=MERGE)
    renamed = cluster.admin.patch(f"{hooks(namespace)}/h", json={"metadata": {"name": "i"}}, headers=MERGE)
    assert (wrong.status_code, failure(wrong)["reason"]) == (405, "MethodNotAllowed")
    assert (untyped.status_code, failure(untyped)["reason"]) == (415, "UnsupportedMediaType")
    assert (broken.status_code, failure(broken)["reason"]) == (400, "BadRequest")
    assert (renamed.status_code, failure(renamed)["message"]) == (
        400,
        "the name of the object (i) does not match the name on the URL (h)",
    )


def test_every_answer_has_a_date_and_discovery_is_there(cluster: Cluster) -> None:
    version_answer = cluster.admin.get("/version")
    assert parsedate_to_datetime(version_answer.headers["date"]).tzinfo is not None
    assert version_answer.json()["gitVersion"] == "v1.36.3"
    assert cluster.admin.get("/readyz").text == "ok"
    resources = cluster.admin.get("/apis/contract.khook.dev/v1").json()["resources"]
    assert [(one["name"], one["kind"], one["namespaced"]) for one in resources] == [
        ("hooks", "Hook", True),
        ("hooks/status", "Hook", True),
    ]
    assert cluster.admin.get("/apis/contract.khook.dev").json()["preferredVersion"]["version"] == "v1"
    groups = cluster.admin.get("/apis").json()["groups"]
    assert {"events.k8s.io", "coordination.k8s.io", "contract.khook.dev"} <= {group["name"] for group in groups}


def test_a_changed_crd_prunes_what_was_stored_and_ends_its_watches(cluster: Cluster, namespace: str) -> None:
    crd = deepcopy(HOOK_CRD)
    crd["metadata"]["name"], crd["spec"]["group"] = f"hooks.{namespace}.dev", f"{namespace}.dev"
    install_crd(cluster.admin, crd)
    collection = f"/apis/{namespace}.dev/v1/namespaces/{namespace}/hooks"
    body = hook("h") | {"apiVersion": f"{namespace}.dev/v1"}
    made = cluster.admin.post(collection, json=body).json()
    patched = cluster.admin.patch(f"{collection}/h/status", json={"status": {"rows": [{"name": "a"}]}}, headers=MERGE)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["rows"]
    crd_path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
    with watching(cluster.admin, collection, resourceVersion=version(made), timeoutSeconds="300") as lines:
        assert next(lines)["object"]["status"] == {"rows": [{"name": "a"}]}
        answer = cluster.admin.patch(crd_path, json={"spec": crd["spec"]}, headers=MERGE)
        assert answer.status_code == 200, answer.text
        assert list(lines) == []
    wait_served(cluster.admin, collection)
    after = cluster.admin.get(f"{collection}/h").json()
    assert (after.get("status"), version(after)) == ({}, version(patched.json()))
    assert cluster.admin.delete(crd_path).status_code == 200
