"""Which processes are alive, read from /proc: what a killed khook may not leave behind."""

from collections.abc import Iterator
from pathlib import Path


def alive(pid: int) -> bool:
    """A zombie is dead: only its parent's leave to forget it is missing."""
    return _state_and_parent(pid)[0] not in "ZX"


def descendants(pid: int) -> set[int]:
    """The children of a process, and theirs."""
    parents = {other: _state_and_parent(other)[1] for other in _pids()}
    found: set[int] = set()
    while more := {other for other, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def with_environment(line: str) -> set[int]:
    """The living processes that were started with `NAME=value` in their environment."""
    wanted = line.encode()
    return {pid for pid in _pids() if wanted in _environment(pid).split(b"\0") and alive(pid)}


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _state_and_parent(pid: int) -> tuple[str, int]:
    """proc_pid_stat(5): the fields after the command, which stands in brackets and may hold anything."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return state, int(parent)


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
