"""A real kube-apiserver on a real etcd, for one test run: no certificates of ours, no kubelet, no controllers.

Built by `make envtest`, or found in KUBEBUILDER_ASSETS. etcd does not sync to disk; kube-apiserver makes its own
serving certificate, trusts a token file and enforces RBAC. Both die with the process that started them
(PR_SET_PDEATHSIG), when they are started from its main thread, and at its exit in any case.
`watch-progress-notify-interval` is what kubeadm sets: with etcd's default of 10 minutes a quiet watch cache does not
move on, and then kube-apiserver sends no bookmarks either.
"""

import atexit
import ctypes
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

REPOSITORY: Final = Path(__file__).parents[2]
BINARIES: Final = ("etcd", "kube-apiserver")
ADMIN_TOKEN: Final = "admin-token"
USER_TOKEN: Final = "user-token"
USER: Final = "plain"
READY_WITHIN_S: Final = 60.0
POLL_EVERY_S: Final = 0.05
LOG_TAIL_BYTES: Final = 4_000
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def find_binaries() -> Path | None:
    """The folder that holds both binaries, or None."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), REPOSITORY / ".envtest"):
        if folder and all(os.access(Path(folder) / name, os.X_OK) for name in BINARIES):
            return Path(folder)
    return None


class RealApiServer:
    """`start`, use `url`, `token`, `user_token`, `ca_file`, then `stop`. Starting blocks for a second or two."""

    def __init__(
        self,
        binaries: Path,
        *,
        compaction_interval: str = "5m",
        extra_args: tuple[str, ...] = (),
        more_tokens: tuple[str, ...] = (),
    ) -> None:
        self.token = ADMIN_TOKEN
        self.user_token = USER_TOKEN
        self.folder = Path(tempfile.mkdtemp(prefix="khook-envtest-"))
        self.ca_file = self.folder / "certs" / "apiserver.crt"
        self._admin_tokens = (ADMIN_TOKEN, *more_tokens)
        self._binaries = binaries
        self._compaction_interval = compaction_interval
        self._extra_args = extra_args
        self._port, self._etcd_port, self._peer_port = _free_ports(3)
        self.url = f"https://127.0.0.1:{self._port}"
        self.etcd_url = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd: subprocess.Popen[bytes] | None = None
        self._apiserver: subprocess.Popen[bytes] | None = None

    # -- life

    def start(self) -> None:
        atexit.register(self.stop)
        self._write_files()
        self._start_etcd()
        self.restart()

    def restart(self) -> None:
        """The API server alone, same data, port and certificate; killed first if it runs."""
        self.kill()
        self._apiserver = self._spawn("kube-apiserver", self._apiserver_args())
        self._wait_ready()

    def kill(self) -> None:
        """SIGKILL to the API server: watches are cut without a last chunk. etcd and the data stay."""
        _end(self._apiserver)
        self._apiserver = None

    def admit(self, *tokens: str) -> None:
        """Beside `token` these are the admin's, and no others any more; the file is read at a start, so it restarts."""
        self._admin_tokens = (ADMIN_TOKEN, *tokens)
        self._write_tokens()
        self.restart()

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self.kill()
        _end(self._etcd)
        self._etcd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- use

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def write_kubeconfig(
        self, path: Path, *, token: str | None = None, url: str | None = None, user: dict[str, Any] | None = None
    ) -> Path:
        """A kubeconfig for the admin, for another token or user, or by way of a proxy; context namespace `default`."""
        context = {"cluster": "envtest", "user": "user", "namespace": "default"}
        cluster = {"server": url} if url else {"server": self.url, "certificate-authority": str(self.ca_file)}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "envtest",
            "clusters": [{"name": "envtest", "cluster": cluster}],
            "users": [{"name": "user", "user": user or {"token": token or self.token}}],
            "contexts": [{"name": "envtest", "context": context}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def compact(self, revision: int | None = None) -> int:
        """Compact etcd at a revision, the newest if none is given, at once; that revision."""
        with httpx.Client(base_url=self.etcd_url, trust_env=False) as etcd:
            if revision is None:
                answer = etcd.post("/v3/kv/range", json={"key": "AA==", "limit": "1"}).raise_for_status().json()
                revision = int(answer["header"]["revision"])
            etcd.post("/v3/kv/compaction", json={"revision": str(revision), "physical": True}).raise_for_status()
        return revision

    # -- inside

    def _write_files(self) -> None:
        self._write_tokens()
        key = self.folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)

    def _write_tokens(self) -> None:
        admins = "".join(f'{token},admin,admin,"system:masters"\n' for token in self._admin_tokens)
        (self.folder / "tokens.csv").write_text(f"{admins}{USER_TOKEN},{USER},{USER}\n")

    def _start_etcd(self) -> None:
        self._etcd = self._spawn(
            "etcd",
            [
                f"--data-dir={self.folder / 'etcd'}",
                f"--listen-client-urls={self.etcd_url}",
                f"--advertise-client-urls={self.etcd_url}",
                f"--listen-peer-urls=http://127.0.0.1:{self._peer_port}",
                f"--initial-advertise-peer-urls=http://127.0.0.1:{self._peer_port}",
                f"--initial-cluster=default=http://127.0.0.1:{self._peer_port}",
                "--unsafe-no-fsync",
                "--watch-progress-notify-interval=5s",
                "--log-level=warn",
            ],
        )

    def _apiserver_args(self) -> list[str]:
        key = self.folder / "service-account.key"
        return [
            f"--etcd-servers={self.etcd_url}",
            f"--etcd-compaction-interval={self._compaction_interval}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
            "--profiling=false",
            *self._extra_args,
        ]

    def _spawn(self, binary: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        die_with_us = _die_with_parent if threading.current_thread() is threading.main_thread() else None
        with (self.folder / f"{binary}.log").open("ab") as log:
            return subprocess.Popen(
                [self._binaries / binary, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_us,  # noqa: PLW1509 - it only calls prctl
            )

    def _wait_ready(self) -> None:
        deadline_at = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline_at:
            for name, process in (("etcd", self._etcd), ("kube-apiserver", self._apiserver)):
                if process is None or process.poll() is not None:
                    raise RuntimeError(f"{name} ended at start\n{self._log_tail(name)}")
            if self._is_ready():
                return
            time.sleep(POLL_EVERY_S)
        raise RuntimeError(f"kube-apiserver was not ready in {READY_WITHIN_S} s\n{self._log_tail('kube-apiserver')}")

    def _is_ready(self) -> bool:
        if not self.ca_file.exists():
            return False
        try:
            with httpx.Client(
                base_url=self.url,
                verify=self.ssl_context(),
                headers={"authorization": f"Bearer {self.token}"},
                trust_env=False,
            ) as client:
                paths = ("/readyz", "/api/v1/namespaces/default")
                return all(client.get(path).status_code == 200 for path in paths)
        except (httpx.TransportError, ssl.SSLError):
            return False

    def _log_tail(self, binary: str) -> str:
        log = self.folder / f"{binary}.log"
        return log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if log.exists() else "(no log)"


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
