"""A kubeconfig with an exec plug-in on the real API server: tokens that end or are refused, and bad starts."""

import asyncio
import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from support.cluster import Cluster
from support.installation import Installation, fresh_name, installed, now
from support.kubeconfig import exec_credential, exec_user, kubeconfig, plugin
from support.objects import entry, event, hook, pod, running
from support.processes import descendants
from support.real_apiserver import RealApiServer, find_binaries

EARLY, LATE, LAST = "an-early-token", "a-late-token", "the-last-token"
LIFE = timedelta(seconds=20)
"""So it is renewed after ten."""
RENEWED_WITHIN_S = 60.0
BACK_WITHIN_S = 60.0
"""A watch backs off for up to 30 s, on a machine that may be busy."""


class Plugin:
    """The program, what it answers, and how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self._answer = folder / "answer"
        self._runs = folder / "runs"
        self._broken = folder / "broken"
        self.program = plugin(
            folder / "plugin",
            f"echo >>{self._runs}; [ -e {self._broken} ] && exit 1; cat {self._answer}",
        )

    def answers(self, token: str, *, life: timedelta) -> None:
        answer = exec_credential(token=token, expires=datetime.now(UTC) + life)
        written = self._answer.with_suffix(".new")
        written.write_bytes(orjson.dumps(answer))
        written.rename(self._answer)

    def breaks(self) -> None:
        self._broken.touch()

    def is_mended(self) -> None:
        self._broken.unlink()

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())


@dataclass(frozen=True)
class Plugged:
    server: RealApiServer
    plugin: Plugin
    installation: Installation

    def events(self, name: str) -> int:
        return sum(1 for line in self.installation.khook.log() if line["event"] == name)

    async def told(self, name: str, count: int) -> None:
        async with asyncio.timeout(RENEWED_WITHIN_S):
            while self.events(name) < count:
                await asyncio.sleep(0.05)

    async def a_new_hook_leads_to_a_call(self, cluster: Cluster) -> None:
        """The supervisor must see the Hook, and a worker the pod; it claims the call, too."""
        namespace = fresh_name("plugged")
        await cluster.namespace(namespace)
        await cluster.hook(hook("h", entry("pod-restart"), namespace=namespace))
        web = await cluster.pod(pod("web-1", namespace=namespace), running(now=now()))
        await cluster.event(event("BackOff", "Back-off restarting failed container app", of=web, now=now()))
        await self.installation.called(namespace, 1, within_s=BACK_WITHIN_S)


@pytest.fixture
def plugged(real_apiserver: RealApiServer, tmp_path: Path) -> Iterator[Plugged]:
    """A server of our own, for its tokens change; the shared one tells that there is one."""
    binaries = find_binaries()
    assert binaries is not None
    server = RealApiServer(binaries, more_tokens=(EARLY, LATE))
    server.start()
    try:
        exec_plugin = Plugin(tmp_path)
        exec_plugin.answers(EARLY, life=LIFE)
        with installed(server, folder=tmp_path, user=exec_user(exec_plugin.program)) as installation:
            yield Plugged(server, exec_plugin, installation)
    finally:
        server.stop()


def test_supervisor_and_workers_go_on_with_what_the_plug_in_gives_before_the_end_and_after_a_401(
    plugged: Plugged,
) -> None:
    server, khook = plugged.server, plugged.installation.khook

    async def story(cluster: Cluster) -> None:
        plugged.plugin.answers(LATE, life=timedelta(hours=1))
        await plugged.a_new_hook_leads_to_a_call(cluster)
        await plugged.told("credentials taken", 1)
        family, runs = descendants(khook.pid), plugged.plugin.runs

        plugged.plugin.breaks()
        await asyncio.to_thread(server.admit, LATE)  # the early one is refused, and every watch begins anew
        await plugged.a_new_hook_leads_to_a_call(cluster)
        assert plugged.plugin.runs == runs, "nobody met a 401"

        plugged.plugin.is_mended()
        plugged.plugin.answers(LAST, life=timedelta(hours=1))
        await asyncio.to_thread(server.admit, LAST)
        await plugged.a_new_hook_leads_to_a_call(cluster)
        await plugged.told("credentials taken", 2)
        assert plugged.plugin.runs == runs + 1, "one 401 was enough for all"

        assert descendants(khook.pid) == family, "no worker was replaced, and no plug-in left behind"
        assert await khook.stop() == 0
        written = khook.log_file.read_text()
        assert [token for token in (EARLY, LATE, LAST) if token in written] == []

    async def life() -> None:
        async with plugged.installation.cluster() as cluster:
            await story(cluster)

    asyncio.run(life())


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'please log in: cloud login' >&2; exit 1", "the plug-in ended with 1: please log in: cloud login"),
        ("read word; echo \"asked and heard '$word'\" >&2; exit 1", "the plug-in ended with 1: asked and heard ''"),
        (None, "command '/no/such/plugin' not found, or not executable; see https://cloud.example/install"),
    ],
)
def test_a_plug_in_that_cannot_give_anything_at_the_start_is_named_and_ends_with_78(
    tmp_path: Path, script: str | None, why: str
) -> None:
    program = Path("/no/such/plugin") if script is None else plugin(tmp_path / "plugin", script)
    user = exec_user(program, installHint="see https://cloud.example/install")
    done = subprocess.run(
        [sys.executable, "-m", "khook", "run"],
        env={
            "PATH": os.environ["PATH"],
            "KAGENT_API_KEY": "a-key-nobody-may-see",
            "METRICS_PORT": "0",
            "HEALTH_PORT": "0",
        }
        | kubeconfig(tmp_path / "config", user=user),
        input="what is typed is not for plug-ins\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines() == [
        "khook: these settings cannot be used:",
        f"  KUBECONFIG: {tmp_path / 'config'}: users[u]/user/exec: {why}",
    ]
    assert (done.returncode, done.stdout) == (78, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_at_the_start_ends_khook_and_the_plug_in_it_waits_for(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    os.mkfifo(tmp_path / "pipe")
    hanging = plugin(tmp_path / "plugin", f"exec 9>{tmp_path}/pipe; echo started >&9; sleep 60 & wait")
    with io.FileIO(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)) as pipe:
        khook = subprocess.Popen(
            [sys.executable, "-m", "khook", "run"],
            env={"PATH": os.environ["PATH"], "KAGENT_API_KEY": "a-key-nobody-may-see"}
            | kubeconfig(tmp_path / "config", user=exec_user(hanging)),
        )
        try:
            select.select([pipe], [], [], 30)
            assert pipe.read() == b"started\n"
            khook.send_signal(number)
            assert khook.wait(30) == code
            select.select([pipe], [], [], 30)
            assert pipe.read() == b"", "nobody holds the pipe any more"
        finally:
            khook.kill()
            khook.wait()
