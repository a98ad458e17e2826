"""What `make pool-figures` is made of: verdicts that measuring nothing cannot buy, and a run that hides no failure."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from bench.pool.report import show, to_json
from bench.pool.verdict import Row, at_share, counted, limited, timed
from bench.pool_figures import NAMES, Figure, main, measured

Progress = Callable[[int, int], None]


def test_nothing_has_no_percentile() -> None:
    assert at_share([], 99) is None
    assert at_share([4.0, 1.0, 3.0, 2.0], 50) == 2.0


@pytest.mark.parametrize(
    ("samples", "reached"), [([0.1, 0.2, 0.9], True), ([0.1, 0.3, 0.9], False), ([0.1, 0.1, 1.1], False), ([], False)]
)
def test_durations_are_held_to_every_limit(samples: list[float], reached: bool) -> None:
    row = timed("R2", "back", samples, p50_s=0.25, p99_s=1.0)
    assert (row.goal, row.reached) == ("p50 ≤ 0.25 s, p99 ≤ 1 s", reached)


@pytest.mark.parametrize(
    ("counts", "most", "least", "goal", "reached"),
    [
        ([0, 0], 0, 0, "0", True),
        ([0, 1], 0, 0, "0", False),
        ([], 0, 0, "0", False),
        ([9], 10, 0, "≤ 10", True),
        ([11], 10, 0, "≤ 10", False),
        ([7, 7], 7, 7, "7", True),
        ([7, 8], 7, 7, "7", False),
        ([1], 3, 2, "2 to 3", False),
    ],
)
def test_every_count_has_to_lie_in_its_bounds(
    counts: list[int], most: int, least: int, goal: str, reached: bool
) -> None:
    row = counted("R", "what", counts, most=most, least=least)
    assert (row.goal, row.reached) == (goal, reached)


def figure(name: str, *rows: Row) -> Figure:
    async def measure(progress: Progress) -> list[Row]:
        progress(1, 1)
        return list(rows)

    return Figure(name, f"what {name} does", measure)


def broken(name: str) -> Figure:
    async def measure(progress: Progress) -> list[Row]:
        raise TimeoutError("nobody came")

    return Figure(name, "fails", measure)


def test_a_figure_that_fails_stops_no_other_and_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    good = limited("A", "number", 1.0, most=2.0)
    run = asyncio.run(measured(["A", "B", "C"], turns=[(broken("B"), figure("A", good)), (figure("C", good),)]))
    assert (len(run.rows), run.problems, run.reached) == (2, {"B": "TimeoutError: nobody came"}, False)
    assert to_json(run)["problems"] == run.problems
    assert "A: what A does" in capsys.readouterr().err


def test_a_run_is_as_good_as_its_worst_row() -> None:
    good, bad = limited("A", "number", 1.0, most=2.0), limited("B", "number", 3.0, most=2.0)
    assert asyncio.run(measured(["A"], turns=[(figure("A", good), figure("B", bad))])).reached
    run = asyncio.run(measured(["A", "B"], turns=[(figure("A", good), figure("B", bad))]))
    assert not run.reached
    assert not asyncio.run(measured([], turns=[(figure("A", good),)])).reached, "nothing was measured"
    told = to_json(run)
    assert (told["reached"], [row["reached"] for row in told["figures"]]) == (False, [True, False])
    assert told["figures"][1] | {"n": 1, "p50": 3.0, "p99": 3.0, "max": 3.0, "goal": "≤ 2"} == told["figures"][1]


def test_the_table_says_what_was_missed_and_what_was_not_measured() -> None:
    rows = (timed("A", "back", [0.5], most_s=0.1), timed("A", "gone", [0.05], most_s=0.1))
    run = asyncio.run(measured(["A", "B"], turns=[(figure("A", *rows), broken("B"))]))
    out = io.StringIO()
    show(run, Console(file=out))
    first, second = (line.split() for line in out.getvalue().splitlines()[1:3])
    assert (first[-1], second[-1]) == ("MISSED", "reached")
    assert "0.500 s" in out.getvalue()
    assert "B was not measured: TimeoutError: nobody came" in out.getvalue()
    assert "NOT all reached" in out.getvalue()


def test_a_machine_that_others_use_is_doubted_aloud() -> None:
    run = asyncio.run(measured(["A"], turns=[(figure("A", limited("A", "number", 1.0, most=2.0)),)]))
    run = replace(run, problems={"B": "nobody came"})
    for load, crowded in ((0.9, False), (1.1, True)):
        told = replace(run, machine=replace(run.machine, cores=2, load_before=load))
        out = io.StringIO()
        show(told, Console(file=out))
        assert ("Others were at work" in out.getvalue()) is crowded
        assert to_json(told)["machine"]["crowded"] is crowded
        reached, out = replace(told, problems={}), io.StringIO()
        show(reached, Console(file=out))
        assert "Others" not in out.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "R2,R99"], "R99 is unknown; there are"),
        (["--json", "/no/such/folder/file"], "/no/such/folder is not a folder"),
        (["--output", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_bad_options_are_told_before_anything_is_started(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_every_figure_that_was_promised_has_a_name() -> None:
    assert set(NAMES) == {"ring", "R2", "R3", "R4", "R6", "R11", "leader", "metrics"}
