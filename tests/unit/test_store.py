"""What the pure API server promises beyond the contract: the past stays as it was, watches add up to the present."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.sandbox.api_errors import ApiError
from khook.sandbox.history import HISTORY_LIMIT
from khook.sandbox.kinds import EVENTS, LEASES, PODS
from khook.sandbox.patches import merge_patched
from khook.sandbox.selectors import parse_labels
from khook.sandbox.store import Store

Json = dict[str, Any]

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
NAMESPACES = ("default", "kube-system")


def a_store(seed: int = 1) -> Store:
    return Store(randomness=random.Random(seed), now=NOW)


def an_event(name: str, namespace: str = "default") -> Json:
    return {"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "p"}}


Step = tuple[str, str, str]
steps = st.lists(
    st.tuples(st.sampled_from(NAMESPACES), st.sampled_from("abc"), st.sampled_from(["red", "blue", "delete"])),
    max_size=30,
)


def apply(store: Store, step: Step) -> None:
    """Make the lease, paint it or delete it."""
    namespace, name, what = step
    try:
        present: Json | None = store.get(LEASES, namespace, name)
    except ApiError:
        present = None
    if what == "delete":
        if present is not None:
            store.delete(LEASES, namespace, name, now=NOW)
    elif present is None:
        store.create(LEASES, namespace, {"metadata": {"name": name, "labels": {"color": what}}}, now=NOW)
    else:
        store.patch(LEASES, namespace, name, {"metadata": {"labels": {"color": what}}}, now=NOW)


def snapshot(store: Store, revision: int, namespace: str | None = None) -> list[tuple[str, bytes]]:
    return [(key, orjson.dumps(item)) for key, item in store.items_at(LEASES, namespace, revision)]


@given(steps)
def test_every_remembered_version_still_shows_what_it_showed(history: list[Step]) -> None:
    store = a_store()
    shown = {}
    for step in history:
        apply(store, step)
        shown[store.revision] = [snapshot(store, store.revision, scope) for scope in (None, *NAMESPACES)]
    for revision, expected in shown.items():
        assert [snapshot(store, revision, scope) for scope in (None, *NAMESPACES)] == expected


@given(
    steps, st.integers(0, 30), st.sampled_from([None, "color=red", "color!=red"]), st.sampled_from([None, "default"])
)
def test_a_list_and_the_watch_from_its_version_add_up_to_the_present(
    history: list[Step], cut: int, selector: str | None, namespace: str | None
) -> None:
    store = a_store()
    matches = parse_labels(selector or "")
    for step in history[:cut]:
        apply(store, step)
    start = store.revision
    early = store.watch(LEASES, namespace, start=start, matches=matches)
    known = {key: item for key, item in store.items_at(LEASES, namespace, start) if not matches or matches(item)}
    for step in history[cut:]:
        apply(store, step)
    late = store.watch(LEASES, namespace, start=start, matches=matches)
    lines = late.drain()
    assert early.drain() == lines
    for line in map(orjson.loads, lines):
        metadata = line["object"]["metadata"]
        key = metadata["name"] if namespace else f"{metadata['namespace']}/{metadata['name']}"
        assert (line["type"] == "ADDED") is (key not in known)
        if line["type"] == "DELETED":
            del known[key]
        else:
            known[key] = line["object"]
    present = dict(store.items_at(LEASES, namespace, store.revision))
    assert {key: item["metadata"]["resourceVersion"] for key, item in known.items()} == {
        key: item["metadata"]["resourceVersion"] for key, item in present.items() if not matches or matches(item)
    }


def test_one_counter_runs_over_all_resources() -> None:
    store = a_store()
    made = [
        store.create(LEASES, "default", {"metadata": {"name": "l"}}, now=NOW),
        store.create(EVENTS, "default", an_event("e"), now=NOW),
        store.patch(LEASES, "default", "l", {"spec": {"holderIdentity": "a"}}, now=NOW),
    ]
    versions = [int(item["metadata"]["resourceVersion"]) for item in made]
    assert versions == [versions[0], versions[0] + 1, versions[0] + 2]
    assert store.revision == versions[-1]


def test_the_same_seed_gives_the_same_names_and_uids() -> None:
    def run(seed: int) -> list[Json]:
        store = a_store(seed)
        body = {"metadata": {"generateName": "l-"}}
        return [store.create(LEASES, "default", body, now=NOW)["metadata"] for _ in range(3)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_an_event_goes_an_hour_after_it_was_last_written_and_watches_see_it_go() -> None:
    store = a_store()
    store.create(EVENTS, "default", an_event("once"), now=NOW)
    store.create(EVENTS, "default", an_event("again"), now=NOW)
    store.patch(EVENTS, "default", "again", {"count": 2}, now=NOW + timedelta(minutes=30))
    watch = store.watch(EVENTS, None, start=store.revision)
    store.expire_events(NOW + timedelta(minutes=61))
    [line] = map(orjson.loads, watch.drain())
    assert (line["type"], line["object"]["metadata"]["name"]) == ("DELETED", "once")
    assert [key for key, _ in store.items_at(EVENTS, "default", store.revision)] == ["again"]


def test_compaction_forgets_events_and_a_restart_forgets_pods() -> None:
    store = a_store()
    pod = store.create(PODS, "default", {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}, now=NOW)
    start = int(pod["metadata"]["resourceVersion"])
    for name in "abc":
        store.create(EVENTS, "default", an_event(name), now=NOW)
    store.compact()
    assert store.watch(EVENTS, "default", start=start).failed_code == 410
    assert store.watch(PODS, "default", start=start).failed_code == 0
    store.restart_caches()
    assert store.watch(PODS, "default", start=start).failed_code == 410
    assert store.watch(PODS, "default", start=store.revision).failed_code == 0


def test_the_past_is_bounded() -> None:
    store = a_store()
    start = int(store.create(EVENTS, "default", an_event("e"), now=NOW)["metadata"]["resourceVersion"])
    for number in range(HISTORY_LIMIT + 1):
        store.patch(EVENTS, "default", "e", {"count": number}, now=NOW)
    assert store.watch(EVENTS, "default", start=start).failed_code == 410
    assert store.watch(EVENTS, "default", start=store.revision - 1).failed_code == 0


def test_a_watch_that_was_closed_gets_nothing_more() -> None:
    store = a_store()
    watch = store.watch(EVENTS, "default", start=store.revision)
    store.unwatch(watch)
    store.create(EVENTS, "default", an_event("e"), now=NOW)
    assert watch.drain() == []


@pytest.mark.parametrize(
    ("selector", "labels", "chosen"),
    [
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a in (x, y),b!=c", {"a": "y"}, True),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a notin (x,y)", {}, True),
        ("a==x", {"a": "x"}, True),
        ("a=x,b=y", {"a": "x"}, False),
    ],
)
def test_label_selectors(selector: str, labels: dict[str, str], chosen: bool) -> None:
    matches = parse_labels(selector)
    assert matches is not None
    assert matches({"metadata": {"labels": labels}}) is chosen


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_in_rfc_7396_appendix_a(target: Json, patch: Json, result: Json) -> None:
    assert merge_patched(target, patch) == result
