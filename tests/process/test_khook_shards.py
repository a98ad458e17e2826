"""`khook shards` against `khook run` as its users start both, on the embedded API server."""

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from support.api_servers import EmbeddedCluster, install_crd
from support.khook_process import KhookProcess
from support.objects import entry, hook
from support.real_apiserver import ADMIN_TOKEN

from khook.api.crd import crd
from khook.cli.demo_stage import kubeconfig
from khook.cli.main import main

NAMESPACES = ("bank", "search", "shop")


@pytest.fixture(scope="module")
def kubeconfig_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an API server with a Hook in each of three namespaces."""
    cluster = EmbeddedCluster()
    try:
        install_crd(cluster.admin, crd())
        for name in NAMESPACES:
            created = cluster.admin.post("/api/v1/namespaces", json={"metadata": {"name": name}})
            assert created.status_code == 201, created.text
            body = hook("h", entry("pod-restart"), namespace=name)
            created = cluster.admin.post(f"/apis/kagent.dev/v1alpha2/namespaces/{name}/hooks", json=body)
            assert created.status_code == 201, created.text
        file = tmp_path_factory.mktemp("khook") / "kubeconfig"
        file.write_bytes(orjson.dumps(kubeconfig(str(cluster.admin.base_url).rstrip("/"), ADMIN_TOKEN)))
        yield file
    finally:
        cluster.close()


def khook_run(kubeconfig_file: Path, **environ: str) -> KhookProcess:
    chosen = {"KAGENT_PROTOCOL": "execute"} | environ
    return KhookProcess(kubeconfig=kubeconfig_file, base_url="http://127.0.0.1:9", api_key="a-key", environ=chosen)


def khook(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "khook", *arguments],
        env={"PATH": os.environ["PATH"], "NO_COLOR": "1", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    def document(self) -> Any:
        assert (self.code, self.err) == (0, "")
        return json.loads(self.out)


def shards(running: KhookProcess, *arguments: str) -> Said:
    """The command in this process: it asks over the socket all the same."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(["shards", "--address", running.status_address, *arguments])
    return Said(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def test_the_live_assignment_is_shown_and_planned_with_and_then_nobody_listens(
    kubeconfig_file: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        running = khook_run(kubeconfig_file, KHOOK_VIRTUAL_NODES="64", KHOOK_MAX_LOAD_FACTOR="1.5")
        try:
            await running.start()
            _shows_the_assignment(running)
            _shows_the_page(running)
            _plans_from_it(running, tmp_path)
            assert await running.stop() == 0
            gone = khook("shards", KHOOK_STATUS_ADDRESS=running.status_address)  # as in the pod
            assert (gone.returncode, gone.stdout) == (1, "")
            assert gone.stderr == f"khook: nothing listens on {running.status_address}: is `khook run` running here?\n"
        finally:
            await running.close()

    asyncio.run(story())


def _shows_the_assignment(running: KhookProcess) -> None:
    document = shards(running, "--output", "json").document()
    assert [slot["slot"] for slot in document["slots"]] == ["w0", "w1"]
    owners = {one["namespace"]: slot["slot"] for slot in document["slots"] for one in slot["namespaces"]}
    assert sorted(owners) == list(NAMESPACES)
    assert {slot["slot"]: slot["pid"] for slot in document["slots"]} == running.worker_pids()

    plain = shards(running, "--all").out.splitlines()
    assert plain[0].endswith("leads (epoch 1): 3 namespaces on 2 workers, load 3.0, 0.0 lines/s")
    assert plain[1].split()[:3] == ["SLOT", "STATE", "NAMESPACES"]
    assert [line.split()[:2] for line in plain[2:4]] == [["w0", "running"], ["w1", "running"]]
    rows = [line.split() for line in plain[5:]]
    assert rows == [[name, owners[name], "1.0", "0.0", "started"] for name in NAMESPACES]


def _shows_the_page(running: KhookProcess) -> None:
    """The workers told, over their channels, which Hooks they have."""
    said = httpx.get(f"http://{running.status_address}/status.json", trust_env=False).json()
    assert (said["totals"]["hooks"], said["silentSlots"], said["ready"]) == (3, [], True)
    page = httpx.get(f"http://{running.status_address}/", trust_env=False).text
    assert all(f'<span class="name">{name}</span>' in page for name in NAMESPACES)


def _plans_from_it(running: KhookProcess, tmp_path: Path) -> None:
    document = shards(running, "--workers", "3", "--output", "json").document()
    assert (document["workers"], document["totals"]["namespaces"], document["moves"]["fromWorkers"]) == (3, 3, 2)
    assert document["ring"] == {"virtualNodes": 64, "maxLoadFactor": 1.5}  # as it runs there, not as here
    other = shards(running, "--workers", "3", "--output", "json", "--virtual-nodes", "8").document()
    assert other["ring"] == {"virtualNodes": 8, "maxLoadFactor": 1.5}
    # Where the namespaces lie is what a plan for two workers gives: the same list moves the same.
    (tmp_path / "list.txt").write_text("\n".join(NAMESPACES))
    listed = ("--workers", "3", "--from", "2", "--namespaces", str(tmp_path / "list.txt"), "--output", "json")
    ring = ("--virtual-nodes", "64", "--max-load-factor", "1.5")
    assert shards(running, *listed, *ring).document() == document


def test_a_standby_names_the_leader_and_the_command_that_asks_it(kubeconfig_file: Path) -> None:
    async def story() -> None:
        election = {"LEADER_ELECTION": "true", "POD_NAMESPACE": "default", "KHOOK_WORKERS": "1"}
        first = khook_run(kubeconfig_file, POD_NAME="khook-0", **election)
        second = khook_run(kubeconfig_file, POD_NAME="khook-1", **election)
        try:
            await first.start()
            await second.start()
            document = shards(first, "--output", "json").document()
            assert (document["leading"], document["leader"]["identity"]) == (True, document["identity"])
            said = shards(second)
            assert (said.code, said.out) == (1, "")
            assert said.err.splitlines() == [
                f"khook: this replica stands by; {document['identity']} leads. Ask it:",
                "  kubectl exec -n default khook-0 -- khook shards",
            ]
        finally:
            await second.close()
            await first.close()

    asyncio.run(story())


def test_ports_that_are_taken_end_khook_run_with_one_line_each_and_78(kubeconfig_file: Path) -> None:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        metrics, health, status = (one.getsockname()[1] for one in sockets)
        done = khook(
            "run",
            KUBECONFIG=str(kubeconfig_file),
            LOG_LEVEL="error",
            METRICS_PORT=str(metrics),
            HEALTH_PORT=str(health),
            KHOOK_STATUS_ADDRESS=f"127.0.0.1:{status}",
        )
    way_out = "address already in use; choose another, or 0 for any free"
    assert done.stderr.splitlines() == [
        "khook: these settings cannot be used:",
        f"  METRICS_PORT: cannot listen on 0.0.0.0:{metrics}: {way_out}",
        f"  HEALTH_PORT: cannot listen on 0.0.0.0:{health}: {way_out}",
        f"  KHOOK_STATUS_ADDRESS: cannot listen on 127.0.0.1:{status}: {way_out}",
    ]
    assert (done.returncode, done.stdout) == (78, "")
