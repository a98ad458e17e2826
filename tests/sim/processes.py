"""Processes inside one virtual-time loop: each task and timer belongs to one, which can be killed, stopped, skewed.

A killed process steps no further but for the unwinding of its tasks, and has nothing outside that it could still
touch: its channel is closed and its transports refuse. A stopped one (SIGSTOP) keeps its place: what falls due
meanwhile runs when it goes on. A clock that runs fast shortens that machine's sleeps as well as its readings.
"""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from khook.sandbox.virtual_time import VirtualTimeLoop

RUNNING: ContextVar[str] = ContextVar("process", default="")
"""The process that runs now; empty: the world itself."""


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        loop: SimLoop = self._loop  # type: ignore[attr-defined]
        if loop.stopped and (held := loop.stopped.get(self._context.get(RUNNING, ""))) is not None:  # type: ignore[attr-defined]
            held.append(self)
        else:
            super()._run()


class _Timer(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        loop: SimLoop = self._loop  # type: ignore[attr-defined]
        if loop.stopped and (held := loop.stopped.get(self._context.get(RUNNING, ""))) is not None:  # type: ignore[attr-defined]
            held.append(self)
        else:
            super()._run()


class SimLoop(VirtualTimeLoop):
    """A virtual-time loop that knows whose every step is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stopped: dict[str, list[asyncio.Handle]] = {}
        self.rates: dict[str, float] = {}
        """How fast a process's clock runs, where it is not 1."""

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        if self.rates and (rate := self.rates.get(RUNNING.get())) is not None:
            when = self._now_s + (when - self._now_s) / rate
        return self._timer(when, callback, args, context)

    def _timer(self, when: float, callback: Any, args: Any, context: Any) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

    def stop_process(self, name: str) -> None:
        self.stopped.setdefault(name, [])

    def continue_process(self, name: str) -> None:
        self._ready.extend(self.stopped.pop(name, ()))


class Processes:
    """Which tasks belong to which process."""

    def __init__(self, loop: SimLoop) -> None:
        make = loop.get_task_factory()
        assert make is not None
        self.loop = loop
        self._make: Any = make
        self._tasks: dict[str, dict[asyncio.Task[Any], None]] = {}
        self._dead: set[str] = set()
        self.on_end: Callable[[str], None] = lambda _: None
        loop.set_task_factory(self._started)

    def begin(self, name: str, *, rate: float = 1.0) -> None:
        """The running task, and all that it and its children start from here on, are this process's."""
        RUNNING.set(name)
        self._tasks[name] = {}
        if rate != 1.0:
            self.loop.rates[name] = rate

    def end(self, name: str) -> None:
        """What is under way ends where it is; what a timer would still start ends before it begins."""
        if name in self._dead:
            return
        self._dead.add(name)
        self.on_end(name)
        for task in self._tasks.pop(name, ()):
            task.cancel()
        self.loop.continue_process(name)

    def alive(self, name: str) -> bool:
        return name in self._tasks

    def stop(self, name: str) -> None:
        """SIGSTOP."""
        if self.alive(name):
            self.loop.stop_process(name)

    def go_on(self, name: str) -> None:
        """SIGCONT."""
        self.loop.continue_process(name)

    def stopped(self, name: str) -> bool:
        return name in self.loop.stopped

    def tasks(self) -> int:
        return sum(map(len, self._tasks.values()))

    def _started(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
        task = self._make(loop, coro, **kwargs)
        name = RUNNING.get()
        if name in self._dead:
            task.cancel()
        elif (tasks := self._tasks.get(name)) is not None:
            tasks[task] = None
            task.add_done_callback(lambda done: tasks.pop(done, None))
        return task


@contextmanager
def outside() -> Iterator[None]:
    """What is started in here belongs to the world, whoever asked for it."""
    token = RUNNING.set("")
    try:
        yield
    finally:
        RUNNING.reset(token)


class MachineClock:
    """`khook.seams.Clock` of one machine: its wall clock is wrong by `skew`, and both run `rate` times as fast."""

    def __init__(self, loop: SimLoop, *, skew: timedelta, rate: float) -> None:
        self._loop = loop
        self._start = loop.start + skew
        self._rate = rate

    def monotonic(self) -> float:
        return self._loop.time() * self._rate

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time() * self._rate)
