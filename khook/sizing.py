"""How many workers a pod of this size gets when nobody says (`KHOOK_WORKERS=auto`), and their slots' names.

One worker keeps one core busy, so the CPU quota decides; memory and a ceiling bound it. The limits are read from
the container's own cgroup (v2 `cpu.max`, `memory.max`; v1 `cpu.cfs_*_us`, `memory.limit_in_bytes`), never from the
machine's core count: a pod with half a core on a 64-core node is a small pod.
Source: Linux Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import Final

Reader = Callable[[str], str | None]
"""A file's text by its path, None where it cannot be read."""

MAX_WORKERS: Final = 16
"""More would not pay: the supervisor's own work and the ring's balance set in before."""
DEFAULT_WORKERS: Final = 2
"""Without a quota: enough to survive one crash without silence, small enough for a laptop."""
SUPERVISOR_BYTES: Final = 160 * 1024 * 1024
"""The supervisor, the forkserver and the resource tracker, with room to breathe."""
WORKER_BYTES: Final = 64 * 1024 * 1024
"""13 MiB serving 32 watches; the rest is for bursts and TLS."""

_CGROUP: Final = "/sys/fs/cgroup"
_UNLIMITED_BYTES: Final = 1 << 60
"""cgroup v1 says "no limit" with a page-rounded 2^63."""


class Because(StrEnum):
    """Which bound decided the number of workers."""

    SET = "KHOOK_WORKERS"
    CPU_QUOTA = "cpu quota"
    NO_CPU_QUOTA = "no cpu quota"
    MEMORY_LIMIT = "memory limit"
    MAXIMUM = "maximum"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCount:
    count: int
    because: Because


def slot_names(workers: int) -> list[str]:
    """The pool's slots. Their names decide where a namespace's home on the ring is: they never change."""
    return [f"w{number}" for number in range(workers)]


def read_file(path: str) -> str | None:
    """The real `Reader`."""
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def auto_workers(read: Reader) -> WorkerCount:
    """The count for this container, and the bound that decided it (the narrowest; ties name the first below)."""
    quota = _cpu_quota(read)
    if quota is None:
        best = WorkerCount(count=DEFAULT_WORKERS, because=Because.NO_CPU_QUOTA)
    else:
        best = WorkerCount(count=max(1, ceil(quota)), because=Because.CPU_QUOTA)
    limit_bytes = _memory_limit_bytes(read)
    if limit_bytes is not None:
        fits = max(1, (limit_bytes - SUPERVISOR_BYTES) // WORKER_BYTES)
        if fits < best.count:
            best = WorkerCount(count=fits, because=Because.MEMORY_LIMIT)
    if best.count > MAX_WORKERS:
        best = WorkerCount(count=MAX_WORKERS, because=Because.MAXIMUM)
    return best


def _cpu_quota(read: Reader) -> float | None:
    both = (read(f"{_CGROUP}/cpu.max") or "").split()
    if not both:
        both = [
            read(f"{_CGROUP}/cpu/cpu.cfs_quota_us") or "",
            read(f"{_CGROUP}/cpu/cpu.cfs_period_us") or "",
        ]
    quota_us, period_us = (_number(text) for text in [*both, ""][:2])
    return quota_us / period_us if quota_us and period_us else None


def _memory_limit_bytes(read: Reader) -> int | None:
    limit = _number(read(f"{_CGROUP}/memory.max") or read(f"{_CGROUP}/memory/memory.limit_in_bytes") or "")
    return limit if limit and limit < _UNLIMITED_BYTES else None


def _number(text: str) -> int | None:
    """A positive count; `max` and -1 (no limit) are None."""
    stripped = text.strip()
    return int(stripped) if stripped.isdecimal() else None
