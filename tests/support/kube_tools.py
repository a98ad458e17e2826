"""The helm and kubectl that `make kube-tools` fetched, or those in KUBEBUILDER_ASSETS; never whatever is on the PATH,
so that a test says the same on every machine.

Where one is missing the test is skipped, or fails where REQUIRE_ENVTEST is set: at one place, so that the
summary says it in one line.
"""

import os
from pathlib import Path

import pytest

from support.real_apiserver import REPOSITORY

MISSING = "no helm and kubectl here: `make kube-tools` fetches them, or put both where KUBEBUILDER_ASSETS points"


def kube_tool(name: str) -> Path:
    """The program's path."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), REPOSITORY / ".envtest"):
        if folder and os.access(program := Path(folder) / name, os.X_OK):
            return program
    if os.environ.get("REQUIRE_ENVTEST"):
        pytest.fail(MISSING)
    pytest.skip(MISSING)
