"""What the kernel says of processes: CPU, memory and who is whose child, from proc(5).

CPU is `utime + stime` of each process by itself; memory is `smaps_rollup`: private is what would be free without the
process, PSS shares out what several have in common, which after a fork is most of it. Nothing here knows khook but
for the names of its parts: a forkserver's children are workers.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_A_S: Final = os.sysconf("SC_CLK_TCK")

SUPERVISOR: Final = "supervisor"
FORKSERVER: Final = "forkserver"
TRACKER: Final = "resource tracker"
OTHER: Final = "other"


@dataclass(frozen=True, slots=True)
class Stat:
    state: str
    parent: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Memory:
    rss_kib: int
    pss_kib: int
    private_kib: int


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU of all processors since the boot."""

    busy_s: float
    stolen_s: float
    """What the hypervisor gave to somebody else."""


def parse_stat(text: str) -> Stat:
    """`/proc/<pid>/stat`; the command in brackets may hold anything. Raises ValueError."""
    fields = text.rpartition(")")[2].split()
    state, parent, utime, stime = fields[0], fields[1], fields[11], fields[12]
    return Stat(state, int(parent), (int(utime) + int(stime)) / TICKS_A_S)


def parse_rollup(text: str) -> Memory:
    """`/proc/<pid>/smaps_rollup`."""
    sizes = {name: int(rest.split()[0]) for name, _, rest in _lines(text) if rest.endswith("kB")}
    return Memory(sizes["Rss"], sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"])


def parse_machine(text: str) -> Machine:
    """The first line of `/proc/stat`: user nice system idle iowait irq softirq steal (guest time is in user's)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(word) for word in text.split("\n", maxsplit=1)[0].split()[1:9]
    )
    return Machine((user + nice + system + irq + softirq) / TICKS_A_S, steal / TICKS_A_S)


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """The children of `root`, and theirs."""
    found: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in found | {root}} - found:
        found |= more
    return found


def roles(
    root: int, *, parents: Mapping[int, int], commands: Mapping[int, str], slots: Mapping[int, str]
) -> dict[int, str]:
    """Each process of a khook by what it is; `slots` names the workers by their pids."""
    found = {root: SUPERVISOR}
    for pid in sorted(descendants(root, parents)):
        command = commands.get(pid, "")
        if pid in slots:
            found[pid] = f"worker {slots[pid]}"
        elif "multiprocessing.forkserver" in command:
            found[pid] = FORKSERVER
        elif "multiprocessing.resource_tracker" in command:
            found[pid] = TRACKER
        else:
            found[pid] = OTHER
    return found


# --- reading ----------------------------------------------------------------------------------------------------


def stats(root: Path = PROC) -> dict[int, Stat]:
    """Of all processes that live."""
    found: dict[int, Stat] = {}
    for entry in root.iterdir():
        text = _read(entry / "stat") if entry.name.isdecimal() else ""
        if text and (stat := parse_stat(text)).state not in "ZX":
            found[int(entry.name)] = stat
    return found


def command(pid: int, root: Path = PROC) -> str:
    return _read(root / str(pid) / "cmdline").replace("\0", " ")


def memory(pid: int, root: Path = PROC) -> Memory | None:
    """None where the kernel does not tell (or the process has ended)."""
    text = _read(root / str(pid) / "smaps_rollup")
    return parse_rollup(text) if text else None


def machine(root: Path = PROC) -> Machine:
    return parse_machine(_read(root / "stat"))


def cpu_model(root: Path = PROC) -> str:
    """Empty where it is not said."""
    names = (rest.strip() for name, _, rest in _lines(_read(root / "cpuinfo")) if name.strip() == "model name")
    return next(names, "")


def cores() -> int:
    """Those that this process may run on."""
    return len(os.sched_getaffinity(0))


def tree_cpu_s(pids: Iterable[int], known: Mapping[int, Stat]) -> float:
    """CPU of these processes and all below them."""
    parents = {pid: stat.parent for pid, stat in known.items()}
    tree: Collection[int] = {one for pid in pids for one in {pid} | descendants(pid, parents)}
    return sum(known[pid].cpu_s for pid in tree if pid in known)


def _lines(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in text.splitlines()]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
