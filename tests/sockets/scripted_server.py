"""A loopback HTTP server that does to its clients what a script says: the next LIST gets the next of `lists`, the
next watch the next of `watches`; behind the script, watches hang and LISTs are empty. Bytes are written by hand, so
that they can be wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    path: str
    params: dict[str, str]
    headers: dict[str, str]

    @property
    def watch(self) -> bool:
        return "watch" in self.params


Step = Callable[[Asked, asyncio.StreamWriter], Awaitable[bool]]
"""True keeps the connection."""


class Cut(Exception):
    """Reset the connection (RST), as a killed peer or a middlebox does."""


def answer(code: int, body: object = None, **headers: str) -> Step:
    """A whole answer; a body that is no str is JSON."""

    async def step(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        raw = body if isinstance(body, str) else json.dumps(body)
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {code} Whatever\r\nDate: {formatdate(usegmt=True)}\r\n{fields}"
        writer.write(f"{head}Content-Length: {len(raw.encode())}\r\n\r\n{raw}".encode())
        await writer.drain()
        return True

    return step


def page(*names: str, version: str, more: str = "") -> Step:
    metadata = {"resourceVersion": version} | ({"continue": more} if more else {})
    return answer(200, {"metadata": metadata, "items": [pod(name, version="1") for name in names]})


def refused(code: int, **headers: str) -> Step:
    return answer(code, {"kind": "Status", "code": code, "message": f"no: {code}"}, **headers)


def raw(data: bytes) -> Step:
    """Whatever this is, then a closed connection."""

    async def step(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writer.write(data)
        await writer.drain()
        return False

    return step


def stream(*pieces: bytes, end: str = "hang", gap: bool = False) -> Step:
    """A 200 with these chunks, then: `clean` end, `cut` without a last chunk, `reset`, or `hang`.

    `gap` lets the client read each piece before the next is written.
    """

    async def step(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            if gap:
                await asyncio.sleep(0)
        if end == "clean":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        elif end == "reset":
            await writer.drain()
            raise Cut
        elif end == "hang":
            await asyncio.Event().wait()
        return end == "clean"

    return step


def silent() -> Step:
    """Takes the request and never answers."""

    async def step(asked: Asked, writer: asyncio.StreamWriter) -> bool:
        await asyncio.Event().wait()
        return False

    return step


def pod(name: str, *, version: str) -> dict[str, object]:
    return {"metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": version}}


def line(change: str, name: str, version: str) -> bytes:
    return json.dumps({"type": change, "object": pod(name, version=version)}).encode() + b"\n"


def bookmark(version: str) -> bytes:
    return (
        json.dumps({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": version}}}).encode()
        + b"\n"
    )


def error_line(code: int, **details: object) -> bytes:
    status = {"kind": "Status", "code": code, "reason": "Expired", "message": "too old", "details": details}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


@dataclass
class ScriptedServer:
    lists: list[Step] = field(default_factory=list)
    watches: list[Step] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    @property
    def watched_from(self) -> list[str]:
        return [asked.params["resourceVersion"] for asked in self.asked if asked.watch]

    @property
    def listed(self) -> list[dict[str, str]]:
        return [asked.params for asked in self.asked if not asked.watch]

    def _step(self, asked: Asked) -> Step:
        self.asked.append(asked)
        if asked.watch:
            return self.watches.pop(0) if self.watches else stream()
        return self.lists.pop(0) if self.lists else page(version="1000")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None and await self._step(asked)(asked, writer):
                pass
        except Cut:
            writer.transport.abort()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *fields = head.strip().split("\r\n")
    url = urlsplit(first.split(" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (entry.partition(":") for entry in fields)}
    return Asked(url.path, dict(parse_qsl(url.query)), headers)


@asynccontextmanager
async def serving(script: ScriptedServer) -> AsyncIterator[ScriptedServer]:
    connections: dict[asyncio.Task[None], None] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(script.serve(reader, writer))
        connections[task] = None

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield script
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
