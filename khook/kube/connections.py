"""A pair of transports for each TLS identity, kept as long as a request uses it.

New credentials with another certificate need new connections, while requests and watches under way end on the old
ones. So the old pair is retired, and closed by whoever used it last. A new token alone changes no connection.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from khook.errors import Unavailable
from khook.kube.credentials import Credentials, tls_context
from khook.seams import Transports

CLOSING_TURNS: Final = 3
"""An aborted TLS connection gives its socket back in one of the next turns, and the loop may be closed after this."""


class Pair:
    """One streaming and one exact transport with the same certificates."""

    __slots__ = ("exact", "streaming", "users")

    def __init__(self, *, transports: Transports, credentials: Credentials) -> None:
        tls = tls_context(credentials)
        self.streaming: httpx.AsyncBaseTransport = transports.streaming(tls=tls)
        self.exact: httpx.AsyncBaseTransport = transports.exact(tls=tls)
        self.users = 0

    async def aclose(self) -> None:
        await self.streaming.aclose()
        await self.exact.aclose()


class Connections:
    """Hands out the pair that fits the credentials."""

    def __init__(self, *, credentials: Credentials, transports: Transports) -> None:
        self._transports = transports
        self._tls_identity = _tls_identity(credentials)
        self._pair = Pair(transports=transports, credentials=credentials)
        self._retired: list[Pair] = []

    @asynccontextmanager
    async def use(self, credentials: Credentials) -> AsyncIterator[Pair]:
        identity = _tls_identity(credentials)
        if identity != self._tls_identity:
            self._switch(credentials)
            self._tls_identity = identity
        pair = self._pair
        pair.users += 1
        try:
            yield pair
        finally:
            pair.users -= 1
            if self._retired:
                await self._close_unused()

    def _switch(self, credentials: Credentials) -> None:
        try:
            pair = Pair(transports=self._transports, credentials=credentials)
        except ssl.SSLError as error:
            raise Unavailable(f"the certificates cannot be used: {error}") from error
        self._retired.append(self._pair)
        self._pair = pair

    async def aclose(self) -> None:
        retired, self._retired = self._retired, []
        for pair in (*retired, self._pair):
            await pair.aclose()
        for _ in range(CLOSING_TURNS):
            await asyncio.sleep(0)

    async def _close_unused(self) -> None:
        unused = [pair for pair in self._retired if not pair.users]
        self._retired = [pair for pair in self._retired if pair.users]
        for pair in unused:
            await pair.aclose()


def _tls_identity(credentials: Credentials) -> tuple[bool, str, str, str]:
    return credentials.tls, credentials.ca_pem, credentials.client_cert_pem, credentials.client_key_pem
