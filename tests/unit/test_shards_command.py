"""`khook shards` as a person or a script meets it: tables, plain lines, JSON, and complaints that name their place."""

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from rich.console import Console

from khook.cli.main import main
from khook.cli.shards_live import homes_of, weights_of
from khook.cli.shards_plan import RingShape, plan
from khook.cli.shards_view import plan_document, show_live, show_plan
from khook.cli.sheet import Column, Sheet, plain
from khook.supervisor.status_document import Status, decode

LIST = """# lines a second, measured on Friday
shop        6.5
payments    2     # quiet since the move
search
blog
docs
billing
"""


def owned(problem: str | None = None, *, started: bool = True) -> dict[str, Any]:
    return {"epoch": 5, "started": started, "problem": problem}


def live(**changes: Any) -> Status:
    document = {
        "version": "0.1.0",
        "identity": "khook-0_1a2b3c4d",
        "leading": True,
        "leader": {"identity": "khook-0_1a2b3c4d", "epoch": 3},
        "askTheLeader": None,
        "ring": {"virtualNodes": 256, "maxLoadFactor": 1.25},
        "slots": [
            {
                "slot": "w0", "state": "running", "onProbation": False, "pid": 10, "restarts": 1, "lagSeconds": 0.0021,
                "lastDeath": "SIGKILL", "load": 4.5, "linesPerSecond": 2.5,
                "namespaces": [
                    {"namespace": "bank", "weight": 1.0, "linesPerSecond": 0.0} | owned(started=False),
                    {"namespace": "shop", "weight": 3.5, "linesPerSecond": 2.5} | owned(),
                ],
            },
            {
                "slot": "w1", "state": "running", "onProbation": False, "pid": 11, "restarts": 0, "lagSeconds": 0.0,
                "lastDeath": None, "load": 1.5, "linesPerSecond": 0.5,
                "namespaces": [{"namespace": "[red]", "weight": 1.5, "linesPerSecond": 0.5} | owned("E: \x1b[2J")],
            },
            {
                "slot": "w2", "state": "broken", "onProbation": True, "pid": None, "restarts": 10, "lagSeconds": 0.0,
                "lastDeath": "exit 1", "load": 0.0, "linesPerSecond": 0.0, "namespaces": [],
            },
        ],
        "waiting": [{"namespace": "late", "weight": 1.0, "linesPerSecond": 0.0}],
        "totals": {"namespaces": 4, "waiting": 1, "load": 7.0, "linesPerSecond": 3.0, "restarts": 11},
    }  # fmt: skip
    return decode(orjson.dumps(document | changes))


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, force_terminal=terminal, width=120, color_system=None, legacy_windows=False), out


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def khook_shards(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["shards", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_in_a_pipe_the_assignment_is_plain_aligned_lines() -> None:
    to, out = console(terminal=False)
    show_live(to, live(), every_namespace=True)
    assert out.getvalue().splitlines() == [
        "khook-0_1a2b3c4d leads (epoch 3): 3 namespaces on 3 workers, load 6.0, 3.0 lines/s",
        "1 namespace without a worker",
        "SLOT  STATE    NAMESPACES  LOAD  OF MEAN  LINES/S   LAG  RESTARTS  LAST DEATH",
        "w0    running           2   4.5     1.50      2.5  2 ms         1  SIGKILL",
        "w1    running           1   1.5     0.50      0.5  0 ms         0  -",
        "w2    broken            0   0.0     0.00      0.0  0 ms        10  exit 1",
        "NAMESPACE  SLOT  WEIGHT  LINES/S  STATE",
        "shop       w0       3.5      2.5  started",
        "[red]      w1       1.5      0.5  E: \ufffd[2J",
        "bank       w0       1.0      0.0  starting",
        "late       -        1.0      0.0  waiting",
    ]


def test_on_a_terminal_it_is_a_table_in_which_a_name_is_no_markup() -> None:
    to, out = console(terminal=True)
    show_live(to, live(), every_namespace=True)
    assert "┃ namespace ┃" in out.getvalue()
    assert "│ [red]     │" in out.getvalue()


def test_a_slot_on_probation_is_told_as_such_and_is_in_no_mean() -> None:
    broken = live().slots[2]
    to, out = console(terminal=False)
    show_live(to, live(slots=[msgspec.to_builtins(msgspec.structs.replace(broken, state="running"))]),
              every_namespace=False)  # fmt: skip
    assert lines(out.getvalue())[3:] == ["w2 running, on probation 0 0.0 - 0.0 0 ms 10 exit 1"]


def test_what_is_on_its_way_out_is_not_planned_for_and_what_waits_is() -> None:
    leaving = {"namespace": "gone", "weight": 0.0, "linesPerSecond": 0.0}
    assert weights_of(live(waiting=[leaving])) == {"bank": 1.0, "shop": 3.5, "[red]": 1.5}
    assert weights_of(live())["late"] == 1.0
    assert homes_of(live()) == {"bank": "w0", "shop": "w0", "[red]": "w1"}


def test_plain_columns_are_as_wide_as_their_widest_text() -> None:
    sheet = Sheet(columns=[Column(title="name"), Column(title="n", number=True)], rows=[("a", "10"), ("longer", "9")])
    assert plain(sheet) == ["NAME     N", "a       10", "longer   9"]
    assert plain(Sheet(columns=sheet.columns, rows=[])) == ["NAME  N"]


def test_a_plan_for_a_list_says_each_slots_load_and_what_moves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(LIST)
    arguments = ("--workers", "3", "--from", "2", "--namespaces", str(tmp_path / "list.txt"))
    code, out, err = khook_shards(capsys, *arguments, "--all")
    assert (code, err) == (0, "")
    said = lines(out)
    assert said[0].startswith("plan for 3 workers: 6 namespaces, load 14.5, the fullest has ")
    assert said[1] == "SLOT NAMESPACES LOAD OF MEAN"
    assert sum(float(line.split()[2]) for line in said[2:5]) == pytest.approx(14.5)
    assert said[5].startswith("from 2 workers: ")
    shown = [line.split() for line in said[7:]]
    assert [row[0] for row in shown] == ["shop", "payments", "billing", "blog", "docs", "search"]
    assert said[5].startswith(f"from 2 workers: {sum(row[3] != '-' for row in shown)} of 6 namespaces move (")


def test_a_plan_without_a_size_to_compare_with_speaks_of_no_moves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(LIST)
    _, out, _ = khook_shards(capsys, "--workers", "3", "--namespaces", str(tmp_path / "list.txt"))
    assert "from" not in out
    _, out, _ = khook_shards(capsys, "--workers", "3", "--namespaces", str(tmp_path / "list.txt"), "--output", "json")
    assert json.loads(out)["moves"] is None


def test_a_plan_for_scripts_has_the_words_of_the_status_and_names_only_where_asked() -> None:
    weights = {"shop": 7.5, "payments": 3.0, "search": 1.0, "blog": 1.0}
    made = plan(weights, workers=2, from_workers=1, shape=RingShape(virtual_nodes=256, max_load_factor=1.25))
    brief, whole = (plan_document(made, every_namespace=every) for every in (False, True))
    assert {key: brief[key] for key in ("workers", "ring", "totals")} == {
        "workers": 2,
        "ring": {"virtualNodes": 256, "maxLoadFactor": 1.25},
        "totals": {"namespaces": 4, "load": 12.5},
    }
    assert [set(slot) for slot in brief["slots"]] == [{"slot", "count", "load", "ofMean"}] * 2
    assert set(brief["moves"]) == {"fromWorkers", "count", "share", "loadShare"}
    assert sorted(name for slot in whole["slots"] for name in slot["namespaces"]) == sorted(weights)
    moved = whole["moves"]["namespaces"]
    assert {(one["from"], one["to"]) for one in moved} == {("w0", "w1")}
    assert (len(moved), len(moved) / 4) == (whole["moves"]["count"], whole["moves"]["share"])
    assert whole["moves"]["loadShare"] == pytest.approx(sum(one["weight"] for one in moved) / 12.5)
    orjson.dumps(whole)


def test_a_namespace_that_is_too_heavy_for_any_bound_is_told() -> None:
    to, out = console(terminal=False)
    shape = RingShape(virtual_nodes=256, max_load_factor=1.25)
    show_plan(to, plan({"a": 100.0, "b": 1.0}, workers=2, from_workers=2, shape=shape), every_namespace=False)
    assert "(above the bound 1.25: a namespace is not split)" in out.getvalue()
    assert "from 2 workers: nothing moves" in out.getvalue()


def test_the_ring_is_the_options_else_the_environments(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text(LIST)
    arguments = ("--workers", "3", "--namespaces", str(tmp_path / "list.txt"), "--output", "json")
    monkeypatch.setenv("KHOOK_VIRTUAL_NODES", "64")
    monkeypatch.setenv("KHOOK_MAX_LOAD_FACTOR", "1.5")
    ring = json.loads(khook_shards(capsys, *arguments)[1])["ring"]
    assert ring == {"virtualNodes": 64, "maxLoadFactor": 1.5}
    ring = json.loads(khook_shards(capsys, *arguments, "--virtual-nodes", "8", "--max-load-factor", "2")[1])["ring"]
    assert ring == {"virtualNodes": 8, "maxLoadFactor": 2.0}


def test_problems_of_a_list_name_their_lines_with_78_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes(b"shop\nShop_1\nshop\n\xff\xfe\n")
    assert khook_shards(capsys, "--workers", "3", "--namespaces", str(file)) == (
        78,
        "",
        f"{file}:2: 'Shop_1' is not a namespace name\n"
        f"{file}:3: shop stands in line 1 already\n"
        f"{file}:4: '\ufffd\ufffd' is not a namespace name\n",
    )


def test_a_file_that_is_not_there_is_one_line_with_78(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "none.txt")
    code, out, err = khook_shards(capsys, "--workers", "3", "--namespaces", missing)
    assert (code, out, err) == (78, "", f"{missing}: No such file or directory\n")


def test_options_that_cannot_be_used_are_told_at_once_by_their_own_names(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = khook_shards(
        capsys, "--workers", "2", "--address", "8082", "--virtual-nodes", "0", "--max-load-factor", "1"
    )
    assert (code, out) == (78, "")
    assert [line.partition(":")[0].strip() for line in err.splitlines()[1:]] == [
        "--address",
        "--virtual-nodes",
        "--max-load-factor",
    ]


@pytest.mark.parametrize(
    "arguments",
    [("--namespaces", "x"), ("--from", "2"), ("--workers", "0"), ("--workers", "17"), ("--output", "yaml")],
)
def test_options_that_make_no_sense_are_a_usage_error(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = khook_shards(capsys, *arguments)
    assert (code, out) == (2, "")
    assert "khook shards" in err


def test_help_teaches_with_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = khook_shards(capsys, "--help")
    said = " ".join(out.split())
    assert code == 0
    assert "kubectl exec -n kagent-system deploy/kagent-hook-controller -- khook shards" in said
    assert "khook shards --workers 4" in said
