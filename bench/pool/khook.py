"""One `khook run` after the other, in an environment of its own, to be stopped, killed and started again.

Which process fills which slot, and which slot has which namespace, is read from its log, as an operator would;
whatever is timed or counted is taken from outside.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson

from khook.cli.demo_log import LogFile, Told
from khook.cli.demo_stage import environment

STARTS_WITHIN_S: Final = 60.0
ENDS_WITHIN_S: Final = 40.0
POLL_S: Final = 0.02


class KhookFailed(Exception):
    """It did not do what has nothing to do with the figure: start, become ready, end."""


class Khook:
    """Not yet running; `directory` has the kubeconfig and gets the logs."""

    def __init__(
        self, *, directory: Path, workers: int, agents_url: str, api_key: str, environ: Mapping[str, str]
    ) -> None:
        self.workers = workers
        self._directory = directory
        self._name = environ.get("POD_NAME", "khook")
        self._environ = environment(
            {
                "KUBECONFIG": str(directory / "kubeconfig"),
                "KAGENT_BASE_URL": agents_url,
                "KAGENT_API_KEY": api_key,
                "KHOOK_WORKERS": str(workers),
                "LEADER_ELECTION": "false",
                "METRICS_PORT": "0",
                "HEALTH_PORT": "0",
                "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
                "LOG_FORMAT": "json",
                "LOG_LEVEL": "info",
                **environ,
            },
            os.environ,
        )
        self._starts = 0
        self._log = LogFile(directory / f"{self._name}-0.log")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it is not started"
        return self._process.pid

    def told(self) -> Told:
        """What the log of this run says by now."""
        return self._log.follow()

    def owned(self) -> dict[str, list[str]]:
        """The namespaces of each slot."""
        told = self.told()
        return {slot: told.namespaces(slot) for slot in sorted(told.pids)}

    def worker_ends(self) -> list[str]:
        """How each worker of this run ended, by its log: "exit 0", "SIGKILL"."""
        lines = (line for line in self._log.path.read_bytes().splitlines() if b'"worker ended"' in line)
        return [orjson.loads(line)["how"] for line in lines]

    async def start(self) -> None:
        """Until every worker was welcomed. Raises KhookFailed."""
        self._starts += 1
        self._log = LogFile(self._directory / f"{self._name}-{self._starts}.log")
        with self._log.path.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "khook", "run"),
                env=self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is for us: we end it in order
            )
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                while len(self.told().pids) < self.workers:
                    if self._process.returncode is not None:
                        raise KhookFailed(f"it ended by itself:\n{self._log.tail(20)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise KhookFailed(f"not started within {STARTS_WITHIN_S:g} s:\n{self._log.tail(20)}") from None

    async def stop(self) -> int:
        """SIGTERM, as a cluster stops a pod; the exit code."""
        assert self._process is not None, "it is not started"
        self._process.terminate()
        return await self._ended()

    async def kill(self) -> int:
        """SIGKILL to the supervisor alone."""
        with contextlib.suppress(ProcessLookupError):
            self.strike()
        return await self._ended()

    def strike(self) -> None:
        """SIGKILL to the supervisor, and no wait for its end."""
        os.kill(self.pid, signal.SIGKILL)

    async def _ended(self) -> int:
        assert self._process is not None, "it is not started"
        try:
            async with asyncio.timeout(ENDS_WITHIN_S):
                return await self._process.wait()
        except TimeoutError:
            raise KhookFailed(f"it did not end within {ENDS_WITHIN_S:g} s:\n{self._log.tail(20)}") from None

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()
