"""The pure parts of the load run: what it counts, what it reads of the kernel, what it asks for and how it tells it."""

import io
import json
from collections import Counter
from datetime import UTC, datetime

import orjson
import pytest
from rich.console import Console

from bench import proc
from bench.__main__ import order
from bench.figures import OTHERS, Latency, Phase, Round, Spread, bounded_by, doubts, latency, percentile
from bench.incidents import TYPES, Key, judged, plan, prepared, slowest_first, told
from bench.options import Options, parse
from bench.proc import Machine, Memory, Stat
from bench.report import Machine as Host
from bench.report import Run, lines, remarks, show, to_json
from khook.core.signal import EventType

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOST: Key = ("bench-0001", "kagent/oom-kill-1", "burst-00007")

STAT = (
    "4242 (a (strange) na me) S 17 4242 4242 0 -1 4194560 21047 0 3 0 {utime} {stime} 9 8 20 0 7 0 188 "
    "1007755264 21533 18446744073709551615 1 1 0 0 0 0 0 16781312 17666 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0"
)
ROLLUP = """\
55d0c8a4e000-7ffd5a1f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               86132 kB
Pss:               69594 kB
Pss_Dirty:         61000 kB
Shared_Clean:      19000 kB
Private_Clean:      5848 kB
Private_Dirty:     61000 kB
Swap:                  0 kB
"""


# --- figures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("percent", "found"), [(0, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, found: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == found


def test_a_percentile_of_few_values_is_the_worst_and_of_none_is_an_error() -> None:
    assert percentile([3.0, 1.0], 99) == 3.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert latency([]) is None
    assert latency([0.3, 0.1, 0.2]) == Latency(count=3, p50_s=0.2, p99_s=0.3, most_s=0.3)


def test_a_spread_is_the_median_between_its_ends() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(1.0, 3.0, 10.0, 3)
    assert Spread.of([]) is None


def phase(**fields: object) -> Phase:
    values = {
        "incidents": 100,
        "lost": [],
        "repeated": [],
        "by_event": Latency(count=75, p50_s=0.01, p99_s=0.05, most_s=0.06),
        "by_status": Latency(count=25, p50_s=2.01, p99_s=2.05, most_s=2.06),
        "written_in_s": 2.0,
        "asked_in_s": 4.0,
        "khook_cpu_s": 0.5,
        "busy": {"khook": 0.4, "API server": 0.3, "agents": 0.1, "generator": 0.05, OTHERS: 0.2},
        "khook_busy": {"supervisor": 0.01, "worker w0": 0.39},
        "late_p99_s": 0.001,
    }
    return Phase(**(values | fields))  # type: ignore[arg-type]


def test_rate_and_cpu_are_counted_over_the_incidents() -> None:
    assert phase().a_second == 25.0
    assert phase().cpu_an_incident_ms == 5.0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "no processor"),
        ({"khook_busy": {"worker w0": 0.95}}, "worker w0 at 95 %"),
        ({"busy": {"API server": 0.9, "agents": 0.1, "generator": 0.1}}, "API server at 90 %"),
        ({"busy": {"API server": 0.2, "agents": 0.1, "generator": 0.99}}, "generator at 99 %"),
        ({"busy": {"khook": 0.5, "API server": 0.2, "agents": 0.1, "generator": 0.1, OTHERS: 1.0}}, "the machine: 2"),
        ({"busy": {"khook": 0.1, "API server": 0.1, "agents": 0.1, "generator": 0.1, OTHERS: 0.9}}, "others on this"),
    ],
)
def test_what_bounds_a_burst_is_who_was_busy_and_it_may_not_be_khook(fields: dict[str, object], says: str) -> None:
    assert says in bounded_by(phase(**fields), cores=2)


def test_a_real_api_server_is_not_out_of_breath_at_one_processor() -> None:
    busy = phase(busy={"API server": 0.9, "agents": 0.1, "generator": 0.1})
    assert "API server" in bounded_by(busy, cores=4)
    assert "API server" not in bounded_by(busy, cores=4, embedded=False)


# --- incidents --------------------------------------------------------------------------------------------------


def test_a_plan_has_all_types_in_each_namespace_and_no_pod_twice() -> None:
    incidents = plan("steady", 40, in_namespaces=4)
    assert Counter(one.namespace for one in incidents) == {f"bench-000{number}": 10 for number in range(4)}
    assert len({one.pod for one in incidents}) == 40
    for namespace in {one.namespace for one in incidents}:
        assert {one.event_type for one in incidents if one.namespace == namespace} == set(TYPES)


def test_what_waits_for_a_text_is_told_first() -> None:
    ordered = [one.by_status for one in slowest_first(plan("burst", 40, in_namespaces=4))]
    assert ordered == sorted(ordered, reverse=True)
    assert sum(ordered) == 10


def test_an_oom_kill_alone_is_told_without_an_event() -> None:
    for incident in plan("steady", 4, in_namespaces=4):
        assert prepared(incident, NOW)[0].body["kind"] == "Pod"
        written = [write.path.rsplit("/", 1)[-1] for write in told(incident, NOW, uid="u-1")]
        assert (written[-1] == "events") is (incident.event_type is not EventType.OOM_KILL)


def test_lost_and_repeated_are_counted_not_looked_up() -> None:
    one, other = ("a", "agent", "p"), ("a", "agent", "q")
    assert judged([one, other], [other, one]) == ([], [])
    assert judged([one, other], [one, one, one]) == ([other], [one, one])


# --- proc -------------------------------------------------------------------------------------------------------


def test_a_process_is_read_whatever_its_command_is_called() -> None:
    text = STAT.format(utime=3 * proc.TICKS_A_S, stime=proc.TICKS_A_S // 2)
    assert proc.parse_stat(text) == Stat(state="S", parent=17, cpu_s=3.5)


def test_private_memory_is_clean_and_dirty() -> None:
    assert proc.parse_rollup(ROLLUP) == Memory(rss_kib=86132, pss_kib=69594, private_kib=66848)


def test_a_machine_is_busy_with_all_but_waiting_and_guests_are_not_counted_twice() -> None:
    ticks = proc.TICKS_A_S
    line = f"cpu  {ticks} {2 * ticks} {3 * ticks} 77 88 {4 * ticks} {5 * ticks} {6 * ticks} 99 99\ncpu0 1 2 3\n"
    assert proc.parse_machine(line) == Machine(busy_s=15.0, stolen_s=6.0)


def test_each_process_of_a_khook_has_its_role() -> None:
    parents = {10: 1, 11: 10, 12: 10, 13: 12, 14: 12, 15: 14, 99: 1}
    commands = {
        11: "python -c from multiprocessing.resource_tracker import main;main(4)",
        12: "python -c from multiprocessing.forkserver import main;main(5)",
        13: "python -c from multiprocessing.forkserver import main;main(5)",
        14: "python -c from multiprocessing.forkserver import main;main(5)",
    }
    assert proc.roles(10, parents=parents, commands=commands, slots={13: "w0", 14: "w1"}) == {
        10: "supervisor",
        11: "resource tracker",
        12: "forkserver",
        13: "worker w0",
        14: "worker w1",
        15: "other",
    }


# --- options ----------------------------------------------------------------------------------------------------


def test_without_options_it_is_the_smoke_run() -> None:
    assert parse([]) == Options()


def test_worker_counts_alternate_and_turn_back() -> None:
    options = parse(["--workers", "1, 2,2", "--rounds", "3"])
    assert order(options.workers, options.rounds) == [1, 2, 2, 1, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--workers 0", "'0' is not a whole number from 1 to 16"),
        ("--workers 1,x", "'x' is not a whole number"),
        ("--rate fast", "'fast' is not a number"),
        ("--rate nan", "'nan' is not a number"),
        ("--namespaces -1", "'-1' is not a whole number"),
        ("--namespaces 1 --burst 5000", "a Hook holds 500"),
        ("--rate 1000 --seconds 600", "at most 50000"),
        ("--server minikube", "invalid choice"),
        ("--json /nowhere/at/all.json", "/nowhere/at is not a folder"),
    ],
)
def test_bad_options_are_a_sentence_and_exit_2(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments.split())
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


# --- report -----------------------------------------------------------------------------------------------------


def run_of(*rounds: Round, counts: tuple[int, ...] = (1, 2)) -> Run:
    host = Host(cores=2, cpu="Some CPU", python="3.11.7", kernel="6.1")
    return Run(options=Options(workers=counts), machine=host, rounds=rounds)


def round_of(workers: int, *, asked_in_s: float = 4.0, lost: tuple[Key, ...] = ()) -> Round:
    memory = {"supervisor": Memory(86132, 69594, 66848), **{f"worker w{n}": Memory(1, 1, 1) for n in range(workers)}}
    return Round(
        workers=workers,
        ready_s=2.0,
        steady=phase(),
        burst=phase(asked_in_s=asked_in_s, lost=lost),
        idle_memory=memory,
        loaded_memory=memory,
    )


def shown(run: Run) -> str:
    out = io.StringIO()
    show(run, Console(file=out))
    return out.getvalue()


def test_worker_counts_stand_side_by_side_with_their_ratio() -> None:
    run = run_of(round_of(1, asked_in_s=4.0), round_of(2, asked_in_s=2.0), round_of(2, asked_in_s=4.0))
    (line,) = [line for line in lines(run) if "incidents a second" in line.words]
    assert line.cells == ("25", "37.5 (25–50)")
    assert line.ratio == 1.5
    assert "burst of 500: incidents a second: 1 worker 25; 2 workers 37.5 (25–50); 2 against 1 1.50 x\n" in shown(run)


def test_a_process_that_a_count_does_not_have_is_a_dash() -> None:
    (line,) = [line for line in lines(run_of(round_of(1), round_of(2))) if line.words.startswith("worker w1")]
    assert line.cells == ("-", "0.0 → 0.0 (0.0)")


def test_a_pipe_gets_one_line_a_figure_and_no_frame() -> None:
    run = run_of(round_of(1), counts=(1,))
    text = shown(run)
    assert len(text.splitlines()) == 1 + len(lines(run)) + len(remarks(run))
    assert "supervisor: MiB private idle → loaded (resident): 1 worker 65.3 → 65.3 (84.1)\n" in text
    assert "against" not in text


def test_what_is_lost_is_named_and_the_run_is_not_honest() -> None:
    run = run_of(round_of(1, lost=(LOST,)), round_of(2))
    assert not run.honest
    assert "LOST (1 worker, burst): bench-0001 kagent/oom-kill-1 burst-00007\n" in shown(run)
    assert run_of(round_of(1), round_of(2)).honest


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"late_p99_s": 0.2}, "generator was 200 ms late"),
        ({"written_in_s": 1.0, "asked_in_s": 5.5}, "4.5 s after the last signal"),
        ({"busy": {"khook": 0.5, OTHERS: 0.7}}, "in the steady phase others on this machine kept 0.7 of 2 processors"),
    ],
)
def test_a_figure_that_says_little_of_khook_is_doubted(fields: dict[str, object], says: str) -> None:
    calm = phase()
    assert doubts(Round(workers=1, ready_s=1.0, steady=calm, burst=calm), cores=2) == []
    (doubt,) = doubts(Round(workers=1, ready_s=1.0, steady=phase(**fields), burst=calm), cores=2)
    assert says in doubt


def test_the_json_has_every_round_and_numbers() -> None:
    found = json.loads(orjson.dumps(to_json(run_of(round_of(1), round_of(2, asked_in_s=2.0)))))
    assert found["honest"] is True
    assert found["machine"]["cores"] == 2
    assert [one["burst"]["incidents_a_second"] for one in found["rounds"]] == [25.0, 50.0]
    assert found["rounds"][0]["loaded_memory"]["supervisor"]["private_kib"] == 66848
    (rate,) = [one for one in found["figures"] if "incidents a second" in one["figure"]]
    assert rate["workers"]["2"] == {"least": 50.0, "median": 50.0, "most": 50.0, "times": 1}
    assert rate["ratio"] == 2.0
