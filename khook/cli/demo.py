"""`khook demo`: the whole system on an embedded cluster, and an honest count of what it did.

It serves an API server and a kagent on loopback ports, starts the real `khook run` with four workers against them,
lets the story's pods fail, kills one worker half-way and another until its slot is broken, takes an agent away for a
while, stops khook as a cluster would, and sets the agents' own record against the story. Whatever happens, Ctrl-C
included, everything it started is stopped and removed.
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
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import orjson
from rich.console import Console

from khook.api.crd import crd
from khook.cli.demo_calls import Calls
from khook.cli.demo_log import LogFile, worker_pids
from khook.cli.demo_view import Ending, LoopEnding, Scene, View, summary
from khook.errors import EXIT_UNEXPECTED
from khook.sandbox.api_server import ApiServer
from khook.sandbox.demo_story import AGENTS, DEMO
from khook.sandbox.http import serve
from khook.sandbox.kagent import Behaviour, Fault, FaultKind, Kagent, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.story import Expected, Moment, Step, Story, compare, expected, writes
from khook.seams import Clock, SystemClock

WORKERS: Final = 4
"""One for each namespace: the bounded load sees to that, and so nobody else suffers from the slot that breaks."""
READY_WITHIN_S: Final = 30.0
# A parked call waits for the breaker's probe, 30 s after its delivery failed; a run is seen to end within 5 s.
SETTLED_WITHIN_S: Final = 50.0
# Ten deaths take some 50 s of back-off; after that another worker has its namespaces at once.
BROKEN_WITHIN_S: Final = 120.0
# After the last expected call: time for one that should not come.
QUIET_S: Final = 1.5
DRAIN_S: Final = 5
STOP_WITHIN_S: Final = DRAIN_S + 10.0
API_TIMEOUT_S: Final = 10.0
TICK_S: Final = 0.2
# An agent takes seconds to minutes; here there is an audience.
KAGENT: Final = Behaviour(run_s=1.5, said="Found it; the fix is in the runbook.")
# Between the attempts of a delivery, for the same reason.
RETRY_BACKOFF: Final = "250ms"
INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell has it."""

T = TypeVar("T")

# Set by whoever calls us for another khook: they must not leak into the one that we start.
OTHERS: Final = ("KHOOK_", "KAGENT_", "LOG_", "METRICS_", "HEALTH_", "LEADER_", "PROMETHEUS_", "POD_", "KUBE")


class DemoFailed(Exception):
    """The demonstration itself could not go on; the text says why."""


@dataclass(slots=True, kw_only=True)
class _Stage:
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


def demo(*, keep: bool = False, seconds: float | None = None) -> int:
    """Run it and return the exit code. `seconds`: how long the story takes; None: as it was written."""
    console = Console()
    return asyncio.run(_until_interrupted(_Demo(console=console, keep=keep, seconds=seconds)))


async def _until_interrupted(one: "_Demo") -> int:
    """Ctrl-C and SIGTERM cancel the demo, which then cleans up; one that had its verdict (--keep) keeps it."""
    work = asyncio.create_task(one.run())

    def interrupt() -> None:
        if not work.cancelling():  # a second Ctrl-C must not cut the clean-up short: it has its own deadlines
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        return one.ending.exit_code if one.ending else INTERRUPTED


class _Demo:
    def __init__(self, *, console: Console, keep: bool, seconds: float | None, story: Story = DEMO) -> None:
        self._console = console
        self._keep = keep
        self._story = story
        self._pace = 1.0 if seconds is None else seconds / story.duration_s
        self.ending: Ending | None = None

    async def run(self) -> int:
        try:
            async with _staged() as stage:
                with View(self._console) as view:
                    self.ending = await self._play(stage, view)
                for line in summary(self.ending):
                    view.say(line)
                if self._keep:
                    _say_where(stage, view)
                    await asyncio.Event().wait()
                return self.ending.exit_code
        except DemoFailed as error:
            self._console.print(f"khook demo: {error}", markup=False, highlight=False, soft_wrap=True)
            return EXIT_UNEXPECTED

    async def _play(self, stage: _Stage, view: View) -> Ending:
        await _install_crd(stage)
        await _start_khook(stage)
        await _ready(stage)
        stage.started_at = stage.clock.monotonic()
        async with (
            _beside(self._tell(stage)) as telling,
            _beside(self._kill_half_way(stage)) as killing,
            _beside(self._take_agent_away(stage)) as outage,
            _beside(self._break_a_slot(stage)) as breaking,
        ):
            while not (telling.done() and killing.done() and outage.done() and breaking.done()):
                await _show(stage, view)
                _raise_first(telling, killing, outage, breaking)
            killed, loop = killing.result(), breaking.result()
        wanted = expected(self._story)
        await _settle(stage, view, wanted)
        came_back = stage.log.follow().lives.get(killed, 0) > 1
        khook_exit = None if self._keep else await _stop_khook(stage)
        return Ending(
            verdict=compare(wanted, stage.kagent.runs),
            incidents=len(wanted),
            calls=len(stage.kagent.runs),
            parked=len(stage.calls.parked),
            delivered=stage.calls.delivered(stage.kagent.runs),
            killed=killed,
            came_back=came_back,
            loop=loop,
            khook_exit=khook_exit,
        )

    async def _tell(self, stage: _Stage) -> None:
        start = stage.clock.now()
        for step in self._story.steps:
            at_s = await self._until(stage, step.at_s)
            await _apply(stage, step, Moment(now=start + timedelta(seconds=at_s), uids=stage.uids))

    async def _kill_half_way(self, stage: _Stage) -> str:
        await self._until(stage, self._story.kill_at_s)
        told = stage.log.follow()
        slot = told.busiest(but=told.owners.get(self._story.crash_loop.namespace))
        if slot is None or not _kill(stage, slot):
            raise DemoFailed("found no worker to kill")
        stage.words.append(f"worker {slot} (pid {told.pids[slot]}) is killed with SIGKILL")
        return slot

    async def _break_a_slot(self, stage: _Stage) -> LoopEnding:
        """Kill the worker of one namespace whenever it is back; then let the namespace's heir show that it has it."""
        crash_loop = self._story.crash_loop
        await self._until(stage, crash_loop.from_s)
        slot = stage.log.follow().owners[crash_loop.namespace]
        stage.words.append(f"worker {slot} is killed with SIGKILL, and whenever it comes back")
        deaths = 0
        async with _patience(BROKEN_WITHIN_S, f"slot {slot} to be broken"):
            while slot not in stage.log.follow().broken:
                deaths += slot not in stage.dead and _kill(stage, slot)
                await asyncio.sleep(TICK_S / 4)
        stage.words.append(f"worker {slot} died {deaths} times: its slot is broken")
        async with _patience(BROKEN_WITHIN_S, f"{crash_loop.namespace} to be owned again"):
            heir = slot
            while heir == slot:
                await asyncio.sleep(TICK_S / 4)
                heir = stage.log.follow().owners[crash_loop.namespace]
        stage.words.append(f"worker {heir} takes {crash_loop.namespace}")
        for step in crash_loop.encore:
            await asyncio.sleep(step.at_s * self._pace)
            await _apply(stage, step, Moment(now=stage.clock.now(), uids=stage.uids))
        return LoopEnding(slot=slot, deaths=deaths, namespace=crash_loop.namespace, heir=heir)

    async def _take_agent_away(self, stage: _Stage) -> None:
        outage = self._story.outage
        await self._until(stage, outage.from_s)
        stage.kagent.set_faults(outage.agent, [Fault(kind=FaultKind.UNAVAILABLE, on=None)])
        stage.words.append(f"agent {outage.agent} is unreachable")
        await self._until(stage, outage.until_s)
        stage.kagent.set_faults(outage.agent, [])
        stage.words.append(f"agent {outage.agent} is back: its parked calls go 30 s after its breaker opened")

    async def _until(self, stage: _Stage, at_s: float) -> float:
        """Wait for a time of the story; when that is on our watch."""
        at_s *= self._pace
        await asyncio.sleep(max(0.0, at_s - stage.at_s()))
        return at_s


def _kill(stage: _Stage, slot: str) -> bool:
    """SIGKILL to the worker that fills the slot; False if none of ours does."""
    told = stage.log.follow()
    if stage.khook is None or told.pids[slot] not in worker_pids(stage.khook.pid):
        return False
    os.kill(told.pids[slot], signal.SIGKILL)
    stage.dead[slot] = told.lives[slot]
    return True


@contextlib.asynccontextmanager
async def _patience(within_s: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise DemoFailed(f"waited {within_s:.0f} s for {what}") from None


async def _settle(stage: _Stage, view: View, wanted: Sequence[Expected]) -> None:
    """Until every call was made and answered and a quiet while has passed, or patience ends: the record will tell."""
    give_up_at = stage.clock.monotonic() + SETTLED_WITHIN_S
    while (compare(wanted, stage.kagent.runs).lost or stage.calls.under_way) and stage.clock.monotonic() < give_up_at:
        await _show(stage, view)
    quiet_at = stage.clock.monotonic() + QUIET_S
    while stage.clock.monotonic() < quiet_at:
        await _show(stage, view)


async def _show(stage: _Stage, view: View) -> None:
    _still_runs(stage)
    told = stage.log.follow()
    for slot in [slot for slot, lives in stage.dead.items() if told.lives[slot] > lives]:
        stage.words.append(f"worker {slot} is back as pid {told.pids[slot]}")
        del stage.dead[slot]
    answer = await stage.client.get("/apis/kagent.dev/v1alpha2/hooks")
    _check(answer, "a list of Hooks")
    hooks = answer.json()["items"]
    stage.calls.read(hooks)
    view.show(
        Scene(
            at_s=stage.at_s(),
            words=tuple(stage.words),
            told=told,
            hooks=hooks,
            calls=stage.calls,
            runs=tuple(stage.kagent.runs),
            dead=tuple(stage.dead),
        )
    )
    await asyncio.sleep(TICK_S)


def _say_where(stage: _Stage, view: View) -> None:
    told = stage.log.follow()
    view.say(f"kubeconfig  export KUBECONFIG={stage.kubeconfig}")
    view.say(f"metrics     http://127.0.0.1:{told.metrics_port}/metrics")
    view.say(f"health      http://127.0.0.1:{told.health_port}/readyz")
    view.say(f"status      khook shards --address {told.status_address}")
    view.say(f"calls       {stage.agents_url}/sandbox/record")
    view.say(f"log         {stage.log.path}")
    view.say("Ctrl-C stops and removes everything.")


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Runs beside the block and never outlives it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def _raise_first(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        if task.done():
            task.result()


# --- the stage --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _staged() -> AsyncIterator[_Stage]:
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
        stage = _Stage(
            directory=directory,
            agents_url=served_agents.url,
            api_key=api_key,
            kagent=kagent,
            client=await stack.enter_async_context(_client(served_api.url, token)),
            log=LogFile(directory / "khook.log"),
            clock=clock,
        )
        stack.push_async_callback(_stop_khook, stage)
        yield stage


def kubeconfig(api_url: str, token: str) -> dict[str, Any]:
    """As client-go reads it (JSON is YAML)."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "demo",
        "clusters": [{"name": "demo", "cluster": {"server": api_url}}],
        "users": [{"name": "demo", "user": {"token": token}}],
        "contexts": [{"name": "demo", "context": {"cluster": "demo", "user": "demo", "namespace": "default"}}],
    }


def _client(api_url: str, token: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=api_url, headers=headers, trust_env=False, timeout=API_TIMEOUT_S)


async def _install_crd(stage: _Stage) -> None:
    answer = await stage.client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd())
    _check(answer, "the CRD")


async def _apply(stage: _Stage, step: Step, moment: Moment) -> None:
    for write in writes(step, moment):
        kind = "application/json" if write.verb == "POST" else "application/merge-patch+json"
        answer = await stage.client.request(
            write.verb, write.path, content=orjson.dumps(write.body), headers={"content-type": kind}
        )
        _check(answer, f"{write.verb} {write.path}")
        if write.verb == "POST" and write.body["kind"] == "Pod":
            stage.uids[f"{step.namespace}/{step.pod}"] = answer.json()["metadata"]["uid"]
    if step.words:
        stage.words.append(f"{step.namespace}: {step.words}")


def _check(answer: httpx.Response, what: str) -> None:
    if answer.is_error:
        raise DemoFailed(f"the embedded API server refused {what}: HTTP {answer.status_code} {answer.text[:300]}")


# --- khook run --------------------------------------------------------------------------------------------------


def environment(stage_env: Mapping[str, str], inherited: Mapping[str, str]) -> dict[str, str]:
    """Ours, and of the caller's only what is nobody's setting."""
    kept = {name: value for name, value in inherited.items() if not name.upper().startswith(OTHERS)}
    return {**kept, **stage_env}


async def _start_khook(stage: _Stage) -> None:
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


def _still_runs(stage: _Stage) -> None:
    if stage.khook is None or stage.khook.returncode is not None:
        code = stage.khook.returncode if stage.khook else None
        raise DemoFailed(f"khook run ended by itself with exit code {code}; its last words:\n{stage.log.tail(20)}")


async def _ready(stage: _Stage) -> None:
    """Until `/readyz` says yes: only then does the story begin."""
    give_up_at = stage.clock.monotonic() + READY_WITHIN_S
    last = "it never said where it listens"
    async with httpx.AsyncClient(trust_env=False, timeout=API_TIMEOUT_S) as client:
        while stage.clock.monotonic() < give_up_at:
            _still_runs(stage)
            told = stage.log.follow()
            if told.health_port is not None:
                answer = await client.get(f"http://127.0.0.1:{told.health_port}/readyz")
                if answer.status_code == httpx.codes.OK and len(told.pids) == WORKERS:
                    return
                last = answer.text
            await asyncio.sleep(TICK_S / 4)
    raise DemoFailed(f"khook run was not ready within {READY_WITHIN_S:.0f} s: {last}\n{stage.log.tail(20)}")


async def _stop_khook(stage: _Stage) -> int | None:
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
