"""`khook demo`'s own parts: a summary that cannot hide a lost or doubled call, and a kill that hits only a worker."""

import asyncio
import io
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from rich.console import Console

from khook.cli.demo_calls import Calls
from khook.cli.demo_log import LogFile, worker_pids
from khook.cli.demo_log import Told as LogTold
from khook.cli.demo_stage import end_deleted_pods, environment
from khook.cli.demo_view import Ending, LoopEnding, Scene, View, summary
from khook.core.prompt import PODS_MOST, Told, render_prompt
from khook.core.signal import EventType
from khook.core.template import parse
from khook.sandbox.api_server import ApiServer
from khook.sandbox.demo_story import DEMO
from khook.sandbox.exchange import Request
from khook.sandbox.http import InMemoryTransport
from khook.sandbox.kagent import Kagent, Run, Speaks
from khook.sandbox.reckoning import Expected, compare, expected, storm
from khook.sandbox.store import Store
from khook.seams import SystemClock

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
WANTED = expected(DEMO)
(CART,) = [one for one in WANTED if one.resource == "cart-1"]
(CHECKOUT,) = [one for one in WANTED if one.pods]


def prompt_of(one: Expected) -> str:
    """The entry's text; about a group with the facts that khook puts after it."""
    if not one.pods:
        return f"{one.opening}Look."
    pods = sorted(one.pods)
    kind, name = one.resource.split()
    told = Told(
        event_type=EventType(one.event_type),
        namespace=one.namespace,
        hook=one.hook,
        resource_kind=kind,
        resource_name=name,
        pod=pods[0],
        container="app",
        reason="Error",
        message="",
        time=NOW,
        first_time=NOW,
        count=80,
        pods=tuple((pod, "Error") for pod in pods[:PODS_MOST]),
        pod_count=len(pods),
        call_id="call",
    )
    return render_prompt(parse(f"{one.opening}Look."), told)


def record(*asked: Expected) -> list[Run]:
    """As kagent keeps it: each call goes through the server."""
    kagent = Kagent(api_key="", speaks=Speaks.A2A)

    def post(path: str, body: object) -> None:
        request = Request(method="POST", path=path, query={}, headers={}, body=orjson.dumps(body))
        assert kagent.a2a(request, now=SystemClock().now()).status in (200, 201)

    for number, one in enumerate(asked):
        name = f"{one.event_type} {min(one.pods, default=one.resource)}"
        post("/api/sessions", {"agent_ref": one.agent, "id": f"call-{number}", "name": name})
        message = {
            "kind": "message",
            "role": "user",
            "messageId": f"message-{number}",
            "contextId": f"call-{number}",
            "parts": [{"kind": "text", "text": prompt_of(one)}],
            "metadata": {"kagent.dev/hook": one.hook, "kagent.dev/eventType": one.event_type},
        }
        params = {"message": message, "configuration": {"blocking": False}}
        post(f"/api/a2a/{one.agent}/", {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": params})
    return kagent.runs


def ending(
    runs: list[Run],
    *,
    came_back: bool = True,
    heir: str = "w0",
    khook_exit: int | None = 0,
    parked: int = 2,
    delivered: int = 2,
) -> Ending:
    return Ending(
        verdict=compare(WANTED, runs),
        incidents=len(WANTED),
        calls=len(runs),
        parked=parked,
        delivered=delivered,
        killed="w1",
        came_back=came_back,
        loop=LoopEnding(slot="w3", deaths=10, namespace="batch", heir=heir),
        storm=storm(WANTED, runs),
        khook_exit=khook_exit,
    )


def test_a_clean_record_ends_well() -> None:
    end = ending(record(*WANTED))
    assert end.exit_code == 0
    assert summary(end) == [
        "incidents 12, calls 12, lost 0, repeated 0",
        "calls parked 2, delivered 2",
        "worker w1 was killed with SIGKILL and came back",
        "worker w3 was killed 10 times: its slot is broken, and batch went to w0",
        "rollout storm: 40 pods, 1 call",
    ]
    assert ending(record(*WANTED), khook_exit=None).exit_code == 0


def test_the_summary_names_the_dropped_call_and_the_doubled_one() -> None:
    dropped, doubled = WANTED[0], WANTED[-1]
    end = ending(record(*WANTED[1:], doubled))
    lines = summary(end)
    assert end.exit_code == 1
    assert lines[0] == "incidents 12, calls 12, lost 1, repeated 1"
    assert lines[5:] == [f"LOST: {dropped}", f"REPEATED: {doubled}"]


def test_a_call_for_no_incident_fails_the_demo() -> None:
    stray = Expected("shop/storefront", "pod-pending", "web-1", "kagent/capacity-planner")
    end = ending(record(*WANTED, stray))
    assert (end.exit_code, summary(end)[-1]) == (1, f"UNEXPECTED: {stray}")


def test_a_parked_call_that_no_agent_got_fails_the_demo() -> None:
    end = ending(record(*WANTED), delivered=1)
    assert (end.exit_code, summary(end)[1]) == (1, "calls parked 2, delivered 1")


def test_a_broken_slot_whose_namespace_nobody_took_fails_the_demo() -> None:
    end = ending(record(*WANTED), heir="")
    assert end.exit_code == 1
    assert summary(end)[3].endswith("batch went to NOBODY")


@pytest.mark.parametrize(("calls", "words"), [(0, "0 calls"), (2, "2 calls")])
def test_a_storm_that_is_not_one_call_fails_the_demo(calls: int, words: str) -> None:
    end = ending(record(*(one for one in WANTED if one != CHECKOUT), *[CHECKOUT] * calls))
    assert (end.exit_code, summary(end)[4]) == (1, f"rollout storm: 40 pods, {words}")
    assert replace(ending(record(*WANTED)), storm=end.storm).exit_code == 1


def test_a_prompt_that_is_not_the_entrys_fails_the_demo() -> None:
    runs = record(*WANTED)
    runs[2] = replace(runs[2], prompt="Something else.")
    end = ending(runs)
    assert (end.exit_code, summary(end)[5:]) == (1, [f"WRONG PROMPT: {WANTED[2]}"])


@pytest.mark.parametrize(
    ("came_back", "khook_exit", "words"),
    [(False, 0, "did NOT come back"), (True, -9, "exit code -9"), (True, 70, "70")],
)
def test_a_khook_that_ends_badly_fails_the_demo_though_every_call_was_made(
    came_back: bool, khook_exit: int, words: str
) -> None:
    end = ending(record(*WANTED), came_back=came_back, khook_exit=khook_exit)
    assert end.exit_code == 1
    assert any(words in line for line in summary(end))


# --- what the log tells -----------------------------------------------------------------------------------------

LINES = [
    b'{"event": "khook started", "metrics_port": 4001, "health_port": 4002, "status_address": "127.0.0.1:4003"}\n',
    b'{"event": "worker was welcomed", "slot": "w0", "pid": 10}\n',
    b'{"event": "worker was welcomed", "slot": "w1", "pid": 11}\n',
    b'{"event": "namespace started", "slot": "w0", "namespace": "shop", "epoch": 1}\n',
    b'{"event": "namespace started", "slot": "w1", "namespace": "search", "epoch": 1}\n',
    b'{"event": "namespace started", "slot": "w1", "namespace": "payments", "epoch": 1}\n',
    b"Traceback (most recent call last):\n",
    b"[1, 2]\n",
    b'{"event": "worker was welcomed", "slot": 7}\n',
]


def test_the_log_tells_ports_workers_and_owners() -> None:
    told = LogTold()
    for line in LINES:
        told.read(line)
    assert (told.metrics_port, told.health_port, told.status_address) == (4001, 4002, "127.0.0.1:4003")
    assert told.pids == {"w0": 10, "w1": 11}
    assert (told.namespaces("w1"), told.busiest()) == (["payments", "search"], "w1")
    told.read(b'{"event": "worker was welcomed", "slot": "w1", "pid": 12}')
    assert (told.pids["w1"], told.lives) == (12, {"w0": 1, "w1": 2})
    assert LogTold().busiest() is None
    assert told.busiest(but="w1") == "w0"
    told.read(b'{"event": "slot is broken", "slot": "w1", "deaths": 10}')
    assert told.broken == ["w1"]


def test_a_growing_log_is_read_once_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(LINES[1] + LINES[2][:20])
    log = LogFile(path)
    assert log.follow().lives == {"w0": 1}
    with path.open("ab") as out:
        out.write(LINES[2][20:])
    assert log.follow().lives == {"w0": 1, "w1": 1}
    assert log.follow().lives == {"w0": 1, "w1": 1}
    assert log.tail(1) == LINES[2].decode().strip()


def process(proc: Path, pid: int, *, parent: int, command: bytes = b"python", state: str = "S") -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b ( c) {state} {parent} 1 1 0")
    (proc / str(pid) / "cmdline").write_bytes(command)


def test_only_what_our_forkserver_forked_is_a_worker(tmp_path: Path) -> None:
    forkserver = b"python\0-c\0from multiprocessing.forkserver import main; main(8)\0"
    process(tmp_path, 100, parent=1, command=b"python\0-m\0khook\0run")
    process(tmp_path, 101, parent=100, command=b"python\0-c\0from multiprocessing.resource_tracker import main")
    process(tmp_path, 102, parent=100, command=forkserver)
    process(tmp_path, 103, parent=102, command=forkserver)
    process(tmp_path, 104, parent=102, command=forkserver)
    process(tmp_path, 105, parent=102, command=forkserver, state="Z")
    process(tmp_path, 106, parent=1, command=forkserver)
    process(tmp_path, 107, parent=106, command=forkserver)
    (tmp_path / "self").mkdir()
    (tmp_path / "108").mkdir()
    assert worker_pids(100, proc=tmp_path) == {103, 104}
    assert worker_pids(999, proc=tmp_path) == set()


def test_settings_of_another_khook_do_not_reach_ours() -> None:
    inherited = {
        "PATH": "/bin",
        "KHOOK_WATCH_SCOPE": "cluster",
        "KAGENT_API_URL": "https://real.example",
        "KUBECONFIG": "/home/x/.kube/config",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "LEADER_ELECTION": "true",
        "PROMETHEUS_MULTIPROC_DIR": "/run/real",
    }
    assert environment({"KUBECONFIG": "ours"}, inherited) == {"PATH": "/bin", "KUBECONFIG": "ours"}


# --- what the Hooks' status tells -----------------------------------------------------------------------------------


def hook_with(**call: str) -> dict[str, Any]:
    row = {
        "eventType": "oom-kill",
        "resourceName": "cart-1",
        "firstSeen": "2024-01-15T10:30:00Z",
        "status": "firing",
        "count": 3,
        "agent": "kagent/capacity-planner",
        "call": {"id": "call-0", **call},
    }
    return {"metadata": {"namespace": "shop", "name": "storefront"}, "status": {"activeEvents": [row]}}


def hook_with_group(*, open_call: bool) -> dict[str, Any]:
    """As long as its call is open, the row says how many pods it is about."""
    hook = hook_with(state="Pending" if open_call else "Completed", reason="Grouping" if open_call else "")
    (row,) = hook["status"]["activeEvents"]
    row |= {"eventType": "pod-restart", "resourceKind": "Deployment", "resourceName": "checkout", "count": 80}
    row |= {"facts": {"pod": min(CHECKOUT.pods), "podCount": 40, "pods": []}} if open_call else {}
    return hook


BARE = {"metadata": {"namespace": "search", "name": "latency"}}


def test_a_call_counts_as_parked_once_seen_so_and_as_delivered_once_an_agent_has_it() -> None:
    calls, runs = Calls(), record(CART)
    calls.read([hook_with(state="Pending", reason="Queued"), BARE])
    assert (calls.parked, calls.under_way) == ({}, 1)
    for _ in range(2):
        calls.read([hook_with(state="Pending", reason="Parked"), BARE])
        assert calls.parked == {"call-0": "the call of kagent/capacity-planner about shop/cart-1 (oom-kill)"}
    assert (calls.delivered([]), calls.delivered(runs)) == (0, 1)
    calls.read([hook_with(state="Completed", result="Done.")])
    assert (len(calls.parked), calls.under_way, calls.answers) == (1, 0, {"call-0": "Done."})


# --- what is shown ----------------------------------------------------------------------------------------------


def scene(*words: str, runs: list[Run], **call: str) -> Scene:
    hooks = [hook_with(**call or {"state": "Calling"}), BARE]
    told, calls = LogTold(), Calls()
    for line in LINES:
        told.read(line)
    calls.read([hook_with(state="Pending", reason="Parked")])
    calls.read(hooks)
    return Scene(at_s=4.25, words=words, told=told, hooks=hooks, calls=calls, runs=runs, dead=("w1",))


def storm_scene() -> Scene:
    """The call about the group has been made, and the Hook does not say any more how many pods it was about."""
    runs, calls = record(CHECKOUT), Calls()
    for hook in (hook_with_group(open_call=True), done := hook_with_group(open_call=False)):
        calls.read([hook])
    return Scene(at_s=50.0, words=(), told=LogTold(), hooks=[done], calls=calls, runs=runs, dead=())


def shown(*, terminal: bool, scenes: list[Scene], width: int = 160) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
    with View(console) as view:
        for one in scenes:
            view.show(one)
    return out.getvalue()


def test_a_pipe_gets_each_line_once() -> None:
    runs = record(CART)
    scenes = [
        scene("a [b]", runs=[]),
        scene("a [b]", "c", runs=runs),
        scene("a [b]", "c", runs=runs, state="Completed", result="Done."),
    ]
    assert shown(terminal=False, scenes=scenes).splitlines() == [
        "  4.2 s  a [b]",
        "  4.2 s  the call of kagent/capacity-planner about shop/cart-1 (oom-kill) is parked",
        "  4.2 s  c",
        "  4.2 s  kagent/capacity-planner is asked about shop/cart-1 (oom-kill), after it was parked: "
        '"OOM kill of cart-1 at Look."',
        '  4.2 s  kagent/capacity-planner answers about shop/cart-1: "Done."',
    ]


def test_a_terminal_sees_workers_incidents_calls_and_answers() -> None:
    runs = record(CART)
    parked = scene("cart-1 is OOM-killed", runs=[], state="Pending", reason="Parked")
    done = scene("cart-1 is OOM-killed", runs=runs, state="Completed", result="Done.")
    before, after = (shown(terminal=True, scenes=[one]) for one in (parked, done))
    for part in ("cart-1 is OOM-killed", "payments search", "killed", "shop/cart-1", "storefront", "Pending Parked"):
        assert part in before
    for part in ("Completed", "OOM kill of cart-1 at Look.", "→ Done."):
        assert part in after


def test_a_group_is_its_owner_with_the_number_of_its_pods_and_the_first_that_its_prompt_names() -> None:
    first, second, *_ = sorted(CHECKOUT.pods)
    assert shown(terminal=False, scenes=[storm_scene()]).splitlines() == [
        " 50.0 s  kagent/incident-responder is asked about shop/Deployment checkout · 40 pods (pod-restart): "
        f'"{CHECKOUT.opening}Look.", naming 20 of 40 pods: {first}, {second}, …'
    ]


def test_what_matters_fits_on_a_terminal_of_eighty_columns() -> None:
    lines = shown(terminal=True, scenes=[storm_scene()], width=80).splitlines()
    (incident,) = {line.rstrip() for line in lines if "pod-restart" in line}
    assert incident.split() == ["shop/Deployment", "checkout", "·", "40", "pods", "pod-restart", "80", "Completed"]
    assert "…" not in incident
    assert any(line.startswith("shop/Deployment checkout · 40 pods ") and "pod-restart" not in line for line in lines)


def test_a_pod_that_is_deleted_while_the_demo_stays_ends() -> None:
    """Its node is made up, so nobody else would end it, and `kubectl delete pod` would not come back."""
    clock = SystemClock()
    api = ApiServer(Store(randomness=random.Random(1), now=clock.now()), clock=clock)
    pods = "/api/v1/namespaces/default/pods"
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}

    async def play() -> list[list[str]]:
        async def names() -> list[str]:
            return [item["metadata"]["name"] for item in (await client.get(pods)).json()["items"]]

        async with httpx.AsyncClient(transport=InMemoryTransport({"http://api": api}), base_url="http://api") as client:
            for name in ("gone", "stays"):
                await client.post(pods, json={"metadata": {"name": name}, "spec": spec})
            await client.delete(f"{pods}/gone")
            before = await names()
            await end_deleted_pods(client)
            return [before, await names()]

    assert asyncio.run(play()) == [["gone", "stays"], ["stays"]]
