"""What a figure is measured on: an embedded API server and a kagent on loopback ports, and a place for `khook run`.

The servers run in the measuring process's own loop, so that an opening of a watch or an acceptance of a call is timed
where it happens. What people and kubelets write goes to the API server in memory: it must not cost what khook costs.
"""

import contextlib
import random
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from bench.pool.khook import Khook
from bench.pool.watches import WatchRecord
from khook.api.crd import crd
from khook.cli.demo_stage import kubeconfig
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Request
from khook.sandbox.http import serve
from khook.sandbox.kagent import ANY_AGENT, Behaviour, Fault, FaultKind, Kagent, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.story import Moment, Write, namespace_with_hook
from khook.seams import Clock, SystemClock
from shards.ring import Ring

AGENT: Final = "responder"
ANSWERS_AFTER_S: Final = 0.1
"""An agent accepts at once and says so only then: a process that dies meanwhile has a call in flight."""
RUN_S: Final = 0.5
STARTS_WITHIN_S: Final = 60.0
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@dataclass(slots=True, kw_only=True)
class Stage:
    clock: Clock
    api: ApiServer
    watches: WatchRecord
    kagent: Kagent
    khook: Khook
    replica: Callable[[str], Khook]
    """Another khook of this name, with the same settings; whoever asks for it closes it."""
    url: str
    """Of the API server."""
    token: str
    namespaces: list[str] = field(default_factory=list)

    async def write(self, *writes: Write) -> dict[str, Any]:
        """Send these to the API server; the answer to the last. Raises RuntimeError for a refusal."""
        answer: dict[str, Any] = {}
        for one in writes:
            kind = "application/json" if one.verb == "POST" else "application/merge-patch+json"
            headers = {"content-type": kind, "authorization": f"Bearer {self.token}"}
            request = Request(method=one.verb, path=one.path, query={}, headers=headers, body=orjson.dumps(one.body))
            response = await self.api.handle(request)
            assert isinstance(response.body, bytes), "nothing here is streamed"
            if response.status >= 400:
                raise RuntimeError(f"the API server refused {one.verb} {one.path}: {response.body[:300]!r}")
            answer = orjson.loads(response.body)
        return answer

    async def hooks(self, namespaces: list[str]) -> None:
        """Each of these namespaces, with a Hook for restarts in it."""
        self.namespaces += namespaces
        for namespace in namespaces:
            act = namespace_with_hook(_hook(namespace))
            await self.write(*act(namespace, Moment(now=self.clock.now())))

    async def start(self) -> None:
        """Start khook; until every worker was welcomed and every namespace is watched."""
        began_at = time.monotonic()
        await self.khook.start()
        await self.watches.watched_s(self.namespaces, since_at=began_at, within_s=STARTS_WITHIN_S)


@contextlib.asynccontextmanager
async def staged(*, workers: int, environ: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
    """Everything up but khook, which the figure starts; at the end it is gone, however the figure ended."""
    clock = SystemClock()
    token, api_key = secrets.token_hex(16), secrets.token_hex(16)
    api = ApiServer(Store(randomness=random.SystemRandom(), now=clock.now()), clock=clock)
    api.tokens = frozenset({token})
    kagent = Kagent(api_key=api_key, agents={AGENT}, speaks=Speaks.A2A, behaviour=Behaviour(run_s=RUN_S))
    kagent.set_faults(ANY_AGENT, [Fault(kind=FaultKind.SLOW, seconds=ANSWERS_AFTER_S)])
    watches = WatchRecord(api)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="khook-pool-")))
        served_api = await serve(watches)
        stack.push_async_callback(served_api.close)
        served_agents = await serve(KagentService(kagent, clock=clock))
        stack.push_async_callback(served_agents.close)
        (directory / "kubeconfig").write_bytes(orjson.dumps(kubeconfig(served_api.url, token)))
        replica = partial(Khook, directory=directory, workers=workers, agents_url=served_agents.url, api_key=api_key)
        khook = replica(environ=environ or {})
        stack.push_async_callback(khook.close)
        stage = Stage(
            clock=clock,
            api=api,
            watches=watches,
            kagent=kagent,
            khook=khook,
            replica=lambda name: replica(environ={**(environ or {}), "POD_NAME": name}),
            url=served_api.url,
            token=token,
        )
        await stage.write(Write(verb="POST", path=CRDS, body=_crd_of_unchecked_status()))
        yield stage


def evenly(*, workers: int, each: int) -> list[str]:
    """Namespaces of which the ring gives every one of the workers' slots exactly `each`."""
    ring = Ring([f"w{number}" for number in range(workers)])
    left = dict.fromkeys(ring.slots, each)
    names: list[str] = []
    number = 0
    while len(names) < workers * each:
        number += 1
        owner = ring.owner(name := f"team-{number}")
        if owner is not None and left[owner]:
            left[owner] -= 1
            names.append(name)
    return names


def _crd_of_unchecked_status() -> dict[str, Any]:
    """The CRD, but that the API server takes each status as it is. To check one costs this server, which is written in
    Python, 10 ms at 50 rows; the real one far less, and the figures are khook's."""
    wanted = crd()
    for version in wanted["spec"]["versions"]:
        unchecked = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version["schema"]["openAPIV3Schema"]["properties"]["status"] = unchecked
    return wanted


def _hook(namespace: str) -> dict[str, Any]:
    entry = {"eventType": "pod-restart", "agentId": AGENT, "prompt": "{{.ResourceName}}: {{.EventMessage}}"}
    return {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Hook",
        "metadata": {"name": "restarts", "namespace": namespace},
        "spec": {"eventConfigurations": [entry]},
    }
