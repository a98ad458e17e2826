"""Virtual time: nothing real, no waiting, the same steps each time."""

import asyncio
import contextvars
import gc
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import anyio
import httpx
import pytest
import tenacity

from khook.sandbox.virtual_time import Deadlock, RealWorld, TooManySteps, VirtualClock, run


def test_an_hour_of_sleep_takes_no_time_and_ends_exactly_on_time() -> None:
    async def sleeper() -> float:
        for _ in range(100_000):
            await asyncio.sleep(0.036)
        await asyncio.sleep(100 * 86_400)
        return asyncio.get_running_loop().time()

    before = time.monotonic()
    assert run(sleeper()) == pytest.approx(3_600 + 100 * 86_400)
    assert time.monotonic() - before < 30


def test_timers_fire_in_the_order_of_their_time_then_of_their_making() -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def at(delay_s: float, name: str) -> None:
            await asyncio.sleep(delay_s)
            seen.append(f"{name}@{asyncio.get_running_loop().time():g}")

        async with asyncio.TaskGroup() as group:
            for delay_s, name in [(2, "a"), (1, "b"), (2, "c"), (0.5, "d")]:
                group.create_task(at(delay_s, name))
        return seen

    assert run(main()) == ["d@0.5", "b@1", "a@2", "c@2"]


def test_the_clock_is_the_loops_and_its_skew_can_be_set() -> None:
    start = datetime(2030, 5, 1, tzinfo=UTC)

    async def main() -> tuple[float, datetime, datetime]:
        clock = VirtualClock()
        await asyncio.sleep(90)
        right = clock.now()
        clock.skew = timedelta(hours=-1)
        return clock.monotonic(), right, clock.now()

    assert run(main(), start=start) == (90.0, start + timedelta(seconds=90), start + timedelta(seconds=90, hours=-1))


def test_a_clock_outside_virtual_time_is_an_error() -> None:
    async def main() -> None:
        VirtualClock().monotonic()

    with pytest.raises(TypeError):
        asyncio.run(main())


def test_a_deadlock_is_an_error_that_names_who_waits_and_cancels_them() -> None:
    cancelled: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append("yes")
            raise

    async def main() -> None:
        await asyncio.create_task(for_ever(), name="the stuck one")

    with pytest.raises(Deadlock, match="the stuck one"):
        run(main())
    assert cancelled == ["yes"]


@pytest.mark.parametrize("pause_s", [0.0, 0.001])
def test_a_busy_loop_is_an_error_and_not_a_hang(pause_s: float) -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(pause_s)

    with pytest.raises(TooManySteps, match="spin"):
        run(spin(), max_steps=1_000)


async def _thread() -> None:
    await asyncio.to_thread(lambda: None)


async def _lookup() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


async def _connect() -> None:
    await asyncio.open_connection("127.0.0.1", 1)


async def _listen() -> None:
    await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)


async def _child() -> None:
    await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize("touch", [_thread, _lookup, _connect, _listen, _child])
def test_the_real_world_is_out_of_reach(touch: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await touch()

    with pytest.raises(RealWorld):
        run(main())


def test_the_usual_libraries_run() -> None:
    """TaskGroup, timeout, Queue, call_soon_threadsafe, contextvars, anyio, httpx and tenacity."""
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="outer")
    attempts: list[float] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(5)
        attempts.append(asyncio.get_running_loop().time())
        return httpx.Response(503 if len(attempts) < 3 else 200, text=request.url.path)

    @tenacity.retry(
        wait=tenacity.wait_fixed(2), stop=tenacity.stop_after_attempt(5), retry=tenacity.retry_if_exception_type()
    )
    async def ask(client: httpx.AsyncClient) -> str:
        response = await client.get("http://agent/x")
        response.raise_for_status()
        return response.text

    async def produce(queue: asyncio.Queue[str]) -> None:
        name.set("inner")
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            await queue.put(await ask(client))

    async def main() -> tuple[str, str, bool]:
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(produce(queue))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await queue.get()
            text = await queue.get()
        with anyio.move_on_after(3) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep, 60)
        woken = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(woken.set)
        await woken.wait()
        return text, name.get(), scope.cancelled_caught

    assert run(main()) == ("/x", "outer", True)
    assert attempts == [5, 12, 19]


def test_cancelled_tasks_of_a_group_end_in_the_same_order_each_time() -> None:
    """A TaskGroup cancels a set: by address, 30 tasks would end in another order in almost every run."""

    async def main() -> list[str]:
        ended: list[str] = []

        async def child() -> None:
            try:
                await asyncio.sleep(1_000)
            finally:
                task = asyncio.current_task()
                assert task is not None
                ended.append(task.get_name())

        async def fail() -> None:
            await asyncio.sleep(1)
            raise ValueError

        async def family() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(30):
                    group.create_task(child())
                group.create_task(fail())

        with pytest.raises(ExceptionGroup):
            await family()
        return ended

    first = run(main())
    junk = [object() for _ in range(1_000)]
    assert [run(main()) for _ in range(5)] == [first] * 5
    assert len(junk) == 1_000
    assert len(first) == 30


def test_garbage_is_not_collected_inside_and_is_again_after() -> None:
    async def main() -> bool:
        return gc.isenabled()

    assert run(main()) is False
    assert gc.isenabled()
