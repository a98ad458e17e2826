"""Fixtures that every folder of tests may use. Tests that need the real API server are marked `envtest` by it."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from support import chromium
from support.go_template import find_go_template
from support.real_apiserver import RealApiServer, find_binaries

NO_BINARIES = "no kube-apiserver and etcd here: `make envtest` builds them, or set KUBEBUILDER_ASSETS"
NO_GO_TEMPLATE = "no go-template here: `make envtest` builds it"
NO_CHROMIUM = "no Chromium here: `apt-get install chromium`, or set KHOOK_CHROMIUM"

# No test is judged by its speed: this may be a busy machine. In CI the same examples are tried at each run.
hypothesis.settings.register_profile("khook", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("khook")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "real_apiserver" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.envtest)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skipped (or failed, where REQUIRE_… is set) at one place, so that the summary says it in one line."""
    skip = pytest.fail if os.environ.get("REQUIRE_ENVTEST") else pytest.skip
    if item.get_closest_marker("envtest") is not None and find_binaries() is None:
        skip(NO_BINARIES)
    if "go_template" in getattr(item, "fixturenames", ()) and find_go_template() is None:
        skip(NO_GO_TEMPLATE)
    if item.get_closest_marker("chromium") is not None and chromium.find() is None:
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") else pytest.skip)(NO_CHROMIUM)


@pytest.fixture(scope="session")
def go_template() -> Path:
    """The program that renders with Go's text/template."""
    binary = find_go_template()
    assert binary is not None, NO_GO_TEMPLATE
    return binary


@pytest.fixture(scope="session")
def real_apiserver() -> Iterator[RealApiServer]:
    """One server for the whole run; tests keep out of each other's way by namespaces of their own."""
    binaries = find_binaries()
    assert binaries is not None, NO_BINARIES
    server = RealApiServer(binaries)
    try:
        server.start()
        yield server
    finally:
        server.stop()
