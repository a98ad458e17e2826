"""What `khook demo` plays on: an embedded API server, an embedded kagent, and the real `khook run` between them.

It starts and stops these, writes what the story writes, and kills a worker that it is told to. Whatever happens, all
that it started is stopped and removed.
"""

import asyncio
import contextlib
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from khook.api.crd import crd
from khook.cli.demo_calls import Calls
from khook.cli.demo_log import LogFile, worker_pids
from khook.sandbox.api_server import ApiServer
from khook.sandbox.demo_story import AGENTS
from khook.sandbox.http import serve
from khook.sandbox.kagent import Behaviour, Kagent, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.story import Moment, Step, uid_key, writes
from khook.sandbox.token_paths import server_url
from khook.seams import Clock, SystemClock

WORKERS: Final = 4
"""One for each namespace: the bounded load sees to that, and so nobody else suffers from the slot that breaks."""
READY_WITHIN_S: Final = 30.0
DRAIN_S: Final = 5
STOP_WITHIN_S: Final = DRAIN_S + 10.0
API_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.05
# An agent takes seconds to minutes; here there is an audience.
KAGENT: Final = Behaviour(run_s=1.5, said="Found it; the fix is in the runbook.")
# Between the attempts of a delivery, for the same reason.
RETRY_BACKOFF: Final = "250ms"

# Set by whoever calls us for another khook: they must not leak into the one that we start.
OTHERS: Final = ("KHOOK_", "KAGENT_", "LOG_", "METRICS_", "HEALTH_", "LEADER_", "PROMETHEUS_", "POD_", "KUBE")


class DemoFailed(Exception):
    """The demonstration itself could not go on; the text says why."""


@dataclass(slots=True, kw_only=True)
class Stage:
    """Everything that is up."""

    directory: Path
    agents_url: str
    api_key: str
    kagent: Kagent
    client: httpx.AsyncClient
    """Of the embedded API server."""
    log: LogFile
    clock: Clock
    calls: Calls = field(default_factory=Calls)
    started_at: float = 0.0
    khook: asyncio.subprocess.Process | None = None
    uids: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    dead: dict[str, int] = field(default_factory=dict)
    """The slots whose worker was killed and is not back yet, and how many lives they had had."""

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def at_s(self) -> float:
        return self.clock.monotonic() - self.started_at


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """API server and agents on loopback ports, a kubeconfig and a directory of our own; all gone at the end."""
    clock = SystemClock()
    token, api_key = secrets.token_hex(16), secrets.token_hex(16)
    api = ApiServer(Store(randomness=random.SystemRandom(), now=clock.now()), clock=clock)
    api.tokens = frozenset({token})
    kagent = Kagent(api_key=api_key, agents=AGENTS, speaks=Speaks.A2A, behaviour=KAGENT)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="khook-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        served_api = await serve(api)
        stack.push_async_callback(served_api.close)
        served_agents = await serve(KagentService(kagent, clock=clock))
        stack.push_async_callback(served_agents.close)
        (directory / "kubeconfig").write_bytes(orjson.dumps(kubeconfig(served_api.url, token)))
        stage = Stage(
            directory=directory,
            agents_url=served_agents.url,
            api_key=api_key,
            kagent=kagent,
            client=await stack.enter_async_context(_client(served_api.url, token)),
            log=LogFile(directory / "khook.log"),
            clock=clock,
        )
        stack.push_async_callback(stop_khook, stage)
        yield stage


def kubeconfig(api_url: str, token: str) -> dict[str, Any]:
    """As client-go reads it (JSON is YAML). khook sends the token, kubectl only what the URL says."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "demo",
        "clusters": [{"name": "demo", "cluster": {"server": server_url(api_url, token)}}],
        "users": [{"name": "demo", "user": {"token": token}}],
        "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo", "namespace": "default"}}],
    }


def _client(api_url: str, token: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=api_url, headers=headers, trust_env=False, timeout=API_TIMEOUT_S)


async def install_crd(stage: Stage) -> None:
    answer = await stage.client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd())
    check(answer, "the CRD")


async def apply(stage: Stage, step: Step, moment: Moment) -> None:
    for write in writes(step, moment):
        kind = "application/json" if write.verb == "POST" else "application/merge-patch+json"
        answer = await stage.client.request(
            write.verb, write.path, content=orjson.dumps(write.body), headers={"content-type": kind}
        )
        check(answer, f"{write.verb} {write.path}")
        if write.verb == "POST":
            stage.uids[uid_key(write.body)] = answer.json()["metadata"]["uid"]
    if step.words:
        stage.words.append(f"{step.namespace}: {step.words}")


async def end_deleted_pods(client: httpx.AsyncClient) -> None:
    """What a kubelet does when a pod is deleted; without one, `kubectl delete pod` would wait for ever."""
    answer = await client.get("/api/v1/pods")
    check(answer, "a list of Pods")
    for pod in answer.json()["items"]:
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
            await client.delete(path, params={"gracePeriodSeconds": "0"})


def check(answer: httpx.Response, what: str) -> None:
    if answer.is_error:
        raise DemoFailed(f"the embedded API server refused {what}: HTTP {answer.status_code} {answer.text[:300]}")


def environment(stage_env: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours, and of the caller's only what is nobody's setting."""
    kept = {name: value for name, value in inherited.items() if not name.upper().startswith(OTHERS)}
    return {**kept, **stage_env}


async def start_khook(stage: Stage) -> None:
    chosen = {
        "KUBECONFIG": str(stage.kubeconfig),
        "KAGENT_BASE_URL": stage.agents_url,
        "KAGENT_API_KEY": stage.api_key,
        "KAGENT_RETRY_BACKOFF": RETRY_BACKOFF,
        "KHOOK_WORKERS": str(WORKERS),
        "KHOOK_DRAIN": f"{DRAIN_S}s",
        "METRICS_PORT": "0",
        "HEALTH_PORT": "0",
        "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
    }
    with stage.log.path.open("wb") as log:
        stage.khook = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "khook",
            "run",
            env=environment(chosen, os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # a terminal's Ctrl-C is for us: we stop it in order
        )


def still_runs(stage: Stage) -> None:
    if stage.khook is None or stage.khook.returncode is not None:
        code = stage.khook.returncode if stage.khook else None
        raise DemoFailed(f"khook run ended by itself with exit code {code}; its last words:\n{stage.log.tail(20)}")


async def until_ready(stage: Stage) -> None:
    """Until `/readyz` says yes: only then does the story begin."""
    give_up_at = stage.clock.monotonic() + READY_WITHIN_S
    last = "it never said where it listens"
    async with httpx.AsyncClient(trust_env=False, timeout=API_TIMEOUT_S) as client:
        while stage.clock.monotonic() < give_up_at:
            still_runs(stage)
            told = stage.log.follow()
            if told.health_port is not None:
                answer = await client.get(f"http://127.0.0.1:{told.health_port}/readyz")
                if answer.status_code == httpx.codes.OK and len(told.pids) == WORKERS:
                    return
                last = answer.text
            await asyncio.sleep(POLL_S)
    raise DemoFailed(f"khook run was not ready within {READY_WITHIN_S:.0f} s: {last}\n{stage.log.tail(20)}")


async def stop_khook(stage: Stage) -> int | None:
    """SIGTERM, as a cluster stops a pod; SIGKILL for one that does not end. Its workers end with it."""
    khook = stage.khook
    if khook is None:
        return None
    if khook.returncode is None:
        khook.terminate()
        try:
            await asyncio.wait_for(khook.wait(), STOP_WITHIN_S)
        except TimeoutError:
            khook.kill()
    return await khook.wait()


def kill(stage: Stage, slot: str) -> bool:
    """SIGKILL to the worker that fills the slot; False if none of ours does."""
    told = stage.log.follow()
    if stage.khook is None or told.pids[slot] not in worker_pids(stage.khook.pid):
        return False
    os.kill(told.pids[slot], signal.SIGKILL)
    stage.dead[slot] = told.lives[slot]
    return True
