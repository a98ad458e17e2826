"""Runs programs in a root file system as a container does: a mount and a process namespace, a user, no way back up.

What it cannot give: limits, seccomp, a network of its own. The mounts live in the namespace, so they end with it and
nothing of the machine is ever mounted where a clean-up could reach it. Linux, as root; `obstacle` says what is missing.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TMP_SIZE: Final = "64m"
"""What /tmp may hold: a memory-backed emptyDir of a small pod."""
_NEW: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private")
_MOUNTS: Final = 'mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"'
# What the kubelet gives a container with readOnlyRootFilesystem, allowPrivilegeEscalation: false, and a /tmp.
_SEALED: Final = f"""set -eu; root=$1; user=$2; tmp=$3; shift 3
mount --bind "$root" "$root"; {_MOUNTS}
[ -z "$tmp" ] || mount -t tmpfs -o "mode=1777,size=$tmp" tmpfs "$root/tmp"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"""
_OPEN: Final = f"""set -eu; root=$1; shift
{_MOUNTS}
exec chroot "$root" "$@"
"""
FIRST_PROCESS_WITHIN_S: Final = 5.0


def obstacle() -> str:
    """Why rooms cannot be had here; empty if they can."""
    if os.geteuid() != 0:
        return "it needs root, to mount and to chroot"
    try:
        done = subprocess.run([*_NEW, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "it needs Linux's unshare"
    return f"it needs the right to mount: {done.stderr.strip()}" if done.returncode else ""


def build_step(root: Path, command: Sequence[str], *, env: Mapping[str, str], within_s: float) -> str:
    """Run to its end as root, with the file system writable. Returns what it printed; raises CalledProcessError."""
    return subprocess.run(
        [*_NEW, "sh", "-c", _OPEN, "sh", str(root), *command],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within_s,
        check=True,
    ).stdout


@dataclass(slots=True)
class Container:
    """A process that runs as PID 1 of a sealed room."""

    root: Path
    user: str
    env: Mapping[str, str]
    process: "subprocess.Popen[bytes]"
    started_at: float = field(default_factory=time.monotonic)

    @staticmethod
    def start(
        root: Path, command: Sequence[str], *, user: str, env: Mapping[str, str], output: Path, tmp_size: str = TMP_SIZE
    ) -> "Container":
        """`tmp_size` empty: with nothing mounted at /tmp."""
        with output.open("wb") as to:
            process = subprocess.Popen(
                [*_NEW, "sh", "-c", _SEALED, "sh", str(root), user, tmp_size, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=subprocess.STDOUT,
            )
        return Container(root, user, env, process)

    @property
    def init(self) -> int:
        """Its PID 1, by the number that it has out here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        give_up_at = time.monotonic() + FIRST_PROCESS_WITHIN_S
        while time.monotonic() < give_up_at:
            if found := children.read_text().split():
                return int(found[0])
        raise TimeoutError("the room has no first process")

    def exec(self, *command: str, within_s: float = 20.0) -> "subprocess.CompletedProcess[str]":
        """What `kubectl exec` does: one more program in the room, as its user."""
        uid, _, gid = self.user.partition(":")
        enter = ("nsenter", f"--target={self.init}", "--mount", "--pid", "--root", "--wd", f"--setgid={gid}")
        return subprocess.run(
            [*enter, f"--setuid={uid}", "--", *command],
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.init, number)

    def wait(self, within_s: float) -> int:
        """Its exit code. Raises TimeoutExpired."""
        return self.process.wait(within_s)

    def kill(self) -> None:
        """End all that runs in the room: with its PID 1 the kernel ends the rest. A no-op where that is over.

        The death of `unshare` alone would not: the kernel forgets PDEATHSIG when a process changes its user.
        """
        if self.process.poll() is None:
            os.kill(self.init, signal.SIGKILL)
        self.process.wait()
