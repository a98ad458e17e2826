"""An asyncio event loop in virtual time: a sleep costs nothing, and the same seed runs the same steps.

When nothing is ready, the time jumps to the next timer; when there is no timer either, everybody waits for
somebody who will never come, and that is a `Deadlock`. The loop has no selector, no threads and no sockets: whatever
would touch the real world raises `RealWorld`. What makes a run replay: ready callbacks in the order they came, tasks
that hash by sequence number (`TaskGroup` and `wait` keep them in sets, which are else ordered by address), and no
garbage collection inside (it would finalise generators at arbitrary steps). A task that never stops stepping ends
with `TooManySteps`; a plain `while True: pass` is beyond any loop's reach.
"""

import asyncio
import gc
import itertools
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

T = TypeVar("T")

START: Final = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)

# A world of 30 virtual minutes takes a few thousand steps; at about 4 µs a step this limit is some 4 s of CPU.
MAX_STEPS: Final = 1_000_000

# How many waiting tasks a Deadlock names: enough to see the circle, not a page.
MAX_NAMED_TASKS: Final = 10


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set, yet the run has not ended. Names the tasks that wait."""


class TooManySteps(RuntimeError):
    """The run took more steps than it may: somebody spins without letting virtual time end it."""


class RealWorld(RuntimeError):
    """Code under virtual time asked for a socket, a thread, a name look-up, a child process or a signal."""


class _Task(asyncio.Task[Any]):
    """A task whose hash, and so its place in a set, is the order in which it was made."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **kwargs: Any) -> None:
        self._number = number  # before the parent: it puts the task into a set
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self._number


def _refuse(loop: object, *args: object, **kwargs: object) -> None:
    raise RealWorld("no sockets, threads, name look-ups, child processes or signals in virtual time")


_out_of_reach: Any = _refuse


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """`loop.time()` starts at 0.0 and moves only when nothing is ready."""

    _scheduled: list[asyncio.TimerHandle]
    _ready: Any

    def __init__(self, *, start: datetime = START, max_steps: int = MAX_STEPS) -> None:
        super().__init__()
        self.start: Final = start
        self._now_s = 0.0
        self._steps = 0
        self._max_steps = max_steps
        self._numbers = itertools.count(1)
        self._selector = self  # the parent asks it, once a step, how long to wait
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> _Task:
        number = next(self._numbers)
        if kwargs.get("name") is None:
            kwargs["name"] = f"Task-{number}"  # the default counts for the whole process and would not replay
        return _Task(coro, number=number, loop=loop, **kwargs)

    def time(self) -> float:
        return self._now_s

    def select(self, timeout_s: float | None) -> list[object]:
        """The parent's wait for I/O: the one place where time moves."""
        if timeout_s is None:
            raise Deadlock(f"nothing is ready and no timer is set at {self._now_s:.3f} s; waiting: {self._waiting()}")
        if timeout_s > 0:
            # Exactly the timer's time: adding the difference would miss it by a rounding error. The parent never
            # waits longer than a day at once, so a timer beyond that takes a few rounds.
            self._now_s = min(self._scheduled[0].when(), self._now_s + timeout_s + 1e-6)
        self._steps += max(1, len(self._ready))
        if self._steps > self._max_steps:
            steps, self._steps = self._steps, 0  # what is left is for the cancellations at the end
            raise TooManySteps(f"{steps} steps by {self._now_s:.3f} s of virtual time; running: {self._waiting()}")
        return []

    def _waiting(self) -> str:
        tasks = sorted((task for task in asyncio.all_tasks(self)), key=hash)
        named = [f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in tasks]
        more = f" and {len(named) - MAX_NAMED_TASKS} more" if len(named) > MAX_NAMED_TASKS else ""
        return (", ".join(named[:MAX_NAMED_TASKS]) or "nobody") + more

    def _process_events(self, event_list: list[object]) -> None:
        """There are none: nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector, so nobody has to be woken."""

    call_soon_threadsafe = asyncio.BaseEventLoop.call_soon

    run_in_executor = _out_of_reach
    getaddrinfo = _out_of_reach
    getnameinfo = _out_of_reach
    create_connection = _out_of_reach
    create_server = _out_of_reach
    create_datagram_endpoint = _out_of_reach
    create_unix_connection = _out_of_reach
    create_unix_server = _out_of_reach
    connect_accepted_socket = _out_of_reach
    sendfile = _out_of_reach
    start_tls = _out_of_reach
    connect_read_pipe = _out_of_reach
    connect_write_pipe = _out_of_reach
    subprocess_exec = _out_of_reach
    subprocess_shell = _out_of_reach
    add_reader = _out_of_reach
    add_writer = _out_of_reach
    add_signal_handler = _out_of_reach
    sock_connect = _out_of_reach
    sock_accept = _out_of_reach
    sock_recv = _out_of_reach
    sock_sendall = _out_of_reach


class VirtualClock:
    """`khook.seams.Clock` on the running virtual-time loop; `skew` makes this one's wall clock wrong.

    Each simulated process may have its own; intervals are the loop's for all of them.
    """

    def __init__(self, *, skew: timedelta = timedelta(0)) -> None:
        self.skew = skew

    def monotonic(self) -> float:
        return _running().time()

    def now(self) -> datetime:
        loop = _running()
        return loop.start + timedelta(seconds=loop.time()) + self.skew


def _running() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise TypeError("a VirtualClock works inside khook.sandbox.virtual_time.run alone")
    return loop


def run(coro: Coroutine[Any, Any, T], *, start: datetime = START, max_steps: int = MAX_STEPS) -> T:
    """Runs `coro` to its end in virtual time, then cancels what it left behind, as `asyncio.run` does.

    Raises `Deadlock`, `TooManySteps`, `RealWorld`, or what `coro` raised. Garbage is collected after, not inside.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start=start, max_steps=max_steps)) as runner:
            return runner.run(coro)
    finally:
        if collecting:
            gc.enable()
