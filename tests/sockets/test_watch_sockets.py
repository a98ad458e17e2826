"""List and watch over real sockets, against a server that hangs, resets, lies and sends garbage.

Each test is one row of what the API server can do to a watch. Real time, but short: the numbers of the watch are
shortened, nothing sleeps, and each test waits for what it expects.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from sockets.scripted_server import (
    ScriptedServer,
    answer,
    bookmark,
    error_line,
    line,
    page,
    pod,
    raw,
    refused,
    serving,
    silent,
    stream,
)

from khook.core.signal import PodLine
from khook.kube.backoff import BackOffLimits
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.resources import EVENT_FIELD_SELECTOR, EVENTS, PODS, Change
from khook.kube.terms import Pace
from khook.kube.transports import NetworkTransports
from khook.kube.watch import Watch
from khook.seams import SystemClock

FAST = Pace(
    silence_s=5.0,
    server_timeout_s=(7, 7),
    late_s=1.0,
    open_s=5.0,
    forbidden_s=0.01,
    short_s=0.0,
    gone_again_s=0.0,
    throttled_spread_s=0.0,
    back_off=BackOffLimits(first_s=0.01, most_s=0.02),
)


class Recorder:
    """The sink, the counters and the log in one: all that a watch says."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.counts: Counter[str] = Counter()
        self.logged: list[dict[str, object]] = []
        self._news = asyncio.Event()

    async def until(self, fits: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not fits():
                self._news.clear()
                await self._news.wait()

    def _say(self, what: str) -> None:
        self.said.append(what)
        self._news.set()

    def _count(self, what: str) -> None:
        self.counts[what] += 1
        self._news.set()

    def list_started(self) -> None:
        self._say("list")

    def listed(self, objects: Sequence[Any]) -> None:
        self._say("page " + " ".join(obj.metadata.name for obj in objects))

    def list_ended(self) -> None:
        self._say("end")

    def line(self, change: Change, obj: Any) -> None:
        self._say(f"{change} {obj.metadata.name}")

    def ended(self, resource: str, cause: str) -> None:
        self._count(f"ended {cause}")

    def relisted(self, resource: str, cause: str) -> None:
        self._count(f"relisted {cause}")

    def skipped(self, resource: str, cause: str) -> None:
        self._count(f"skipped {cause}")

    def debug(self, event: str, **values: object) -> None:
        self.logged.append(values)

    def warning(self, event: str, **values: object) -> None:
        self.logged.append(values)


Test = Callable[[ScriptedServer, Recorder, Watch[PodLine]], Coroutine[Any, Any, None]]


def play(server: ScriptedServer, test: Test, *, pace: Pace = FAST, resource: Any = PODS, url: str = "") -> None:
    async def world() -> None:
        async with serving(server):
            recorder = Recorder()
            client = KubeClient(
                credentials=Credentials(server=url or server.url, token="t"),
                transports=NetworkTransports(),
                clock=SystemClock(),
            )
            watch: Watch[PodLine] = Watch(
                client=client,
                resource=resource,
                namespace="ns",
                sink=recorder,
                clock=SystemClock(),
                randomness=random.Random(1),
                log=recorder,
                counters=recorder,
                pace=pace,
            )
            running = asyncio.ensure_future(watch.run())
            try:
                await test(server, recorder, watch)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await client.aclose()

    asyncio.run(world())


def heard(recorder: Recorder, *expected: str) -> Callable[[], bool]:
    return lambda: all(one in recorder.said for one in expected)


def test_start_lists_consistently_in_pages_and_watches_from_the_lists_version() -> None:
    server = ScriptedServer(
        lists=[page("a", "b", version="10", more="next+/="), page("c", version="10")],
        watches=[stream(line("ADDED", "d", "11"), line("DELETED", "a", "12"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "DELETED a"))
        assert recorder.said == ["list", "page a b", "page c", "end", "ADDED d", "DELETED a"]
        assert server.listed == [{"limit": "500"}, {"limit": "500", "continue": "next+/="}]
        assert server.asked[0].path == "/api/v1/namespaces/ns/pods"
        assert server.asked[2].params == {
            "watch": "true",
            "resourceVersion": "10",
            "timeoutSeconds": "7",
            "allowWatchBookmarks": "true",
        }
        assert watch.health.synced
        assert watch.health.opened

    play(server, test)


def test_events_are_selected_by_the_server_and_asked_for_no_bookmarks() -> None:
    server = ScriptedServer(watches=[stream(line("ADDED", "e", "1001"))])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED e"))
        assert [asked.params["fieldSelector"] for asked in server.asked] == [EVENT_FIELD_SELECTOR] * 2
        assert "allowWatchBookmarks" not in server.asked[1].params

    play(server, test, resource=EVENTS)


def test_a_clean_end_goes_on_from_the_last_line_without_a_list() -> None:
    server = ScriptedServer(
        lists=[page(version="10")],
        watches=[stream(line("ADDED", "a", "11"), end="clean"), stream(line("ADDED", "b", "12"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert server.watched_from == ["10", "11"]
        assert recorder.counts == {"relisted start": 1, "ended timeout": 1}

    play(server, test)


def test_a_bookmark_moves_the_version_and_nothing_else() -> None:
    server = ScriptedServer(
        lists=[page(version="10")],
        watches=[stream(bookmark("50"), end="clean"), stream(line("ADDED", "b", "51"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert server.watched_from == ["10", "50"]
        assert recorder.said == ["list", "page ", "end", "ADDED b"]

    play(server, test)


@pytest.mark.parametrize("gone", [stream(error_line(410), end="clean"), refused(410)], ids=["line", "status"])
def test_a_compacted_version_is_listed_again(gone: Any) -> None:
    server = ScriptedServer(
        lists=[page("a", version="10"), page("b", version="20")], watches=[gone, stream(line("ADDED", "c", "21"))]
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED c"))
        assert recorder.said == ["list", "page a", "end", "list", "page b", "end", "ADDED c"]
        assert server.watched_from == ["10", "20"]
        assert recorder.counts == {"relisted start": 1, "ended gone": 1, "relisted gone": 1}

    play(server, test)


def test_an_expired_continue_token_restarts_the_list_once_and_then_asks_for_everything() -> None:
    server = ScriptedServer(
        lists=[
            page("a", version="10", more="x"),
            refused(410),
            page("b", version="20", more="y"),
            refused(410),
            page("c", "d", version="30"),
        ],
        watches=[stream(line("ADDED", "e", "31"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED e"))
        assert recorder.said == ["list", "page a", "list", "page b", "list", "page c d", "end", "ADDED e"]
        assert [params.get("limit") for params in server.listed] == ["500", "500", "500", "500", None]
        assert server.watched_from == ["30"]

    play(server, test)


def test_an_overloaded_server_in_the_middle_of_a_list_is_waited_for_on_the_same_page() -> None:
    server = ScriptedServer(
        lists=[
            page("a", version="10", more="x"),
            refused(429, Retry_After="0"),
            raw(b""),
            page("b", version="10"),
        ],
        watches=[stream(line("ADDED", "c", "11"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED c"))
        assert recorder.said == ["list", "page a", "page b", "end", "ADDED c"]

    play(server, test)


def test_a_silent_pods_watch_is_opened_anew_without_a_list() -> None:
    server = ScriptedServer(
        lists=[page(version="10")],
        watches=[stream(line("ADDED", "a", "11"), b"\n", b'{"type":"ADD'), stream(line("ADDED", "b", "12"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert server.watched_from == ["10", "11"]
        assert recorder.counts == {"relisted start": 1, "ended silence": 1}

    play(server, test, pace=Pace(silence_s=0.1, short_s=0.0, back_off=FAST.back_off))


def test_a_watch_that_outlives_its_timeout_is_opened_anew() -> None:
    server = ScriptedServer(watches=[stream(), stream(line("ADDED", "b", "12"))])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert recorder.counts == {"relisted start": 1, "ended silence": 1}

    play(server, test, pace=Pace(server_timeout_s=(0, 0), late_s=0.1, back_off=FAST.back_off), resource=EVENTS)


def test_a_server_that_never_answers_the_opening_is_tried_again() -> None:
    server = ScriptedServer(watches=[silent(), stream(line("ADDED", "b", "12"))])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert recorder.counts == {"relisted start": 1, "ended unavailable": 1}

    play(server, test, pace=Pace(open_s=0.1, back_off=FAST.back_off))


@pytest.mark.parametrize(
    "breaking",
    [
        stream(line("ADDED", "a", "11"), line("ADDED", "b", "12")[:20], end="reset", gap=True),
        stream(line("ADDED", "a", "11"), line("ADDED", "b", "12")[:20], end="cut"),
    ],
    ids=["reset", "cut"],
)
def test_a_broken_connection_backs_off_and_goes_on_from_the_last_whole_line(breaking: Any) -> None:
    server = ScriptedServer(lists=[page(version="10")], watches=[breaking, stream(line("ADDED", "b", "12"))])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert recorder.said.count("ADDED b") == 1
        assert server.watched_from in (["10", "11"], ["10", "10"])  # a reset may overtake what was sent before it
        assert recorder.counts == {"relisted start": 1, "ended unavailable": 1}

    play(server, test)


@pytest.mark.parametrize(
    "garbage",
    [
        raw(b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot-a-size\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        refused(500),
        answer(502, "<html>bad gateway</html>"),
        answer(307, "", Location="http://127.0.0.1:1/"),
    ],
    ids=["no-http", "hung-up", "bad-chunk", "short-body", "500", "502", "redirect"],
)
def test_garbage_instead_of_a_watch_or_a_list_is_a_failure_like_any_other(garbage: Any) -> None:
    server = ScriptedServer(
        lists=[garbage, page("a", version="10")], watches=[garbage, stream(line("ADDED", "b", "11"))]
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert set(server.watched_from) == {"10"}
        assert recorder.counts["relisted start"] == 1

    play(server, test)


def test_nobody_listening_is_a_failure_like_any_other() -> None:
    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(lambda: len(recorder.logged) >= 3)
        assert watch.health.last_error == "unavailable"
        assert not watch.health.synced

    server = ScriptedServer()

    async def take_and_free_a_port() -> None:
        async with serving(server):
            pass

    asyncio.run(take_and_free_a_port())
    play(ScriptedServer(), test, url=server.url)


@pytest.mark.parametrize("busy", [refused(429, Retry_After="0"), refused(503, Retry_After="0")], ids=["429", "503"])
def test_a_throttled_watch_waits_as_told_and_does_not_list(busy: Any) -> None:
    server = ScriptedServer(
        lists=[page(version="10")], watches=[busy, stream(error_line(429, retryAfterSeconds=0), end="clean"), busy]
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        server.watches.append(stream(line("ADDED", "a", "11")))
        await recorder.until(heard(recorder, "ADDED a"))
        assert server.watched_from == ["10"] * 4
        assert recorder.counts == {"relisted start": 1, "ended throttled": 3}

    play(server, test)


def test_an_error_line_that_asking_again_would_repeat_is_listed_anew() -> None:
    """Measured on kube-apiserver 1.36.3: Events resumed just before a compaction answer 500 at each try."""
    server = ScriptedServer(
        lists=[page(version="10"), page(version="20")],
        watches=[stream(error_line(500), end="clean"), stream(line("ADDED", "a", "21"))],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED a"))
        assert server.watched_from == ["10", "20"]
        assert recorder.counts == {"relisted start": 1, "ended unavailable": 1, "relisted error": 1}

    play(server, test)


def test_refused_credentials_are_renewed_by_the_caller_or_back_off() -> None:
    server = ScriptedServer(
        lists=[refused(401), page(version="10")], watches=[refused(401), stream(line("ADDED", "a", "11"))]
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED a"))
        assert recorder.counts == {"relisted start": 1, "ended unauthorized": 1}
        assert server.asked[0].headers["authorization"] == "Bearer t"

    play(server, test)


def test_a_forbidden_watch_says_so_and_is_tried_again() -> None:
    server = ScriptedServer(lists=[page(version="10")], watches=[refused(403), refused(403)])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(lambda: recorder.counts["ended forbidden"] == 2)
        forbidden = watch.health.forbidden
        assert forbidden
        server.watches.append(stream(line("ADDED", "a", "11")))
        await recorder.until(heard(recorder, "ADDED a"))
        assert not watch.health.forbidden
        assert recorder.counts["relisted start"] == 1

    play(server, test)


def test_watches_that_end_at_once_with_nothing_back_off() -> None:
    server = ScriptedServer(
        lists=[page(version="10")],
        watches=[
            stream(end="clean"),
            stream(bookmark("11"), end="clean"),
            stream(line("ADDED", "a", "12"), end="clean"),
        ],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(lambda: recorder.counts["ended timeout"] == 1)
        assert recorder.counts == {"relisted start": 1, "ended short": 2, "ended timeout": 1}

    play(server, test, pace=Pace(short_s=5.0, back_off=FAST.back_off))


def test_bad_lines_are_counted_named_by_their_hash_and_skipped() -> None:
    server = ScriptedServer(
        lists=[answer(200, {"metadata": {"resourceVersion": "10"}, "items": [pod("a", version="1"), {"metadata": 7}]})],
        watches=[
            stream(
                b"this is not JSON, secret\n",
                b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}\n',
                b'{"type":"ADDED","object":[]}\n',
                b'{"type":"SURPRISE","object":{}}\n',
                b'{"type":"ADDED","object":' + b"[" * 100_000 + b"\n",
                b'{"type":"ADDED","object":{"metadata":{"name":"' + b"x" * 2**20 + b'"}}}\n',
                line("ADDED", "b", "11"),
            )
        ],
    )

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED b"))
        assert recorder.said == ["list", "page a", "end", "ADDED b"]
        assert recorder.counts == {"relisted start": 1, "skipped malformed": 6, "skipped overlong": 1}
        assert "secret" not in str(recorder.logged)
        assert all(len(str(values["digest"])) == 16 for values in recorder.logged)

    play(server, test)


def test_any_chunking_of_the_stream_gives_the_same_lines() -> None:
    whole = line("ADDED", "a", "11") + bookmark("12") + line("DELETED", "a", "13")
    server = ScriptedServer(watches=[stream(*(whole[i : i + 1] for i in range(len(whole))), gap=True)])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        await recorder.until(heard(recorder, "ADDED a", "DELETED a"))
        assert recorder.said[-2:] == ["ADDED a", "DELETED a"]

    play(server, test)


def test_a_list_that_was_asked_for_ends_the_watch_under_way() -> None:
    server = ScriptedServer(lists=[page("a", version="10"), page("b", version="20")])

    async def test(server: ScriptedServer, recorder: Recorder, watch: Watch[PodLine]) -> None:
        server.watches.append(stream(line("ADDED", "c", "11")))
        await recorder.until(heard(recorder, "ADDED c"))
        watch.relist()
        await recorder.until(heard(recorder, "page b"))
        assert (
            recorder.counts == {"relisted start": 1, "ended asked": 1, "relisted asked": 1} or not watch.health.opened
        )

    play(server, test)
