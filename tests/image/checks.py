"""What must hold of the image, each said in one line with what was seen: as a kubelet and as people use it."""

import os
import re
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from image.trial import LOOK_EVERY_S, POD, Broken, Trial

VENV: Final = "/opt/khook"
STOPS_WITHIN_S: Final = 15.0
HEARD_WITHIN_S: Final = 3.0
"""Python needs a moment to die of a signal; a SIGTERM that was dropped is not heard in any time."""
MANY_MODULES: Final = 300
"""Fewer, and Python did not tell of all."""
MAY_WRITE: Final = ("tmp", "var/tmp", "run/lock", "dev", "proc", "sys")
"""Open to all in any Debian, or mounted over."""


def says_its_version(trial: Trial) -> str:
    code, said = trial.run("version")
    _want(code == 0 and said.startswith(f"khook {trial.version} "), f"exit {code}: {said}")
    return said.strip()


def a_bad_setting_ends_with_78(trial: Trial) -> str:
    code, said = trial.run("run", env=POD | {"LOG_LEVEL": "loud"})
    _want(code == 78 and "LOG_LEVEL" in said and "Traceback" not in said, f"exit {code}: {said}")
    return "exit 78, and the variable's name"


def says_that_it_needs_a_place_for_temporary_files(trial: Trial) -> str:
    code, said = trial.run("run", env=POD | {"PROMETHEUS_MULTIPROC_DIR": "/dev/shm/metrics"}, tmp_size="")
    _want(code == 78 and "/tmp" in said and "Traceback" not in said, f"exit {code}: {said}")
    return said.splitlines()[-1].strip()


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
    with trial.started(env=POD) as container:
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
    with trial.started(env=POD) as container:
        started_s = trial.until_logged("khook started", container) and time.monotonic() - container.started_at
        trial.until_logged("worker was welcomed", container)
        warm_s = time.monotonic() - container.started_at
        asked_at = time.monotonic()
        container.signal(signal.SIGTERM)
        code = container.wait(STOPS_WITHIN_S)
        stopped_s = time.monotonic() - asked_at
    _want(code == 0, f"exit {code}: {trial.said()[-2000:]}")
    _want("Traceback" not in trial.said(), "a traceback in the log")
    return f"listens after {started_s:.2f} s, first worker after {warm_s:.2f} s, exit 0 {stopped_s:.2f} s after SIGTERM"


def hears_a_sigterm_from_the_first_moment(trial: Trial) -> str:
    for delay_s in (0.05, 0.2):
        with trial.started(env=POD) as container:
            _ = container.init
            time.sleep(delay_s)
            container.signal(signal.SIGTERM)
            try:
                container.wait(HEARD_WITHIN_S)
            except subprocess.TimeoutExpired:
                raise Broken(f"a SIGTERM {delay_s} s after the start was ignored") from None
    return "0.05 s and 0.2 s after the start"


def leaves_no_zombie(trial: Trial) -> str:
    with trial.started(env=POD) as container:
        trial.until_logged("khook started", container)
        container.exec("sh", "-c", "(sleep 0.1 &)")
        give_up_at = time.monotonic() + HEARD_WITHIN_S
        while "sleep" in (left := _children(container.init)) and time.monotonic() < give_up_at:
            time.sleep(LOOK_EVERY_S)
    _want("sleep" not in left, "a program that an exec left behind was never collected")
    return "what an exec leaves running is collected at its end"


def compiles_nothing_at_its_start(trial: Trial) -> str:
    """Python's own account of where the code of each import came from: in the supervisor, forkserver and workers."""
    with trial.started(env=POD | {"PYTHONVERBOSE": "1"}) as container:
        trial.until_logged("worker was welcomed", container)
    said = trial.said()
    ready, compiled = (
        re.findall(r"code object from '\S+\.pyc'", said),
        re.findall(r"code object from '(\S+\.py)'", said),
    )
    _want(len(ready) > MANY_MODULES, f"only {len(ready)} modules were told of")
    _want(not compiled, f"compiled at the start: {compiled[:3]}")
    return f"{len(ready)} modules in three processes or more; {_mib(trial.built.inside(VENV))} MiB in {VENV}"


CHECKS: Final[tuple[Callable[[Trial], str], ...]] = (
    says_its_version,
    a_bad_setting_ends_with_78,
    says_that_it_needs_a_place_for_temporary_files,
    holds_no_installer,
    is_nobody_and_can_write_nowhere,
    compiles_nothing_at_its_start,
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


def _children(pid: int) -> list[str]:
    """The names of its child processes, zombies too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [Path(f"/proc/{child}/comm").read_text(encoding="utf-8").strip() for child in children]


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
