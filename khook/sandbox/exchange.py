"""One HTTP exchange as plain data: what both embedded services answer, whoever carries it.

`khook.sandbox.http` puts a `Service` behind a real socket (aiohttp.web) or behind an in-memory httpx transport;
the service cannot tell which. A service that wants to misbehave on the wire raises one of the faults below.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    """Percent-decoded."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes


@dataclass(slots=True, kw_only=True)
class Response:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | AsyncIterator[bytes] = b""
    """An iterator is sent chunk by chunk, as a watch; when it raises `HangUp` the connection is cut."""


class Service(Protocol):
    async def handle(self, request: Request) -> Response: ...


class HangUp(Exception):
    """The connection breaks here: before the answer, or in mid-body, without a last chunk."""


class Refuse(Exception):
    """Nobody listens: the peer gets "connection refused" (over a real socket: closed before a byte is answered)."""
