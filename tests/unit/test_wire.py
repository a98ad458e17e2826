"""The wire: whole messages out of any chunks, nothing out of garbage, no memory for a peer gone mad."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_length_above_the_limit_is_refused_before_its_body_comes() -> None:
    at_limit = wire.FrameSplitter(10)
    assert at_limit.feed(wire.frame(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(wire.WireError, match="11 bytes, 10 are allowed"):
        wire.FrameSplitter(10).feed((11).to_bytes(4, "big"))


def test_a_message_above_the_limit_is_never_sent() -> None:
    with pytest.raises(wire.WireError, match="Tell of"):
        wire.encode(wire.Tell(payload=b"x" * wire.MAX_MESSAGE_BYTES))
