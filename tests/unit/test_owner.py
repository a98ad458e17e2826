"""Whose pod it is."""

import pytest
from msgspec import structs

from khook.core.owner import Controller, ResourceRef, controller_of
from khook.core.signal import OwnerReference


def reference(api_version: str, kind: str, *, controller: bool | None = True) -> OwnerReference:
    return OwnerReference(api_version=api_version, kind=kind, name="web", uid="u-1", controller=controller)


@pytest.mark.parametrize(
    ("api_version", "kind", "group", "has_maker"),
    [
        ("apps/v1", "ReplicaSet", "apps", True),
        ("batch/v1", "Job", "batch", True),
        ("apps/v1", "StatefulSet", "apps", False),
        ("apps/v1", "DaemonSet", "apps", False),
        ("v1", "ReplicationController", "", False),
        ("example.org/v1", "Job", "example.org", False),
        ("", "Job", "", False),
    ],
)
def test_only_replica_sets_and_jobs_are_asked_who_made_them(
    api_version: str, kind: str, group: str, has_maker: bool
) -> None:
    controller = controller_of([reference(api_version, kind)])
    assert controller == Controller(group=group, kind=kind, name="web", uid="u-1")
    assert controller.has_maker == has_maker
    assert controller.ref == ResourceRef(kind, "web")


@pytest.mark.parametrize(
    "references",
    [
        None,
        [],
        [reference("apps/v1", "ReplicaSet", controller=False), reference("apps/v1", "ReplicaSet", controller=None)],
        [reference("v1", "Node")],
    ],
    ids=["none", "empty", "no controller among them", "a node"],
)
def test_a_pod_that_no_controller_makes_has_no_owner(references: list[OwnerReference] | None) -> None:
    assert controller_of(references) is None


@pytest.mark.parametrize("changes", [{"name": "n" * 200_000}, {"name": "a/b"}, {"uid": "u" * 65}, {"kind": "A b"}])
def test_a_controller_that_cannot_exist_is_none(changes: dict[str, str]) -> None:
    assert controller_of([structs.replace(reference("apps/v1", "ReplicaSet"), **changes)]) is None
