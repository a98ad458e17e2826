"""One khook for all tests of a module; each test keeps to a namespace of its own."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installation import RULES, Installation, installed, service_account
from support.real_apiserver import RealApiServer


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
