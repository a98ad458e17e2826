"""A channel over a socket: whole messages both ways, no waiting for a peer that does not read, a clean end."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from shards.launch import MAX_QUEUED_BYTES, ChannelClosed, ChannelFull
from shards.stream import StreamChannel
from shards.wire import WireError

Scene = Callable[[StreamChannel, StreamChannel], Awaitable[None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[[Scene], None]:
    def run(scene: Scene) -> None:
        async def main() -> None:
            one, other = [await StreamChannel.open(end) for end in socket.socketpair()]
            try:
                async with asyncio.timeout(10):
                    await scene(one, other)
            finally:
                one.close()
                other.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(main())

    return run


def accepts(channel: StreamChannel, body: bytes) -> bool:
    try:
        channel.send(body)
    except ChannelFull:
        return False
    return True


def test_messages_of_any_size_arrive_whole_and_in_order(play: Callable[[Scene], None]) -> None:
    async def scene(one: StreamChannel, other: StreamChannel) -> None:
        bodies = [b"", b"x", b"y" * 250_000, b"z" * 4 * 1024 * 1024, *(str(number).encode() for number in range(1000))]
        for body in bodies:
            one.send(body)
        other.send(b"back")
        assert [await other.receive() for _ in bodies] == bodies
        assert await one.receive() == b"back"

    play(scene)


def test_a_peer_that_does_not_read_fills_the_queue_and_blocks_nobody(play: Callable[[Scene], None]) -> None:
    async def scene(one: StreamChannel, other: StreamChannel) -> None:
        body = b"x" * 1_000_000
        sent = 0
        while sent < 100 and accepts(one, body):
            sent += 1
            await asyncio.sleep(0)
        assert MAX_QUEUED_BYTES // len(body) <= sent <= MAX_QUEUED_BYTES // len(body) + 2
        flushed = asyncio.ensure_future(one.flushed())
        for _ in range(sent):
            assert not flushed.done(), "flushed means that the kernel has it all"
            assert await other.receive() == body
        await flushed

    play(scene)


def test_what_was_sent_before_the_end_is_read_before_the_end_is_seen(play: Callable[[Scene], None]) -> None:
    async def scene(one: StreamChannel, other: StreamChannel) -> None:
        one.send(b"last words")
        await one.flushed()
        one.close()
        assert await other.receive() == b"last words"
        with pytest.raises(ChannelClosed):
            await other.receive()
        with pytest.raises(ChannelClosed):
            one.send(b"too late")

    play(scene)


def test_a_frame_above_the_limit_ends_the_reading() -> None:
    async def main() -> None:
        raw, end = socket.socketpair()
        channel = await StreamChannel.open(end)
        with raw:
            raw.sendall((2**31).to_bytes(4, "big"))
            with pytest.raises(WireError):
                await channel.receive()
        channel.close()

    asyncio.run(main())
