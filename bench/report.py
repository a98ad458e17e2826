"""How a run is told: a table on a terminal, plain lines in a pipe, and JSON with everything. Pure but for the console.

Worker counts stand side by side, each figure as the median of its rounds with the least and the most behind it, and
their ratio last: on a busy machine it drifts less than the figures do.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.figures import OTHERS, Latency, Phase, Round, Spread, bounded_by, doubts
from bench.options import Options
from bench.proc import Memory

VERSION: Final = 1
"""Of the JSON: raised when a field changes its meaning."""
KIB_A_MIB: Final = 1024
MS: Final = 1000.0
NOTHING: Final = "-"

Figure = Callable[[Round], float | None]


@dataclass(frozen=True, slots=True)
class Machine:
    cores: int
    cpu: str
    python: str
    kernel: str


@dataclass(frozen=True, slots=True)
class Line:
    """One figure: a cell for each worker count, and the last count's against the first's."""

    words: str
    cells: tuple[str, ...]
    spreads: tuple[Spread | None, ...] = ()
    """What the cells are made of, where that is one number a round."""
    ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All rounds of a run, in the order in which they were played."""

    options: Options
    machine: Machine
    rounds: Sequence[Round]

    @property
    def honest(self) -> bool:
        return all(one.honest for one in self.rounds)

    @property
    def counts(self) -> list[int]:
        """Worker counts, as asked for."""
        return [count for count in self.options.workers if self.of(count)]

    def of(self, workers: int) -> list[Round]:
        return [one for one in self.rounds if one.workers == workers]

    def spreads(self, figure: Figure) -> list[Spread | None]:
        """For each worker count."""
        return [
            Spread.of([value for one in self.of(count) if (value := figure(one)) is not None]) for count in self.counts
        ]


def lines(run: Run) -> list[Line]:
    """The table."""
    steady = f"steady, {run.options.rate:g} signals/s"
    burst = f"burst of {run.options.burst}"
    return [
        _line(run, f"{steady}: event → agent p50, ms", lambda one: _ms(one.steady.by_event, "p50_s")),
        _line(run, f"{steady}: event → agent p99, ms", lambda one: _ms(one.steady.by_event, "p99_s")),
        _line(run, f"{steady}: told by pod status alone, p50, ms", lambda one: _ms(one.steady.by_status, "p50_s")),
        _line(run, f"{steady}: CPU an incident, ms", lambda one: one.steady.cpu_an_incident_ms),
        _line(run, f"{burst}: incidents a second", lambda one: one.burst.a_second),
        _line(run, f"{burst}: CPU an incident, ms", lambda one: one.burst.cpu_an_incident_ms),
        *_shares(run, burst),
        *_memory(run),
        _line(run, "start → all namespaces watched, s", lambda one: one.ready_s),
        _line(run, "lost", lambda one: len(one.steady.lost) + len(one.burst.lost), ratio=False),
        _line(run, "repeated", lambda one: len(one.steady.repeated) + len(one.burst.repeated), ratio=False),
    ]


def remarks(run: Run) -> list[str]:
    """What has to be known beside the figures."""
    said = []
    for count in run.counts:
        for one in run.of(count):
            said.append(f"{_workers(count)}: the burst was bounded by {_bound(run, one.burst)}")
            said += [f"{_workers(count)}: {doubt}" for doubt in doubts(one, cores=run.machine.cores)]
            for name, phase in (("steady", one.steady), ("burst", one.burst)):
                said += [f"LOST ({_workers(count)}, {name}): {' '.join(key)}" for key in phase.lost]
                said += [f"REPEATED ({_workers(count)}, {name}): {' '.join(key)}" for key in phase.repeated]
    return said


def show(run: Run, console: Console) -> None:
    heads = [_workers(count) for count in run.counts]
    against = f"{run.counts[-1]} against {run.counts[0]}" if len(heads) > 1 else ""
    if console.is_terminal:
        table = Table(title=_title(run), title_justify="left")
        table.add_column("figure")
        for head in [*heads, *filter(None, [against])]:
            table.add_column(head, justify="right")
        for line in lines(run):
            table.add_row(line.words, *line.cells, *([_times(line.ratio)] if against else []))
        console.print(table)
    else:
        _print(console, _title(run))
        for line in lines(run):
            cells = [f"{head} {cell}" for head, cell in zip(heads, line.cells, strict=True)]
            ratio = [f"{against} {_times(line.ratio)}"] if line.ratio is not None else []
            _print(console, f"{line.words}: {'; '.join([*cells, *ratio])}")
    for remark in remarks(run):
        _print(console, remark)


def to_json(run: Run) -> dict[str, Any]:
    options = asdict(run.options) | {"json_file": None}
    return {
        "version": VERSION,
        "machine": asdict(run.machine),
        "options": options,
        "honest": run.honest,
        "rounds": [_round_json(run, one) for one in run.rounds],
        "figures": [_line_json(run, line) for line in lines(run) if line.spreads],
    }


def _line_json(run: Run, line: Line) -> dict[str, Any]:
    spreads = zip(run.counts, line.spreads, strict=True)
    by_count = {str(count): None if spread is None else asdict(spread) for count, spread in spreads}
    return {"figure": line.words, "workers": by_count, "ratio": line.ratio}


def _round_json(run: Run, one: Round) -> dict[str, Any]:
    phases = {
        name: asdict(phase)
        | {
            "incidents_a_second": phase.a_second,
            "cpu_an_incident_ms": phase.cpu_an_incident_ms,
            "bounded_by": _bound(run, phase),
        }
        for name, phase in (("steady", one.steady), ("burst", one.burst))
    }
    return asdict(one) | phases


def _bound(run: Run, phase: Phase) -> str:
    return bounded_by(phase, cores=run.machine.cores, embedded=run.options.server == "embedded")


def _title(run: Run) -> str:
    machine, options = run.machine, run.options
    return (
        f"{options.namespaces} namespaces, {options.server} API server; {machine.cores} processors"
        f"{f' ({machine.cpu})' if machine.cpu else ''}, Python {machine.python}"
    )


def _line(run: Run, words: str, figure: Figure, *, ratio: bool = True) -> Line:
    spreads = run.spreads(figure)
    return Line(words, tuple(map(_spread, spreads)), tuple(spreads), _ratio(spreads) if ratio else None)


def _shares(run: Run, burst: str) -> list[Line]:
    names = dict.fromkeys(name for one in run.rounds for name in one.burst.busy)
    ordered = [*(name for name in names if name != OTHERS), *(name for name in names if name == OTHERS)]
    return [_line(run, f"{burst}: processors busy with {name}", _share(name), ratio=False) for name in ordered]


def _share(name: str) -> Figure:
    return lambda one: one.burst.busy.get(name)


def _memory(run: Run) -> list[Line]:
    """The last round of each count: private before and after the load, and what is resident."""
    roles = dict.fromkeys(role for one in run.rounds for role in one.loaded_memory)
    last = [run.of(count)[-1] for count in run.counts]
    return [
        Line(
            f"{role}: MiB private idle → loaded (resident)",
            tuple(_sizes(one.idle_memory.get(role), one.loaded_memory.get(role)) for one in last),
        )
        for role in roles
    ]


def _sizes(idle: Memory | None, loaded: Memory | None) -> str:
    if idle is None or loaded is None:
        return NOTHING
    private = f"{idle.private_kib / KIB_A_MIB:.1f} → {loaded.private_kib / KIB_A_MIB:.1f}"
    return f"{private} ({loaded.rss_kib / KIB_A_MIB:.1f})"


def _spread(one: Spread | None) -> str:
    if one is None:
        return NOTHING
    around = f" ({_number(one.least)}–{_number(one.most)})" if one.times > 1 and one.least != one.most else ""
    return f"{_number(one.median)}{around}"


def _ratio(spreads: Sequence[Spread | None]) -> float | None:
    first, last = spreads[0], spreads[-1]
    if len(spreads) == 1 or first is None or last is None or not first.median:
        return None
    return last.median / first.median


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def _number(value: float) -> str:
    if value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ms(one: Latency | None, name: str) -> float | None:
    return None if one is None else float(getattr(one, name)) * MS


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
