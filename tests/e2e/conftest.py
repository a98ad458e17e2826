"""One khook for all tests of a module; each test keeps to a namespace of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import Installation, installed
from support.real_apiserver import RealApiServer


@pytest.fixture(scope="module")
def khook(real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder: Path = tmp_path_factory.mktemp("khook")
    environ = {"KHOOK_ALLOWED_AGENT_NAMESPACES": "shared-agents"}
    with installed(real_apiserver, folder=folder, environ=environ) as installation:
        yield installation
