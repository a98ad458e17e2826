"""The assignment of a khook that runs, as its `/status.json` tells it.

Asks once. Everything that keeps it from an answer is one line for a person: nobody listens, somebody else does, or
this replica only stands by.
"""

from typing import Final

import httpx

from khook.address import Address
from khook.errors import KhookError
from khook.supervisor.status_document import Status, decode

ASK_WITHIN_S: Final = 10.0
"""A supervisor that does not answer in this time is stuck, or something else listens there."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Several times what 100,000 namespaces take."""


def ask(address: Address) -> tuple[bytes, Status]:
    """The document as it came, and read. Raises KhookError where there is none, or where this replica stands by."""
    body = _fetched(address)
    try:
        status = decode(body)
    except ValueError as error:
        raise KhookError(f"what listens on {address} is no khook of this version: {error}") from error
    if not status.leading:
        raise KhookError(standby(status))
    return body, status


def weights_of(status: Status) -> dict[str, float]:
    """Of every namespace that is wanted; one that is on its way out has none."""
    owned = [*(one for slot in status.slots for one in slot.namespaces), *status.waiting]
    return {one.namespace: one.weight for one in owned if one.weight > 0}


def homes_of(status: Status) -> dict[str, str]:
    """The slot of every namespace that has one."""
    return {one.namespace: slot.slot for slot in status.slots for one in slot.namespaces}


def standby(status: Status) -> str:
    if status.leader.identity is None:
        return "this replica stands by, and nobody leads yet; its log says what it waits for"
    said = f"this replica stands by; {printable(status.leader.identity)} leads"
    return said if status.ask_the_leader is None else f"{said}. Ask it:\n  {printable(status.ask_the_leader)}"


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
