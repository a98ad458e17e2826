"""Pod lines against their corpus (`tests/corpus/pods.json`), and what a pod's record promises."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from khook.core.pods import (
    MAX_SEEN,
    PodFacts,
    level_signal,
    level_told,
    names_memory,
    observe,
    settled,
    stuck_at,
    stuck_signal,
    unwell,
)
from khook.core.signal import ContainerStatus, PodLine, Signal

CORPUS = json.loads((Path(__file__).parents[1] / "corpus" / "pods.json").read_text())
CASES = CORPUS["cases"]
STUCK = timedelta(seconds=60)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stamp(seconds: float) -> str:
    return at(seconds).isoformat()


def merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: merged(under[k], v) if isinstance(v, dict) and k in under else v for k, v in over.items()}
    return {**under, **both}


def line_of(pod: dict[str, Any]) -> PodLine:
    return msgspec.json.decode(json.dumps(merged(CORPUS["base"], pod)), type=PodLine)


def pod(phase: str, *containers: dict[str, Any], metadata: dict[str, Any] | None = None, **status: Any) -> PodLine:
    status = {"phase": phase, "containerStatuses": list(containers), **status}
    return line_of({"metadata": metadata or {}, "status": status})


def main(restarts: int = 0, *, waits: str | None = None, ended: float | None = None, oom: bool = False) -> Any:
    """The container `main`: running or waiting, and when it last ended."""
    last = {"reason": "OOMKilled" if oom else "Error", "exitCode": 137}
    return {
        "name": "main",
        "restartCount": restarts,
        "state": {"waiting": {"reason": waits}} if waits is not None else {"running": {"startedAt": stamp(0)}},
        "lastState": {"terminated": {**last, "finishedAt": stamp(ended)}} if ended is not None else {},
    }


def see(
    before: PodFacts | None, line: PodLine, *, seconds: float = 0, listed: bool = False
) -> tuple[PodFacts, tuple[Signal, ...]]:
    return observe(before, line, listed=listed, now=at(seconds), stuck_pending=STUCK)


def condition(kind: str, status: str, reason: str = "", *, since: float | None = None) -> dict[str, Any]:
    when = stamp(since) if since is not None else None
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": when}


CREATING = pod("Pending", main(waits="ContainerCreating"))
NO_IMAGE = pod("Pending", main(waits="ErrImagePull"))


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_pod_lines_signal_what_the_table_says(case: dict[str, Any]) -> None:
    facts = None
    for line in case["lines"]:
        listed = line.get("listed", False)
        facts, signals = observe(
            facts,
            line_of(line["pod"]),
            listed=listed,
            now=datetime.fromisoformat(line["now"]),
            stuck_pending=STUCK,
        )
        if (timer := stuck_signal(facts, now=datetime.fromisoformat(line["now"]), stuck_pending=STUCK)) is not None:
            facts, signals = level_told(facts, timer), (*signals, timer)
        found = [
            {
                "type": s.type.value,
                "container": s.container,
                "reason": s.reason,
                "raw_time": s.raw_time.isoformat().replace("+00:00", "Z"),
                "level": s.level,
                "message": s.message,
            }
            for s in signals
        ]
        expected = [{**f, **e} for f, e in zip(found, line["expect"], strict=True)]
        assert expected == found
        assert all((s.listed, s.pod, s.pod_uid) == (listed, "web-1", facts.uid) for s in signals)


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_case_says_where_its_fact_comes_from(case: dict[str, Any]) -> None:
    assert all(case["source"][k] for k in ("project", "version", "file", "quote"))
    assert case["origin"] in {"rendered", "constructed", "recorded"}


def test_record_keeps_what_decisions_need() -> None:
    owners = [{"kind": "Node", "name": "n"}, {"kind": "ReplicaSet", "name": "web", "controller": True}]
    ready = [condition("Ready", "True")]
    facts, _ = see(None, pod("Running", main(), metadata={"labels": {"app": "web"}, "ownerReferences": owners}))
    assert facts.labels == {"app": "web"}
    assert facts.controller is not None
    assert facts.controller.ref == ("ReplicaSet", "web")
    assert not facts.ready
    assert see(facts, pod("Running", main(), conditions=ready))[0].ready


def test_a_line_that_says_nothing_new_keeps_the_same_record() -> None:
    facts, _ = see(None, pod("Running", main(2, ended=5)))
    assert see(facts, pod("Running", main(2, ended=5)), seconds=9)[0] is facts


def test_a_new_entry_gets_every_signal_of_a_line_again() -> None:
    line = pod("Running", main(2, ended=5, oom=True))
    facts, first = see(None, line)
    assert (len(first), see(facts, line)[1]) == (2, ())
    assert [s.type for s in first] == [s.type for s in see(None, line, listed=True)[1]]


def test_facts_of_a_silenced_pod_are_no_news_later() -> None:
    facts, signals = see(None, pod("Running", main(2, ended=5), metadata={"deletionTimestamp": stamp(6)}))
    assert signals == ()
    assert see(facts, pod("Running", main(2, ended=5)))[1] == ()


def test_a_container_missing_from_one_line_is_not_new_in_the_next() -> None:
    facts, _ = see(None, pod("Running", main(2, ended=5)))
    facts, _ = see(facts, pod("Running"))
    assert see(facts, pod("Running", main(2, ended=5)))[1] == ()


def test_a_restart_after_the_count_was_reset_is_news() -> None:
    facts, _ = see(None, pod("Running", main(7, ended=5)))
    facts, _ = see(facts, pod("Running", main(0)))
    assert [at(90)] == [s.raw_time for s in see(facts, pod("Running", main(1, ended=90)))[1]]


def test_restarts_without_any_time_are_counted_once_each() -> None:
    lost = {"name": "main", "restartCount": 1, "state": {"waiting": {}}}
    line = pod("Running", lost, metadata={"creationTimestamp": None})
    facts, signals = see(None, line, seconds=30)
    assert [("ContainerRestarted", at(30))] == [(s.reason, s.raw_time) for s in signals]
    assert see(facts, line, seconds=31)[1] == ()


def test_an_oom_kill_without_any_time_is_told_once() -> None:
    killed = {"name": "main", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    line = pod("Running", killed, metadata={"creationTimestamp": None})
    facts, signals = see(None, line, seconds=30)
    assert [at(30)] == [s.raw_time for s in signals]
    assert see(facts, line, seconds=31)[1] == ()


def test_the_record_of_a_crash_loop_does_not_grow() -> None:
    facts = None
    for n in range(1, 40):
        facts, signals = see(facts, pod("Running", main(n, ended=n, oom=True)))
        assert len(signals) == 2
    assert facts is not None
    kept = facts.containers["main"]
    assert (len(kept.seen_ooms), len(kept.seen_restarts)) == (MAX_SEEN, MAX_SEEN)


def test_stuck_pending_is_found_by_a_timer_once() -> None:
    facts, signals = see(None, CREATING, seconds=1)
    assert signals == ()
    assert stuck_at(facts, STUCK) == at(60)
    assert stuck_signal(facts, now=at(59), stuck_pending=STUCK) is None
    assert level_signal(facts) is None

    stuck = stuck_signal(facts, now=at(60), stuck_pending=STUCK)

    assert stuck is not None
    assert (True, at(0), "StuckPending") == (stuck.level, stuck.raw_time, stuck.reason)
    facts = level_told(facts, stuck)
    assert stuck_at(facts, STUCK) is None
    assert stuck_signal(facts, now=at(61), stuck_pending=STUCK) is None
    assert see(facts, CREATING, seconds=62)[1] == ()
    assert level_signal(facts) == stuck


def test_no_timer_and_no_level_for_a_pod_that_is_being_deleted() -> None:
    deleted = {"deletionTimestamp": stamp(5)}
    facts, _ = see(see(None, CREATING)[0], pod("Pending", main(waits="ContainerCreating"), metadata=deleted))
    assert stuck_at(facts, STUCK) is None
    facts, _ = see(see(None, NO_IMAGE)[0], pod("Pending", main(waits="ErrImagePull"), metadata=deleted))
    assert level_signal(facts) is None


def test_the_timer_starts_when_the_kubelet_took_the_pod() -> None:
    taken = [condition("PodScheduled", "True", since=3), condition("Ready", "False", since=9)]
    facts, _ = see(None, pod("Pending", main(waits="ContainerCreating"), conditions=taken), seconds=10)
    assert stuck_at(facts, STUCK) == at(69)


def test_a_level_that_still_holds_can_be_judged_again() -> None:
    facts, (told,) = see(None, NO_IMAGE)
    assert stuck_at(facts, STUCK) is None
    assert level_signal(facts) == told
    assert level_signal(see(facts, pod("Running", main()))[0]) is None


@pytest.mark.parametrize("waits", ["PodInitializing", None], ids=["failed init", "init running"])
def test_a_level_told_before_is_not_told_by_a_pod_that_is_held_back(waits: str | None) -> None:
    facts, _ = see(None, NO_IMAGE)
    init = [main(waits=waits)]
    facts, signals = see(facts, pod("Pending", main(waits="PodInitializing"), initContainerStatuses=init), seconds=99)
    assert signals == ()
    assert (level_signal(facts) is None) == (waits is None)


def test_an_init_container_that_fails_again_does_not_open_a_new_level() -> None:
    def failing(restarts: int, *, ended: float) -> PodLine:
        init = [main(restarts, waits="RunContainerError", ended=ended)]
        return pod("Pending", main(waits="PodInitializing"), initContainerStatuses=init)

    facts, signals = see(None, failing(1, ended=10), seconds=11)
    assert [s.type for s in signals] == ["pod-restart", "pod-pending"]
    assert [s.type for s in see(facts, failing(2, ended=20), seconds=21)[1]] == ["pod-restart"]


def test_a_pod_that_the_scheduler_took_up_after_its_gate_waits_from_then() -> None:
    gated = pod("Pending", conditions=[condition("PodScheduled", "False", "SchedulingGated")])
    scheduled = pod("Pending", conditions=[condition("PodScheduled", "True", since=500)])
    facts, _ = see(None, gated)
    assert stuck_at(facts, STUCK) is None
    assert stuck_at(see(facts, scheduled, seconds=505)[0], STUCK) == at(560)


def test_a_clock_of_ours_that_lags_by_a_second_finds_the_same_level_as_one_that_does_not() -> None:
    """Two owners of a namespace, one after the other: else the second takes the first one's incident for a new one."""
    line = pod("Pending", main(waits="ContainerCreating"), conditions=[condition("PodScheduled", "True", since=10)])
    assert {see(None, line, seconds=seconds)[0].pending.since for seconds in (9.2, 10, 70)} == {at(10)}  # type: ignore[union-attr]


def test_a_node_clock_ahead_of_ours_does_not_put_the_timer_off() -> None:
    def after_init(*, ended: float, waits: str = "PodInitializing") -> PodLine:
        done = {"terminated": {"reason": "Completed", "exitCode": 0, "finishedAt": stamp(ended)}}
        return pod("Pending", main(waits=waits), initContainerStatuses=[{"name": "migrate", "state": done}])

    facts, _ = see(None, after_init(ended=3600), seconds=10)
    facts, _ = see(facts, after_init(ended=3600, waits="ContainerCreating"), seconds=20)
    assert stuck_at(facts, STUCK) == at(70)


def test_a_pending_pod_without_any_time_is_timed_from_when_it_was_seen() -> None:
    timeless = {"creationTimestamp": None}
    facts, _ = see(None, pod("Pending", metadata=timeless), seconds=7)
    assert stuck_at(facts, STUCK) == at(67)
    facts, (level,) = see(None, pod("Pending", main(waits="ErrImagePull"), metadata=timeless), seconds=7)
    assert level.raw_time == at(7)


def test_a_scheduling_condition_that_says_nothing_yet_is_no_reason() -> None:
    quiet = [condition("PodScheduled", "False", since=0)]
    facts, signals = see(None, pod("Pending", conditions=quiet), seconds=1)
    assert signals == ()
    assert stuck_at(facts, STUCK) == at(60)


@pytest.mark.parametrize(
    ("line", "is_settled", "is_unwell"),
    [
        (pod("Running", main(), conditions=[condition("Ready", "True")]), True, False),
        (pod("Running", main(), conditions=[condition("Ready", "False")]), False, True),
        (pod("Running", main(waits="CrashLoopBackOff"), conditions=[condition("Ready", "True")]), True, True),
        (CREATING, False, True),
        (pod("Succeeded"), True, False),
        (pod("Failed", main(waits="CrashLoopBackOff")), True, False),
    ],
)
def test_settled_and_unwell(line: PodLine, *, is_settled: bool, is_unwell: bool) -> None:
    facts, _ = see(None, line)
    assert (is_settled, is_unwell) == (settled(facts), unwell(facts))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (True, "The node was low on resource: memory. "),
        (True, "Pod cache was using 2Gi, request is 1Gi, has larger consumption of memory. "),
        (False, "Pod memory-0 was using 2Gi, request is 1Gi, has larger consumption of inodes. "),
        (False, ""),
    ],
)
def test_an_eviction_names_memory_only_as_its_cause(message: str, *, names: bool) -> None:
    assert names is names_memory(message)


def states() -> st.SearchStrategy[dict[str, Any]]:
    ended = st.builds(
        lambda reason, seconds: {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": stamp(seconds)}},
        st.sampled_from(["OOMKilled", "Error", "Completed"]),
        st.integers(0, 4),
    )
    waiting = st.sampled_from(["ErrImagePull", "CrashLoopBackOff", "ContainerCreating"]).map(
        lambda reason: {"waiting": {"reason": reason}}
    )
    running = st.integers(0, 3).map(lambda seconds: {"running": {"startedAt": stamp(seconds)}})
    return st.one_of(ended, waiting, running)


def containers(*names: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    status = st.builds(
        lambda name, count, state, last: {"name": name, "restartCount": count, "state": state, "lastState": last},
        st.sampled_from(names),
        st.integers(0, 3),
        states(),
        st.one_of(st.just({}), states()),
    )
    return st.lists(status, max_size=2, unique_by=lambda c: str(c["name"]))


CONDITIONS = st.lists(
    st.sampled_from(
        [
            condition("PodScheduled", "False", "Unschedulable", since=1),
            condition("PodScheduled", "False", "SchedulingGated"),
            condition("PodScheduled", "True", since=2),
            condition("Ready", "False", since=3),
            condition("DisruptionTarget", "True", "TerminationByKubelet", since=4),
        ]
    ),
    max_size=2,
)
LINES = st.builds(
    lambda phase, mains, inits, conditions, reason, deleted: pod(
        phase,
        *mains,
        initContainerStatuses=inits,
        conditions=conditions,
        reason=reason,
        message="The node was low on resource: memory. ",
        metadata={"deletionTimestamp": deleted},
    ),
    st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
    containers("main", "side"),
    containers("migrate"),
    CONDITIONS,
    st.sampled_from([None, "Evicted", "Terminated"]),
    st.sampled_from([None, None, None, stamp(5)]),
)


@given(st.lists(st.tuples(LINES, st.integers(0, 90)), min_size=1, max_size=6))
def test_the_same_line_twice_never_signals_twice(steps: list[tuple[PodLine, int]]) -> None:
    facts, seconds = None, 0
    for line, later in steps:
        seconds += later
        facts, _ = see(facts, line, seconds=seconds)
        again, signals = see(facts, line, seconds=seconds)
        assert signals == ()
        assert again is facts


def counted(lines: list[PodLine]) -> list[PodLine]:
    """The same lines with counts that only rise, as a kubelet's do: each line's own count is what it adds."""
    totals: Counter[str] = Counter()

    def added(statuses: list[ContainerStatus] | None) -> list[ContainerStatus]:
        for status in statuses or []:
            totals[status.name] += status.restart_count
        return [replace(status, restart_count=totals[status.name]) for status in statuses or []]

    return [
        replace(
            line,
            status=replace(
                line.status,
                container_statuses=added(line.status.container_statuses),
                init_container_statuses=added(line.status.init_container_statuses),
            ),
        )
        for line in lines
    ]


@given(st.lists(LINES, min_size=1, max_size=6).map(counted), st.data())
def test_facts_that_a_resumed_watch_replays_are_not_told_again(lines: list[PodLine], data: st.DataObject) -> None:
    facts: PodFacts | None = None
    told = set()
    for line in lines:
        facts, signals = see(facts, line, seconds=300)
        told |= {s.raw_time for s in signals if s.level}
    for line in lines[data.draw(st.integers(0, len(lines) - 1)) :]:
        facts, signals = see(facts, line, seconds=300)
        # A level may be found on the way that was not one before, but none has its identity twice.
        assert all(s.level and s.raw_time not in told for s in signals)
        told |= {s.raw_time for s in signals}


@given(st.lists(st.tuples(LINES, st.integers(0, 90)), min_size=1, max_size=6))
def test_a_level_is_told_once_by_line_and_timer_together(steps: list[tuple[PodLine, int]]) -> None:
    facts, seconds, told = None, 0, []
    for line, later in steps:
        seconds += later
        facts, signals = see(facts, line, seconds=seconds)
        told += [s.raw_time for s in signals if s.level]
        stuck = stuck_signal(facts, now=at(seconds + 60), stuck_pending=STUCK)
        if stuck is not None:
            told.append(stuck.raw_time)
            facts = level_told(facts, stuck)
    assert len(set(told)) == len(told)
