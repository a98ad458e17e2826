"""The watch splitter: whatever the network does to the chunks, the lines are the same."""

import hashlib
import itertools

from hypothesis import given
from hypothesis import strategies as st

from khook.kube.lines import LineSplitter, OverlongLine

LIMIT = 8

stream_bytes = st.lists(st.sampled_from([b"\n", b"a", b"{}", b"0123456", b"01234567", b"012345678", b"\xff"])).map(
    b"".join
)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(edge, len(data)) for edge in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def split(chunks: list[bytes]) -> tuple[list[bytes], list[OverlongLine]]:
    splitter = LineSplitter(limit_bytes=LIMIT)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines, splitter.overlong


@given(stream_bytes, st.lists(st.integers(0, 60)))
def test_any_chunking_gives_the_same_lines_and_the_same_overlong_ones(data: bytes, cuts: list[int]) -> None:
    complete = data.split(b"\n")[:-1]
    expected = [line for line in complete if len(line) <= LIMIT]
    dropped = [
        OverlongLine(size_bytes=len(line), digest=hashlib.blake2b(line, digest_size=8).hexdigest())
        for line in complete
        if len(line) > LIMIT
    ]
    assert (expected, dropped) == split(cut(data, cuts))


def test_a_line_without_its_newline_is_not_a_line() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b'{"type":"ADDED"}') == []
    assert splitter.feed(b"\n") == [b'{"type":"ADDED"}']


@given(st.integers(1, 64))
def test_an_endless_line_is_never_held(chunk_size: int) -> None:
    splitter = LineSplitter(limit_bytes=LIMIT)
    for _ in range(100):
        splitter.feed(b"x" * chunk_size)
        assert len(splitter._carry) <= LIMIT
    assert splitter.feed(b"\nnext\n") == [b"next"]
    assert [100 * chunk_size] == [line.size_bytes for line in splitter.overlong]
