"""One round: a cluster, agents, a load generator and the real `khook run`, each in processes of its own.

A round begins with nothing and leaves nothing: every khook that is compared finds the same empty cluster. khook is
started as its users start it, by its command line, its settings and a kubeconfig; what it costs is what the kernel
counts for its whole process tree, and what it did is what the agents' own record says.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from bench import proc
from bench.children import BenchFailed, Child
from bench.figures import (
    AGENTS,
    API_SERVER,
    GENERATOR,
    KHOOK,
    OTHERS,
    Phase,
    Round,
    latency,
    percentile,
)
from bench.incidents import judged
from bench.options import Options
from bench.real import RealApiServer, find_binaries
from khook.cli.demo_log import LogFile
from khook.cli.demo_stage import environment, kubeconfig
from shards.preload import die_with_parent

ANSWER_S: Final = 0.02
"""How long an agent takes to say that it has a call."""
RUN_S: Final = 0.5
"""Over at khook's first look, two seconds after the call."""
READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.05
SETTLE_LEAST_S: Final = 30.0
SLOWEST_A_SECOND: Final = 20
"""A khook that does fewer is not waited for."""
WRITTEN_S: Final = 1.5
"""What ends a run is written within a second."""
IDLE_S: Final = 1.0
DRAIN_S: Final = 5
STOP_WITHIN_S: Final = DRAIN_S + 10.0
LOG_LINES: Final = 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cpu:
    """One look at everybody's CPU."""

    at: float
    khook: Mapping[str, float]
    """By process."""
    groups: Mapping[str, float]
    machine: proc.Machine
    pids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Everything that is up."""

    khook: asyncio.subprocess.Process
    log: LogFile
    api_pids: list[int]
    agents: Child
    generator: Child
    say: Say

    def roles(self, known: Mapping[int, proc.Stat]) -> dict[int, str]:
        parents = {pid: stat.parent for pid, stat in known.items()}
        tree = proc.descendants(self.khook.pid, parents)
        slots = {pid: slot for slot, pid in self.log.follow().pids.items()}
        commands = {pid: proc.command(pid) for pid in tree}
        return proc.roles(self.khook.pid, parents=parents, commands=commands, slots=slots)

    def memory(self) -> dict[str, proc.Memory]:
        return {
            role: memory for pid, role in self.roles(proc.stats()).items() if (memory := proc.memory(pid)) is not None
        }

    def cpu(self) -> _Cpu:
        known = proc.stats()
        roles = self.roles(known)
        by_role = {role: known[pid].cpu_s for pid, role in roles.items()}
        groups = {
            KHOOK: sum(by_role.values()),
            API_SERVER: proc.tree_cpu_s(self.api_pids, known),
            AGENTS: proc.tree_cpu_s([self.agents.pid], known),
            GENERATOR: proc.tree_cpu_s([self.generator.pid], known),
        }
        return _Cpu(at=time.monotonic(), khook=by_role, groups=groups, machine=proc.machine(), pids=frozenset(roles))


async def play(options: Options, workers: int, *, say: Say) -> Round:
    """One round. Raises BenchFailed."""
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="khook-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        say("starting")
        url, token, ca_file, api_pids = await _api_server(options, folder, stack)
        key = secrets.token_hex(16)
        agents = await _child(
            "bench.agents", {"key": key, "answer_s": ANSWER_S, "run_s": RUN_S}, folder=folder, stack=stack
        )
        load = {"url": url, "token": token, "ca_file": ca_file, "namespaces": options.namespaces}
        generator = await _child("bench.load", load, folder=folder, stack=stack)
        say(f"making {options.namespaces} namespaces and {options.steady + options.burst} pods")
        await generator.ask({"do": "install"})
        await generator.ask({"do": "prepare", "phase": "steady", "count": options.steady})
        await generator.ask({"do": "prepare", "phase": "burst", "count": options.burst})
        config = kubeconfig(url, token)
        if ca_file:
            config["clusters"][0]["cluster"]["certificate-authority"] = ca_file
        (folder / "kubeconfig").write_bytes(orjson.dumps(config))
        log = LogFile(folder / "khook.log")
        started_at = time.monotonic()
        khook = await _start_khook(folder, log, agents_url=agents.first["url"], key=key, workers=workers)
        stack.push_async_callback(_stop_khook, khook)
        await _ready(khook, log, workers=workers, namespaces=options.namespaces)
        ready_s = time.monotonic() - started_at
        stage = _Stage(khook=khook, log=log, api_pids=api_pids, agents=agents, generator=generator, say=say)
        return await _measured(stage, options, workers=workers, ready_s=ready_s)


async def _measured(stage: _Stage, options: Options, *, workers: int, ready_s: float) -> Round:
    await asyncio.sleep(IDLE_S)
    idle_memory = stage.memory()
    stage.say(f"{options.rate:g} signals a second for {options.seconds:g} s")
    steady = await _phase(stage, {"do": "steady", "phase": "steady", "rate": options.rate}, options.steady)
    stage.say(f"{options.burst} incidents at once")
    burst = await _phase(stage, {"do": "burst", "phase": "burst"}, options.burst)
    return Round(
        workers=workers,
        ready_s=ready_s,
        steady=steady,
        burst=burst,
        idle_memory=idle_memory,
        loaded_memory=stage.memory(),
    )


async def _phase(stage: _Stage, order: Mapping[str, Any], incidents: int) -> Phase:
    had = await stage.agents.ask({"do": "count"})
    before, began_time = stage.cpu(), time.time()
    answer = await stage.generator.ask(order)
    give_up_at = time.monotonic() + max(SETTLE_LEAST_S, incidents / SLOWEST_A_SECOND)
    await _until(stage, "runs", had["runs"] + incidents, give_up_at)
    asked = stage.cpu()
    await _until(stage, "polls", had["polls"] + incidents, give_up_at)
    await asyncio.sleep(WRITTEN_S)
    settled = stage.cpu()
    if before.pids != settled.pids:
        raise BenchFailed(f"a process of khook ended in the middle:\n{stage.log.tail(LOG_LINES)}")
    record = (await stage.agents.ask({"do": "record"}))["asked"][had["runs"] :]
    return _made(answer, record, began_time=began_time, before=before, asked=asked, settled=settled)


def _made(
    answer: Mapping[str, Any], record: list[Any], *, began_time: float, before: _Cpu, asked: _Cpu, settled: _Cpu
) -> Phase:
    told = answer["told"]
    wanted = [(namespace, agent, pod) for namespace, agent, pod, _, _ in told]
    calls = [(namespace, agent, pod) for namespace, agent, pod, _ in record]
    lost, repeated = judged(wanted, calls)
    asked_time: dict[Any, float] = {}
    for key, one in zip(calls, record, strict=True):
        asked_time.setdefault(key, one[3])
    waited: dict[bool, list[float]] = {False: [], True: []}
    for key, one in zip(wanted, told, strict=True):
        if key in asked_time:
            waited[one[4]].append(asked_time[key] - one[3])
    wall_s = asked.at - before.at
    busy = {name: (asked.groups[name] - cpu_s) / wall_s for name, cpu_s in before.groups.items()}
    all_busy_s = asked.machine.busy_s - before.machine.busy_s + asked.machine.stolen_s - before.machine.stolen_s
    busy[OTHERS] = max(0.0, all_busy_s / wall_s - sum(busy.values()))
    return Phase(
        incidents=len(told),
        lost=lost,
        repeated=repeated,
        by_event=latency(waited[False]),
        by_status=latency(waited[True]),
        written_in_s=max(one[3] for one in told) - began_time,
        asked_in_s=max(asked_time.values(), default=began_time) - began_time,
        khook_cpu_s=settled.groups[KHOOK] - before.groups[KHOOK],
        busy=busy,
        khook_busy={role: (asked.khook[role] - cpu_s) / wall_s for role, cpu_s in before.khook.items()},
        late_p99_s=percentile(answer["late_s"], 99) if answer["late_s"] else 0.0,
    )


async def _until(stage: _Stage, what: str, count: int, give_up_at: float) -> None:
    """Until the agents have seen so many, or patience ends: their record will tell."""
    while (await stage.agents.ask({"do": "count"}))[what] < count and time.monotonic() < give_up_at:
        _still_runs(stage.khook, stage.log)
        await asyncio.sleep(POLL_S)


# --- what is up -------------------------------------------------------------------------------------------------


async def _child(module: str, config: Mapping[str, Any], *, folder: Path, stack: contextlib.AsyncExitStack) -> Child:
    child = await Child.start(module, config, log=folder / f"{module}.log")
    stack.push_async_callback(child.close)
    return child


async def _api_server(
    options: Options, folder: Path, stack: contextlib.AsyncExitStack
) -> tuple[str, str, str, list[int]]:
    """(url, token, file of its authority or nothing, pids)."""
    if options.server == "embedded":
        token = secrets.token_hex(16)
        child = await _child("bench.api_server", {"token": token}, folder=folder, stack=stack)
        return child.first["url"], token, "", [child.pid]
    binaries = find_binaries()
    if binaries is None:
        raise BenchFailed("no kube-apiserver and etcd here: `make envtest` builds them, or set KUBEBUILDER_ASSETS")
    server = RealApiServer(binaries, folder=folder)
    stack.push_async_callback(server.close)
    await server.start()
    return server.url, server.token, str(server.ca_file), server.pids


async def _start_khook(
    folder: Path, log: LogFile, *, agents_url: str, key: str, workers: int
) -> asyncio.subprocess.Process:
    chosen = {
        "KUBECONFIG": str(folder / "kubeconfig"),
        "KAGENT_BASE_URL": agents_url,
        "KAGENT_API_KEY": key,
        "KAGENT_PROTOCOL": "a2a",
        "KHOOK_WORKERS": str(workers),
        "KHOOK_DRAIN": f"{DRAIN_S}s",
        "KHOOK_STUCK_PENDING": "1h",  # pods that wait for their phase are no incidents
        "LEADER_ELECTION": "false",
        "METRICS_PORT": "0",
        "HEALTH_PORT": "0",
        "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
    }
    parent = os.getpid()
    with log.path.open("wb") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "khook",
            "run",
            env=environment(chosen, os.environ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # a terminal's Ctrl-C is for us: we stop it in order
            preexec_fn=lambda: die_with_parent(parent),
        )


def _still_runs(khook: asyncio.subprocess.Process, log: LogFile) -> None:
    if khook.returncode is not None:
        raise BenchFailed(f"khook run ended with exit code {khook.returncode}:\n{log.tail(LOG_LINES)}")


async def _ready(khook: asyncio.subprocess.Process, log: LogFile, *, workers: int, namespaces: int) -> None:
    """Until every namespace is watched."""
    give_up_at = time.monotonic() + READY_WITHIN_S
    async with httpx.AsyncClient(trust_env=False) as http:
        while time.monotonic() < give_up_at:
            _still_runs(khook, log)
            told = log.follow()
            if told.health_port is not None and len(told.pids) == workers and len(told.owners) == namespaces:
                answer = await http.get(f"http://127.0.0.1:{told.health_port}/readyz")
                if answer.status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(POLL_S)
    raise BenchFailed(f"khook run was not ready within {READY_WITHIN_S:.0f} s:\n{log.tail(LOG_LINES)}")


async def _stop_khook(khook: asyncio.subprocess.Process) -> None:
    """SIGTERM, then SIGKILL for one that does not end. Its workers end with it."""
    if khook.returncode is None:
        khook.terminate()
        try:
            await asyncio.wait_for(khook.wait(), STOP_WITHIN_S)
        except TimeoutError:
            khook.kill()
            await khook.wait()
