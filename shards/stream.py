"""A channel over a connected stream socket: one writer task, one bounded queue, frames as `shards.wire` says.

`send` never waits and never touches the socket: asyncio's own `drain()` blocks once a peer stops reading, so only
the writer task calls it, and the loop that serves many peers cannot be held up by one. Works under asyncio and uvloop.
"""

import asyncio
import socket
from collections import deque
from typing import Final

from shards.launch import MAX_QUEUED_BYTES, ChannelClosed, ChannelFull
from shards.wire import FrameSplitter, frame

CHUNK_BYTES: Final = 64 * 1024
"""One read; also about what is handed to the socket in one write."""


class StreamChannel:
    """Make it with `open`, in the loop that uses it. Closes the socket with itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=0)  # `drain` then means: the kernel has it all
        self._splitter = FrameSplitter()
        self._bodies: deque[bytes] = deque()
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._writing = asyncio.get_running_loop().create_task(self._write())

    @classmethod
    async def open(cls, connected: socket.socket) -> "StreamChannel":
        connected.setblocking(False)
        return cls(*await asyncio.open_unix_connection(sock=connected, limit=CHUNK_BYTES))

    def send(self, body: bytes) -> None:
        if self._closed:
            raise ChannelClosed
        framed = frame(body)
        if self._queued_bytes + len(framed) > MAX_QUEUED_BYTES:
            raise ChannelFull
        self._queue.append(framed)
        self._queued_bytes += len(framed)
        self._idle.clear()
        self._filled.set()

    async def receive(self) -> bytes:
        while not self._bodies:
            try:
                chunk = await self._reader.read(CHUNK_BYTES)
            except OSError as error:
                raise ChannelClosed from error
            if not chunk:
                raise ChannelClosed
            self._bodies.extend(self._splitter.feed(chunk))
        return self._bodies.popleft()

    async def flushed(self) -> None:
        await self._idle.wait()
        if self._closed:
            raise ChannelClosed

    def close(self) -> None:
        self._give_up()
        self._writing.cancel()

    async def _write(self) -> None:
        try:
            while True:
                await self._filled.wait()
                self._writer.write(self._next_chunk())
                await self._writer.drain()
                if not self._queue:
                    self._filled.clear()
                    self._idle.set()
        except OSError:
            self._give_up()

    def _next_chunk(self) -> bytes:
        chunk = bytearray()
        while self._queue and len(chunk) < CHUNK_BYTES:
            chunk += self._queue.popleft()
        self._queued_bytes -= len(chunk)
        return bytes(chunk)

    def _give_up(self) -> None:
        self._closed = True
        self._queue.clear()
        self._queued_bytes = 0
        self._idle.set()
        self._writer.transport.abort()
