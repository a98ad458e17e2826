"""`khook explain` says what the worker would do: it fires, or there is exactly one reason, and every reason is here."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from support.objects import (
    Json,
    container_status,
    crash_looping,
    entry,
    event,
    hook,
    pod,
    rfc3339,
    running,
    unschedulable,
)
from support.objects import terminated as ended

from khook import log, settings
from khook.cli import explain_view
from khook.cli.documents import BadDocument
from khook.cli.explain_call import TEST, marked
from khook.cli.explain_facts import Fact, fact_of_event, facts_of_pod, newest_first
from khook.cli.explain_hook import Surroundings, configured
from khook.cli.explain_input import question
from khook.cli.explain_judge import explain
from khook.cli.explain_live import Live
from khook.cli.explain_outcome import Explanation, Reason
from khook.cli.main import main
from khook.core.owner import ResourceRef
from khook.core.signal import EventLine, PodLine
from khook.supervisor.status_document import Status

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
UID = "5a1f0c9e-0000-4000-8000-000000000001"
RESTARTS = entry("pod-restart")


@pytest.fixture(autouse=True)
def logs_elsewhere() -> Iterator[None]:
    """A command binds the log to its stderr, which here is a captured one that is closed after the test."""
    yield
    log.configure("error", "text", stream=sys.__stderr__)


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def a_pod(status: Json, labels: dict[str, str] | None = None) -> Json:
    made = pod("web-1", namespace="shop", labels=labels)
    made["metadata"] |= {"uid": UID, "creationTimestamp": rfc3339(ago(hours=1))}
    return made | {"status": status}


def looping(**since: float) -> Json:
    """A pod that ended badly this long ago."""
    return a_pod(crash_looping(now=ago(**since)))


def backing_off(**since: float) -> Json:
    return event("BackOff", "Back-off restarting failed container app", of=looping(hours=1), now=ago(**since))


def a_hook(*entries: Json, status: Json | None = None, **spec: Any) -> Json:
    made = hook("h", *(entries or (RESTARTS,)), namespace="shop", **spec)
    made["metadata"]["uid"] = "hook-uid"
    return made | ({"status": status} if status else {})


def told_before(call: Json, *, entry: Json = RESTARTS, last: datetime | None = None) -> Json:
    """A Hook whose one row has this call, for the signal of a minute ago or an older one."""
    (read,) = configured(a_hook(entry), settings.load({})).entries
    seen = rfc3339(last or ago(minutes=1))
    row = {
        "eventType": read.event_type.value, "resourceName": "web-1", "resourceKind": "Pod", "status": "firing",
        "entry": read.identity, "agent": read.agent, "podUid": UID, "count": 1, "firstSeen": seen, "lastSeen": seen,
        "lastSignal": {"podUid": UID, "rawTime": seen},
        "call": {"id": "c0ffee", "claimedTime": seen} | call,
    }  # fmt: skip
    return a_hook(entry, status={"activeEvents": [row]})


def live(*, waiting: bool = False, **more: Any) -> Live:
    shop = {"namespace": "shop", "weight": 1.0, "linesPerSecond": 0.0}
    slot = {
        "slot": "w0", "state": "running", "onProbation": False, "pid": 1, "restarts": 0, "lagSeconds": 0.0,
        "lastDeath": None, "load": 1.0, "linesPerSecond": 0.0,
        "namespaces": [] if waiting else [shop | {"epoch": 1, "started": True, "problem": None}],
    }  # fmt: skip
    document = {
        "version": "0", "identity": "a", "leading": True, "leader": {"identity": "a", "epoch": 1},
        "askTheLeader": None, "ring": {"virtualNodes": 1, "maxLoadFactor": 1.25}, "slots": [slot],
        "waiting": [shop] if waiting else [],
        "totals": {"namespaces": 1, "waiting": 0, "load": 1.0, "linesPerSecond": 0.0, "restarts": 0},
    }  # fmt: skip
    return Live(status=msgspec.convert(document | more, Status))


@dataclass(frozen=True, kw_only=True)
class Case:
    hooks: list[Json] = field(default_factory=lambda: [a_hook()])
    pod: Json | None = field(default_factory=lambda: looping(minutes=1))
    events: tuple[Json, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    live: Live | None = None
    as_new: bool = False
    key_missing: bool = False
    owner: ResourceRef | None = None


def explained(case: Case) -> Explanation:
    around = Surroundings(settings=settings.load(case.environ), now=NOW, live=case.live, key_missing=case.key_missing)
    facts: list[Fact] = []
    read = None
    if case.pod is not None:
        line = msgspec.convert(case.pod, PodLine)
        read, told = facts_of_pod(line, listed=not case.as_new, now=NOW, stuck_pending=timedelta(minutes=1))
        facts += told
    for one in case.events:
        facts.append(fact_of_event(msgspec.convert(one, EventLine), read, listed=not case.as_new))
    return explain(
        newest_first(facts),
        namespace="shop",
        name="web-1",
        pod=read,
        owner=case.owner,
        hooks=case.hooks,
        around=around,
    )


def oom_killed() -> Json:
    status = running(now=ago(minutes=1))
    status["containerStatuses"] = [
        container_status(
            "app", ready=True, restarts=1, state={"running": {"startedAt": rfc3339(ago(minutes=1))}},
            last_state={"terminated": ended(reason="OOMKilled", exit_code=137, now=ago(minutes=1))},
        )
    ]  # fmt: skip
    return a_pod(status)


OPEN = {"slot": "w0", "state": "open", "retryInSeconds": 12.0}
ACCEPTED = {"state": "Completed", "acceptedTime": rfc3339(ago(minutes=4)), "endedTime": rfc3339(ago(minutes=3))}
EARLIER = ago(minutes=5)
AGENT = {"agent": "kagent/agent", "calls": {}, "parked": {}}
UNKNOWN = {
    "type": "Ready",
    "status": "False",
    "reason": "AgentNotFound",
    "message": "agent kagent/agent is not known to kagent",
}
PROBE = entry("probe-failed", holdFor="2m")
UNREADY = event("Unhealthy", "Readiness probe failed: HTTP 503", of=looping(hours=1), now=ago(minutes=1))
PENDING = entry("pod-pending", holdFor="2m")

SILENT: dict[Reason, Case] = {
    Reason.NOT_WATCHED: Case(environ={"KHOOK_WATCH_NAMESPACES": "bank,blog"}),
    Reason.NO_HOOK: Case(hooks=[]),
    Reason.NOT_OWNED: Case(live=live(waiting=True)),
    Reason.NOTHING: Case(pod=a_pod(running(now=ago(hours=1)))),
    Reason.NO_ENTRY: Case(hooks=[a_hook(entry("oom-kill"))]),
    Reason.INVALID_ENTRY: Case(hooks=[a_hook(entry("pod-restart", prompt="{{.Nope}}"))]),
    Reason.AGENT_NOT_ALLOWED: Case(hooks=[a_hook(entry("pod-restart", agent="elsewhere/agent"))]),
    Reason.SELECTOR: Case(hooks=[a_hook(entry("pod-restart", selector={"matchLabels": {"app": "db"}}))]),
    Reason.POD_GONE: Case(
        pod=None, events=(backing_off(minutes=1),),
        hooks=[a_hook(entry("pod-restart", selector={"matchLabels": {"app": "db"}}))],
    ),
    Reason.TOO_OLD: Case(pod=looping(minutes=16)),
    Reason.STALE: Case(hooks=[told_before(ACCEPTED)]),
    Reason.NO_ROOM: Case(hooks=[a_hook(status={"activeEvents": []})]),  # made full below
    Reason.SUSPENDED: Case(hooks=[a_hook(suspend=True)]),
    Reason.HELD: Case(pod=a_pod(unschedulable(now=ago(seconds=30))), hooks=[a_hook(PENDING)]),
    Reason.REPEAT: Case(hooks=[told_before(ACCEPTED, last=EARLIER)]),
    Reason.IN_FLIGHT: Case(hooks=[told_before({"state": "Calling"}, last=EARLIER)]),
    Reason.OVER_BUDGET: Case(hooks=[told_before({"state": "Pending", "reason": "Budget"})]),
    Reason.AGENT_NOT_FOUND: Case(hooks=[told_before({"state": "Failed", "reason": "AgentNotFound"})]),
    Reason.NO_KEY: Case(live=live(agentAccess={"key": False, "needed": True, "command": "kubectl create secret"})),
    Reason.BREAKER_OPEN: Case(
        live=live(agents=[AGENT | {"breakers": [OPEN]}])
    ),
    Reason.PARKED: Case(hooks=[told_before({"state": "Pending", "reason": "Parked"})]),
}  # fmt: skip


def _full() -> Case:
    """500 incidents within their windows."""
    (row,) = told_before(ACCEPTED)["status"]["activeEvents"]
    rows = [row | {"resourceName": f"other-{number}"} for number in range(500)]
    return Case(hooks=[a_hook(status={"activeEvents": rows})])


SILENT[Reason.NO_ROOM] = _full()


@pytest.mark.parametrize("reason", SILENT, ids=str)
def test_silence_has_exactly_one_reason(reason: Reason) -> None:
    outcome = explained(SILENT[reason]).outcome
    assert outcome.reason is reason, outcome.words
    assert outcome.words


@pytest.mark.parametrize(
    ("call", "size"), [({"state": "Pending", "reason": "Budget"}, "300"), (ACCEPTED, "1")], ids=["a line", "empty"]
)
def test_a_new_incident_is_over_budget_behind_those_that_wait_and_where_the_bucket_is_empty(
    call: Json, size: str
) -> None:
    other = told_before(call)
    other["status"]["activeEvents"][0] |= {"resourceName": "other", "podUid": "other"}
    told = explained(Case(hooks=[other], environ={"KHOOK_CALLS_PER_HOOK_HOUR": size}))
    assert told.outcome.reason is Reason.OVER_BUDGET


def test_a_row_of_an_earlier_controller_mutes_every_entry_of_its_type() -> None:
    seen = rfc3339(ago(minutes=2))
    row = {"eventType": "pod-restart", "resourceName": "web-1", "firstSeen": seen, "lastSeen": seen, "status": "firing"}
    told = explained(Case(hooks=[a_hook(status={"activeEvents": [row]})]))
    assert told.outcome.reason is Reason.REPEAT


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case(key_missing=True), Reason.NO_KEY),
        (Case(key_missing=True, live=live(agentAccess={"key": True})), None),
        (Case(live=live(agents=[AGENT | {"breakers": [OPEN | {"slot": "w1"}]}])), None),
        (Case(hooks=[a_hook(status={"conditions": [UNKNOWN]})]), Reason.AGENT_NOT_FOUND),
        (Case(hooks=[a_hook(entry("pod-restart", "other"), status={"conditions": [UNKNOWN]})]), None),
        (Case(pod=a_pod(running(now=ago(minutes=9))), events=(UNREADY,), hooks=[a_hook(PROBE)]), Reason.HELD),
    ],
    ids=[
        "no key here",
        "khook has one",
        "another worker's breaker",
        "of the last call",
        "of another agent",
        "it is over",
    ],
)
def test_what_stands_between_a_verdict_and_an_agent(case: Case, reason: Reason | None) -> None:
    """What khook's own page says wins over what is known here; a breaker is its worker's alone."""
    assert explained(case).outcome.reason is reason


def test_every_reason_has_its_test_and_its_line_in_the_troubleshooting_guide() -> None:
    assert set(SILENT) | {Reason.TAKEN_BY_OOM} == set(Reason)
    guide = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    assert [reason for reason in Reason if f"`{reason}`" not in guide] == []


def test_of_an_oom_kill_and_its_restart_the_kill_fires_and_the_restart_is_taken_by_it() -> None:
    told = explained(Case(pod=oom_killed(), hooks=[a_hook(entry("oom-kill"), RESTARTS)]))
    assert told.outcome.fires
    of_restart = {o.entry: o.reason for one in told.told if one.fact.oom for o in one.outcomes}
    assert of_restart == {0: None, 1: Reason.TAKEN_BY_OOM}


def test_a_restart_alone_that_the_oom_kill_entry_has_taken_says_so() -> None:
    kill = entry("oom-kill")
    hooks = [told_before(ACCEPTED, entry=kill)]
    hooks[0]["spec"]["eventConfigurations"].append(RESTARTS)
    told = explained(Case(pod=oom_killed(), hooks=hooks))
    (restart,) = [one for one in told.told if one.fact.oom]
    assert restart.outcome.reason is Reason.TAKEN_BY_OOM
    assert told.outcome.reason is Reason.STALE


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(pod=None, events=(backing_off(minutes=1),)),
        Case(pod=looping(hours=2), as_new=True),
        Case(hooks=[told_before(ACCEPTED | {"acceptedTime": rfc3339(ago(minutes=10))}, last=ago(minutes=10))]),
        Case(pod=a_pod(unschedulable(now=ago(minutes=3))), hooks=[a_hook(PENDING)]),
        Case(hooks=[a_hook(entry("oom-kill")), a_hook()]),
        Case(hooks=[a_hook(entry("pod-restart", prompt="{{.Nope}}"), RESTARTS)]),
    ],
    ids=["a restart", "its Event", "however old", "the cooldown is over", "held out", "the second Hook",
         "beside a broken entry"],
)  # fmt: skip
def test_what_fires_says_whom_it_asks_with_which_prompt(case: Case) -> None:
    outcome = explained(case).outcome
    assert outcome.fires, outcome
    assert outcome.agent == "kagent/agent"
    assert outcome.request is not None
    assert outcome.request.prompt.startswith(f"{outcome.request.context.event_name} of web-1 in shop: ")


def test_a_repeat_says_until_when_and_a_hold_too() -> None:
    assert explained(SILENT[Reason.REPEAT]).outcome.until_time == ago(minutes=4) + timedelta(minutes=10)
    assert explained(SILENT[Reason.STALE]).outcome.until_time == ago(minutes=4) + timedelta(minutes=10)
    assert explained(SILENT[Reason.HELD]).outcome.until_time == ago(seconds=30) + timedelta(minutes=2)


def test_a_group_is_asked_about_its_owner() -> None:
    case = Case(hooks=[a_hook(entry("pod-restart", groupBy="Owner"))], owner=ResourceRef("Deployment", "web"))
    assert "Deployment web" in explained(case).outcome.words


@pytest.mark.parametrize(
    ("reason", "message", "row"),
    [
        ("Unhealthy", "Startup probe failed: x", "Unhealthy, message ~ ^Startup probe (failed|errored)\\b: nothing"),
        ("Scheduled", "", "none"),
        ("FailedMount", "x", "FailedMount, any message: pod-pending while the pod is Pending"),
    ],
)
def test_what_means_nothing_says_which_row_it_fell_under(reason: str, message: str, row: str) -> None:
    said = event(reason, message, of=looping(hours=1), now=ago(minutes=1))
    told = explained(Case(pod=None, events=(said,)) if reason != "FailedMount" else Case(events=(said,)))
    assert row in [one.fact.row for one in told.told]
    assert any(one.outcome.reason is Reason.NOTHING for one in told.told)


HOSTILE = "\x1b]8;;http://evil\x07Back-off\x1b[2J [bold]\u202e"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown_cannot_steer_a_terminal(terminal: bool) -> None:
    said = event("BackOff", HOSTILE, of=looping(hours=1), now=ago(minutes=1))
    told = explained(Case(pod=None, events=(said,)))
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, color_system=None, width=80)
    explain_view.show(console, told, with_prompt=True)
    assert "[bold]" in out.getvalue()
    assert "\x1b]8" not in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "\u202e" not in json.dumps(explain_view.document(told), ensure_ascii=False)


def test_a_call_by_hand_is_marked_wherever_a_person_may_see_it() -> None:
    request = explained(Case()).outcome.request
    assert request is not None
    sent = marked(request, call_id="c1")
    assert sent.prompt.splitlines()[0] == TEST
    assert sent.context.event_name == "test pod-restart"
    assert sent.call_id == "c1"


# The command.


def khook(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as finished:
        main(["explain", *arguments])
    said = capsys.readouterr()
    return int(finished.value.code or 0), said.out, said.err


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str, Any], str]:
    def write(name: str, content: Any) -> str:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
        return str(tmp_path / name)

    return write


def test_files_are_explained_without_a_cluster(
    capsys: pytest.CaptureFixture[str], written: Callable[[str, Any], str]
) -> None:
    about, by = written("event.json", backing_off(minutes=1)), written("hook.yaml", a_hook())
    code, out, err = khook(capsys, about, "--hooks", by, "--as-new", "--output", "json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["fires"], said["silence"], said["agent"]) == (True, None, "kagent/agent")
    code, out, _ = khook(capsys, about, "--hooks", by)
    assert code == 0
    assert out.splitlines()[-1].startswith("SILENT, too_old: ")
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("kind: Pod\nmetadata: {}\n", ":2: metadata: Object missing required field `name`"),
        ("kind: Event\nmetadata: {name: e}\nlastTimestamp: soon\n", ":3: lastTimestamp: Invalid RFC3339"),
        ("kind: Event\nmetadata: {name: e}\nlastTimestamp: 2024-01-15T10:30:00\n", ":3: lastTimestamp: a time needs"),
        ("kind: Deployment\n", "neither a Pod nor an Event in it"),
        ("a: [", "event.yaml:1: "),
        ("a: 1\na: 2\n", "event.yaml:2: the key 'a' stands here twice"),
        ("[" * 5000, "RecursionError"),
        ("a: \x00", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], written: Callable[[str, Any], str], content: str, words: str
) -> None:
    code, _, err = khook(capsys, written("event.yaml", content), "--hooks", "nowhere.yaml")
    assert code == 78
    assert "event.yaml" in err
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_file_is_about_one_pod_and_may_be_an_event_of_either_api(written: Callable[[str, Any], str]) -> None:
    other = event("BackOff", "x", of={"metadata": {"name": "db", "namespace": "shop", "uid": "u"}}, now=NOW)
    both = written("two.json", {"kind": "List", "items": [backing_off(minutes=1), other]})
    with pytest.raises(BadDocument, match=r"several: shop/db, shop/web-1"):
        question(both, default_namespace="default")
    newer = {
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "shop"},
        "regarding": {"kind": "Pod", "name": "web-1", "namespace": "shop"}, "note": "words", "reason": "BackOff",
        "deprecatedLastTimestamp": rfc3339(NOW),
    }  # fmt: skip
    (read,) = question(written("new.json", newer), default_namespace="default").events
    assert (read.message, read.last_timestamp, read.involved_object.name) == ("words", NOW, "web-1")


def test_a_pod_in_the_cluster_is_written_with_its_namespace() -> None:
    asked = question("shop/web-1", default_namespace="default")
    assert (asked.namespace, asked.name, asked.line, asked.events) == ("shop", "web-1", None, ())
