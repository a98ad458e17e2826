"""`khook demo`'s own parts: a summary that cannot hide a lost or doubled call, and a kill that hits only a worker."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from khook.cli.demo_calls import Calls
from khook.cli.demo_log import LogFile, Told, worker_pids
from khook.cli.demo_stage import environment
from khook.cli.demo_view import Ending, LoopEnding, Scene, View, summary
from khook.sandbox.demo_story import DEMO
from khook.sandbox.exchange import Request
from khook.sandbox.kagent import Kagent, Run, Speaks
from khook.sandbox.story import Expected, compare, expected
from khook.seams import SystemClock

WANTED = expected(DEMO)
(CART,) = [one for one in WANTED if one.resource == "cart-1"]


def record(*asked: Expected) -> list[Run]:
    """As kagent keeps it: each call goes through the server."""
    kagent = Kagent(api_key="", speaks=Speaks.A2A)

    def post(path: str, body: object) -> None:
        request = Request(method="POST", path=path, query={}, headers={}, body=orjson.dumps(body))
        assert kagent.a2a(request, now=SystemClock().now()).status in (200, 201)

    for number, one in enumerate(asked):
        name = f"{one.event_type} {one.resource}"
        post("/api/sessions", {"agent_ref": one.agent, "id": f"call-{number}", "name": name})
        message = {
            "kind": "message",
            "role": "user",
            "messageId": f"message-{number}",
            "contextId": f"call-{number}",
            "parts": [{"kind": "text", "text": f"{one.opening}Look."}],
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
        khook_exit=khook_exit,
    )


def test_a_clean_record_ends_well() -> None:
    end = ending(record(*WANTED))
    assert end.exit_code == 0
    assert summary(end) == [
        "incidents 11, calls 11, lost 0, repeated 0",
        "calls parked 2, delivered 2",
        "worker w1 was killed with SIGKILL and came back",
        "worker w3 was killed 10 times: its slot is broken, and batch went to w0",
    ]
    assert ending(record(*WANTED), khook_exit=None).exit_code == 0


def test_the_summary_names_the_dropped_call_and_the_doubled_one() -> None:
    dropped, doubled = WANTED[0], WANTED[-1]
    end = ending(record(*WANTED[1:], doubled))
    lines = summary(end)
    assert end.exit_code == 1
    assert lines[0] == "incidents 11, calls 11, lost 1, repeated 1"
    assert lines[4:] == [f"LOST: {dropped}", f"REPEATED: {doubled}"]


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


def test_a_prompt_that_is_not_the_entrys_fails_the_demo() -> None:
    runs = record(*WANTED)
    runs[2] = replace(runs[2], prompt="Something else.")
    end = ending(runs)
    assert (end.exit_code, summary(end)[4:]) == (1, [f"WRONG PROMPT: {WANTED[2]}"])


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
    told = Told()
    for line in LINES:
        told.read(line)
    assert (told.metrics_port, told.health_port, told.status_address) == (4001, 4002, "127.0.0.1:4003")
    assert told.pids == {"w0": 10, "w1": 11}
    assert (told.namespaces("w1"), told.busiest()) == (["payments", "search"], "w1")
    told.read(b'{"event": "worker was welcomed", "slot": "w1", "pid": 12}')
    assert (told.pids["w1"], told.lives) == (12, {"w0": 1, "w1": 2})
    assert Told().busiest() is None
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
    told, calls = Told(), Calls()
    for line in LINES:
        told.read(line)
    calls.read([hook_with(state="Pending", reason="Parked")])
    calls.read(hooks)
    return Scene(at_s=4.25, words=words, told=told, hooks=hooks, calls=calls, runs=runs, dead=("w1",))


def shown(*, terminal: bool, scenes: list[Scene]) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160, color_system=None)
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
    for part in ("cart-1 is OOM-killed", "payments search", "killed", "shop/storefront", "Pending Parked"):
        assert part in before
    for part in ("Completed", "OOM kill of cart-1 at Look. → Done."):
        assert part in after
