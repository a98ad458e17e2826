"""What a load run is asked for. Bad input is a sentence and exit code 2, before anything is started."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from khook.sizing import MAX_WORKERS

MAX_NAMESPACES: Final = 2_000
MAX_RATE: Final = 10_000.0
MAX_SECONDS: Final = 600.0
MAX_INCIDENTS: Final = 50_000
MAX_ROUNDS: Final = 20
MAX_ROWS_OF_A_HOOK: Final = 450
"""A Hook holds 500 incidents; past that it calls nobody, which would be no measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    namespaces: int = 100
    rate: float = 50.0
    """Signals a second in the steady phase."""
    seconds: float = 10.0
    burst: int = 500
    workers: tuple[int, ...] = (1, 2)
    rounds: int = 1
    server: str = "embedded"
    output: str = "table"
    json_file: Path | None = None

    @property
    def steady(self) -> int:
        """Incidents of the steady phase."""
        return max(1, int(self.rate * self.seconds))


def parse(arguments: Sequence[str]) -> Options:
    """Raises SystemExit(2) with a sentence on stderr, SystemExit(0) after `--help`."""
    parser = _parser()
    given = parser.parse_args(arguments)
    options = Options(
        namespaces=given.namespaces,
        rate=given.rate,
        seconds=given.seconds,
        burst=given.burst,
        workers=given.workers,
        rounds=given.rounds,
        server=given.server,
        output=given.output,
        json_file=given.json,
    )
    incidents = options.steady + options.burst
    if incidents > MAX_INCIDENTS:
        parser.error(f"rate x seconds and the burst are {incidents} incidents: at most {MAX_INCIDENTS}")
    if incidents > MAX_ROWS_OF_A_HOOK * options.namespaces:
        least = -(-incidents // MAX_ROWS_OF_A_HOOK)
        parser.error(f"{incidents} incidents need at least {least} namespaces: a Hook holds 500 of them")
    if options.json_file is not None and not options.json_file.parent.is_dir():
        parser.error(f"argument --json: {options.json_file.parent} is not a folder")
    return options


def _parser() -> argparse.ArgumentParser:
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Send signals over many namespaces at the real `khook run` and say what it does with them. "
        "Exit 1 if an incident was lost or an agent asked twice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--namespaces", type=_whole(1, MAX_NAMESPACES), default=default.namespaces, help="with a Hook")
    parser.add_argument(
        "--rate", type=_number(0.1, MAX_RATE), default=default.rate, help="signals a second, steady phase"
    )
    parser.add_argument(
        "--seconds", type=_number(0.1, MAX_SECONDS), default=default.seconds, help="length of the steady phase"
    )
    parser.add_argument("--burst", type=_whole(1, MAX_INCIDENTS), default=default.burst, help="incidents at once")
    parser.add_argument("--workers", type=_workers, default=default.workers, help="worker counts, compared")
    parser.add_argument("--rounds", type=_whole(1, MAX_ROUNDS), default=default.rounds, help="times for each of them")
    parser.add_argument("--server", choices=("embedded", "real"), default=default.server, help="the API server")
    parser.add_argument("--output", choices=("table", "json"), default=default.output, help="what stdout gets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures as JSON, also")
    return parser


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse_whole(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text[:12]) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse_whole


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse_number(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return parse_number


def _workers(text: str) -> tuple[int, ...]:
    one = _whole(1, MAX_WORKERS)
    return tuple(dict.fromkeys(one(part.strip()) for part in text.split(",")))
