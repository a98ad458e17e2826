"""What must hold of the image, each said in one line with what was seen: as a kubelet starts it, and as people use it.

Every check starts the built root file system sealed (`image.room`): read-only, as the image's user, its ENTRYPOINT as
PID 1. The API server is one that refuses connections, which is all that a start needs.
"""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from image.build import Built
from image.room import Container

VENV: Final = "/opt/khook"
SERVICE_ACCOUNT: Final = "run/secrets/kubernetes.io/serviceaccount"
ENDS_WITHIN_S: Final = 30.0
STARTS_WITHIN_S: Final = 60.0
STOPS_WITHIN_S: Final = 15.0
HEARD_WITHIN_S: Final = 3.0
"""Python needs a moment to die of a signal; a SIGTERM that was dropped is not heard in any time."""
LOOK_EVERY_S: Final = 0.01
MAY_WRITE: Final = ("tmp", "var/tmp", "run/lock", "dev", "proc", "sys")
"""Open to all in any Debian, or mounted over."""
POD: Final = {
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "9",  # discard: nobody listens
    "POD_NAMESPACE": "kagent-system",
    "KAGENT_API_KEY": "a-key-for-the-check",
    "KAGENT_BASE_URL": "http://127.0.0.1:9",
    "METRICS_PORT": "0",
    "HEALTH_PORT": "0",
    "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
}
"""Free ports, since the room shares the machine's network; the log names them."""


class Broken(Exception):
    """The image does not do what it must; the text says what was seen."""


@dataclass(slots=True)
class Trial:
    """The built image and where output goes; makes containers of it."""

    built: Built
    version: str
    scratch: Path

    @contextlib.contextmanager
    def started(self, *arguments: str, entrypoint: tuple[str, ...] | None = None, **env: str) -> Iterator[Container]:
        """The image with these arguments in the place of its CMD; gone afterwards."""
        command = [*(self.built.entrypoint if entrypoint is None else entrypoint), *(arguments or self.built.command)]
        container = Container.start(
            self.built.root, command, user=self.built.user, env=self.built.env | env, output=self.output
        )
        try:
            yield container
        finally:
            container.kill()

    @property
    def output(self) -> Path:
        return self.scratch / "output"

    def run(self, *arguments: str, entrypoint: tuple[str, ...] | None = None, **env: str) -> tuple[int, str]:
        """Exit code and output of a container that ends by itself."""
        with self.started(*arguments, entrypoint=entrypoint, **env) as container:
            code = container.wait(ENDS_WITHIN_S)
        return code, self.output.read_text(encoding="utf-8")

    def until_logged(self, event: str, container: Container) -> dict[str, Any]:
        """The log line of this event, as soon as it is there."""
        give_up_at = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < give_up_at and container.process.poll() is None:
            for line in self.output.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    told = json.loads(line)
                    if told.get("event") == event:
                        return dict(told)
            time.sleep(LOOK_EVERY_S)
        raise Broken(f"no {event!r} in the log:\n{self.output.read_text(encoding='utf-8')[-2000:]}")


def like_a_pod(root: Path) -> None:
    """What the kubelet mounts; any authority's certificate will do."""
    mounted = root / SERVICE_ACCOUNT
    mounted.mkdir(parents=True)
    (mounted / "token").write_text("a-token", encoding="utf-8")
    shutil.copy(root / "etc/ssl/certs/ca-certificates.crt", mounted / "ca.crt")


def says_its_version(trial: Trial) -> str:
    code, said = trial.run("version")
    _want(code == 0 and said.startswith(f"khook {trial.version} "), f"exit {code}: {said}")
    return said.strip()


def a_bad_setting_ends_with_78(trial: Trial) -> str:
    code, said = trial.run("run", **POD, LOG_LEVEL="loud")
    _want(code == 78 and "LOG_LEVEL" in said and "Traceback" not in said, f"exit {code}: {said}")
    return "exit 78, and the variable's name"


def holds_no_installer(trial: Trial) -> str:
    for python in (f"{VENV}/bin/python", "/usr/bin/env python3"):
        for module in ("pip", "setuptools", "ensurepip", "hatchling"):
            code, said = trial.run("-c", f"import {module}", entrypoint=(*python.split(), "-I"))
            _want(code == 1 and "ModuleNotFoundError" in said, f"{python} imports {module}: {said}")
    root = trial.built.root
    left = [*root.glob("usr/local/bin/pip*"), *root.glob("opt/*/bin/pip*"), *root.glob("opt/tools"), *root.glob("src")]
    _want(not left, f"left behind: {left}")
    return "no pip, setuptools, ensurepip or build tool"


def is_nobody_and_can_write_nowhere(trial: Trial) -> str:
    uid, _, gid = trial.built.user.partition(":")
    _want(uid.isdigit() and gid.isdigit() and int(uid) > 0 < int(gid), f"USER {trial.built.user}")
    code, said = trial.run("-u", entrypoint=("/usr/bin/id",))
    _want((code, said.strip()) == (0, uid), f"id -u: {said}")
    code, said = trial.run(f"touch {VENV}/x", entrypoint=("/bin/sh", "-c"))
    _want(code != 0 and "Read-only" in said, f"touch: exit {code}: {said}")
    open_to_it = list(_writable(trial.built.root, int(uid), int(gid)))
    _want(not open_to_it, f"{uid} may write {open_to_it[:5]}")
    return f"user {uid}, file system read-only, and no file in it is the user's even if it were not"


def has_what_kubectl_exec_needs(trial: Trial) -> str:
    with trial.started(**POD) as container:
        told = trial.until_logged("khook started", container)
        alive = container.exec("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", _health(told, "/healthz"))
        _want(alive.stdout == "200", f"curl /healthz: {alive.stdout} {alive.stderr}")
        ready = container.exec("curl", "-sS", "-w", "%{http_code}", _health(told, "/readyz"))
        _want(ready.stdout.endswith("503"), f"curl /readyz: {ready.stdout} {ready.stderr}")
        date = container.exec("date", "+%Y")
        _want(date.stdout.strip() == time.strftime("%Y"), f"date: {date.stdout}{date.stderr}")
        asked = container.exec("khook", "shards", "--address", str(told["status_address"]))
        _want("Traceback" not in asked.stderr and asked.returncode in (0, 1), f"khook shards: {asked.stderr}")
        named = container.exec("khook", "version")
        _want(named.returncode == 0, f"khook version: {named.stderr}")
    return "curl sees /healthz 200 and /readyz 503, date, khook"


def stays_up_without_the_api_server_and_stops_on_sigterm(trial: Trial) -> str:
    with trial.started(**POD) as container:
        started_s = trial.until_logged("khook started", container) and time.monotonic() - container.started_at
        trial.until_logged("worker was welcomed", container)
        warm_s = time.monotonic() - container.started_at
        asked_at = time.monotonic()
        container.signal(signal.SIGTERM)
        code = container.wait(STOPS_WITHIN_S)
        stopped_s = time.monotonic() - asked_at
    _want(code == 0, f"exit {code}: {trial.output.read_text(encoding='utf-8')[-2000:]}")
    _want("Traceback" not in trial.output.read_text(encoding="utf-8"), "a traceback in the log")
    return f"listens after {started_s:.2f} s, first worker after {warm_s:.2f} s, exit 0 {stopped_s:.2f} s after SIGTERM"


def hears_a_sigterm_from_the_first_moment(trial: Trial) -> str:
    for delay_s in (0.05, 0.2):
        with trial.started(**POD) as container:
            _ = container.init
            time.sleep(delay_s)
            container.signal(signal.SIGTERM)
            try:
                container.wait(HEARD_WITHIN_S)
            except subprocess.TimeoutExpired:
                raise Broken(f"a SIGTERM {delay_s} s after the start was ignored") from None
    return "0.05 s and 0.2 s after the start"


def leaves_no_zombie(trial: Trial) -> str:
    count = "n=0; for s in /proc/[0-9]*/stat; do grep -q ') Z ' $s && n=$((n+1)); done 2>/dev/null; echo $n"
    with trial.started(**POD) as container:
        trial.until_logged("khook started", container)
        container.exec("sh", "-c", "(sleep 0.1 &) ; (sleep 0.1 &)")
        give_up_at = time.monotonic() + HEARD_WITHIN_S
        while container.exec("pgrep", "sleep").returncode == 0 and time.monotonic() < give_up_at:
            time.sleep(LOOK_EVERY_S)
        zombies = container.exec("sh", "-c", count).stdout.strip()
    _want(zombies == "0", f"{zombies} zombies")
    return "what an exec left running is collected"


def is_compiled(trial: Trial) -> str:
    found = trial.built.inside(VENV).rglob("*.py")
    bare = [path for path in found if not list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))]
    _want(not bare, f"without bytecode: {bare[:3]}")
    code, said = trial.run("-v", "-c", "import asyncio", entrypoint=(f"{VENV}/bin/python",))
    _want(code == 0 and "# code object from '" not in said, "the standard library is compiled at each start")
    return f"{_mib(trial.built.inside(VENV))} MiB in {VENV}, all of it and Python's library with bytecode"


CHECKS: Final[tuple[Callable[[Trial], str], ...]] = (
    says_its_version,
    a_bad_setting_ends_with_78,
    holds_no_installer,
    is_nobody_and_can_write_nowhere,
    is_compiled,
    stays_up_without_the_api_server_and_stops_on_sigterm,
    hears_a_sigterm_from_the_first_moment,
    leaves_no_zombie,
    has_what_kubectl_exec_needs,
)


def _want(holds: bool, seen: str) -> None:
    if not holds:
        raise Broken(seen)


def _health(told: dict[str, Any], path: str) -> str:
    return f"http://127.0.0.1:{told['health_port']}{path}"


def _writable(root: Path, uid: int, gid: int) -> Iterator[Path]:
    """By owner and mode alone."""
    for folder, folders, files in os.walk(root):
        if folder == str(root):
            folders[:] = [name for name in folders if name not in MAY_WRITE]
        for name in [*folders, *files]:
            path = Path(folder, name)
            seen = path.lstat()
            bit = stat.S_IWUSR if seen.st_uid == uid else stat.S_IWGRP if seen.st_gid == gid else stat.S_IWOTH
            if seen.st_mode & bit and not path.is_symlink() and str(path.relative_to(root)) not in MAY_WRITE:
                yield path.relative_to(root)


def _mib(folder: Path) -> int:
    return round(sum(path.lstat().st_size for path in folder.rglob("*")) / 1024 / 1024)
