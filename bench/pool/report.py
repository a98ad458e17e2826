"""What a run of the figures comes to: a table for people, one JSON object for programs. Pure but for the console."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.pool.verdict import Row, at_share

VERSION: Final = 1
"""Of the JSON: raised when a field changes its meaning."""
PIPE_COLUMNS: Final = 160
"""A pipe has no width; a row shall stay on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    cores: int
    python: str
    kernel: str
    load_before: float
    load_after: float
    """The load average of the last minute: who else was at work. Our own is in the second."""

    @property
    def crowded(self) -> bool:
        return self.load_before > self.cores / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    rows: Sequence[Row]
    problems: Mapping[str, str]
    """Figures that could not be measured, and why."""
    seconds: float
    machine: Machine

    @property
    def reached(self) -> bool:
        return not self.problems and bool(self.rows) and all(row.reached for row in self.rows)


def to_json(run: Run) -> dict[str, Any]:
    machine = run.machine
    return {
        "version": VERSION,
        "reached": run.reached,
        "seconds": round(run.seconds, 1),
        "machine": {
            "cores": machine.cores,
            "python": machine.python,
            "kernel": machine.kernel,
            "loadBefore": machine.load_before,
            "loadAfter": machine.load_after,
            "crowded": machine.crowded,
        },
        "problems": dict(run.problems),
        "figures": [row.to_json() for row in run.rows],
    }


def show(run: Run, console: Console) -> None:
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    table = Table("figure", "what", "goal", box=None, pad_edge=False)
    for name in ("n", "p50", "p99", "max"):
        table.add_column(name, justify="right")
    table.add_column("")
    for row in run.rows:
        table.add_row(*_cells(row), style="" if row.reached else "bold red")
    console.print(table)
    for figure, problem in run.problems.items():
        console.print(f"{figure} was not measured: {problem}", markup=False, highlight=False, soft_wrap=True)
    machine = run.machine
    console.print(
        f"{'all reached' if run.reached else 'NOT all reached'} in {run.seconds:.0f} s on {machine.cores} cores, "
        f"load {machine.load_before:.1f} before and {machine.load_after:.1f} after",
        highlight=False,
    )
    if machine.crowded and not run.reached:
        console.print("Others were at work on this machine: what was MISSED by time may be their doing.")


def _cells(row: Row) -> list[str]:
    values = [at_share(row.samples, 50), at_share(row.samples, 99), max(row.samples, default=None)]
    return [
        row.figure,
        row.what,
        row.goal,
        str(len(row.samples)),
        *("-" if value is None else _number(value, row.unit) for value in values),
        "reached" if row.reached else "MISSED",
    ]


def _number(value: float, unit: str) -> str:
    return f"{value:.3f} s" if unit == "s" else f"{value:g}"
