"""The client: what each answer means, credentials, the server's clock. Over httpx's mock transport."""

import asyncio
import io
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from khook import log
from khook.core.signal import PodLine
from khook.errors import Conflict, Forbidden, Gone, Invalid, KubeError, NotFound, Throttled, Unauthorized, Unavailable
from khook.kube import client as client_module
from khook.kube import credentials as kube_credentials
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.resources import PODS
from khook.sandbox import virtual_time
from khook.sandbox.virtual_time import START, VirtualClock

Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]
SECRET = "s3cr3t-t0ken"


class MockTransports:
    """Both transports are one function; `made` counts the pairs."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.made = 0
        self.closed = 0

    def streaming(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        self.made += 1
        return self._transport()

    def exact(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        return self._transport()

    def _transport(self) -> httpx.AsyncBaseTransport:
        mock = self

        class Closing(httpx.MockTransport):
            async def aclose(self) -> None:
                mock.closed += 1

        return Closing(self._answer)


def client_of(
    answer: Answer,
    *,
    credentials: Credentials | None = None,
    fresh: Callable[[], Awaitable[Credentials | None]] | None = None,
    transports: MockTransports | None = None,
) -> KubeClient:
    return KubeClient(
        credentials=credentials or Credentials(server="http://api", token=SECRET),
        transports=transports or MockTransports(answer),
        clock=VirtualClock(),
        fresh=fresh,
    )


def always(response: httpx.Response) -> Answer:
    async def answer(request: httpx.Request) -> httpx.Response:
        return response

    return answer


def status_body(code: int, **details: object) -> dict[str, object]:
    return {"kind": "Status", "code": code, "message": "the server's words", "details": details}


def error_of(response: httpx.Response | Exception) -> KubeError:
    async def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    async def world() -> KubeError:
        with pytest.raises(KubeError) as caught:
            await client_of(answer).get("/api/v1/pods")
        return caught.value

    return virtual_time.run(world())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (301, Unavailable),
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (405, Invalid),
        (408, Unavailable),
        (409, Conflict),
        (410, Gone),
        (413, Invalid),
        (422, Invalid),
        (429, Throttled),
        (500, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_each_status_is_one_decision(code: int, kind: type[KubeError]) -> None:
    error = error_of(httpx.Response(code, json=status_body(code)))
    assert (kind, code) == (type(error), error.status)
    assert "the server's words" in str(error)


def test_a_name_too_long_for_any_url_is_invalid() -> None:
    client = client_of(always(httpx.Response(200)))
    with pytest.raises(Invalid, match="too long"):
        virtual_time.run(client.get_object(PODS, "shop", "n" * 200_000, PodLine))


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
        httpx.PoolTimeout(""),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError("garbage"),
        ssl.SSLCertVerificationError("self-signed"),
        OSError("no route"),
    ],
)
def test_no_answer_is_unavailable(failure: Exception) -> None:
    error = error_of(failure)
    assert (Unavailable, 0) == (type(error), error.status)


@pytest.mark.parametrize(
    ("code", "headers", "details", "expected_s"),
    [
        (429, {}, {}, 1.0),
        (429, {"Retry-After": "7"}, {}, 7.0),
        (503, {"Retry-After": "7"}, {}, 7.0),
        (429, {"Retry-After": "86400"}, {}, 30.0),
        (429, {"Retry-After": "Mon, 15 Jan 2024 10:30:12 GMT"}, {}, 12.0),
        (429, {"Retry-After": "Mon, 15 Jan 2024 09:00:00 GMT"}, {}, 0.0),
        (429, {"Retry-After": "soon"}, {}, 1.0),
        (429, {}, {"retryAfterSeconds": 3}, 3.0),
        (503, {}, {"retryAfterSeconds": 3}, 3.0),
    ],
)
def test_retry_after_is_obeyed_within_bounds(
    code: int, headers: dict[str, str], details: dict[str, object], expected_s: float
) -> None:
    error = error_of(httpx.Response(code, headers=headers, json=status_body(code, **details)))
    assert isinstance(error, Throttled)
    assert expected_s == error.retry_after_s


def test_a_text_answer_is_an_error_like_any_other() -> None:
    error = error_of(httpx.Response(404, text="404 page not found"))
    assert isinstance(error, NotFound)
    assert str(error) == "404 page not found"


def test_a_redirect_is_not_followed() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "api"
        return httpx.Response(307, headers={"Location": "http://elsewhere/"})

    async def world() -> None:
        with pytest.raises(Unavailable):
            await client_of(answer).get("/api/v1/pods")

    virtual_time.run(world())


def test_a_body_over_the_limit_is_not_read_on() -> None:
    async def world() -> None:
        client = client_of(always(httpx.Response(200, content=b"x" * 2048)))
        with pytest.raises(Invalid, match="larger than 1024 bytes"):
            await client.get("/api/v1/pods", limit_bytes=1024)

    virtual_time.run(world())


def test_a_read_that_drips_for_ever_ends() -> None:
    class Dripping(httpx.AsyncByteStream):
        async def __aiter__(self):  # type: ignore[no-untyped-def]
            while True:
                await asyncio.sleep(20)
                yield b" "

    async def world() -> float:
        with pytest.raises(Unavailable):
            await client_of(always(httpx.Response(200, stream=Dripping()))).get("/api/v1/pods")
        return VirtualClock().monotonic()

    assert virtual_time.run(world()) == client_module.WHOLE_READ_S


def test_every_request_says_who_asks_and_how_long_it_waits() -> None:
    asked: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={})

    async def world() -> None:
        client = client_of(answer, credentials=Credentials(server="http://api/clusters/a/", token="abc"))
        await client.get("/api/v1/pods", params={"fieldSelector": "reason!=Pulled"})
        await client.patch("/apis/x", {"a": 1})

    virtual_time.run(world())
    get, patch = asked
    assert get.url.path == "/clusters/a/api/v1/pods"
    assert dict(get.url.params) == {"fieldSelector": "reason!=Pulled"}
    assert get.headers["authorization"] == "Bearer abc"
    assert get.headers["user-agent"].startswith("khook/")
    assert get.extensions["timeout"] == {"connect": 5.0, "write": 10.0, "read": 30.0, "pool": 5.0}
    assert patch.headers["content-type"] == "application/merge-patch+json"


def test_an_object_that_is_none_is_invalid() -> None:
    async def world() -> None:
        client = client_of(always(httpx.Response(200, json={"metadata": {}})))
        with pytest.raises(Invalid, match="not a PodLine"):
            await client.get_object(PODS, "ns", "pod", PodLine)

    virtual_time.run(world())


def test_a_cancelled_writer_does_not_cancel_its_write() -> None:
    arrived: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(2)
        arrived.append(request.method)
        return httpx.Response(500)

    async def world() -> None:
        client = client_of(answer)
        writer = asyncio.ensure_future(client.patch("/x", {}))
        await asyncio.sleep(1)
        writer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writer
        assert arrived == []
        await client.aclose()

    virtual_time.run(world())
    assert arrived == ["PATCH"]


# Credentials


def accepting(token: str, asked: list[str]) -> Answer:
    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.headers.get("authorization") != f"Bearer {token}":
            return httpx.Response(401, json=status_body(401))
        return httpx.Response(200, json={})

    return answer


def test_a_refused_read_is_asked_again_with_fresh_credentials_fetched_once_for_all() -> None:
    asked: list[str] = []
    fetched: list[float] = []

    async def fresh() -> Credentials:
        await asyncio.sleep(1)
        fetched.append(1)
        return Credentials(server="http://api", token="new")

    async def world() -> None:
        client = client_of(accepting("new", asked), fresh=fresh)
        await asyncio.gather(*(client.get("/api/v1/pods") for _ in range(10)))

    virtual_time.run(world())
    assert (len(asked), len(fetched)) == (20, 1)


def test_where_there_are_no_fresh_credentials_the_401_stands_and_nobody_is_asked_all_the_time() -> None:
    asked: list[str] = []
    fetched: list[float] = []

    async def fresh() -> None:
        fetched.append(1)

    async def world() -> None:
        client = client_of(accepting("other", asked), fresh=fresh)
        for _ in range(10):
            with pytest.raises(Unauthorized):
                await client.get("/api/v1/pods")
        await asyncio.sleep(6)
        with pytest.raises(Unauthorized):
            await client.get("/api/v1/pods")

    virtual_time.run(world())
    assert (len(asked), len(fetched)) == (11, 2)


def test_a_refused_write_fetches_fresh_credentials_but_leaves_repeating_to_its_caller() -> None:
    asked: list[str] = []

    async def fresh() -> Credentials:
        return Credentials(server="http://api", token="new")

    async def world() -> None:
        client = client_of(accepting("new", asked), fresh=fresh)
        with pytest.raises(Unauthorized):
            await client.create("/x", {})
        await client.create("/x", {})

    virtual_time.run(world())
    assert asked == ["POST", "POST"]


def test_every_token_in_use_is_hidden_from_the_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream=stream, strict=True)
    (tmp_path / "token").write_text("token-of-a-file")
    credentials = Credentials(server="http://api", token=SECRET)

    async def main() -> None:
        client = client_of(always(httpx.Response(200, json={})), credentials=credentials)
        client.replace(Credentials(server="http://api", token="another-token"))
        client.replace(Credentials(server="http://api", token_file=str(tmp_path / "token")))
        await client.get("/version")
        await client.aclose()

    virtual_time.run(main())
    log.get("test").info("seen", detail=f"{SECRET} another-token token-of-a-file")
    assert '"[redacted] [redacted] [redacted]"' in stream.getvalue()


def test_a_broken_header_is_not_quoted() -> None:
    error = error_of(httpx.LocalProtocolError(f"Illegal header value b'Bearer {SECRET}'"))
    assert str(error) == "GET /api/v1/pods: LocalProtocolError"
    assert error.__cause__ is None


def test_a_token_file_is_read_again_after_a_minute_and_at_once_after_a_401(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    used: list[str] = []
    accepted = {"first"}

    async def answer(request: httpx.Request) -> httpx.Response:
        used.append(request.headers["authorization"].removeprefix("Bearer "))
        return httpx.Response(200 if used[-1] in accepted else 401, json={})

    async def world() -> None:
        client = client_of(answer, credentials=Credentials(server="http://api", token_file=str(file)))
        await client.get("/x")
        file.write_text("second")
        await asyncio.sleep(59)
        await client.get("/x")
        accepted.add("second")
        await asyncio.sleep(1)
        await client.get("/x")
        file.write_text("third")
        accepted.clear()
        accepted.add("third")
        await client.get("/x")

    virtual_time.run(world())
    assert used == ["first", "first", "second", "second", "third"]


def test_another_certificate_moves_to_new_connections_once_the_old_ones_are_idle() -> None:
    started = asyncio.Event()
    go_on = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/slow":
            started.set()
            await go_on.wait()
        return httpx.Response(200, json={})

    async def world() -> None:
        transports = MockTransports(answer)
        client = client_of(answer, transports=transports)
        slow = asyncio.ensure_future(client.get("/slow"))
        await started.wait()
        client.replace(Credentials(server="http://api", token="other"))
        await client.get("/x")
        assert (transports.made, transports.closed) == (1, 0), "a token is no reason for new connections"
        client.replace(Credentials(server="https://api", token="other"))
        await client.get("/x")
        assert (transports.made, transports.closed) == (2, 0), "a request is still under way on the old ones"
        go_on.set()
        await slow
        assert transports.closed == 2

    virtual_time.run(world())


def test_secrets_show_in_no_repr_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    credentials = Credentials(
        server="http://api", token=SECRET, ca_pem="CA-" + SECRET, client_cert_pem=SECRET, client_key_pem=SECRET
    )
    error = error_of(httpx.ConnectError("refused"))
    assert SECRET not in f"{credentials!r} {error!r} {error.__cause__!r} {caplog.text}"
    assert credentials == kube_credentials.decode(kube_credentials.encode(credentials))


# The server's clock


def offset_after(*dates: datetime, took_s: float = 0.0) -> timedelta:
    remaining = list(dates)

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(took_s)
        return httpx.Response(200, headers={"Date": remaining.pop(0).strftime("%a, %d %b %Y %H:%M:%S GMT")}, json={})

    async def world() -> timedelta:
        client = client_of(answer)
        for _ in dates:
            await client.get("/x")
        return client.server_now() - VirtualClock().now()

    return virtual_time.run(world())


def test_clocks_that_agree_within_the_header_are_left_alone() -> None:
    assert timedelta(0) == offset_after(START)
    assert timedelta(0) == offset_after(START, took_s=0.9)


def test_a_clock_that_is_off_is_corrected_within_a_second() -> None:
    assert timedelta(hours=1) == offset_after(START + timedelta(hours=1))
    assert timedelta(hours=-1, seconds=1) == offset_after(START - timedelta(hours=1))


def test_one_lying_proxy_moves_nothing() -> None:
    right = [START] * 7
    assert timedelta(0) == offset_after(*right, datetime(1999, 1, 1, tzinfo=UTC))
