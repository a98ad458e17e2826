"""The status page at `/`, and the same as `/status.json`.

It shows tenants' incidents, so it is for whoever can reach the address, and for nobody else's web page: no other site
may frame it, load it or read it. Behind a loopback address it answers only to the machine's own names, because
a site can give its own name the address 127.0.0.1 (DNS rebinding) and would then be this page's origin. The browser
runs nothing but the one script that is served with the page, and keeps nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from khook.address import Address
from khook.supervisor.kept import Kept
from khook.supervisor.status_document import Status, encode

HTML_TYPE: Final = "text/html; charset=utf-8"
JSON_TYPE: Final = "application/json"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer, also of one that says there is nothing; the page's own policy allows its style and its script."""
NOT_THIS_NAME: Final = "this is khook's status on a loopback address: ask for it as localhost or 127.0.0.1\n"


def status_app(status: Callable[[], Awaitable[Status]], *, address: Address) -> web.Application:
    """`status` is asked once a second at most, whoever reads. `address` is what it will listen on."""
    site = _Site(status)
    app = web.Application(middlewares=[_only_own_names] if _is_loopback(address.host) else [])
    app.on_response_prepare.append(_add_headers)
    app.router.add_get("/", site.page)
    app.router.add_get("/status.json", site.document)
    return app


class _Site:
    def __init__(self, status: Callable[[], Awaitable[Status]]) -> None:
        self._status = Kept(status)
        self._page = Kept(self._rendered)

    async def document(self, _: web.Request) -> web.Response:
        return web.Response(body=encode(await self._status.read()), headers={"Content-Type": JSON_TYPE})

    async def page(self, _: web.Request) -> web.Response:
        body, policy = await self._page.read()
        return web.Response(body=body, headers={"Content-Type": HTML_TYPE, "Content-Security-Policy": policy})

    async def _rendered(self) -> tuple[bytes, str]:
        """Beside the loop: thousands of namespaces take some ten milliseconds."""
        status = await self._status.read()
        return await asyncio.to_thread(_render, status)


def _render(status: Status) -> tuple[bytes, str]:
    from khook.supervisor import status_page  # noqa: PLC0415 - a template engine, for the few replicas that somebody looks at

    return status_page.render(status), status_page.POLICY


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)


@web.middleware
async def _only_own_names(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _is_own_name(request.host):
        return web.Response(status=421, text=NOT_THIS_NAME)
    return await handler(request)


def _is_own_name(host: str) -> bool:
    """`host` with or without a port. An address is no name that anybody could give to another."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or _is_address(name)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
