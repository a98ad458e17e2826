"""Real processes: workers forked from a preloaded multiprocessing forkserver, tied to the supervisor's life.

Decides nothing about slots. Its invariants: a process is reported dead when its pidfd says so and never because the
forkserver does (if the forkserver dies, multiprocessing calls all its living workers dead, exit code 255); no
process outlives the supervisor, however that ends (PDEATHSIG in the forkserver and in each worker, and the end of
the channel). Linux only. `ensure_running` first, in the main thread, before there is a loop and before threads.
"""

import asyncio
import contextlib
import faulthandler
import gc
import json
import multiprocessing
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver as multiprocessing_forkserver
from multiprocessing.context import ForkServerProcess
from types import ModuleType
from typing import Final

import uvloop

from shards import preload
from shards.launch import LaunchFailed, Process, Seat, Serve
from shards.member import PoolGone
from shards.stream import StreamChannel

EXIT_POOL_GONE: Final = 75
EXIT_CODE_WAIT_S: Final = 0.5
"""How long after a death its exit code is waited for: the forkserver has to reap first. The death itself is certain."""
LOST_EXIT_CODE: Final = 255
"""What multiprocessing says when the forkserver died before it could tell."""

Entry = Callable[[str, socket.socket], None]
"""What a worker runs, given its slot and its channel: a module-level function that ends in `serve`."""


class ForkserverLauncher:
    """Starts `entry` in forks of one server that imported the entry's module and `preload_modules` before.

    One such server serves the whole process: a second launcher may only ask for modules the first one asked for.
    """

    def __init__(self, entry: Entry, *, preload_modules: Sequence[str]) -> None:
        if entry.__module__ == "__main__":
            raise ValueError("the entry must be importable: __main__ is hidden from workers")
        self._entry = entry
        self._modules = list(dict.fromkeys([__name__, entry.__module__, *preload_modules]))
        self._context = multiprocessing.get_context("forkserver")

    def ensure_running(self) -> None:
        """Boot the server now (0.3 s and the imports, else paid by the first launch). Main thread, no loop yet."""
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("the forkserver must be started before the event loop")
        with self._surroundings():
            multiprocessing_forkserver.ensure_running()

    async def launch(self, slot: str) -> Process:
        """Blocks the loop 2–4 ms, or as long as a boot takes if the server has died. Raises LaunchFailed."""
        ours, theirs = socket.socketpair()
        process = self._context.Process(
            target=_work, name=slot, daemon=True, args=(self._entry, slot, theirs, self._modules)
        )
        try:
            with theirs, self._surroundings():
                process.start()
        except (OSError, EOFError) as error:
            ours.close()
            raise LaunchFailed(f"the forkserver did not fork: {error!r}") from error
        return await ForkedProcess.adopt(process, ours)

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """What must hold whenever multiprocessing may boot a server or describe this process to a worker."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("PDEATHSIG follows the thread that forks: the main thread alone may start processes")
        self._context.set_forkserver_preload([preload.__name__])
        wanted = {"parent_pid": os.getpid(), "modules": self._modules, "path": sys.path}
        main = sys.modules["__main__"]
        # A console script's __main__ would be imported again by each worker (125 ms, 25 MiB). An empty one is not.
        sys.modules["__main__"] = ModuleType("__main__")
        os.environ[preload.VARIABLE] = json.dumps(wanted)
        try:
            yield
        finally:
            os.environ.pop(preload.VARIABLE, None)
            sys.modules["__main__"] = main


class ForkedProcess:
    """One worker. Its pidfd is the truth about its death, and the only thing that signals are sent to."""

    def __init__(self, process: ForkServerProcess, channel: StreamChannel | None = None) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._dead: asyncio.Future[str] = self._loop.create_future()
        self._code: int | None = None
        self._sentinel = process.sentinel
        self._loop.add_reader(self._sentinel, self._told_exit_code)
        self._pidfd = -1
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._loop.call_soon(self._gone)
        else:
            self._loop.add_reader(self._pidfd, self._gone)

    @classmethod
    async def adopt(cls, process: ForkServerProcess, ours: socket.socket) -> "ForkedProcess":
        adopted = cls(process)
        try:
            adopted._channel = await StreamChannel.open(ours)
        except BaseException:
            ours.close()
            adopted.signal(signal.SIGKILL)
            raise
        return adopted

    @property
    def channel(self) -> StreamChannel:
        assert self._channel is not None, "adopt has not returned yet"
        return self._channel

    def signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def exited(self) -> str:
        return await asyncio.shield(self._dead)

    def _gone(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            self._reap()
            os.close(self._pidfd)
            self._pidfd = -1
        if self._code is not None:
            self._settle()
        else:
            self._loop.call_later(EXIT_CODE_WAIT_S, self._settle)

    def _reap(self) -> None:
        """As PID 1 or a subreaper this process inherits the workers of a dead forkserver. Else they are not its own."""
        with contextlib.suppress(ChildProcessError):
            left = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
            if left is not None:
                self._code = left.si_status if left.si_code == os.CLD_EXITED else -left.si_status

    def _told_exit_code(self) -> None:
        """The forkserver reaped the worker, or died itself; then the worker may live, and must not."""
        self._loop.remove_reader(self._sentinel)
        self.signal(signal.SIGKILL)
        if self._code is None:
            self._code = self._process.exitcode
        if self._pidfd < 0:
            self._settle()

    def _settle(self) -> None:
        if self._dead.done():
            return
        self._loop.remove_reader(self._sentinel)
        self._dead.set_result(_how(self._code))
        with contextlib.suppress(ValueError):  # multiprocessing does not know yet; its finalizer closes the rest
            self._process.close()


def _how(code: int | None) -> str:
    if code is None or code == LOST_EXIT_CODE:
        return "unknown: the forkserver died first"
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


def _work(entry: Entry, slot: str, channel: socket.socket, modules: list[str]) -> None:
    """A worker's first lines."""
    preload.die_with_parent(preload.PID or os.getppid())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until the entry has a better answer, nothing is at stake
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGABRT shall print a stack, not write secrets to a disk
    faulthandler.enable()
    gc.enable()
    _Proof.problem = preload.problem(modules)
    entry(slot, channel)


class _Proof:
    """Set once in each worker, before its entry runs."""

    problem = "not started by a ForkserverLauncher"


def serve(slot: str, channel: socket.socket, life: Serve) -> None:
    """Run `life` on uvloop, on this worker's channel: the end of an `Entry`. Ends the process if the pool is gone."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(slot, channel, life))


async def _serve(slot: str, connected: socket.socket, life: Serve) -> None:
    loop = asyncio.get_running_loop()
    channel = await StreamChannel.open(connected)
    seat = Seat(
        slot=slot,
        pid=os.getpid(),
        channel=channel,
        on_terminate=lambda handler: loop.add_signal_handler(signal.SIGTERM, handler),
        preload_problem=_Proof.problem,
    )
    try:
        await life(seat)
    except PoolGone:
        os._exit(EXIT_POOL_GONE)  # another process may own the keys already: not one more line of ours
    finally:
        channel.close()
