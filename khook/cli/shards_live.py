"""The assignment of a khook that runs, as its `/status.json` tells it.

Asks once and decodes no more than the commands show. Everything that keeps it from an answer is one line for a
person: nobody listens, somebody else does, or this replica only stands by.
"""

from typing import Final

import httpx
import msgspec

from khook.address import Address
from khook.errors import KhookError

ASK_WITHIN_S: Final = 10.0
"""A supervisor that does not answer in this time is stuck, or something else listens there."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Several times what 100,000 namespaces take."""


class Owned(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    weight: float
    lines_per_second: float
    started: bool = False
    problem: str | None = None


class Slot(msgspec.Struct, frozen=True, rename="camel"):
    slot: str
    state: str
    on_probation: bool
    restarts: int
    lag_seconds: float
    last_death: str | None
    load: float
    lines_per_second: float
    namespaces: tuple[Owned, ...]


class Leader(msgspec.Struct, frozen=True, rename="camel"):
    identity: str | None
    epoch: int


class RingNumbers(msgspec.Struct, frozen=True, rename="camel"):
    virtual_nodes: int
    max_load_factor: float


class Live(msgspec.Struct, frozen=True, rename="camel"):
    leading: bool
    leader: Leader
    ask_the_leader: str | None
    ring: RingNumbers
    slots: tuple[Slot, ...]
    waiting: tuple[Owned, ...]

    def weights(self) -> dict[str, float]:
        """Of every namespace that is wanted; one that is on its way out has no weight."""
        owned = [*(one for slot in self.slots for one in slot.namespaces), *self.waiting]
        return {one.namespace: one.weight for one in owned if one.weight > 0}


def ask(address: Address) -> tuple[bytes, Live]:
    """The document as it came, and read. Raises KhookError where there is none, or where this replica stands by."""
    body = _fetched(address)
    try:
        live = msgspec.json.decode(body, type=Live)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KhookError(f"what listens on {address} is no khook of this version: {error}") from error
    if not live.leading:
        raise KhookError(standby(live))
    return body, live


def standby(live: Live) -> str:
    if live.leader.identity is None:
        return "this replica stands by, and nobody leads yet; its log says what it waits for"
    said = f"this replica stands by; {printable(live.leader.identity)} leads"
    return said if live.ask_the_leader is None else f"{said}. Ask it:\n  {printable(live.ask_the_leader)}"


def printable(text: str) -> str:
    """Without what would steer a terminal: an identity is what stands in the Lease, whoever wrote it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


def _fetched(address: Address) -> bytes:
    if address.port == 0:
        raise KhookError(f"{address} is any free port: `khook run` named it in its log; say --address")
    try:
        with (
            httpx.Client(trust_env=False, timeout=ASK_WITHIN_S) as client,
            client.stream("GET", f"http://{address}/status.json") as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KhookError(f"what listens on {address} is no khook: HTTP {answer.status_code}")
            return _bounded(answer, address)
    except httpx.ConnectError as error:
        raise KhookError(f"nothing listens on {address}: is `khook run` running here?") from error
    except httpx.HTTPError as error:
        raise KhookError(f"{address} does not answer: {type(error).__name__}") from error


def _bounded(answer: httpx.Response, address: Address) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise KhookError(f"what listens on {address} is no khook: its answer has no end")
    return bytes(body)
