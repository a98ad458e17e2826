"""One khook for all tests of a module; each test keeps to a namespace of its own.

Tests of the charts have an API server to themselves, in which each installs what it needs: CRD and ClusterRole are the
cluster's, and no namespace keeps two installations apart.
"""

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.charts import NAMESPACE, Shell
from support.installation import RULES, Agents, Installation, installed, service_account
from support.installed import AuditedCluster
from support.kube_tools import kube_tool
from support.real_apiserver import RealApiServer, find_binaries

from khook.kube.lease import LEASE_NAME


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skipped here and not by a fixture, so that the summary says it in one line."""
    if "shell" in getattr(item, "fixturenames", ()):
        kube_tool("helm")


@pytest.fixture(scope="module")
def khook(
    real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Installation]:
    """It may do what it needs and no more; a test that chooses other `rules` as its parameter gets one of its own."""
    folder: Path = tmp_path_factory.mktemp("khook")
    environ = {"KHOOK_ALLOWED_AGENT_NAMESPACES": "shared-agents"}
    user = asyncio.run(service_account(real_apiserver, getattr(request, "param", RULES)))
    with installed(real_apiserver, folder=folder, environ=environ, user=user) as installation:
        yield installation


@pytest.fixture(scope="module", autouse=True)
def leftovers() -> Iterator[None]:
    """On a busy machine asyncio leaves the transport of a TLS connection that was given up to the collector.

    khook itself runs in other processes: these are the proxy's and the administrator's. They are collected here, and
    not in whatever test comes next, where they would be an error.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedCluster]:
    binaries = find_binaries()
    assert binaries is not None
    made = AuditedCluster(binaries, tmp_path_factory.mktemp("audited"))
    try:
        made.server.start()
        yield made
    finally:
        made.server.stop()


@pytest.fixture
def agents() -> Iterator[Agents]:
    made = Agents()
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def shell(audited: AuditedCluster, tmp_path: Path) -> Iterator[Shell]:
    """A terminal, and a cluster in which nothing of khook is installed."""
    terminal = Shell(audited.server.write_kubeconfig(tmp_path / "admin"))
    audited.forget()
    yield terminal
    for release in json.loads(terminal.run("helm list -A -o json")):
        terminal.run(f"helm uninstall {release['name']} -n {release['namespace']}")
    terminal.run("kubectl delete crd hooks.kagent.dev --ignore-not-found")
    terminal.run(f"kubectl delete lease/{LEASE_NAME} secret/kagent-credentials -n {NAMESPACE} --ignore-not-found")
