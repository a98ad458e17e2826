"""`khook run` as its users run it: a process tree of its own, with its environment, its ports and its signals."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

STARTS_WITHIN_S: Final = 30.0
STOPS_WITHIN_S: Final = 40.0
POLL_S: Final = 0.05


class KhookProcess:
    """`start`, then `stop` (SIGTERM) or `kill` (SIGKILL), then `start` again; the log goes on in one file."""

    def __init__(self, *, kubeconfig: Path, base_url: str, api_key: str, environ: Mapping[str, str] = {}) -> None:
        self.kubeconfig = kubeconfig
        self._folder = Path(tempfile.mkdtemp(prefix="khook-run-", dir=kubeconfig.parent))
        self._environ = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(kubeconfig),
            "KAGENT_BASE_URL": base_url,
            "KAGENT_API_KEY": api_key,
            "KHOOK_WORKERS": "2",
            "METRICS_PORT": "0",
            "HEALTH_PORT": "0",
            "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
            "LOG_LEVEL": "debug",
            "LEADER_ELECTION": "false",
        } | dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._ports: dict[str, int] = {}
        self.status_address = ""
        """Where `/status.json` is, once it has started."""

    @property
    def environ(self) -> dict[str, str]:
        """What it was started with, and where its status is now."""
        return self._environ | ({"KHOOK_STATUS_ADDRESS": self.status_address} if self.status_address else {})

    @property
    def log_file(self) -> Path:
        return self._folder / f"khook-{self._starts}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> list[dict[str, Any]]:
        """The lines of the run under way, or of the last one."""
        lines = self.log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    async def start(self, *, until_ready: bool = True) -> None:
        self._starts += 1
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "khook", "run"], env=self._environ, stderr=log, stdout=log
            )
        await self._until_started()
        if until_ready:
            await self.until_ready()

    async def until_ready(self, *, within_s: float = STARTS_WITHIN_S) -> None:
        async with asyncio.timeout(within_s):
            while not (await self.readyz())[0]:
                await asyncio.sleep(POLL_S)

    async def readyz(self) -> tuple[bool, dict[str, Any]]:
        async with httpx.AsyncClient(trust_env=False, timeout=STARTS_WITHIN_S) as http:
            answer = await http.get(f"http://127.0.0.1:{self._ports['health_port']}/readyz")
        return answer.status_code == 200, answer.json()

    async def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, as the exposition writes it."""
        async with httpx.AsyncClient(trust_env=False, timeout=STARTS_WITHIN_S) as http:
            answer = await http.get(f"http://127.0.0.1:{self._ports['metrics_port']}/metrics")
        samples = (line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    async def counted(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        samples = (await self.metrics()).items()
        return sum(
            value
            for sample, value in samples
            if sample.partition("{")[0] == name and wanted <= set(sample.partition("{")[2].rstrip("}").split(","))
        )

    def worker_pids(self) -> dict[str, int]:
        """The newest process of each slot, as the log names them."""
        return {line["slot"]: line["pid"] for line in self.log() if line["event"] == "worker was welcomed"}

    def owners(self) -> dict[str, str]:
        """The slot that started each namespace last, as the log has it."""
        return {line["namespace"]: line["slot"] for line in self.log() if line["event"] == "namespace started"}

    def kill_worker(self, slot: str) -> None:
        """SIGKILL to the process that fills the slot."""
        os.kill(self.worker_pids()[slot], signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> int:
        """SIGKILL to the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        return await self.ended()

    async def ended(self, *, within_s: float = STOPS_WITHIN_S) -> int:
        """Wait for its end; the exit code."""
        assert self._process is not None
        async with asyncio.timeout(within_s):
            while (code := self._process.poll()) is None:
                await asyncio.sleep(POLL_S)
        return code

    async def close(self) -> None:
        """However the test ended, nothing stays behind."""
        if self._process is not None and self._process.poll() is None:
            await self.kill()

    async def _until_started(self) -> None:
        async with asyncio.timeout(STARTS_WITHIN_S):
            while True:
                started = [line for line in self.log() if line["event"] == "khook started"]
                if started:
                    self._ports = {name: started[0][name] for name in ("metrics_port", "health_port")}
                    self.status_address = started[0]["status_address"]
                    return
                assert self._process is not None
                if self._process.poll() is not None:
                    raise AssertionError(f"khook ended: {self.log_file.read_text()[-4000:]}")
                await asyncio.sleep(POLL_S)
