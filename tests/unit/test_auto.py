"""Which protocol an address speaks: what decides it, what decides nothing, and what is asked how often."""

import asyncio

import httpx
import orjson
import pytest
from support.kagent_recorded import recorded

from khook.agents.a2a import A2aProtocol
from khook.agents.auto import A2A, AUTO, EXECUTE, Protocols, Undecided
from khook.agents.exchange import Exchange
from khook.agents.execute import ExecuteProtocol
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.kagent import ANY_AGENT, Fault, FaultKind, Kagent, Speaks, Step
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.virtual_time import VirtualClock, run

URL = "http://kagent:8083"
VERSION = {"kagent_version": "0.10.4", "git_commit": "x", "build_date": "y"}


class Answering(httpx.AsyncBaseTransport):
    def __init__(self, *then: httpx.Response | Exception) -> None:
        self.then = list(then)
        self.seen: list[httpx.Request] = []
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        await asyncio.sleep(0.1)
        then = self.then.pop(0) if len(self.then) > 1 else self.then[0]
        if isinstance(then, Exception):
            raise then
        return then

    async def aclose(self) -> None:
        self.closed += 1


def status(code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(code, headers=headers, stream=httpx.ByteStream(body))


def protocols(transport: httpx.AsyncBaseTransport, *, fixed: str = AUTO) -> Protocols:
    clock = VirtualClock()
    return Protocols(
        (
            A2aProtocol(base_url=URL, user_id="u", api_key="key", transport=transport, clock=clock),
            ExecuteProtocol(base_url=URL, api_key="key", transport=transport, clock=clock),
        ),
        fixed=fixed,
        version=Exchange(base_url=URL, api_key="key", transport=transport, clock=clock, read_timeout_s=30),
    )


def named(choice: object) -> str | None:
    return None if isinstance(choice, Undecided) else getattr(choice, "name", "?")


def choose(*then: httpx.Response | Exception) -> object:
    async def main() -> object:
        return await protocols(Answering(*then)).choose()

    return run(main())


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (status(200, orjson.dumps(VERSION)), A2A),
        (status(200, b'{"kagent_version": ""}'), EXECUTE),
        (status(200, b"{}"), EXECUTE),
        (status(200, b"<html>"), EXECUTE),
        (status(204), EXECUTE),
        (status(404, b"404 page not found\n"), EXECUTE),
        (status(301, headers={"location": "/"}), None),
        (status(400), None),
        (status(401), None),
        (status(403), None),
        (status(429, headers={"retry-after": "3"}), None),
        (status(500), None),
        (status(502), None),
        (status(503), None),
        (httpx.ConnectError("refused"), None),
        (httpx.ConnectTimeout(""), None),
        (httpx.ReadTimeout(""), None),
        (httpx.ReadError(""), None),
    ],
)
def test_a_version_decides_and_an_outage_decides_nothing(
    then: httpx.Response | Exception, expected: str | None
) -> None:
    assert named(choose(then)) == expected


def test_half_an_answer_decides_nothing() -> None:
    class Breaking(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            yield b'{"kag'
            raise httpx.ReadError("cut")

    assert named(choose(httpx.Response(200, stream=Breaking()))) is None


def test_what_keeps_the_version_from_being_known_is_told() -> None:
    refused = choose(httpx.ConnectError("10.0.0.9 refused"))
    assert refused == Undecided(error="kagent's version could not be asked: no connection")
    busy = choose(status(429, b"k3y", headers={"retry-after": "3"}))
    assert busy == Undecided(error="kagent's version could not be asked: HTTP 429", retry_after_s=3.0)
    locked = choose(status(401))
    assert isinstance(locked, Undecided)
    assert locked.unauthorized


def test_it_is_asked_until_it_is_known_and_then_no_more() -> None:
    async def main() -> tuple[list[str | None], int]:
        transport = Answering(httpx.ConnectError(""), status(503), status(200, orjson.dumps(VERSION)), status(404))
        choosing = protocols(transport)
        return [named(await choosing.choose()) for _ in range(6)], len(transport.seen)

    names, asked = run(main())
    assert names == [None, None, A2A, A2A, A2A, A2A]
    assert asked == 3


def test_many_calls_at_once_ask_once_and_none_takes_the_answer_from_the_others() -> None:
    async def main() -> tuple[list[object], int]:
        transport = Answering(status(200, orjson.dumps(VERSION)))
        choosing = protocols(transport)
        asking = [asyncio.create_task(choosing.choose()) for _ in range(64)]
        await asyncio.sleep(0)
        asking[0].cancel()
        names = [named(choice) for choice in await asyncio.gather(*asking[1:])]
        return list(names), len(transport.seen)

    names, asked = run(main())
    assert (set(names), asked) == ({A2A}, 1)


DOUBTS: list[tuple[httpx.Response, str | None, str]] = [
    (status(404), EXECUTE, EXECUTE),
    (status(200, orjson.dumps(VERSION)), A2A, A2A),
    (status(503), None, EXECUTE),
]


@pytest.mark.parametrize(("then", "again", "known"), DOUBTS)
def test_an_unknown_agent_makes_execute_doubtful_once(then: httpx.Response, again: str | None, known: str) -> None:
    async def main() -> tuple[str | None, str | None, int]:
        transport = Answering(status(404), then)
        choosing = protocols(transport)
        first = await choosing.choose()
        assert not isinstance(first, Undecided)
        doubted = named(await choosing.doubt(first))
        return doubted, named(await choosing.choose()), len(transport.seen)

    assert run(main()) == (again, known, 2)


def test_a_kagent_is_not_doubted_nor_what_the_user_set() -> None:
    async def main() -> int:
        transport = Answering(status(200, orjson.dumps(VERSION)))
        choosing = protocols(transport)
        kagent = await choosing.choose()
        assert not isinstance(kagent, Undecided)
        assert await choosing.doubt(kagent) is kagent
        for fixed in (A2A, EXECUTE):
            set_by_user = protocols(transport, fixed=fixed)
            chosen = await set_by_user.choose()
            assert named(chosen) == named(set_by_user.known) == fixed
            assert not isinstance(chosen, Undecided)
            assert await set_by_user.doubt(chosen) is chosen
        return len(transport.seen)

    assert run(main()) == 1


def test_a_claim_finds_its_own_protocol_whatever_is_spoken_now() -> None:
    async def main() -> list[str | None]:
        choosing = protocols(Answering(status(200, orjson.dumps(VERSION))))
        await choosing.choose()
        return [getattr(choosing.named(name), "name", None) for name in (EXECUTE, A2A, "grpc")]

    assert run(main()) == [EXECUTE, A2A, None]


def test_a_replaced_key_reaches_all_and_all_are_closed() -> None:
    async def main() -> tuple[str, int]:
        transport = Answering(status(401))
        choosing = protocols(transport)
        choosing.replace_key("new")
        await choosing.choose()
        await choosing.aclose()
        return transport.seen[0].headers["authorization"], transport.closed

    assert run(main()) == ("Bearer new", 3)


def test_a_recorded_health_answer_is_no_version() -> None:
    assert named(choose(recorded("health").response())) == EXECUTE


@pytest.mark.parametrize(("speaks", "expected"), [(Speaks.EXECUTE, EXECUTE), (Speaks.A2A, A2A), (Speaks.BOTH, A2A)])
def test_the_embedded_server_is_told_apart(speaks: Speaks, expected: str) -> None:
    async def main() -> list[str | None]:
        kagent = Kagent(api_key="key", speaks=speaks)
        kagent.set_faults(ANY_AGENT, [Fault(kind=FaultKind.REFUSE, on=Step.VERSION, times=1)])
        transports = InMemoryTransports({URL: KagentService(kagent, clock=VirtualClock())})
        choosing = protocols(transports.exact(tls=None))
        return [named(await choosing.choose()) for _ in range(2)]

    names = run(main())
    assert names == ([EXECUTE, EXECUTE] if speaks is Speaks.EXECUTE else [None, expected])
