"""An ASGI application behind a real loopback socket, carried by aiohttp.web: enough of ASGI 3.0 for whole answers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

Message = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


@asynccontextmanager
async def served(app: App) -> AsyncIterator[str]:
    """Listens on a free port until left; its URL."""

    async def handle(incoming: web.BaseRequest) -> web.StreamResponse:
        return await _exchange(app, incoming)

    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _exchange(app: App, incoming: web.BaseRequest) -> web.StreamResponse:
    asked: list[Message] = [{"type": "http.request", "body": await incoming.read(), "more_body": False}]
    said: list[Message] = []

    async def receive() -> Message:
        if not asked:
            await asyncio.Event().wait()  # the client stays until it has its answer
        return asked.pop(0)

    async def send(message: Message) -> None:
        said.append(message)

    await app(_scope(incoming), receive, send)
    start, *bodies = said
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
    body = b"".join(message.get("body", b"") for message in bodies)
    return web.Response(status=start["status"], headers=headers, body=body)


def _scope(incoming: web.BaseRequest) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": incoming.method,
        "scheme": "http",
        "path": incoming.path,
        "raw_path": urlsplit(incoming.raw_path).path.encode(),
        "root_path": "",
        "query_string": incoming.query_string.encode(),
        "headers": [(name.lower(), value) for name, value in incoming.raw_headers],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
    }
