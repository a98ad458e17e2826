"""Strategic merge patch as a pure function; the contract suite holds the same against a real API server."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.sandbox.kinds import PODS
from khook.sandbox.merge_keys import RULES
from khook.sandbox.strategic import BadPatch, BadRetainKeys, strategic_merged

Json = dict[str, Any]

POD: Json = {
    "metadata": {"name": "p", "finalizers": ["x/a", "x/b"]},
    "spec": {
        "containers": [
            {"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "b", "image": "i", "args": ["1", "2"]},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "k"}],
    },
}


def patched(patch: Json) -> Json:
    before = deepcopy(POD)
    result = strategic_merged(POD, patch, RULES[PODS.storage_key])
    assert before == POD
    return result


def spec(patch: Json) -> Json:
    found: Json = patched({"spec": patch})["spec"]
    return found


def names(items: list[Json]) -> list[str]:
    return [item["name"] for item in items]


def test_an_item_is_found_by_its_merge_key_and_the_others_stay() -> None:
    containers = spec({"containers": [{"name": "b", "image": "j"}]})["containers"]
    assert containers == [POD["spec"]["containers"][0], {"name": "b", "image": "j", "args": ["1", "2"]}]


def test_a_list_without_a_merge_key_is_replaced() -> None:
    assert spec({"tolerations": [{"key": "l"}]})["tolerations"] == [{"key": "l"}]
    assert spec({"containers": [{"name": "b", "args": ["3"]}]})["containers"][1]["args"] == ["3"]


def test_null_removes_a_field_and_is_never_kept() -> None:
    assert "volumes" not in spec({"volumes": None})
    [_, _, new] = spec(
        {"$setElementOrder/containers": [{"name": n} for n in "abz"], "containers": [{"name": "z", "image": None}]}
    )["containers"]
    assert new == {"name": "z"}


def test_directives_delete_replace_and_retain() -> None:
    assert names(spec({"containers": [{"name": "a", "$patch": "delete"}]})["containers"]) == ["b"]
    assert spec({"containers": [{"$patch": "replace"}, {"name": "z"}]})["containers"] == [{"name": "z"}]
    assert spec({"$patch": "replace", "nodeName": "n"}) == {"nodeName": "n"}
    other = {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}
    assert spec({"volumes": [other]})["volumes"] == [{"name": "v", "hostPath": {"path": "/"}}]


def test_a_set_of_words_grows_and_shrinks() -> None:
    assert patched({"metadata": {"finalizers": ["x/c", "x/a"]}})["metadata"]["finalizers"] == ["x/c", "x/a", "x/b"]
    gone = patched({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/a"]}})
    assert gone["metadata"]["finalizers"] == ["x/b"]


def test_the_order_asked_for_is_the_order_it_gets() -> None:
    order = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}
    assert names(spec(order)["containers"]) == ["b", "a"]
    assert names(spec(order | {"containers": [{"name": "a", "image": "j"}]})["containers"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"containers": [{"image": "j"}]}, "does not contain declared merge key: name"),
        ({"containers": ["a"]}, "does not contain declared merge key: name"),
        ({"containers": [{"name": "a", "$patch": "bogus"}]}, "unknown patch type: bogus"),
        ({"$patch": "bogus"}, "unknown patch type: bogus"),
    ],
)
def test_a_patch_that_cannot_be_followed_says_why(patch: Json, why: str) -> None:
    with pytest.raises(BadPatch, match=why):
        spec(patch)


@pytest.mark.parametrize("kept", [["name"], "name", 7])
def test_retain_keys_must_list_what_the_patch_sets(kept: Any) -> None:
    with pytest.raises(BadRetainKeys):
        spec({"volumes": [{"name": "v", "$retainKeys": kept, "hostPath": {}}]})


KEYS = st.sampled_from(
    ["spec", "metadata", "containers", "name", "env", "finalizers", "volumes", "$patch", "$retainKeys"]
    + [
        f"${directive}/{name}"
        for directive in ("setElementOrder", "deleteFromPrimitiveList")
        for name in ("containers", "finalizers")
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_no_patch_is_a_traceback_and_no_directive_gets_through(patch: Json) -> None:
    try:
        result = patched(patch)
    except (BadPatch, BadRetainKeys):
        return
    assert "$" not in str(result)
