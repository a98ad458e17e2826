"""The two HTTP transports of the product, made in one place.

Streaming (aiohttp below httpx) reads watches and LISTs: three times the lines a second, cancellations leak nothing;
but its errors are vague, and a GET dropped by a stale connection is sent twice. Exact (httpx's own, a connection each:
`khook.kube.one_each`) carries every write: its errors tell "refused" from "dropped after sending"; what was cancelled
from outside tells neither, so its requests end by their own timeouts. Neither follows redirects, reads the
environment's proxies, keeps cookies or retries. TCP keep-alive tells a dead peer from a quiet one (an Events watch may
be silent for minutes).
"""

import socket
import ssl
from typing import Any, Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from khook.kube.one_each import OneEach

# First probe after 30 s of silence, then 3 more 10 s apart: a peer that vanished is noticed within a minute.
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 10
KEEPALIVE_PROBES: Final = 3

# kube-apiserver closes idle connections after 90 s (Go's http.Server.IdleTimeout there); stay clear of that race.
STREAMING_IDLE_S: Final = 60.0

# Agents run behind uvicorn, which closes after 5 s. A write lost in that race may or may not have happened, and
# costs more to find out than a new connection.
EXACT_IDLE_S: Final = 4.0

# Writers bound themselves (one status patch a Hook, the calls' own limits); this keeps a mistake from taking all files.
EXACT_CONNECTIONS: Final = 256

# aiohttp pauses the socket at twice this much unread: bounds a watch's buffer, and holds some 50 Events.
READ_BUFFER_BYTES: Final = 64 * 1024

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
)

TRANSPORT_ERRORS: Final = (httpx.HTTPError, httpx.StreamError, aiohttp.ClientError, OSError)
"""What either transport raises when there is no proper answer: httpx-aiohttp lets some of aiohttp's errors through
as they are (a broken status line is a ClientResponseError). OSError holds ssl.SSLError and TimeoutError."""


class NetworkTransports:
    """`khook.seams.Transports` over real sockets."""

    def streaming(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        context = tls or _trusting_nobody()
        # A factory, because a session belongs to the loop that runs when it is made: the first request makes it.
        return AiohttpTransport(verify=context, trust_env=False, client=lambda: _session(context))

    def exact(self, *, tls: ssl.SSLContext | None) -> httpx.AsyncBaseTransport:
        context = tls or _trusting_nobody()
        return OneEach(
            lambda: _connection(context),
            most=EXACT_CONNECTIONS,
            most_idle=EXACT_CONNECTIONS // 4,
            idle_s=EXACT_IDLE_S,
        )


def _connection(context: ssl.SSLContext) -> httpx.AsyncHTTPTransport:
    return httpx.AsyncHTTPTransport(
        verify=context,
        trust_env=False,
        retries=0,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=EXACT_IDLE_S),
        socket_options=_KEEPALIVE,
    )


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=0,  # every watch holds a connection; their number is bounded by the namespaces owned
        ssl=context,
        keepalive_timeout=STREAMING_IDLE_S,
        socket_factory=_keepalive_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=READ_BUFFER_BYTES,
    )


def _keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    sock = socket.socket(family=family, type=kind, proto=protocol)
    for level, option, value in _KEEPALIVE:
        sock.setsockopt(level, option, value)
    return sock


def _trusting_nobody() -> ssl.SSLContext:
    """For plain http: costs no CA bundle to load, and should https come up all the same, it fails closed."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
