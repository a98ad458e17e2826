"""The wire: whole messages out of any chunks, nothing out of garbage, no memory for a peer gone mad."""

from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from shards import wire

text = st.text(max_size=20)
blob = st.binary(max_size=50)
epoch = st.integers(0, 2**63 - 1)
seconds = st.floats(0, 1e6)

from_member = st.one_of(
    st.builds(wire.Hello, protocol=epoch, slot=text, pid=epoch, preload_problem=text),
    st.builds(wire.Heartbeat, sequence=epoch, lag_s=seconds, report=blob),
    st.builds(wire.Started, key=text, epoch=epoch),
    st.builds(wire.Stopped, key=text, epoch=epoch),
    st.builds(wire.Failed, key=text, epoch=epoch, problem=text),
    st.builds(wire.Ask, payload=blob),
    st.builds(wire.Leaving, drain_s=seconds),
)
from_pool = st.one_of(
    st.builds(wire.Welcome, heartbeat_s=seconds, permission_s=st.none() | seconds, payload=blob),
    st.builds(wire.HeartbeatReply, sequence=epoch, permission_s=st.none() | seconds),
    st.builds(wire.Grant, key=text, epoch=epoch),
    st.builds(wire.Revoke, key=text, epoch=epoch),
    st.builds(wire.Tell, payload=blob),
    st.builds(wire.Stop, drain_s=seconds),
)


@given(from_member)
def test_what_a_member_sends_a_pool_reads(message: wire.FromMember) -> None:
    assert message == wire.decode_from_member(wire.encode(message))


@given(from_pool)
def test_what_a_pool_sends_a_member_reads(message: wire.FromPool) -> None:
    assert message == wire.decode_from_pool(wire.encode(message))


@given(from_member, from_pool)
def test_no_end_takes_its_own_messages_for_the_others(member: wire.FromMember, pool: wire.FromPool) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_from_pool(wire.encode(member))
    with pytest.raises(wire.WireError):
        wire.decode_from_member(wire.encode(pool))


@given(st.binary(max_size=60) | from_member.map(lambda message: wire.encode(message)[:-1]))
def test_garbage_is_refused_and_raises_nothing_else(body: bytes) -> None:
    for decode in (wire.decode_from_member, wire.decode_from_pool):
        try:
            message: Any = decode(body)
        except wire.WireError:
            continue
        assert isinstance(message, msgspec.Struct)


@given(st.lists(blob, max_size=8), st.data())
def test_any_chunking_gives_the_same_bodies(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(wire.frame(body) for body in bodies)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = wire.FrameSplitter()
    seen: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen += splitter.feed(stream[start:end])
        whole = _whole_frames(bodies, end)
        assert bodies[:whole] == seen, "a body is given as soon as its last byte is there"
    assert bodies == seen


def _whole_frames(bodies: list[bytes], length: int) -> int:
    whole = 0
    for body in bodies:
        length -= len(wire.frame(body))
        if length < 0:
            break
        whole += 1
    return whole


class SplitterMachine(RuleBasedStateMachine):
    """A peer that writes frames, and perhaps goes mad; a reader that gets the bytes as the network likes."""

    LIMIT = 20

    def __init__(self) -> None:
        super().__init__()
        self.splitter = wire.FrameSplitter(self.LIMIT)
        self.on_the_way = b""
        self.ends: deque[tuple[int, bytes]] = deque()
        """Each body that is still to come, and how many bytes of the stream end it."""
        self.written = self.arrived = 0
        self.mad_at: int | None = None

    @rule(bodies=st.lists(st.binary(max_size=LIMIT), min_size=1, max_size=3))
    def the_peer_writes(self, bodies: list[bytes]) -> None:
        for body in bodies:
            framed = len(body).to_bytes(4, "big") + body
            self.on_the_way += framed
            self.written += len(framed)
            if self.mad_at is None:
                self.ends.append((self.written, body))

    @rule(size=st.sampled_from([LIMIT + 1, 2**31, 2**32 - 1]))
    def the_peer_goes_mad(self, size: int) -> None:
        self.on_the_way += size.to_bytes(4, "big")
        self.written += 4
        self.mad_at = self.mad_at or self.written

    @rule(size=st.integers(0, 30))
    def some_bytes_arrive(self, size: int) -> None:
        chunk, self.on_the_way = self.on_the_way[:size], self.on_the_way[size:]
        self.arrived += len(chunk)
        if self.mad_at is not None and self.arrived >= self.mad_at:
            with pytest.raises(wire.WireError, match="20 are allowed"):
                self.splitter.feed(chunk)
            return
        due: list[bytes] = []
        while self.ends and self.ends[0][0] <= self.arrived:
            due.append(self.ends.popleft()[1])
        assert due == self.splitter.feed(chunk)


TestSplitter = SplitterMachine.TestCase
TestSplitter.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_a_length_above_the_limit_is_refused_before_its_body_comes() -> None:
    at_limit = wire.FrameSplitter(10)
    assert at_limit.feed(wire.frame(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(wire.WireError, match="11 bytes, 10 are allowed"):
        wire.FrameSplitter(10).feed((11).to_bytes(4, "big"))


def test_a_message_above_the_limit_is_never_sent() -> None:
    with pytest.raises(wire.WireError, match="Tell of"):
        wire.encode(wire.Tell(payload=b"x" * wire.MAX_MESSAGE_BYTES))


@pytest.mark.parametrize("message", [{"type": "welcome", "heartbeat_s": 1.0}, {"type": "heartbeat reply"}])
def test_nobody_is_permitted_by_an_omission(message: dict[str, Any]) -> None:
    rest = {"sequence": 1, "payload": b""}
    assert wire.decode_from_pool(msgspec.msgpack.encode({**message, **rest, "permission_s": 3.0}))
    with pytest.raises(wire.WireError, match="permission_s"):
        wire.decode_from_pool(msgspec.msgpack.encode({**message, **rest}))


def test_another_protocol_is_known_by_its_hello_whatever_else_it_may_say() -> None:
    """A hello with fields that this version does not know must be read, so that it can be refused by its number."""
    later = {"type": "hello", "protocol": wire.PROTOCOL + 1, "slot": "w0", "pid": 1, "what_comes_later": [1, 2]}
    hello = wire.decode_from_member(msgspec.msgpack.encode(later))
    assert isinstance(hello, wire.Hello)
    assert hello.protocol == wire.PROTOCOL + 1
