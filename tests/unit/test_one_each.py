"""The pool of one connection each: what it reuses, what it closes, and that no place in it can be lost."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from khook.kube.one_each import OneEach
from khook.sandbox.virtual_time import run

IDLE_S = 4.0
ENOUGH = {"most": 8, "most_idle": 8}


class Body(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"{}"


class Connection(httpx.AsyncBaseTransport):
    """Answers after `takes_s`, or raises."""

    def __init__(self, *, takes_s: float, error: Exception | None) -> None:
        self._takes_s = takes_s
        self._error = error
        self.requests = 0
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        await asyncio.sleep(self._takes_s)
        if self._error is not None:
            raise self._error
        return httpx.Response(200, stream=Body())

    async def aclose(self) -> None:
        self.closed += 1


class Pool:
    def __init__(self, *, most: int, most_idle: int) -> None:
        self.made: list[Connection] = []
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.one_each = OneEach(self._make, most=most, most_idle=most_idle, idle_s=IDLE_S)

    def _make(self) -> Connection:
        self.made.append(Connection(takes_s=self.takes_s, error=self.error))
        return self.made[-1]

    async def ask(self, *, pool_s: float | None = None) -> None:
        response = await self.begin(pool_s=pool_s)
        assert await response.aread() == b"{}"

    async def begin(self, *, pool_s: float | None = None) -> httpx.Response:
        request = httpx.Request("GET", "http://api/", extensions={"timeout": {"pool": pool_s}})
        return await self.one_each.handle_async_request(request)

    @property
    def requests(self) -> list[int]:
        return [one.requests for one in self.made]

    @property
    def closed(self) -> list[int]:
        return [one.closed for one in self.made]


def test_one_after_the_other_they_share_a_connection() -> None:
    pool = Pool(**ENOUGH)

    async def main() -> None:
        for _ in range(3):
            await pool.ask()

    run(main())
    assert pool.requests == [3]
    assert pool.closed == [0]


def test_side_by_side_each_has_its_own_and_the_one_used_last_is_used_again() -> None:
    pool = Pool(**ENOUGH)

    async def main() -> None:
        first, second = await pool.begin(), await pool.begin()
        await first.aclose()
        await second.aclose()
        await pool.ask()

    run(main())
    assert pool.requests == [1, 2]


def test_a_connection_is_free_only_when_its_answer_was_closed() -> None:
    pool = Pool(**ENOUGH)

    async def main() -> None:
        first = await pool.begin()
        await pool.ask()
        assert isinstance(first.stream, httpx.AsyncByteStream)
        await first.stream.aclose()
        await first.stream.aclose()  # frees nothing twice
        await pool.begin()
        await pool.begin()

    run(main())
    assert pool.requests == [2, 2]


def test_what_was_idle_for_too_long_is_closed_and_not_used() -> None:
    pool = Pool(**ENOUGH)

    async def main() -> None:
        await pool.ask()
        await asyncio.sleep(IDLE_S)
        await pool.ask()

    run(main())
    assert pool.requests == [1, 1]
    assert pool.closed == [1, 0]


def test_no_more_than_so_many_are_kept() -> None:
    pool = Pool(most=8, most_idle=1)

    async def main() -> None:
        for response in [await pool.begin() for _ in range(3)]:
            await response.aclose()

    run(main())
    assert pool.closed == [0, 1, 1]


def test_past_the_limit_a_request_waits_for_its_turn_and_no_longer_than_it_may() -> None:
    pool = Pool(most=1, most_idle=1)

    async def main() -> None:
        first = await pool.begin()
        waiting = asyncio.create_task(pool.ask(pool_s=2.0))
        await asyncio.sleep(1.0)
        await first.aclose()
        await waiting
        await pool.begin()
        with pytest.raises(httpx.PoolTimeout):
            await pool.ask(pool_s=1.0)

    run(main())
    assert pool.requests == [3]


def test_a_failed_request_loses_no_place_and_its_connection_is_not_used_again() -> None:
    pool = Pool(most=1, most_idle=1)
    pool.error = httpx.ReadError("reset")

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(httpx.ReadError):
                await pool.ask(pool_s=1.0)
        pool.error = None
        await pool.ask(pool_s=1.0)

    run(main())
    assert pool.requests == [1, 1, 1]
    assert pool.closed == [1, 1, 0]


def test_a_cancelled_request_loses_no_place_and_leaves_no_connection() -> None:
    pool = Pool(most=1, most_idle=1)
    pool.takes_s = 60.0

    async def main() -> None:
        hanging = asyncio.create_task(pool.ask())
        await asyncio.sleep(1.0)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        pool.takes_s = 0.0
        await pool.ask(pool_s=1.0)

    run(main())
    assert pool.closed == [1, 0]
    assert pool.requests == [1, 1]


def test_closing_closes_what_is_free_and_what_is_busy_and_keeps_nothing_after() -> None:
    pool = Pool(**ENOUGH)

    async def main() -> None:
        busy = await pool.begin()
        await pool.ask()
        await pool.one_each.aclose()
        assert pool.closed == [1, 1]
        await busy.aclose()
        assert pool.closed == [2, 1]
        await pool.ask()

    run(main())
    assert pool.requests == [1, 1, 1]
