"""Chunks of a watch in, whole lines out.

A watch is JSON objects separated by newlines; the network cuts it wherever it likes. The splitter gives the same
lines for any chunking. A line over the limit is never held: its bytes go through a hash and are dropped, and the
stream goes on behind its newline. What follows the last newline is not a line yet; when the stream ends there, it
was cut, and the object comes again with the next watch, because its version was never taken.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

# etcd refuses requests over 1.5 MiB, and objects near that are no pods: 1 MiB is far above what a pod or Event weighs.
LINE_LIMIT_BYTES: Final = 1024 * 1024

# Enough to tell one bad line from another in a log.
_DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlongLine:
    """A line that was dropped: how long it was and what its bytes hash to, never the bytes."""

    size_bytes: int
    digest: str


def digest(line: bytes) -> str:
    """Names a line in a log without showing it."""
    return hashlib.blake2b(line, digest_size=_DIGEST_BYTES).hexdigest()


class LineSplitter:
    """`overlong` collects what was dropped; whoever reads it clears it."""

    __slots__ = ("_carry", "_drop_hash", "_drop_size", "_limit", "overlong")

    def __init__(self, *, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._carry = bytearray()
        self._drop_hash: hashlib.blake2b | None = None
        self._drop_size = 0
        self.overlong: list[OverlongLine] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their newlines."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and (self._carry or self._drop_hash is not None):
            first = self._finish(lines[0])
            if first is None:
                del lines[0]
            else:
                lines[0] = first
        if len(chunk) > self._limit:
            lines = [line for line in lines if not self._is_overlong(line)]
        if rest:
            self._keep(rest)
        return lines

    def _finish(self, end: bytes) -> bytes | None:
        """The line that began in earlier chunks; None when it was too long."""
        if self._drop_hash is None and len(self._carry) + len(end) <= self._limit:
            line = bytes(self._carry) + end
            self._carry.clear()
            return line
        dropped = self._drop(end)
        self.overlong.append(OverlongLine(size_bytes=self._drop_size, digest=dropped.hexdigest()))
        self._drop_hash = None
        self._drop_size = 0
        return None

    def _keep(self, rest: bytes) -> None:
        if self._drop_hash is None and len(self._carry) + len(rest) <= self._limit:
            self._carry += rest
        else:
            self._drop(rest)

    def _drop(self, more: bytes) -> hashlib.blake2b:
        if self._drop_hash is None:
            self._drop_hash = hashlib.blake2b(self._carry, digest_size=_DIGEST_BYTES)
            self._drop_size = len(self._carry)
            self._carry.clear()
        self._drop_hash.update(more)
        self._drop_size += len(more)
        return self._drop_hash

    def _is_overlong(self, line: bytes) -> bool:
        if len(line) <= self._limit:
            return False
        self.overlong.append(OverlongLine(size_bytes=len(line), digest=digest(line)))
        return True
