"""The supervisor's three listeners behind real sockets, and `khook shards` as the reader of one of them."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web

from khook.address import Address
from khook.cli.main import main
from khook.cli.shards_live import ask, weights_of
from khook.cli.shards_plan import RingShape, assigned
from khook.errors import EXIT_SETTINGS, KhookError, SettingsError
from khook.supervisor.server import Listening, Servers
from khook.supervisor.status_document import Status, decode

LOOPBACK = "127.0.0.1"
DOCUMENT: dict[str, Any] = {
    "version": "0.1.0",
    "identity": "khook-0_aaaaaaaa",
    "leading": True,
    "leader": {"identity": "khook-0_aaaaaaaa", "epoch": 3},
    "askTheLeader": None,
    "ring": {"virtualNodes": 64, "maxLoadFactor": 1.5},
    "slots": [],
    "waiting": [{"namespace": "shop", "weight": 2.5, "linesPerSecond": 1.5}],
    "totals": {"namespaces": 1, "waiting": 1, "load": 2.5, "linesPerSecond": 1.5, "restarts": 0},
}
STANDBY = DOCUMENT | {"leading": False, "askTheLeader": "kubectl exec -n ops khook-0 -- khook shards"}


class Told:
    """Counts how often it is asked."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.times = 0

    async def __call__(self) -> Status:
        self.times += 1
        return decode(orjson.dumps(self.document))


def servers(status: Callable[[], Awaitable[Status]]) -> Servers:
    return Servers(exposition=lambda: b"# metrics\n", ready=lambda: (True, {"ready": True}), status=status)


def serving(
    test: Callable[[Listening], Awaitable[None]],
    status: Callable[[], Awaitable[Status]],
    *,
    address: Address = Address(LOOPBACK, 0),  # noqa: B008 - frozen
) -> None:
    async def main() -> None:
        started = servers(status)
        try:
            await test(await started.start(metrics_port=0, health_port=0, status_address=address, host=LOOPBACK))
        finally:
            await started.close()

    asyncio.run(main())


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{LOOPBACK}:{port}{path}")


def test_each_listener_serves_its_own_paths_and_no_others() -> None:
    async def test(at: Listening) -> None:
        paths = ("/", "/metrics", "/healthz", "/readyz", "/status.json")
        found = {
            name: [path for path in paths if (await get(port, path)).status_code == 200]
            for name, port in (
                ("metrics", at.metrics_port),
                ("health", at.health_port),
                ("status", at.status_address.port),
            )
        }
        assert found == {"metrics": ["/metrics"], "health": ["/healthz", "/readyz"], "status": ["/", "/status.json"]}
        answer = await get(at.status_address.port, "/status.json")
        assert answer.headers["content-type"] == "application/json"
        assert decode(answer.content) == decode(orjson.dumps(DOCUMENT))
        assert (await get(at.status_address.port, "/")).headers["content-type"] == "text/html; charset=utf-8"

    serving(test, Told(DOCUMENT))


def test_a_document_is_made_once_for_readers_that_come_together() -> None:
    told = Told(DOCUMENT)

    async def test(at: Listening) -> None:
        since_at = asyncio.get_running_loop().time()
        paths = ("/status.json", "/") * 5
        await asyncio.gather(*(get(at.status_address.port, path) for path in paths))
        passed_s = asyncio.get_running_loop().time() - since_at
        assert 1 <= told.times <= 1 + passed_s  # kept for a second each

    serving(test, told)


def test_it_listens_on_an_ipv6_address() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    async def test(at: Listening) -> None:
        assert at.status_address.host == "::1"
        _, live = await asyncio.to_thread(ask, at.status_address)
        assert live.leading

    serving(test, Told(DOCUMENT), address=Address("::1", 0))


def test_every_port_that_cannot_be_listened_on_is_told_at_once() -> None:
    async def main() -> list[str]:
        with socket.create_server((LOOPBACK, 0)) as taken:
            port = taken.getsockname()[1]
            started = servers(Told(DOCUMENT))
            try:
                with pytest.raises(SettingsError) as caught:
                    await started.start(
                        metrics_port=port, health_port=port, status_address=Address("192.0.2.1", 8082), host=LOOPBACK
                    )
            finally:
                await started.close()
            assert caught.value.exit_code == EXIT_SETTINGS
            return [problem.replace(str(port), "PORT") for problem in caught.value.problems]

    assert asyncio.run(main()) == [
        "METRICS_PORT: cannot listen on 127.0.0.1:PORT: address already in use; choose another, or 0 for any free",
        "HEALTH_PORT: cannot listen on 127.0.0.1:PORT: address already in use; choose another, or 0 for any free",
        "KHOOK_STATUS_ADDRESS: cannot listen on 192.0.2.1:8082: cannot assign requested address; choose another, "
        "or 0 for any free",
    ]


# --- who may read it, and with what -----------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path", "code"), [
    ("GET", "/", 200), ("HEAD", "/", 200), ("GET", "/status.json", 200), ("GET", "/nothing", 404), ("POST", "/", 405),
    ("GET", "//status.json", 404), ("GET", "/%2e%2e/etc/passwd", 404),
])  # fmt: skip
def test_every_answer_keeps_other_sites_out_and_nothing_keeps_it(method: str, path: str, code: int) -> None:
    async def test(at: Listening) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.request(method, f"http://{at.status_address}{path}")
        assert answer.status_code == code
        said = answer.headers
        assert said["content-security-policy"].startswith("default-src 'none'; ")
        assert "frame-ancestors 'none'" in said["content-security-policy"]
        assert "unsafe" not in said["content-security-policy"]
        assert (said["x-content-type-options"], said["referrer-policy"]) == ("nosniff", "no-referrer")
        assert (said["cache-control"], said["cross-origin-resource-policy"]) == ("no-store", "same-origin")
        assert "access-control-allow-origin" not in said
        assert (answer.content == b"") == (method == "HEAD")

    serving(test, Told(DOCUMENT))


@pytest.mark.parametrize(("host", "code"), [
    ("localhost", 200), ("localhost:8082", 200), ("LOCALHOST:9", 200), ("127.0.0.1:8082", 200), ("[::1]:8082", 200),
    ("10.0.0.7", 200), ("attacker.example", 421), ("attacker.example:8082", 421), ("localhost.attacker.example", 421),
    ("127.0.0.1.nip.example", 421), ("[::1", 421), ("", 421),
])  # fmt: skip
def test_on_a_loopback_address_it_answers_to_no_name_that_a_site_could_have(host: str, code: int) -> None:
    """DNS rebinding: a page at attacker.example whose name becomes 127.0.0.1 would be of our origin."""

    async def test(at: Listening) -> None:
        for path in ("/", "/status.json"):
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"http://{at.status_address}{path}", headers={"host": host})
            assert answer.status_code == code
            assert ("shop" in answer.text) == (code == 200)

    serving(test, Told(DOCUMENT))


def test_on_any_other_address_it_answers_to_every_name() -> None:
    """Whoever opens it to others gives it a name of their own."""

    async def test(at: Listening) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            port = at.status_address.port
            answer = await client.get(f"http://{LOOPBACK}:{port}/", headers={"host": "khook.example.com"})
        assert answer.status_code == 200

    serving(test, Told(DOCUMENT), address=Address("0.0.0.0", 0))


# --- the reader -------------------------------------------------------------------------------------------------


def test_the_reader_gets_the_document_and_what_a_plan_needs_of_it() -> None:
    async def test(at: Listening) -> None:
        body, live = await asyncio.to_thread(ask, at.status_address)
        assert decode(body) == decode(orjson.dumps(DOCUMENT))
        assert (weights_of(live), live.ring.virtual_nodes, live.ring.max_load_factor) == ({"shop": 2.5}, 64, 1.5)

    serving(test, Told(DOCUMENT))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            STANDBY,
            "this replica stands by; khook-0_aaaaaaaa leads. Ask it:\n  kubectl exec -n ops khook-0 -- khook shards",
        ),
        (STANDBY | {"askTheLeader": None}, "this replica stands by; khook-0_aaaaaaaa leads"),
        (
            STANDBY | {"leader": {"identity": "\x1b[31mkhook", "epoch": 3}, "askTheLeader": None},
            "this replica stands by; \ufffd[31mkhook leads",
        ),
        (
            STANDBY | {"leader": {"identity": None, "epoch": 0}, "askTheLeader": None},
            "this replica stands by, and nobody leads yet; its log says what it waits for",
        ),
    ],
)
def test_a_standby_says_who_leads_and_how_to_ask(document: dict[str, Any], words: str) -> None:
    async def test(at: Listening) -> None:
        with pytest.raises(KhookError) as caught:
            await asyncio.to_thread(ask, at.status_address)
        assert (str(caught.value), caught.value.exit_code) == (words, 1)

    serving(test, Told(document))


@pytest.mark.parametrize("lies_at", ["w0", "w1"])
def test_a_plan_of_what_runs_counts_moves_from_where_the_namespaces_lie(
    capsys: pytest.CaptureFixture[str], lies_at: str
) -> None:
    """One of the two is where a plan for two workers has it: from there nothing moves."""
    planned = assigned({"shop": 1.0}, workers=2, shape=RingShape(virtual_nodes=64, max_load_factor=1.5))["shop"]
    shop = {"namespace": "shop", "weight": 1.0, "linesPerSecond": 0.0, "epoch": 1, "started": True, "problem": None}
    slots = [
        {"slot": name, "state": "running", "onProbation": False, "pid": 1, "restarts": 0, "lagSeconds": 0.0,
         "lastDeath": None, "load": 0.0, "linesPerSecond": 0.0, "namespaces": [shop] if name == lies_at else []}
        for name in ("w0", "w1")
    ]  # fmt: skip

    async def test(at: Listening) -> None:
        arguments = ["shards", "--workers", "2", "--address", str(at.status_address), "--output", "json", "--all"]
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
        assert ended.value.code in (None, 0)

    serving(test, Told(DOCUMENT | {"slots": slots, "waiting": []}))
    moves = json.loads(capsys.readouterr().out)["moves"]
    assert moves["fromWorkers"] == 2
    assert [(one["from"], one["to"]) for one in moves["namespaces"]] == (
        [] if lies_at == planned else [(lies_at, planned)]
    )


def test_nobody_who_listens_is_one_clear_line() -> None:
    with socket.create_server((LOOPBACK, 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(KhookError, match=f"^nothing listens on 127.0.0.1:{port}: is `khook run` running here"):
        ask(Address(LOOPBACK, port))


def test_a_port_that_is_any_free_one_can_only_be_named() -> None:
    with pytest.raises(KhookError, match="say --address"):
        ask(Address(LOOPBACK, 0))


@pytest.mark.parametrize(
    ("path", "handler", "words"),
    [
        ("/other", lambda _: web.Response(), "is no khook: HTTP 404"),
        ("/status.json", lambda _: web.Response(body=b"\xff<html>"), "is no khook of this version"),
        ("/status.json", lambda _: web.json_response({"leading": "yes"}), "is no khook of this version"),
    ],
)
def test_somebody_else_who_listens_is_told_as_such(
    path: str, handler: Callable[[web.Request], web.Response], words: str
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return handler(request)

    async def main() -> None:
        app = web.Application()
        app.router.add_get(path, answer)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0).start()
            with pytest.raises(KhookError, match=words):
                await asyncio.to_thread(ask, Address(LOOPBACK, runner.addresses[0][1]))
        finally:
            await runner.cleanup()

    asyncio.run(main())
