"""The wires between simulated machines: in-memory requests that know who sends them and which link they take.

A request that has left arrives, whatever becomes of its sender meanwhile. A link may be black: nothing gets through,
nobody is told; what was open dies when somebody next relies on it. Every act that only an owner may do is written
down as it leaves, and a test of dying at just such a moment hooks in here.
"""

import asyncio
import itertools
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import httpx

from khook.sandbox.exchange import HangUp, Refuse, Request, Response, Service
from sim.history import Act, Stream
from sim.processes import Processes, outside

API: Final = "api"
AGENTS: Final = "agents"
CONNECT_S: Final = 5.0
KEPT_ALIVE_S: Final = 60.0
"""A connection that carries nothing for so long is broken by its keep-alive probes."""

_STATUS: Final = re.compile(r"^/apis/kagent\.dev/v1alpha2/namespaces/([^/]+)/hooks/([^/]+)/status$")
_WATCHED: Final = re.compile(r"/namespaces/([^/]+)/(pods|events)$")
_CONTEXT_ID: Final = re.compile(rb'"contextId":"([^"]+)"')


@dataclass(slots=True)
class Link:
    """One replica's way to the API server."""

    black: bool = False
    broken: int = 0
    """How often it was black for longer than an idle connection lives."""
    clear: asyncio.Event = field(default_factory=asyncio.Event)


class Network:
    def __init__(self, *, services: dict[str, Service], processes: Processes, latency: random.Random | None) -> None:
        self.services = services
        self.processes = processes
        self.latency = latency
        self.links: dict[str, Link] = {}
        self.acts: list[Act] = []
        self.numbers = itertools.count()
        self.streams: list[Stream] = []
        self.open_streams = 0
        self.slow_api = False
        """Some requests to the API server take long: they run on their own, like those of a real server."""
        self.on_act: Callable[[Act, bool], None] | None = None
        """Told of an act before it leaves (False) and after it was carried out (True)."""
        self._replies: dict[asyncio.Task[Response], None] = {}

    def link(self, replica: str) -> Link:
        link = self.links.setdefault(replica, Link())
        if not link.black:
            link.clear.set()
        return link

    def cut(self, replica: str) -> None:
        link = self.link(replica)
        link.black = True
        link.clear.clear()

    def mend(self, replica: str, *, after_s: float) -> None:
        link = self.link(replica)
        link.black = False
        link.broken += after_s >= KEPT_ALIVE_S
        link.clear.set()

    def transports(self, *, process: str, replica: str) -> "MachineTransports":
        return MachineTransports(self, process=process, replica=replica)

    async def answered(self, service: Service, request: Request, *, apart: bool) -> Response:
        if not apart:
            return await service.handle(request)
        with outside():
            task = asyncio.ensure_future(service.handle(request))
        self._replies[task] = None
        task.add_done_callback(self._seen)
        return await asyncio.shield(task)

    def _seen(self, task: "asyncio.Task[Response]") -> None:
        self._replies.pop(task, None)
        if not task.cancelled():
            task.exception()


class MachineTransports:
    """`khook.seams.Transports` of one process."""

    def __init__(self, network: Network, *, process: str, replica: str) -> None:
        self._network = network
        self._process = process
        self._replica = replica

    def streaming(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        return _Transport(self._network, process=self._process, replica=self._replica)

    def exact(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        return _Transport(self._network, process=self._process, replica=self._replica)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, network: Network, *, process: str, replica: str) -> None:
        self._network = network
        self._process = process
        self._link = network.link(replica)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        network, host = self._network, request.url.host
        self._alive(request)
        if host == API and self._link.black:
            await asyncio.sleep(CONNECT_S)
            raise httpx.ConnectTimeout("", request=request)
        incoming = _incoming(request)
        act = self._act(incoming, host)
        if act is not None:
            network.acts.append(act)
            self._tell(act, request, after=False)
        if network.latency is not None:
            await asyncio.sleep(network.latency.uniform(0.001, 0.03))
        if (trace := request.extensions.get("trace")) is not None:
            await trace("http11.send_request_body.complete", {})
        response = await self._answer(request, incoming, host)
        if act is not None:
            self._tell(act, request, after=True)
        if network.latency is not None:
            await asyncio.sleep(network.latency.uniform(0.001, 0.03))
        return self._received(request, incoming, response)

    def _alive(self, request: httpx.Request) -> None:
        if not self._network.processes.alive(self._process):
            raise httpx.ConnectError("its process is dead", request=request)

    def _tell(self, act: Act, request: httpx.Request, *, after: bool) -> None:
        if self._network.on_act is not None:
            self._network.on_act(act, after)
            self._alive(request)

    async def _answer(self, request: httpx.Request, incoming: Request, host: str) -> Response:
        network = self._network
        service = network.services[host]
        read_s: float | None = request.extensions.get("timeout", {}).get("read")
        try:
            if host == API and not network.slow_api:
                return await service.handle(incoming)  # answers within this very step
            async with asyncio.timeout(read_s):
                return await network.answered(service, incoming, apart=host == API)
        except TimeoutError as error:
            raise httpx.ReadTimeout("", request=request) from error
        except Refuse as fault:
            raise httpx.ConnectError("All connection attempts failed", request=request) from fault
        except HangUp as fault:
            message = "Server disconnected without sending a response."
            raise httpx.RemoteProtocolError(message, request=request) from fault

    def _received(self, request: httpx.Request, incoming: Request, response: Response) -> httpx.Response:
        if isinstance(response.body, bytes):
            return httpx.Response(response.status, headers=response.headers, stream=httpx.ByteStream(response.body))
        watched = _WATCHED.search(incoming.path)
        read_s: float | None = request.extensions.get("timeout", {}).get("read")
        chunks = _Chunks(
            response.body,
            request=request,
            read_s=read_s,
            network=self._network,
            link=self._link,
            process=self._process,
            watched=(watched[1], watched[2]) if watched else None,
        )
        return httpx.Response(response.status, headers=response.headers, stream=chunks)

    def _act(self, request: Request, host: str) -> Act | None:
        if host == API:
            path = _STATUS.match(request.path) if request.method == "PATCH" else None
            return self._acts("status", namespace=path[1]) if path else None
        if request.method != "POST":
            return None
        if request.path.endswith("/execute"):
            return self._acts("send", call_id=request.headers.get("idempotency-key", ""))
        if b'"message/send"' in request.body or b'"SendMessage"' in request.body:
            found = _CONTEXT_ID.search(request.body)
            return self._acts("send", call_id=found[1].decode() if found else "")
        return None

    def _acts(self, what: str, *, namespace: str = "", call_id: str = "") -> Act:
        network = self._network
        return Act(
            at_s=network.processes.loop.time(),
            process=self._process,
            what=what,
            namespace=namespace,
            call_id=call_id,
            number=next(network.numbers),
        )


def _incoming(request: httpx.Request) -> Request:
    return Request(
        method=request.method,
        path=request.url.path,
        query=dict(parse_qsl(request.url.query.decode("ascii"), keep_blank_values=True)),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw},
        body=request.read(),
    )


class _Chunks(httpx.AsyncByteStream):
    """A watch's body."""

    def __init__(
        self,
        body: AsyncIterator[bytes],
        *,
        request: httpx.Request,
        read_s: float | None,
        network: Network,
        link: Link,
        process: str,
        watched: tuple[str, str] | None,
    ) -> None:
        self._body = body
        self._request = request
        self._read_s = read_s
        self._network = network
        self._link = link
        self._process = process
        self._watched = watched
        self._broken = link.broken
        self._opened_s = network.processes.loop.time()
        self._open = True
        network.open_streams += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            deadline = asyncio.timeout(self._read_s)
            try:
                async with deadline:
                    chunk = await anext(self._body)
                    if self._link.black:
                        await self._link.clear.wait()
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise httpx.ReadTimeout("", request=self._request) from error
            except HangUp as fault:
                raise self._cut("peer closed connection without sending complete message body") from fault
            if self._broken != self._link.broken:
                raise self._cut("the connection was broken meanwhile")
            yield chunk

    def _cut(self, why: str) -> httpx.RemoteProtocolError:
        return httpx.RemoteProtocolError(why, request=self._request)

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._network.open_streams -= 1
            if self._watched is not None:
                namespace, resource = self._watched
                self._network.streams.append(
                    Stream(
                        process=self._process,
                        namespace=namespace,
                        resource=resource,
                        from_s=self._opened_s,
                        until_s=self._network.processes.loop.time(),
                        until_number=next(self._network.numbers),
                    )
                )
        await self._body.aclose()  # type: ignore[attr-defined]
