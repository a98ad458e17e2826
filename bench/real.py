"""A real kube-apiserver on a real etcd for one round, where their binaries are at hand (`make envtest`).

As the tests start them: a token file, the server's own certificate, etcd that does not sync to disk, no kubelet and
no controllers. Both end with this process. What they write is removed.
"""

import asyncio
import os
import secrets
import socket
import ssl
from pathlib import Path
from typing import Final

import httpx

from bench.children import BenchFailed
from shards.preload import die_with_parent

BINARIES: Final = ("etcd", "kube-apiserver")
REPOSITORY: Final = Path(__file__).parents[1]
READY_WITHIN_S: Final = 60.0
POLL_S: Final = 0.1
TAIL_CHARS: Final = 2_000


def find_binaries() -> Path | None:
    """The folder that holds both, or None."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), REPOSITORY / ".envtest"):
        if folder and all(os.access(Path(folder) / name, os.X_OK) for name in BINARIES):
            return Path(folder)
    return None


class RealApiServer:
    """`start`, use `url`, `token`, `ca_file` and `pids`, then `close`."""

    def __init__(self, binaries: Path, *, folder: Path) -> None:
        self.token = secrets.token_hex(16)
        self._binaries = binaries
        self._folder = folder
        self._port, self._etcd_port, self._peer_port = _free_ports(3)
        self.url = f"https://127.0.0.1:{self._port}"
        self.ca_file = folder / "certs" / "apiserver.crt"
        self._processes: list[asyncio.subprocess.Process] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    async def start(self) -> None:
        (self._folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n', encoding="utf-8")
        key = self._folder / "service-account.key"
        made = await asyncio.create_subprocess_exec(
            "openssl", "genrsa", "-out", str(key), "2048", stderr=asyncio.subprocess.DEVNULL
        )
        if await made.wait():
            raise BenchFailed("openssl could not make a key")
        await self._spawn("etcd", self._etcd_arguments())
        await self._spawn("kube-apiserver", self._api_server_arguments(key))
        await self._ready()

    async def close(self) -> None:
        for process in reversed(self._processes):
            if process.returncode is None:
                process.kill()
            await process.wait()

    def _etcd_arguments(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--watch-progress-notify-interval=5s",
            "--log-level=warn",
        ]

    def _api_server_arguments(self, key: Path) -> list[str]:
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self.ca_file.parent}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--profiling=false",
        ]

    async def _spawn(self, binary: str, arguments: list[str]) -> None:
        parent = os.getpid()
        with (self._folder / f"{binary}.log").open("wb") as log:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    str(self._binaries / binary),
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: die_with_parent(parent),
                )
            )

    async def _ready(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while not (self.ca_file.exists() and await self._answers()):
                    if any(process.returncode is not None for process in self._processes):
                        raise BenchFailed(f"the real API server ended at start\n{self._tails()}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise BenchFailed(f"the real API server was not ready in {READY_WITHIN_S:.0f} s\n{self._tails()}") from None

    async def _answers(self) -> bool:
        try:
            tls = ssl.create_default_context(cafile=str(self.ca_file))
            headers = {"authorization": f"Bearer {self.token}"}
            async with httpx.AsyncClient(base_url=self.url, verify=tls, headers=headers, trust_env=False) as http:
                answers = [await http.get(path) for path in ("/readyz", "/api/v1/namespaces/default")]
        except (httpx.TransportError, ssl.SSLError):
            return False
        return all(answer.status_code == httpx.codes.OK for answer in answers)

    def _tails(self) -> str:
        logs = (self._folder / f"{binary}.log" for binary in BINARIES)
        return "\n".join(log.read_text(errors="replace")[-TAIL_CHARS:] for log in logs if log.exists())


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
