"""What a watch and a LIST may rely on, held against the embedded API server and a real kube-apiserver."""

from typing import Any

import httpx
import pytest
from support.api_servers import MERGE, Cluster, head_version, version, wait_served, watching

Json = dict[str, Any]


def events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


def hooks(namespace: str) -> str:
    return f"/apis/contract.khook.dev/v1/namespaces/{namespace}/hooks"


def make_event(cluster: Cluster, namespace: str, name: str, **fields: Any) -> Json:
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    body = {"metadata": {"name": name}, "involvedObject": about} | fields
    answer = cluster.admin.post(events(namespace), json=body)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def make_pod(cluster: Cluster, namespace: str, name: str, **metadata: Any) -> Json:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    answer = cluster.admin.post(pods(namespace), json={"metadata": {"name": name} | metadata, "spec": spec})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def make_hook(cluster: Cluster, namespace: str, name: str) -> Json:
    spec = {"entries": [{"type": "oom-kill", "id": "a"}]}
    head = {"apiVersion": "contract.khook.dev/v1", "kind": "Hook", "metadata": {"name": name}}
    answer = cluster.admin.post(hooks(namespace), json=head | {"spec": spec})
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


def patch(cluster: Cluster, path: str, body: Json) -> Json:
    answer = cluster.admin.patch(path, json=body, headers=MERGE)
    assert answer.status_code == 200, answer.text
    patched: Json = answer.json()
    return patched


def names(items: list[Json]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


# -- watches


def test_watch_delivers_what_happened_after_its_version_in_order(cluster: Cluster, namespace: str) -> None:
    make_event(cluster, namespace, "before")
    start = version(cluster.admin.get(events(namespace)).json())
    with watching(cluster.admin, events(namespace), resourceVersion=start) as lines:
        made = make_event(cluster, namespace, "e", reason="BackOff", count=1)
        changed = patch(cluster, f"{events(namespace)}/e", {"count": 2})
        cluster.admin.delete(f"{events(namespace)}/e")
        added, modified, deleted = (next(lines) for _ in range(3))
    assert [line["type"] for line in (added, modified, deleted)] == ["ADDED", "MODIFIED", "DELETED"]
    assert version(added["object"]) == version(made)
    assert (version(modified["object"]), modified["object"]["count"]) == (version(changed), 2)
    assert deleted["object"]["count"] == 2
    assert version(deleted["object"]) not in (version(made), version(changed))
    assert added["object"]["kind"] == "Event"
    assert added["object"]["apiVersion"] == "v1"


def test_watch_resumes_from_the_version_of_its_last_line(cluster: Cluster, namespace: str) -> None:
    first = make_event(cluster, namespace, "one")
    make_event(cluster, namespace, "two")
    with watching(cluster.admin, events(namespace), resourceVersion=version(first)) as lines:
        assert next(lines)["object"]["metadata"]["name"] == "two"


def test_watch_from_a_compacted_version_is_200_one_error_line_and_a_clean_end(cluster: Cluster, namespace: str) -> None:
    start = version(make_event(cluster, namespace, "e"))
    for number in (2, 3, 4):
        patch(cluster, f"{events(namespace)}/e", {"count": number})
    cluster.compact()
    with watching(cluster.admin, events(namespace), resourceVersion=start) as lines:
        [only] = list(lines)
    assert only["type"] == "ERROR"
    assert (only["object"]["kind"], only["object"]["code"], only["object"]["reason"]) == ("Status", 410, "Expired")


def test_watch_from_just_before_a_compacted_change_is_an_error_500(cluster: Cluster, namespace: str) -> None:
    """etcd can no longer say what the object was before, so the line is lost: only a relist helps, not a retry."""
    make_event(cluster, namespace, "e")
    changed = int(version(patch(cluster, f"{events(namespace)}/e", {"count": 2})))
    cluster.compact(changed)
    with watching(cluster.admin, events(namespace), resourceVersion=str(changed - 1)) as lines:
        [only] = list(lines)
    assert only["type"] == "ERROR"
    assert (only["object"]["code"], only["object"]["reason"]) == (500, "InternalError")


def test_watch_from_the_compacted_version_itself_goes_on(cluster: Cluster, namespace: str) -> None:
    made = make_event(cluster, namespace, "e")
    cluster.compact(int(version(made)))
    patch(cluster, f"{events(namespace)}/e", {"count": 2})
    with watching(cluster.admin, events(namespace), resourceVersion=version(made)) as lines:
        assert next(lines)["type"] == "MODIFIED"


def test_restart_cuts_watches_forgets_pod_versions_and_keeps_event_versions(cluster: Cluster, namespace: str) -> None:
    old_pod = version(make_pod(cluster, namespace, "p"))
    old_event = version(make_event(cluster, namespace, "e"))
    with watching(cluster.admin, pods(namespace), resourceVersion=old_pod) as lines:
        cluster.restart()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            next(lines)
    wait_served(cluster.admin, hooks(namespace))
    with watching(cluster.admin, pods(namespace), resourceVersion=old_pod) as lines:
        [only] = list(lines)
    assert (only["type"], only["object"]["code"]) == ("ERROR", 410)
    patch(cluster, f"{events(namespace)}/e", {"count": 2})
    with watching(cluster.admin, events(namespace), resourceVersion=old_event) as lines:
        assert next(lines)["object"]["count"] == 2


def test_timeout_ends_a_watch_cleanly_and_leaves_the_connection_reusable(cluster: Cluster, namespace: str) -> None:
    query = {"watch": "true", "timeoutSeconds": "1"}
    with cluster.admin.stream("GET", events(namespace), params=query) as answer:
        first = answer.extensions["network_stream"].get_extra_info("client_addr")
        assert list(answer.iter_lines()) == []
    after = cluster.admin.get(events(namespace))
    assert after.extensions["network_stream"].get_extra_info("client_addr") == first


@pytest.mark.parametrize("path", [events("not-there"), pods("not-there"), hooks("not-there")])
def test_a_missing_namespace_is_an_empty_list_and_a_silent_watch(cluster: Cluster, path: str) -> None:
    listed = cluster.admin.get(path)
    assert (listed.status_code, listed.json()["items"]) == (200, [])
    with watching(cluster.admin, path, resourceVersion=version(listed.json()), timeoutSeconds="1") as lines:
        assert list(lines) == []


def test_a_version_from_the_future_is_silence(cluster: Cluster, namespace: str) -> None:
    future = str(int(head_version(cluster.admin)) + 1_000_000)
    with watching(cluster.admin, events(namespace), resourceVersion=future, timeoutSeconds="1") as lines:
        make_event(cluster, namespace, "e")
        assert list(lines) == []


def test_a_malformed_version_is_500_for_a_watch_and_400_for_a_list(cluster: Cluster, namespace: str) -> None:
    watched = cluster.admin.get(events(namespace), params={"watch": "true", "resourceVersion": "abc"})
    listed = cluster.admin.get(events(namespace), params={"resourceVersion": "abc"})
    sentence = 'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'
    assert (watched.status_code, watched.json()["message"]) == (500, sentence)
    assert (listed.status_code, listed.json()["message"]) == (400, f"invalid resource version: {sentence}")


def test_bookmarks_come_for_pods_and_hooks_and_never_for_events(cluster: Cluster, namespace: str) -> None:
    """About once a minute, and 2 s before the end: so a short watch shows them. They must be newer than its start."""
    start = head_version(cluster.admin)
    asked = {"allowWatchBookmarks": "true", "resourceVersion": start, "timeoutSeconds": "6"}
    with (
        watching(cluster.admin, pods(namespace), **asked) as of_pods,
        watching(cluster.admin, hooks(namespace), **asked) as of_hooks,
        watching(cluster.admin, events(namespace), **asked) as of_events,
    ):
        make_pod(cluster, "default", f"pod-of-{namespace}")
        make_hook(cluster, "default", f"hook-of-{namespace}")
        found = {"Pod": list(of_pods), "Hook": list(of_hooks)}
        assert list(of_events) == []
    for kind, lines in found.items():
        assert {(line["type"], line["object"]["kind"]) for line in lines} == {("BOOKMARK", kind)}
        assert int(version(lines[-1]["object"])) > int(start)
        assert lines[-1]["object"]["metadata"].keys() == {"resourceVersion"}


@pytest.mark.parametrize("resource", ["pods", "events"])
def test_watch_without_a_version_shows_the_present_and_with_bookmarks_marks_its_end(
    cluster: Cluster, namespace: str, resource: str
) -> None:
    make = make_pod if resource == "pods" else make_event
    for name in ("b", "a"):
        make(cluster, namespace, name)
    path = f"/api/v1/namespaces/{namespace}/{resource}"
    with watching(cluster.admin, path, timeoutSeconds="1") as lines:
        assert [(line["type"], line["object"]["metadata"]["name"]) for line in lines] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
        ]
    with watching(cluster.admin, path, timeoutSeconds="1", allowWatchBookmarks="true") as lines:
        *_, last = list(lines)
    assert last["type"] == "BOOKMARK"
    assert last["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_objects_enter_and_leave_a_selected_watch(cluster: Cluster, namespace: str) -> None:
    start = version(make_pod(cluster, namespace, "p", labels={"app": "shop"}))
    with watching(cluster.admin, pods(namespace), resourceVersion=start, labelSelector="app=other") as lines:
        patch(cluster, f"{pods(namespace)}/p", {"metadata": {"labels": {"app": "other"}}})
        patch(cluster, f"{pods(namespace)}/p", {"metadata": {"labels": {"app": "other", "x": "y"}}})
        patch(cluster, f"{pods(namespace)}/p", {"metadata": {"labels": {"app": "third"}}})
        types = [next(lines)["type"] for _ in range(3)]
    assert types == ["ADDED", "MODIFIED", "DELETED"]


def test_event_field_selectors_choose_on_list_and_watch(cluster: Cluster, namespace: str) -> None:
    selector = "involvedObject.kind=Pod,reason!=Pulled,type==Warning"
    start = version(make_event(cluster, namespace, "yes", reason="BackOff", type="Warning"))
    make_event(cluster, namespace, "pulled", reason="Pulled", type="Warning")
    make_event(cluster, namespace, "normal", reason="BackOff", type="Normal")
    make_event(cluster, namespace, "hook", involvedObject={"kind": "Hook", "namespace": namespace}, type="Warning")
    make_event(cluster, namespace, "last", reason="Failed", type="Warning")
    listed = cluster.admin.get(events(namespace), params={"fieldSelector": selector}).json()
    assert names(listed["items"]) == ["last", "yes"]
    with watching(cluster.admin, events(namespace), resourceVersion=start, fieldSelector=selector) as lines:
        assert next(lines)["object"]["metadata"]["name"] == "last"
    refused = cluster.admin.get(events(namespace), params={"fieldSelector": "foo=bar"})
    assert (refused.status_code, refused.json()["message"]) == (400, "field label not supported: foo")


# -- lists


def test_pages_of_one_list_show_one_version(cluster: Cluster, namespace: str) -> None:
    for name in "abcde":
        make_event(cluster, namespace, name)
    first = cluster.admin.get(events(namespace), params={"limit": "2"}).json()
    assert first["metadata"]["remainingItemCount"] == 3
    make_event(cluster, namespace, "f")
    cluster.admin.delete(f"{events(namespace)}/d")
    patch(cluster, f"{events(namespace)}/e", {"count": 7})
    found, page = list(first["items"]), first
    while token := page["metadata"].get("continue"):
        page = cluster.admin.get(events(namespace), params={"limit": "2", "continue": token}).json()
        assert version(page) == version(first)
        found += page["items"]
    assert names(found) == ["a", "b", "c", "d", "e"]
    assert "count" not in found[4]


def test_an_expired_continue_is_410_and_offers_an_inconsistent_rest(cluster: Cluster, namespace: str) -> None:
    for name in "abc":
        make_event(cluster, namespace, name)
    token = cluster.admin.get(events(namespace), params={"limit": "1"}).json()["metadata"]["continue"]
    make_event(cluster, namespace, "d")
    cluster.compact()
    expired = cluster.admin.get(events(namespace), params={"limit": "1", "continue": token})
    status = expired.json()
    assert (expired.status_code, status["reason"], status["code"]) == (410, "Expired", 410)
    fresh = status["metadata"]["continue"]
    rest = cluster.admin.get(events(namespace), params={"continue": fresh}).json()
    assert names(rest["items"]) == ["b", "c", "d"]


def test_a_list_at_version_0_of_a_cached_kind_ignores_the_limit(cluster: Cluster, namespace: str) -> None:
    start = version(make_pod(cluster, namespace, "p"))
    with watching(cluster.admin, pods(namespace), resourceVersion=start) as lines:
        make_pod(cluster, namespace, "q")
        next(lines)  # the cache has it now
    query = {"resourceVersion": "0", "limit": "1"}
    assert names(cluster.admin.get(pods(namespace), params=query).json()["items"]) == ["p", "q"]


def test_list_items_name_their_kind_only_for_custom_resources(cluster: Cluster, namespace: str) -> None:
    make_pod(cluster, namespace, "p")
    make_hook(cluster, namespace, "h")
    of_pods = cluster.admin.get(pods(namespace)).json()
    of_hooks = cluster.admin.get(hooks(namespace)).json()
    assert (of_pods["kind"], "kind" in of_pods["items"][0]) == ("PodList", False)
    assert (of_hooks["kind"], of_hooks["items"][0]["kind"]) == ("HookList", "Hook")


def test_partial_object_metadata_in_list_and_watch(cluster: Cluster, namespace: str) -> None:
    made = make_hook(cluster, namespace, "h")
    listed = cluster.admin.get(
        hooks(namespace), headers={"accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    ).json()
    assert (listed["kind"], listed["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    [item] = listed["items"]
    assert item.keys() == {"kind", "apiVersion", "metadata"}
    assert (item["kind"], item["metadata"]["uid"]) == ("PartialObjectMetadata", made["metadata"]["uid"])
    accept = {"accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    query = {"watch": "true", "timeoutSeconds": "1"}
    with cluster.admin.stream("GET", hooks(namespace), params=query, headers=accept) as answer:
        [line] = [httpx.Response(200, content=line).json() for line in answer.iter_lines()]
    assert (line["type"], line["object"]["kind"]) == ("ADDED", "PartialObjectMetadata")
    assert (line["object"]["metadata"]["generation"], "spec" in line["object"]) == (1, False)
    refused = cluster.admin.get(hooks(namespace), headers=accept)
    assert (refused.status_code, refused.json()["reason"]) == (406, "NotAcceptable")


def test_big_lists_are_gzipped_and_watches_never(cluster: Cluster, namespace: str) -> None:
    make_event(cluster, namespace, "big", message="x" * 140_000)
    listed = cluster.admin.get(events(namespace))
    assert listed.headers["content-encoding"] == "gzip"
    assert len(listed.json()["items"][0]["message"]) == 140_000
    query = {"watch": "true", "timeoutSeconds": "1"}
    with cluster.admin.stream("GET", events(namespace), params=query) as answer:
        assert "content-encoding" not in answer.headers
        assert len(list(answer.iter_lines())) == 1
