"""The `execute` protocol: what every symptom means, seen through a scripted transport and through real sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.agents.exchange import MAX_ANSWER_BYTES
from khook.agents.execute import MATRIX, ExecuteProtocol, Symptom, encode
from khook.agents.outcome import AgentRequest, Context, Finding, Outcome, OutcomeKind, OutcomeReason, Progress, Working
from khook.sandbox.virtual_time import START, VirtualClock, run
from khook.seams import SystemClock

KEY = "s3cret-key"
REQUEST = AgentRequest(
    call_id="0b3c1a52-5f0e-4a4e-9d0e-0c7b3d2f1a10",
    agent="kagent/incident-responder",
    agent_id="incident-responder",
    prompt="A pod has restarted.",
    context=Context(
        event_name="pod-restart",
        event_time=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        resource_name="my-app-pod-123",
        namespace="production",
        event_message="Container my-app in pod my-app-pod-123 restarted; password=hunter2",
    ),
    hook="production/monitoring",
)
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class Scripted(httpx.AsyncBaseTransport):
    """Answers with what it was told to, after it has told the tracer that the request is out (unless told not to)."""

    def __init__(self, then: httpx.Response | Exception, *, written: bool = True) -> None:
        self.then = then
        self.written = written
        self.seen: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        if self.written:
            await request.extensions["trace"]("http11.send_request_body.complete", {})
        if isinstance(self.then, Exception):
            raise self.then
        return self.then


def attempt(transport: Scripted, *, request: AgentRequest = REQUEST, base_url: str = "http://agents:8083") -> Outcome:
    async def main() -> Outcome:
        protocol = ExecuteProtocol(base_url=base_url, api_key=KEY, transport=transport, clock=VirtualClock())
        try:
            return await protocol.call(request, Progress())
        finally:
            await protocol.aclose()

    return run(main())


def test_an_answer_that_a_transport_gives_whole_is_read_too() -> None:
    outcome = attempt(Scripted(httpx.Response(200, content=b'{"result": "two\nlines"}'.replace(b"\n", b"\\n"))))
    assert (outcome.kind, outcome.result) == (OutcomeKind.COMPLETED, "two lines")


def status(code: int, *, headers: dict[str, str] | None = None, body: bytes = b"") -> httpx.Response:
    return httpx.Response(code, headers=headers, stream=httpx.ByteStream(body))


A = OutcomeKind
ROWS: list[tuple[Symptom, httpx.Response | Exception, bool, OutcomeKind, OutcomeReason]] = [
    (Symptom.STATUS_2XX, status(200), True, A.COMPLETED, OutcomeReason.ANSWERED),
    (Symptom.STATUS_2XX, status(202), True, A.COMPLETED, OutcomeReason.ANSWERED),
    (Symptom.STATUS_3XX, status(307, headers={"location": "http://evil/"}), True, A.REJECTED, OutcomeReason.REDIRECTED),
    (Symptom.STATUS_401, status(401), True, A.UNAUTHORIZED, OutcomeReason.BAD_KEY),
    (Symptom.STATUS_403, status(403), True, A.UNAUTHORIZED, OutcomeReason.BAD_KEY),
    (Symptom.STATUS_404, status(404), True, A.NOT_FOUND, OutcomeReason.AGENT_NOT_FOUND),
    (Symptom.STATUS_429, status(429), True, A.RETRY_AFTER, OutcomeReason.THROTTLED),
    (Symptom.STATUS_4XX, status(400), True, A.REJECTED, OutcomeReason.BAD_REQUEST),
    (Symptom.STATUS_4XX, status(422), True, A.REJECTED, OutcomeReason.BAD_REQUEST),
    (Symptom.STATUS_504_WRITTEN, status(504), True, A.ACCEPTED, OutcomeReason.NO_ANSWER),
    (Symptom.STATUS_5XX, status(504), False, A.RETRY, OutcomeReason.SERVER_ERROR),
    (Symptom.STATUS_5XX, status(500), True, A.RETRY, OutcomeReason.SERVER_ERROR),
    (Symptom.STATUS_5XX, status(502), True, A.RETRY, OutcomeReason.SERVER_ERROR),
    (Symptom.STATUS_5XX, status(503), True, A.RETRY, OutcomeReason.SERVER_ERROR),
    (Symptom.STATUS_ODD, status(999), True, A.RETRY, OutcomeReason.SERVER_ERROR),
    (Symptom.NO_SLOT, httpx.PoolTimeout(""), False, A.RETRY, OutcomeReason.NO_SLOT),
    (Symptom.NO_CONNECTION, httpx.ConnectError(""), False, A.RETRY, OutcomeReason.UNREACHABLE),
    (Symptom.CONNECT_TIMEOUT, httpx.ConnectTimeout(""), False, A.RETRY, OutcomeReason.TIMEOUT),
    (Symptom.WRITE_TIMEOUT, httpx.WriteTimeout(""), False, A.RETRY, OutcomeReason.TIMEOUT),
    (Symptom.READ_TIMEOUT, httpx.ReadTimeout(""), False, A.RETRY, OutcomeReason.TIMEOUT),
    (Symptom.READ_TIMEOUT_WRITTEN, httpx.ReadTimeout(""), True, A.ACCEPTED, OutcomeReason.NO_ANSWER),
    (Symptom.BROKEN, httpx.ReadError(""), True, A.RETRY, OutcomeReason.RESET),
    (Symptom.BROKEN, httpx.RemoteProtocolError(""), True, A.RETRY, OutcomeReason.RESET),
    (Symptom.BROKEN, httpx.WriteError(""), False, A.RETRY, OutcomeReason.RESET),
    (Symptom.UNSENDABLE, httpx.LocalProtocolError(KEY), False, A.REJECTED, OutcomeReason.BAD_REQUEST),
]


@pytest.mark.parametrize(("symptom", "then", "written", "kind", "reason"), ROWS)
def test_each_symptom_means_what_its_row_says(
    symptom: Symptom, then: httpx.Response | Exception, written: bool, kind: OutcomeKind, reason: OutcomeReason
) -> None:
    transport = Scripted(then, written=written)
    outcome = attempt(transport)
    assert (kind, reason) == (outcome.kind, outcome.reason)
    assert outcome.status == (then.status_code if isinstance(then, httpx.Response) else 0)
    assert (outcome.error == "") == (reason is OutcomeReason.ANSWERED)
    assert len(transport.seen) == 1, "one attempt, never a retry"
    assert MATRIX[symptom][:2] == (kind, reason)


def test_every_row_of_the_matrix_has_a_case() -> None:
    seen_elsewhere = {Symptom.BAD_NAME, Symptom.NO_RUN}
    assert {row[0] for row in ROWS} | seen_elsewhere == set(Symptom) == set(MATRIX)


def test_the_request_is_the_seeds_to_the_byte() -> None:
    transport = Scripted(status(200))
    attempt(transport, base_url="https://agents.example/api/")
    (sent,) = transport.seen
    assert sent.method == "POST"
    assert str(sent.url) == "https://agents.example/api/v1/agents/incident-responder/execute"
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.headers["idempotency-key"] == REQUEST.call_id
    assert sent.headers["content-type"] == "application/json"
    assert sent.content == (
        b'{"agentId":"incident-responder","prompt":"A pod has restarted.","context":{"eventName":"pod-restart",'
        b'"eventTime":"2024-01-15T10:30:00Z","resourceName":"my-app-pod-123","namespace":"production",'
        b'"eventMessage":"Container my-app in pod my-app-pod-123 restarted; password=hunter2"}}'
    )
    assert encode(REQUEST) == sent.content


def test_the_timeouts_are_our_own() -> None:
    transport = Scripted(status(200))
    attempt(transport)
    assert transport.seen[0].extensions["timeout"] == {"connect": 5.0, "write": 10.0, "read": 30.0, "pool": 1.0}


@pytest.mark.parametrize(
    ("agent_id", "path"),
    [("ops/k8s-agent", b"/v1/agents/ops%2Fk8s-agent/execute"), ("a b?c#d", b"/v1/agents/a%20b%3Fc%23d/execute")],
)
def test_an_agents_name_is_one_segment_of_the_path(agent_id: str, path: bytes) -> None:
    transport = Scripted(status(200))
    attempt(transport, request=replace(REQUEST, agent_id=agent_id))
    assert transport.seen[0].url.raw_path == path


@pytest.mark.parametrize("agent_id", ["", ".", "..", "kagent/..", "/x"])
def test_an_agents_name_cannot_climb_out_of_the_path(agent_id: str) -> None:
    transport = Scripted(status(200))
    outcome = attempt(transport, request=replace(REQUEST, agent_id=agent_id))
    assert (outcome.kind, transport.seen) == (OutcomeKind.REJECTED, [])


@pytest.mark.parametrize(
    ("headers", "body", "expected_s"),
    [
        ({"retry-after": "7"}, b"", 7.0),
        ({"retry-after": format_datetime(START + timedelta(seconds=42), usegmt=True)}, b"", 42.0),
        ({"retry-after": format_datetime(START - timedelta(seconds=42), usegmt=True)}, b"", 0.0),
        ({"retry-after": "7"}, b'{"retry_after": 9}', 7.0),
        ({}, b'{"retry_after": 2.5}', 2.5),
        ({}, b'{"retry_after": "3"}', 3.0),
        ({}, b'{"retry_after": -3}', 0.0),
        ({"retry-after": "99999999"}, b"", 900.0),
        ({"retry-after": "soon"}, b'{"retry_after": true}', None),
        ({}, b'["retry_after"]', None),
        ({}, b"", None),
    ],
)
def test_the_wait_that_a_busy_agent_asks_for_is_read(
    headers: dict[str, str], body: bytes, expected_s: float | None
) -> None:
    for code in (429, 503):
        assert attempt(Scripted(status(code, headers=headers, body=body))).retry_after_s == expected_s


@given(header=st.text(st.characters(codec="latin-1", categories=["L", "N", "P", "Z"])), body=st.binary(max_size=64))
def test_any_answer_gives_an_outcome(header: str, body: bytes) -> None:
    raw = [(b"retry-after", header.encode("latin-1"))]
    for code in (200, 429):
        outcome = attempt(Scripted(httpx.Response(code, headers=raw, stream=httpx.ByteStream(body))))
        assert outcome.kind is (OutcomeKind.COMPLETED if code == 200 else OutcomeKind.RETRY_AFTER)
        assert len(outcome.result.encode()) <= 1024


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"result": "restart it", "id": 1}', "restart it"),
        (b'{"response": "more memory"}', "more memory"),
        (b'{"status": "queued"}', '{"status": "queued"}'),
        (b"plain words\n", "plain words"),
        (b'{"result": "\\u001b[31mred\\u202e\\u0000"}', "red"),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (orjson.dumps({"result": "ü" * 600}), "ü" * 512),
        (b"a" + "€".encode() * 600, "a" + "€" * 341),
    ],
)
def test_a_kibibyte_of_the_answer_is_kept_as_text(body: bytes, result: str) -> None:
    assert attempt(Scripted(status(200, body=body))).result == result


def test_a_compressed_answer_is_not_unpacked() -> None:
    outcome = attempt(Scripted(status(200, headers={"content-encoding": "gzip"}, body=b"\x1f\x8b")))
    assert (outcome.kind, outcome.result) == (OutcomeKind.COMPLETED, "")


class Dripping(httpx.AsyncByteStream):
    """`chunk` every `every_s` for ever, or until closed; counts what was taken."""

    def __init__(self, chunk: bytes, every_s: float) -> None:
        self.chunk, self.every_s = chunk, every_s
        self.taken_bytes = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self.every_s)
            self.taken_bytes += len(self.chunk)
            yield self.chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("chunk", "every_s", "at_most_bytes"), [(b"x" * 65536, 0.001, MAX_ANSWER_BYTES), (b"x", 1, 30)]
)
def test_an_endless_answer_is_cut_by_size_and_by_time(chunk: bytes, every_s: float, at_most_bytes: int) -> None:
    stream = Dripping(chunk, every_s)
    outcome = attempt(Scripted(httpx.Response(200, stream=stream)))
    assert (outcome.kind, stream.closed) == (OutcomeKind.COMPLETED, True)
    assert stream.taken_bytes <= at_most_bytes


class Breaking(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"half of"
        raise httpx.ReadError("cut")


@pytest.mark.parametrize(("code", "kind"), [(200, OutcomeKind.COMPLETED), (500, OutcomeKind.RETRY)])
def test_the_status_decides_even_when_the_body_breaks(code: int, kind: OutcomeKind) -> None:
    outcome = attempt(Scripted(httpx.Response(code, stream=Breaking())))
    assert (outcome.kind, outcome.result) == (kind, "")


@pytest.mark.parametrize("then", [row[1] for row in ROWS])
def test_no_error_text_tells_a_secret_or_the_event(then: httpx.Response | Exception) -> None:
    """The peer echoes everything it was sent, key and event text and all."""
    echo = KEY.encode() + encode(REQUEST)
    then = status(then.status_code, body=echo) if isinstance(then, httpx.Response) else type(then)(echo.decode())
    outcome = attempt(Scripted(then), request=replace(REQUEST, agent="n/" + "a" * 300))
    assert len(outcome.error) <= 256
    for secret in (KEY, "hunter2", REQUEST.prompt):
        assert secret not in outcome.error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ssl.SSLCertVerificationError("self-signed"), "the server's certificate is not trusted (see KAGENT_CA_FILE)"),
        (ssl.SSLError("wrong version"), "TLS failed"),
        (socket.gaierror(-2, "Name or service not known"), "host name not found"),
        (ExceptionGroup("both addresses", [ConnectionRefusedError(), ConnectionRefusedError()]), "refused"),
    ],
)
def test_a_connection_that_was_not_made_says_what_to_mend(cause: Exception, words: str) -> None:
    error = httpx.ConnectError("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = cause
    outcome = attempt(Scripted(error, written=False))
    assert outcome.error == f"agent kagent/incident-responder: no connection: {words}"


def test_execute_cannot_be_asked_and_has_no_run_to_follow() -> None:
    async def main() -> tuple[Outcome | Finding, Outcome | Working]:
        transport = Scripted(AssertionError("it must not send"))
        protocol = ExecuteProtocol(base_url="http://a", api_key=KEY, transport=transport, clock=VirtualClock())
        return await protocol.reconcile(REQUEST), await protocol.poll(REQUEST, "t1")

    found, polled = run(main())
    assert found is Finding.CANNOT_BE_ASKED
    assert isinstance(polled, Outcome)
    assert polled.kind is OutcomeKind.RUN_LOST


def test_a_replaced_key_is_what_the_next_request_carries_and_without_one_nothing_is_sent() -> None:
    async def main() -> tuple[list[str | None], Outcome]:
        transport = Scripted(status(200))
        protocol = ExecuteProtocol(base_url="http://a", api_key=KEY, transport=transport, clock=VirtualClock())
        for key in ("new", ""):
            await protocol.call(REQUEST, Progress())
            protocol.replace_key(key)
        outcome = await protocol.call(REQUEST, Progress())
        return [sent.headers.get("authorization") for sent in transport.seen], outcome

    sent, outcome = run(main())
    assert sent == [f"Bearer {KEY}", "Bearer new"]
    assert (outcome.kind, outcome.reason) == (OutcomeKind.UNAUTHORIZED, OutcomeReason.BAD_KEY)


# --- real sockets -----------------------------------------------------------------------------------------------

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def agent(script: Script) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A loopback server that reads one request whole and then does what the script says, for each connection."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            bodies.append(await reader.readexactly(length))
            await script(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", bodies


async def over_sockets(base_url: str, progress: Progress, *, read_timeout_s: float = 5.0) -> Outcome:
    protocol = ExecuteProtocol(
        base_url=base_url,
        api_key=KEY,
        transport=httpx.AsyncHTTPTransport(),
        clock=SystemClock(),
        read_timeout_s=read_timeout_s,
    )
    try:
        return await protocol.call(REQUEST, progress)
    finally:
        await protocol.aclose()


async def _answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"result":"ok"}')
    await writer.drain()


async def _say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _hang_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    return


async def _reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


async def _garbage(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
    await writer.drain()


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (_answer, OutcomeKind.COMPLETED, OutcomeReason.ANSWERED),
        (_say_nothing, OutcomeKind.ACCEPTED, OutcomeReason.NO_ANSWER),
        (_hang_up, OutcomeKind.RETRY, OutcomeReason.RESET),
        (_reset, OutcomeKind.RETRY, OutcomeReason.RESET),
        (_garbage, OutcomeKind.RETRY, OutcomeReason.RESET),
    ],
)
def test_over_a_real_socket_the_end_of_a_sent_request_is_told_apart(
    script: Script, kind: OutcomeKind, reason: OutcomeReason
) -> None:
    async def main() -> tuple[Outcome, Progress, list[bytes]]:
        progress = Progress()
        async with agent(script) as (base_url, bodies):
            outcome = await over_sockets(base_url, progress, read_timeout_s=0.1 if script is _say_nothing else 5.0)
        return outcome, progress, bodies

    outcome, progress, bodies = asyncio.run(main())
    assert (kind, reason) == (outcome.kind, outcome.reason)
    assert progress.written
    assert bodies == [encode(REQUEST)], "sent once"


def test_a_refused_connection_was_not_written_and_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else can take it
        progress = Progress()
        outcome = asyncio.run(over_sockets(f"http://127.0.0.1:{taken.getsockname()[1]}", progress))
    assert (outcome.kind, outcome.reason) == (OutcomeKind.RETRY, OutcomeReason.UNREACHABLE)
    assert outcome.error == "agent kagent/incident-responder: no connection: refused"
    assert not progress.written


def test_a_draining_worker_sees_that_the_request_is_out_while_it_waits() -> None:
    async def main() -> tuple[bool, bool, Outcome]:
        progress, received, go = Progress(), asyncio.Event(), asyncio.Event()

        async def wait_then_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set()
            await go.wait()
            await _answer(reader, writer)

        async with agent(wait_then_answer) as (base_url, _):
            call = asyncio.create_task(over_sockets(base_url, progress))
            before = progress.written
            await received.wait()
            while_waiting = progress.written
            go.set()
            return before, while_waiting, await call

    before, while_waiting, outcome = asyncio.run(main())
    assert (before, while_waiting, outcome.result) == (False, True, "ok")


def test_a_full_pool_fails_the_attempt_before_anything_is_sent() -> None:
    """Our 64 calls fit the transport's connections; this is what a smaller pool would do."""

    async def main() -> tuple[Outcome, Progress]:
        release = asyncio.Event()

        async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            await _answer(reader, writer)

        async with agent(busy) as (base_url, bodies):
            transport = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=1))
            protocol = ExecuteProtocol(base_url=base_url, api_key=KEY, transport=transport, clock=SystemClock())
            first = asyncio.create_task(protocol.call(REQUEST, Progress()))
            while not bodies:
                await asyncio.sleep(0)
            progress = Progress()
            outcome = await protocol.call(REQUEST, progress)
            release.set()
            assert (await first).kind is OutcomeKind.COMPLETED
            await protocol.aclose()
            return outcome, progress

    outcome, progress = asyncio.run(main())
    assert (outcome.kind, outcome.reason, progress.written) == (OutcomeKind.RETRY, OutcomeReason.NO_SLOT, False)
