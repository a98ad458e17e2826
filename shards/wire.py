"""The messages between pool and member, and how they stand in a byte stream.

A frame is a 4-byte big-endian length and that many bytes of msgpack: one tagged message, plain data, never a pickled
object. The length is checked before the body is gathered, so a peer gone mad costs no memory. A member states
its `PROTOCOL` in its hello; a pool that speaks another refuses it. Payloads are opaque bytes of the pool's user.
"""

from typing import Final

import msgspec

PROTOCOL: Final = 2
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A report over 10,000 keys stays below 1 MiB; whatever is larger is a fault."""
HEADER_BYTES: Final = 4


class WireError(Exception):
    """The peer sent, or was about to be sent, something that is not a message. The connection is of no more use."""


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Member: the first message. `preload_problem` is why the launcher's preload did not happen; empty: it did."""

    protocol: int
    slot: str
    pid: int
    preload_problem: str = ""


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Member: its event loop turns. `lag_s` is how much later than meant this beat was sent."""

    sequence: int
    lag_s: float
    report: bytes


class Started(msgspec.Struct, frozen=True, tag="started"):
    key: str
    epoch: int


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """Member: nothing of the key runs here any more, and all it had to write is written."""

    key: str
    epoch: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Member: the key could not be started (it tries again) or stopped (it does not)."""

    key: str
    epoch: int
    problem: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    payload: bytes


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """Member: it drains by itself, for `drain_s` at most, then exits."""

    drain_s: float


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """Pool: the answer to a hello. `permission_s` as in a `HeartbeatReply`, counted from the sending of the hello."""

    heartbeat_s: float
    permission_s: float | None
    payload: bytes


class HeartbeatReply(msgspec.Struct, frozen=True, tag="heartbeat reply"):
    """Pool: the beat was heard. `permission_s`, counted from the *sending* of that beat, is how long the member
    may act outwardly; None: for as long as it lives. Neither has a default: nobody is permitted by an omission."""

    sequence: int
    permission_s: float | None


class Grant(msgspec.Struct, frozen=True, tag="grant"):
    key: str
    epoch: int


class Revoke(msgspec.Struct, frozen=True, tag="revoke"):
    key: str
    epoch: int


class Tell(msgspec.Struct, frozen=True, tag="tell"):
    payload: bytes


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Pool: drain, for `drain_s` at most, then exit."""

    drain_s: float


FromMember = Hello | Heartbeat | Started | Stopped | Failed | Ask | Leaving
FromPool = Welcome | HeartbeatReply | Grant | Revoke | Tell | Stop

_encoder: Final = msgspec.msgpack.Encoder()
_from_member: Final[msgspec.msgpack.Decoder[FromMember]] = msgspec.msgpack.Decoder(FromMember)
_from_pool: Final[msgspec.msgpack.Decoder[FromPool]] = msgspec.msgpack.Decoder(FromPool)


def encode(message: FromMember | FromPool) -> bytes:
    """The body of one frame. Raises WireError if it is larger than the peer would accept."""
    body = _encoder.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise WireError(f"{type(message).__name__} of {len(body)} bytes, {MAX_MESSAGE_BYTES} are allowed")
    return body


def decode_from_member(body: bytes) -> FromMember:
    """Raises WireError."""
    try:
        return _from_member.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message from a member: {error}") from error


def decode_from_pool(body: bytes) -> FromPool:
    """Raises WireError."""
    try:
        return _from_pool.decode(body)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message from a pool: {error}") from error


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class FrameSplitter:
    """Cuts a byte stream into bodies, however it was chunked."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._max_message_bytes = max_message_bytes
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The bodies that are complete now. Raises WireError at a length above the limit, and from then on."""
        self._buffer += chunk
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= HEADER_BYTES:
            body_at = start + HEADER_BYTES
            size = int.from_bytes(self._buffer[start:body_at], "big")
            if size > self._max_message_bytes:
                raise WireError(f"a frame of {size} bytes, {self._max_message_bytes} are allowed")
            if len(self._buffer) - body_at < size:
                break
            bodies.append(bytes(self._buffer[body_at : body_at + size]))
            start = body_at + size
        del self._buffer[:start]
        return bodies
