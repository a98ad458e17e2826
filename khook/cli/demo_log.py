"""What `khook demo` learns from the log of the `khook run` that it started: ports, workers, who owns what.

The log is the product's own account, so what the table shows is what an operator would read. Lines that are not JSON
objects (a traceback) are kept apart: an error to show, not to understand. `worker_pids` asks the kernel instead, so
that nothing but a worker of ours is ever killed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

FORKSERVER: Final = b"multiprocessing.forkserver"


@dataclass(slots=True)
class Told:
    """The state that the lines read so far add up to."""

    metrics_port: int | None = None
    health_port: int | None = None
    status_address: str | None = None
    pids: dict[str, int] = field(default_factory=dict)
    """slot → pid of the process that fills it, or filled it last."""
    lives: dict[str, int] = field(default_factory=dict)
    """slot → how many processes have filled it."""
    owners: dict[str, str] = field(default_factory=dict)
    """namespace → slot that started it last."""
    broken: list[str] = field(default_factory=list)
    """The slots that were given up."""

    def read(self, line: bytes) -> None:
        try:
            told: Any = orjson.loads(line)
        except orjson.JSONDecodeError:
            return
        if not isinstance(told, dict):
            return
        match told:
            case {
                "event": "khook started",
                "metrics_port": int(metrics),
                "health_port": int(health),
                "status_address": str(status),
            }:
                self.metrics_port, self.health_port, self.status_address = metrics, health, status
            case {"event": "worker was welcomed", "slot": str(slot), "pid": int(pid)}:
                self.lives[slot] = self.lives.get(slot, 0) + 1
                self.pids[slot] = pid
            case {"event": "slot is broken", "slot": str(slot)}:
                self.broken.append(slot)
            case {"event": "namespace started", "namespace": str(namespace), "slot": str(slot)}:
                self.owners[namespace] = slot

    def namespaces(self, slot: str) -> list[str]:
        return sorted(namespace for namespace, owner in self.owners.items() if owner == slot)

    def busiest(self, *, but: str | None = None) -> str | None:
        """The slot with most namespaces: the one whose death would lose most. `but` is out of the question."""
        slots = (slot for slot in sorted(self.pids) if slot != but)
        return max(slots, key=lambda slot: len(self.namespaces(slot)), default=None)


class LogFile:
    """Follows a growing file, line by line; half a line waits for its rest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0
        self.told = Told()

    def follow(self) -> Told:
        """What the log says by now. Raises OSError where there is none."""
        with self.path.open("rb") as log:
            log.seek(self._read_bytes)
            for line in log:
                if not line.endswith(b"\n"):
                    break
                self._read_bytes += len(line)
                self.told.read(line)
        return self.told

    def tail(self, lines: int) -> str:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def worker_pids(supervisor_pid: int, *, proc: Path = Path("/proc")) -> set[int]:
    """The workers of a `khook run`: what its forkserver forked. Neither that server nor zombies are among them."""
    parents = {}
    for entry in proc.iterdir():
        parent = _parent(entry) if entry.name.isdecimal() else None
        if parent is not None:
            parents[int(entry.name)] = parent
    servers = {pid for pid, parent in parents.items() if parent == supervisor_pid and _is_forkserver(proc, pid)}
    return {pid for pid, parent in parents.items() if parent in servers}


def _parent(entry: Path) -> int | None:
    """The parent's pid out of proc(5) `stat`; the command in brackets may hold anything."""
    try:
        state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None  # it ended while we looked
    return int(parent) if state not in "ZX" else None


def _is_forkserver(proc: Path, pid: int) -> bool:
    try:
        return FORKSERVER in (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
