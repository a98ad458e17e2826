"""What the two transports promise, over real sockets: TLS both ways, no proxies, no cookies, exact errors."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import httpx
import pytest
from support.tls import CERTIFICATE, KEY, SERVER_NAME

from khook.errors import NotFound, Unavailable
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.resources import PODS
from khook.kube.transports import NetworkTransports
from khook.seams import SystemClock

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: route=a\r\n\r\n{}"


class Server:
    """Answers each request with `answers` in turn and keeps what it was sent; an empty answer hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.peers: list[dict[str, object]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.peers.append(writer.get_extra_info("peercert") or {})
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.split(b"\r\n") if line[:15] == b"Content-Length:"), 0)
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                writer.write(answer)
                if not answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def play(server: Server, test: Callable[[str], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[None]] = []
        listening = await asyncio.start_server(
            lambda reader, writer: tasks.append(asyncio.ensure_future(server.serve(reader, writer))),
            "127.0.0.1",
            0,
            ssl=tls,
        )
        try:
            await test(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        finally:
            listening.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def client_of(credentials: Credentials) -> KubeClient:
    return KubeClient(credentials=credentials, transports=NetworkTransports(), clock=SystemClock())


@pytest.fixture
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory = tmp_path_factory.mktemp("tls")
    (directory / "both.pem").write_text(KEY + CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "both.pem")
    context.load_verify_locations(cadata=CERTIFICATE)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def test_reads_and_writes_show_the_client_certificate_and_verify_the_servers_name(server_tls: ssl.SSLContext) -> None:
    server = Server(OK, OK)

    async def test(address: str) -> None:
        client = client_of(
            Credentials(
                server=f"https://{address}",
                ca_pem=CERTIFICATE,
                client_cert_pem=CERTIFICATE,
                client_key_pem=KEY,
                tls_server_name=SERVER_NAME,
            )
        )
        await client.get("/x")
        await client.patch("/x", {})
        await client.aclose()

    play(server, test, tls=server_tls)
    assert [next(iter(peer.items())) for peer in server.peers] == [("subject", ((("commonName", "khook tests"),),))] * 2


@pytest.mark.parametrize(
    ("ca_pem", "name"), [("", SERVER_NAME), (CERTIFICATE, "")], ids=["unknown-authority", "wrong-name"]
)
def test_a_server_that_is_not_who_it_should_be_is_unavailable_and_told_nothing(
    server_tls: ssl.SSLContext, ca_pem: str, name: str
) -> None:
    server = Server(OK, OK)

    async def test(address: str) -> None:
        client = client_of(
            Credentials(server=f"https://{address}", ca_pem=ca_pem, token="secret", tls_server_name=name)
        )
        with pytest.raises(Unavailable):
            await client.get("/x")
        with pytest.raises(Unavailable):
            await client.patch("/x", {})
        await client.aclose()

    play(server, test, tls=server_tls)
    assert server.requests == []


def test_proxies_of_the_environment_are_not_used_and_cookies_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    server = Server(OK, OK, OK, OK)

    async def test(address: str) -> None:
        client = client_of(Credentials(server=f"http://{address}"))
        for _ in range(2):
            await client.get("/x")
            await client.patch("/x", {})
        await client.aclose()

    play(server, test)
    assert len(server.requests) == 4
    assert server.connections == 2, "one for reads, one for writes, both kept alive"
    assert not any(b"cookie" in request.lower() for request in server.requests)


def test_a_write_that_was_read_and_not_answered_is_sent_once() -> None:
    server = Server(OK, b"", OK)

    async def test(address: str) -> None:
        client = client_of(Credentials(server=f"http://{address}"))
        await client.patch("/x", {"n": 1})
        with pytest.raises(Unavailable):
            await client.patch("/x", {"n": 2})
        await client.aclose()

    play(server, test)
    assert [request.split(b"\r\n\r\n")[1] for request in server.requests] == [b'{"n":1}', b'{"n":2}']


def test_exact_tells_refused_from_dropped_after_sending() -> None:
    server = Server(b"")

    async def test(address: str) -> None:
        transport = NetworkTransports().exact(tls=None)
        with pytest.raises(httpx.RemoteProtocolError):
            await transport.handle_async_request(httpx.Request("POST", f"http://{address}/"))
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(httpx.Request("POST", "http://127.0.0.1:1/"))
        await transport.aclose()

    play(server, test)


def test_names_and_selectors_arrive_as_they_were_written() -> None:
    server = Server(OK, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async def test(address: str) -> None:
        client = client_of(Credentials(server=f"http://{address}"))
        await client.get("/x", params={"fieldSelector": "a=b,c!=d", "continue": "to+ken/=="})
        with pytest.raises(NotFound):
            await client.get(PODS.path("na/me", "po?d"))
        await client.aclose()

    play(server, test)
    first, second = (request.split(b" ")[1].decode() for request in server.requests)
    assert dict(httpx.URL(first).params) == {"fieldSelector": "a=b,c!=d", "continue": "to+ken/=="}
    assert second == "/api/v1/namespaces/na%2Fme/pods/po%3Fd"
