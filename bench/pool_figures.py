"""`make pool-figures`: what the pool promises about deaths and stops, measured on the real `khook run`.

    python -m bench.pool_figures [--only R2,R4] [--output json] [--json FILE]

Figures that are sensitive to what else runs are measured alone, those that mostly wait beside one another. Exit code
0 when every goal was reached, 1 when one was not or could not be measured.
"""

import argparse
import asyncio
import os
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from bench.pool import (
    crash_loop,
    frozen_worker,
    leader_change,
    programs,
    report,
    sigterm,
    supervisor_death,
    worker_death,
)
from bench.pool.progress import Said
from bench.pool.verdict import Row
from bench.proc import cores

EXIT_MISSED: Final = 1
EXIT_INTERRUPTED: Final = 130
PROBLEM_CHARS: Final = 4_000

Measure = Callable[[Callable[[int, int], None]], Awaitable[list[Row]]]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    words: str
    measure: Measure


TURNS: Final = (
    (Figure("ring", "balance and moves of namespaces on the ring", programs.ring),),
    (Figure("R2", "workers are killed with SIGKILL", worker_death.measure),),
    (Figure("R3", "supervisors are killed with SIGKILL", supervisor_death.measure),),
    (Figure("R6", "khook is stopped with SIGTERM under load", sigterm.measure),),
    (Figure("leader", "leaders are stopped and killed, and a standby leads", leader_change.measure),),
    (
        Figure("R4", "workers are stopped with SIGSTOP for a minute", frozen_worker.measure),
        Figure("R11", "a worker crashes in a loop", crash_loop.measure),
    ),
    (Figure("metrics", "workers are killed while they count", programs.metrics_directory),),
)
"""One after the other; the figures of a turn beside one another."""
NAMES: Final = tuple(figure.name for turn in TURNS for figure in turn)


@dataclass(slots=True)
class _Found:
    rows: dict[str, list[Row]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        run = asyncio.run(_until_interrupted(options.only))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    as_json = orjson.dumps(report.to_json(run), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if options.json is not None:
        options.json.write_bytes(as_json)
    if options.output == "json":
        sys.stdout.write(as_json.decode())
    else:
        report.show(run, Console())
    return 0 if run.reached else EXIT_MISSED


async def _until_interrupted(only: Sequence[str]) -> report.Run:
    """SIGTERM and Ctrl-C cancel what runs, which then ends what it started."""
    measuring = asyncio.create_task(measured(only))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, measuring.cancel)
    return await measuring


async def measured(only: Sequence[str], *, turns: Sequence[Sequence[Figure]] = TURNS) -> report.Run:
    """Every figure, or those that are named."""
    began_at, load_before = time.monotonic(), os.getloadavg()[0]
    found = _Found()
    with Said(Console(stderr=True)) as said:
        for turn in turns:
            chosen = [figure for figure in turn if figure.name in only]
            async with asyncio.TaskGroup() as group:
                for figure in chosen:
                    group.create_task(_measured(figure, said, found))
    order = [figure.name for turn in turns for figure in turn]
    return report.Run(
        rows=[row for name in order for row in found.rows.get(name, [])],
        problems=found.problems,
        seconds=time.monotonic() - began_at,
        machine=report.Machine(
            cores=cores(),
            python=platform.python_version(),
            kernel=os.uname().release,
            load_before=round(load_before, 2),
            load_after=round(os.getloadavg()[0], 2),
        ),
    )


async def _measured(figure: Figure, said: Said, found: _Found) -> None:
    with said.figure(figure.name, figure.words) as progress:
        try:
            found.rows[figure.name] = await figure.measure(progress)
        except Exception as error:  # noqa: BLE001 - whatever one figure fails of, the others are still wanted
            found.problems[figure.name] = f"{type(error).__name__}: {error}"[:PROBLEM_CHARS]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pool_figures",
        description="Kill, stop and freeze the real `khook run` and measure what comes of it. "
        "Exit 1 if a goal was not reached.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--only", type=_names, default=NAMES, help="figures, with commas between them")
    parser.add_argument("--output", choices=("table", "json"), default="table", help="what stdout gets")
    parser.add_argument("--json", type=_file, metavar="FILE", help="all of it as JSON, also")
    return parser


def _names(text: str) -> tuple[str, ...]:
    known = {name.lower(): name for name in NAMES}
    asked = [part.strip() for part in text.split(",")]
    unknown = [name for name in asked if name.lower() not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is unknown; there are {', '.join(NAMES)}")
    return tuple(known[name.lower()] for name in asked)


def _file(text: str) -> Path:
    file = Path(text)
    if not file.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{file.parent} is not a folder")
    return file


if __name__ == "__main__":
    sys.exit(main())
