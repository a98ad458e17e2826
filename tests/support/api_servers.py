"""The two API servers that one contract is held against, behind one small face.

`EmbeddedCluster` serves khook.sandbox over a loopback socket from a thread of its own, so that the same plain httpx
client talks to both.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import httpx

from khook.cli.demo_stage import kubeconfig
from khook.sandbox.api_server import ApiServer
from khook.sandbox.http import Served, serve
from khook.sandbox.store import Store
from khook.seams import SystemClock
from support.real_apiserver import ADMIN_TOKEN, USER, USER_TOKEN, RealApiServer

Json = dict[str, Any]

MERGE: Final = {"content-type": "application/merge-patch+json"}
JSON_PATCH: Final = {"content-type": "application/json-patch+json"}
# A line that does not come in this time will not come.
READ_TIMEOUT_S: Final = 30.0
SERVED_WITHIN_S: Final = 30.0

HOOK_CRD: Final[Json] = {
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


class Cluster(Protocol):
    """`admin` may do everything, `user_may_nothing` nothing."""

    name: str
    admin: httpx.Client

    def compact(self, revision: int | None = None) -> None: ...

    def restart(self) -> None:
        """Kill the API server, start it again; the data stays."""
        ...

    def anonymous(self) -> httpx.Client: ...

    def user_may_nothing(self) -> Any: ...

    def write_kubeconfig(self, path: Path) -> Path:
        """The admin's, in the namespace `default`."""
        ...

    def close(self) -> None: ...


class RealCluster:
    name = "real"

    def __init__(self, server: RealApiServer) -> None:
        self._server = server
        self.admin = self._client(ADMIN_TOKEN)

    def compact(self, revision: int | None = None) -> None:
        self._server.compact(revision)

    def restart(self) -> None:
        self._server.restart()

    def anonymous(self) -> httpx.Client:
        return self._client("a-token-nobody-knows")

    @contextmanager
    def user_may_nothing(self) -> Iterator[httpx.Client]:
        with self._client(USER_TOKEN) as client:
            yield client

    def write_kubeconfig(self, path: Path) -> Path:
        return self._server.write_kubeconfig(path)

    def _client(self, token: str) -> httpx.Client:
        return _client(self._server.url, token, verify=self._server.ssl_context())

    def close(self) -> None:
        self.admin.close()


class EmbeddedCluster:
    name = "embedded"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded API server")
        self._thread.start()
        clock = SystemClock()
        self.api = ApiServer(Store(randomness=random.Random(1), now=clock.now()), clock=clock, user=USER)
        self.api.tokens = frozenset({ADMIN_TOKEN, USER_TOKEN})
        self._served: Served = asyncio.run_coroutine_threadsafe(serve(self.api), self._loop).result()
        self.admin = _client(self._served.url, ADMIN_TOKEN)

    def compact(self, revision: int | None = None) -> None:
        self._in_loop(lambda: self.api.store.compact(revision))

    def restart(self) -> None:
        self._in_loop(self.api.stop)
        self._in_loop(self.api.start)

    def anonymous(self) -> httpx.Client:
        return _client(self._served.url, "a-token-nobody-knows")

    @contextmanager
    def user_may_nothing(self) -> Iterator[httpx.Client]:
        self._in_loop(self.api.forbid)
        try:
            with _client(self._served.url, USER_TOKEN) as client:
                yield client
        finally:
            self._in_loop(self.api.allow_all)

    def write_kubeconfig(self, path: Path) -> Path:
        path.write_text(json.dumps(kubeconfig(self._served.url, ADMIN_TOKEN)))
        return path

    def close(self) -> None:
        self.admin.close()
        asyncio.run_coroutine_threadsafe(self._served.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _in_loop(self, action: Callable[[], object]) -> None:
        async def run() -> None:
            action()

        asyncio.run_coroutine_threadsafe(run(), self._loop).result()


def _client(url: str, token: str, *, verify: Any = True) -> httpx.Client:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.Client(base_url=url, headers=headers, verify=verify, trust_env=False, timeout=READ_TIMEOUT_S)


def install_crd(client: httpx.Client, crd: Json) -> None:
    """Create it unless it is there, and wait until its objects can be listed."""
    answer = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd)
    assert answer.status_code in (201, 409), answer.text
    spec = crd["spec"]
    wait_served(client, f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}")


def wait_served(client: httpx.Client, path: str) -> None:
    """Custom resources answer 404 until they are installed and 429 until their storage is ready."""
    deadline_at = time.monotonic() + SERVED_WITHIN_S
    while client.get(path).status_code != 200:
        assert time.monotonic() < deadline_at, f"{path} is not served"
        time.sleep(0.05)


@contextmanager
def watching(client: httpx.Client, path: str, **params: str) -> Iterator[Iterator[Json]]:
    """An open watch, as the iterator of its lines."""
    with client.stream("GET", path, params={"watch": "true", "timeoutSeconds": "20"} | params) as answer:
        assert answer.status_code == 200, answer.read()
        yield (json.loads(line) for line in answer.iter_lines())


def version(item: Json) -> str:
    return str(item["metadata"]["resourceVersion"])


def head_version(client: httpx.Client) -> str:
    """The newest version of all."""
    return version(client.get("/api/v1/namespaces/default/events?limit=1").json())
