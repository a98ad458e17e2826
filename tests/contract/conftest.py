"""One contract, two API servers: every test that takes `cluster` runs against both."""

from collections.abc import Iterator
from itertools import count

import pytest
from support.api_servers import HOOK_CRD, Cluster, EmbeddedCluster, RealCluster, install_crd

_numbers = count(1)


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
