"""What the process tests run: a worker that owns keys, and a program that is a whole pool.

The program prints one JSON line when all keys have started, and drains on SIGTERM and SIGINT. Run by its path it has
a `__main__` with a file, as a console script has, which workers would import again if it were not hidden.
"""

import asyncio
import ctypes
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shards.forkserver import ForkserverLauncher, serve
from shards.launch import Seat
from shards.member import Member
from shards.policy import PoolLimits
from shards.pool import Pool

KEYS: Mapping[str, float] = {f"key-{number}": 1.0 for number in range(12)}
SLOTS = ("w0", "w1")


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()


class Worker:
    """Does as it is told: b"spin" never lets the loop turn again, b"where" answers how it was started, b"may I"
    whether it has permission to act."""

    def __init__(self, slot: str) -> None:
        self.slot = slot
        self.member: Member

    async def welcome(self, payload: bytes) -> None:
        self.greeting = payload

    async def start(self, key: str, epoch: int) -> None:
        self.member.ask(f"start {key}".encode())

    async def stop(self, key: str, epoch: int) -> None:
        self.member.ask(f"stop {key}".encode())

    def told(self, payload: bytes) -> None:
        if payload == b"spin":
            spin()
        if payload == b"may I":
            self.member.ask(b"may" if self.member.permission.holds else b"may not")
            return
        main = sys.modules["__main__"]
        facts = {
            "loop": type(asyncio.get_running_loop()).__module__,
            "main": getattr(main, "__file__", None),
            "marker": os.environ.get("SHARDS_PRELOAD"),
        }
        self.member.ask(json.dumps(facts).encode())

    def report(self) -> bytes:
        return b"report of " + self.slot.encode()

    async def drain(self, drain_s: float) -> None:
        self.member.ask(b"drained")


def spin() -> None:
    while True:
        pass


async def live(seat: Seat) -> None:
    worker = Worker(seat.slot)
    worker.member = Member(seat, work=worker, clock=SystemClock())
    await worker.member.run()


def entry(slot: str, channel: socket.socket) -> None:
    serve(slot, channel, live)


class Record:
    """An owner that notes what it is told, and whether the dead were dead."""

    def __init__(self) -> None:
        self.asked_: list[tuple[str, str]] = []
        self.deaths: list[tuple[str, str]] = []
        self.alive_at_death: list[int] = []
        self.pids: dict[str, int] = {}
        self.reports: dict[str, bytes] = {}
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.permitted_s: float | None = None

    def welcome(self, slot: str) -> bytes:
        return b"hello"

    def permission_s(self) -> float | None:
        return self.permitted_s

    def reported(self, slot: str, report: bytes) -> None:
        self.reports[slot] = report

    def asked(self, slot: str, question: bytes) -> None:
        self.asked_.append((slot, question.decode()))

    def died(self, slot: str, how: str) -> None:
        self.deaths.append((slot, how))
        self.alive_at_death += [pid for pid in [self.pids.get(slot)] if pid is not None and is_alive(pid)]

    def info(self, event: str, **values: Any) -> None:
        self.logged.append((event, values))

    warning = error = info


def state_of(pid: int) -> str:
    """One letter, as in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """It can still run code: neither gone nor a zombie."""
    try:
        return state_of(pid) not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def make_launcher(*modules: str) -> ForkserverLauncher:
    launcher = ForkserverLauncher(entry, preload_modules=[*modules])
    launcher.ensure_running()
    return launcher


def make_pool(launcher: ForkserverLauncher, record: Record, **limits: Any) -> Pool:
    return Pool(
        launcher=launcher,
        owner=record,
        clock=SystemClock(),
        randomness=random.Random(1),
        slots=SLOTS,
        limits=PoolLimits(**limits),
        log=record,
    )


async def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.005)


def all_started(pool: Pool) -> bool:
    keys = pool.view().keys
    return keys.keys() == KEYS.keys() and all(seen.started for seen in keys.values())


async def program(launcher: ForkserverLauncher) -> None:
    record = Record()
    pool = make_pool(launcher, record, heartbeat_s=0.1, heartbeat_timeout_s=1.0)
    pool.want(KEYS)
    pool.lead(1)
    running = asyncio.create_task(pool.run())
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await until(lambda: all_started(pool))
    workers = [seen.pid for seen in pool.view().slots.values()]
    pool.tell_slot("w0", b"where")
    await until(lambda: any(said.startswith("{") for _, said in record.asked_))
    print(json.dumps({"workers": workers, "facts": json.loads(record.asked_[-1][1])}), flush=True)
    if "spin" in sys.argv:
        pool.tell_slot("w1", b"spin")
        await until(lambda: bool(record.deaths))
        stopped.set()
    await stopped.wait()
    await pool.stop(drain_s=2.0)
    await running
    print(json.dumps({"drained": [slot for slot, said in record.asked_ if said == "drained"]}), flush=True)
    print(json.dumps({"deaths": record.deaths, "zombies": zombies()}), flush=True)


def zombies() -> list[int]:
    """Children of this process that nobody has reaped."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return [pid for pid in map(int, children.split()) if not is_alive(pid)]


if __name__ == "__main__":
    if "subreaper" in sys.argv:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to PID 1
    from process import pool_worker  # the entry must be found by name, and __main__ is hidden from workers

    asyncio.run(program(pool_worker.make_launcher()))
