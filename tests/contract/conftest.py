"""One contract, two API servers: every test that takes `cluster` runs against both."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from support.api_servers import Cluster, EmbeddedCluster, RealCluster, install_crd

_numbers = count(1)

HOOK_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "hooks.contract.khook.dev"},
    "spec": {
        "group": "contract.khook.dev",
        "scope": "Namespaced",
        "names": {"plural": "hooks", "singular": "hook", "kind": "Hook", "listKind": "HookList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["entries"],
                                "properties": {
                                    "suspend": {"type": "boolean"},
                                    "mode": {"type": "string", "default": "plain"},
                                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "entries": {
                                        "type": "array",
                                        "minItems": 1,
                                        "maxItems": 3,
                                        "items": {
                                            "type": "object",
                                            "required": ["type"],
                                            "oneOf": [{"required": ["id"]}, {"required": ["ref"]}],
                                            "properties": {
                                                "type": {"type": "string", "enum": ["oom-kill", "pod-restart"]},
                                                "id": {"type": "string", "minLength": 1, "maxLength": 10},
                                                "ref": {
                                                    "type": "object",
                                                    "required": ["name"],
                                                    "properties": {"name": {"type": "string"}},
                                                },
                                                "cooldown": {"type": "string", "pattern": "^[0-9]+m$"},
                                                "times": {"type": "integer", "minimum": 1, "maximum": 5},
                                            },
                                        },
                                    },
                                },
                            },
                            "status": {
                                "type": "object",
                                "properties": {
                                    "updated": {"type": "string", "format": "date-time"},
                                    "rows": {
                                        "type": "array",
                                        "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                                    },
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}


@pytest.fixture(
    scope="module",
    params=["embedded", pytest.param("real", marks=pytest.mark.envtest)],
)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "real":
        made: RealCluster | EmbeddedCluster = RealCluster(request.getfixturevalue("real_apiserver"))
    else:
        made = EmbeddedCluster()
    try:
        install_crd(made.admin, HOOK_CRD)
        yield made
    finally:
        made.close()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A namespace that no other test uses."""
    name = f"contract-{next(_numbers)}-{id(cluster) % 10_000}"
    answer = cluster.admin.post("/api/v1/namespaces", json={"metadata": {"name": name}})
    assert answer.status_code == 201, answer.text
    return name
