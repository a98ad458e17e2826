"""Metrics over processes: summed, never going back, and impossible to bind too late.

What a process binds is bound for its life, so each test talks to fresh interpreters.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from khook import metrics
from khook.errors import SettingsError
from khook.metrics import DIRECTORY_VARIABLE

PRELUDE = "import os, signal, sys\nfrom pathlib import Path\nfrom khook import metrics\n"


def run(code: str, *, directory: Path | None = None, expect: int = 0) -> str:
    """The output of a fresh interpreter that ran `code` with khook.metrics imported."""
    environ = {name: value for name, value in os.environ.items() if name != DIRECTORY_VARIABLE}
    if directory is not None:
        environ[DIRECTORY_VARIABLE] = str(directory)
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


def worker(slot: str, code: str, directory: Path, *, expect: int = 0) -> None:
    run(f"metrics.bind_slot({slot!r})\n{code}", directory=directory, expect=expect)


def scrape(directory: Path) -> dict[str, float]:
    text = run("metrics.bind_slot('supervisor')\nsys.stdout.write(metrics.exposition().decode())", directory=directory)
    return {
        sample.name + "".join(f",{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_of_all_slots_are_summed(tmp_path: Path) -> None:
    code = (
        "metrics.EVENTS.judged('oom-kill', 'fire')\n"
        "metrics.CALLS.called('execute', 'accepted', 0.3)\n"
        "metrics.active_events('oom-kill', 2)\n"
        "metrics.WATCHES.ended('pods', 'expired'); metrics.WATCHES.relisted('pods', 'expired')\n"
        "metrics.WATCHES.skipped('pods', 'too_long'); metrics.watch_forbidden('events', 1)\n"
    )
    worker("w0", code, tmp_path)
    worker("w1", code, tmp_path)
    worker("supervisor", "metrics.worker_restarted('w0')", tmp_path)
    found = scrape(tmp_path)
    assert found["kagent_hook_events_total,event_type=oom-kill,verdict=fire"] == 2
    assert found["kagent_hook_api_calls_total,outcome=accepted,protocol=execute"] == 2
    assert found["kagent_hook_api_call_duration_seconds_bucket,le=0.5,protocol=execute"] == 2
    assert found["kagent_hook_api_call_duration_seconds_bucket,le=0.25,protocol=execute"] == 0
    assert found["kagent_hook_active_events,event_type=oom-kill"] == 4
    assert found["kagent_hook_watch_ends_total,cause=expired,resource=pods"] == 2
    assert found["kagent_hook_relists_total,cause=expired,resource=pods"] == 2
    assert found["kagent_hook_watch_lines_skipped_total,cause=too_long,resource=pods"] == 2
    assert found["kagent_hook_watch_forbidden,resource=events"] == 2
    assert found["kagent_hook_worker_restarts_total,slot=w0"] == 1
    assert not any("pid" in name for name in found)


def test_a_killed_workers_successor_goes_on_where_it_stopped(tmp_path: Path) -> None:
    count = "metrics.EVENTS.judged('oom-kill', 'fire')\n"
    for killed in range(1, 4):
        worker("w0", count + "os.kill(os.getpid(), signal.SIGKILL)", tmp_path, expect=-9)
        assert scrape(tmp_path)["kagent_hook_events_total,event_type=oom-kill,verdict=fire"] == killed
    assert sorted(one.name for one in tmp_path.glob("counter_*.db")) == ["counter_w0.db"]


def test_a_dead_slots_gauges_go_and_its_counters_stay(tmp_path: Path) -> None:
    worker("w0", "metrics.active_events('oom-kill', 2); metrics.EVENTS.judged('oom-kill', 'fire')", tmp_path)
    worker("w1", "metrics.active_events('oom-kill', 3)", tmp_path)
    worker("supervisor", "metrics.slot_died('w0')", tmp_path)
    found = scrape(tmp_path)
    assert found["kagent_hook_active_events,event_type=oom-kill"] == 3
    assert found["kagent_hook_events_total,event_type=oom-kill,verdict=fire"] == 1


def test_an_empty_file_that_a_killed_worker_left_breaks_no_scrape(tmp_path: Path) -> None:
    worker("w0", "metrics.EVENTS.judged('oom-kill', 'fire')", tmp_path)
    for left in ("counter_w1.db", "gauge_livesum_w1.db", "histogram_w1.db"):
        (tmp_path / left).touch()
    assert scrape(tmp_path)["kagent_hook_events_total,event_type=oom-kill,verdict=fire"] == 1


def test_counting_before_the_slot_is_bound_is_refused(tmp_path: Path) -> None:
    late = "metrics.EVENTS.judged('oom-kill', 'fire')\nmetrics.bind_slot('w0')"
    assert "something was counted before the slot was bound" in run(late, directory=tmp_path, expect=1)


def test_a_process_counts_for_one_slot_only(tmp_path: Path) -> None:
    assert "cannot count for w1 too" in run(
        "metrics.bind_slot('w0'); metrics.bind_slot('w0'); metrics.bind_slot('w1')", directory=tmp_path, expect=1
    )


def test_a_slot_cannot_be_bound_without_a_directory() -> None:
    assert "the metrics directory is not known" in run("metrics.bind_slot('w0')", expect=1)


@pytest.mark.parametrize("slot", ["w_0", "", "../w0", "w*"])
def test_what_cannot_be_part_of_a_file_name_is_no_slot(slot: str, tmp_path: Path) -> None:
    assert "is no slot" in run(f"metrics.bind_slot({slot!r})", directory=tmp_path, expect=1)


def test_the_supervisor_wipes_old_metrics_and_nothing_else(tmp_path: Path) -> None:
    kept, directory = tmp_path / "notes.txt", tmp_path / "new"
    kept.touch()
    worker("w0", "metrics.EVENTS.judged('oom-kill', 'fire')", tmp_path)
    for path in (tmp_path, directory):
        code = f"print(metrics.prepare_directory({str(path)!r})); metrics.bind_slot('w0')"
        assert run(code) == f"{path}\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["new", "notes.txt"]


def test_a_directory_can_be_handed_on_by_name(tmp_path: Path) -> None:
    run(f"metrics.bind_slot('w0', directory=Path({str(tmp_path)!r})); metrics.EVENTS.judged('oom-kill', 'fire')")
    assert scrape(tmp_path)["kagent_hook_events_total,event_type=oom-kill,verdict=fire"] == 1


def test_a_fresh_directory_is_made_where_none_is_named_and_goes_with_its_process() -> None:
    made, files = run(
        "made = metrics.prepare_directory(None); metrics.bind_slot('w0'); metrics.worker_restarted('w0')\n"
        "print(made); print(*os.listdir(made))"
    ).splitlines()
    assert files == "counter_w0.db"
    assert not Path(made).exists()


def test_a_directory_that_cannot_be_used_is_a_bad_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError) as caught:
        metrics.prepare_directory(str(tmp_path / "file"))
    assert caught.value.problems[0].startswith("PROMETHEUS_MULTIPROC_DIR: ")


def test_an_unbound_process_counts_in_its_own_memory() -> None:
    found = run("metrics.EVENTS.judged('oom-kill', 'fire'); sys.stdout.write(metrics.exposition().decode())")
    assert 'kagent_hook_events_total{event_type="oom-kill",verdict="fire"} 1.0' in found


def test_no_metric_is_made_before_it_is_labelled() -> None:
    """Else a value would be made at import, and `bind_slot` could never come first."""
    assert run("print(metrics._VALUES.made)") == "0\n"
