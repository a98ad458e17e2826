"""`khook check` and `khook explain` against a real API server, with a service account's rights and a kagent."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.installation import KEY, RULES, Agents, Installation, admin, fresh_name, install_crd, now, service_account
from support.objects import Json, crash_looping, entry, event, hook, pod, running, workload
from support.real_apiserver import RealApiServer

Environ = dict[str, str]


@pytest.fixture(scope="module")
def agents() -> Iterator[Agents]:
    served = Agents()
    served.start()
    yield served
    served.stop()


def environ(server: RealApiServer, folder: Path, agents: Agents, *, user: Json) -> Environ:
    kubeconfig = server.write_kubeconfig(folder / "kubeconfig", user=user)
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return inherited | {
        "KUBECONFIG": str(kubeconfig),
        "KAGENT_BASE_URL": agents.url,
        "KAGENT_API_KEY": KEY,
        "LEADER_ELECTION": "false",
        "KHOOK_STATUS_ADDRESS": "127.0.0.1:1",
    }


def ask(*arguments: str, env: Environ, stdin: str = "") -> tuple[int, Json]:
    done = subprocess.run(
        [sys.executable, "-m", "khook", *arguments, "--output", "json"],
        env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stdout, done.stderr
    said: Json = json.loads(done.stdout)
    return done.returncode, said


def test_check_tells_what_the_account_may_do_and_knows_the_crd_without_reading_it(
    real_apiserver: RealApiServer, tmp_path: Path, agents: Agents
) -> None:
    """Only administrators may read CRDs: the schema comes from OpenAPI, as every account may read it."""

    async def prepare(*, but: str = "") -> Json:
        await install_crd(real_apiserver)
        return await service_account(real_apiserver, [rule for rule in RULES if rule["resources"] != [but]])

    env = environ(real_apiserver, tmp_path, agents, user=asyncio.run(prepare()))
    code, said = ask("check", env=env)
    results = {one["check"]: one["result"] for one in said["checks"]}
    assert results["Hook CRD"] == "ok", said
    assert {result for what, result in results.items() if what.startswith("may ")} == {"ok"}
    assert (code, results["kagent"], results["kagent key"]) == (0, "ok", "ok"), said

    env = environ(real_apiserver, tmp_path, agents, user=asyncio.run(prepare(but="hooks/status")))
    code, said = ask("check", env=env)
    refused = [one["check"] for one in said["checks"] if one["result"] == "wrong"]
    assert (code, refused) == (78, ["may patch hooks/status.kagent.dev"])


def test_explain_reads_the_pod_its_events_its_owner_and_the_hooks(
    real_apiserver: RealApiServer, tmp_path: Path, agents: Agents
) -> None:
    namespace = fresh_name("explain")

    async def prepare() -> tuple[Json, Json]:
        await install_crd(real_apiserver)
        async with admin(real_apiserver) as http:
            cluster = Cluster(http)
            await cluster.namespace(namespace)
            made = await cluster.workload(workload("apps/v1", "Deployment", "web", namespace=namespace))
            replica_set = workload("apps/v1", "ReplicaSet", "web-7d4b9c", namespace=namespace, owner=made)
            owner = await cluster.workload(replica_set)
            web = await cluster.pod(pod("web-1", namespace=namespace, owner=owner), running(now=now()))
            await cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=now()))
            await cluster.pod_status(web, crash_looping(now=now()))
            await cluster.hook(hook("h", entry("pod-restart", groupBy="Owner"), namespace=namespace))
            return await service_account(real_apiserver), web

    user, web = asyncio.run(prepare())
    env = environ(real_apiserver, tmp_path, agents, user=user)
    code, said = ask("explain", f"{namespace}/web-1", env=env)
    assert (code, said["fires"], said["agent"]) == (0, True, "kagent/agent")
    assert said["words"] == "agent kagent/agent is asked about Deployment web"
    assert {fact["source"] for fact in said["facts"]} == {"pod status", "Event BackOff"}
    assert any("status page is not reachable" in note for note in said["notes"])

    typed = event("Unhealthy", "Readiness probe failed: HTTP 503", of=web, now=now())
    code, said = ask("explain", "-", env=env, stdin=json.dumps(typed))
    assert (code, said["silence"]) == (0, "no_entry_of_type")

    before = len(agents.runs(namespace))
    done = subprocess.run(
        [sys.executable, "-m", "khook", "explain", f"{namespace}/web-1", "--call", "--yes"],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = agents.runs(namespace)[before:]
    assert run.prompt.startswith("This is a test, sent by hand")
    assert done.stdout.splitlines()[-1].startswith("completed (Answered)")


def test_explain_tells_of_a_call_that_the_running_khook_made(
    khook: Installation, real_apiserver: RealApiServer, tmp_path: Path
) -> None:
    """The prompt that it shows for the pod is the one that the agent got, but for the call's own fence."""
    namespace = fresh_name("explained")

    async def happen() -> str:
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))
            web = await cluster.pod(pod("web-1", namespace=namespace), running(now=now()))
            await cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=now()))
            (run,) = await khook.called(namespace, 1)
            return run.prompt

    prompt = asyncio.run(happen())
    env = environ(real_apiserver, tmp_path, khook.agents, user={"token": real_apiserver.token})
    arguments = ("explain", f"{namespace}/web-1", "--address", khook.khook.status_address)
    said: Json = {}
    for _ in range(20):  # until its answer stands in the Hook's status
        code, said = ask(*arguments, env=env)
        if code == 0 and "call is Completed" in said["words"]:
            break
    assert said["silence"] == "stale"
    assert "call is Completed" in said["words"]
    assert said["notes"] == []
    (shown,) = {one["prompt"] for fact in said["facts"] for one in fact["outcomes"] if one["prompt"]}
    assert _unfenced(shown) == _unfenced(prompt)


def _unfenced(prompt: str) -> list[str]:
    return [line for line in prompt.splitlines() if not line.startswith("=====")]
