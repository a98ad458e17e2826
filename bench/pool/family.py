"""The processes of one `khook run` as the kernel sees them: who is below it, what they hold open, when they end.

Reads /proc and pidfds, never khook's own account. Linux only, as the pool itself.
"""

import asyncio
import contextlib
import os
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.proc import parse_stat

SETTLES_WITHIN_S: Final = 5.0
"""A closed connection's descriptor goes in the next turns of a loop; a leak stays."""
POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    fds: int
    """Of the supervisor, its forkserver and its resource tracker. A worker's die with it."""
    living: int
    zombies: int

    def grown(self, before: "Family") -> int:
        """What this family has more than it had: descriptors, processes and zombies."""
        return max(0, self.fds - before.fds) + max(0, self.living - before.living) + self.zombies


def descendants(pid: int) -> list[int]:
    """Everything below a process, zombies too."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *descendants(child)]
    return found


def family(supervisor: int) -> Family:
    below = descendants(supervisor)
    zombies = [pid for pid in below if _is_zombie(pid)]
    return Family(
        fds=sum(_fds(pid) for pid in (supervisor, *_children(supervisor))),
        living=len(below) - len(zombies),
        zombies=len(zombies),
    )


async def settled_family(supervisor: int, *, before: Family) -> Family:
    """The family as it is when it is no larger than before, or after a while whatever it is."""
    give_up_at = time.monotonic() + SETTLES_WITHIN_S
    while (now := family(supervisor)).grown(before) and time.monotonic() < give_up_at:
        await asyncio.sleep(POLL_S)
    return now


@contextlib.contextmanager
def pidfds(pids: Sequence[int]) -> Iterator[list[int]]:
    """Handles that name these very processes, even when their pids are used again."""
    opened = [os.pidfd_open(pid) for pid in pids]
    try:
        yield opened
    finally:
        for one in opened:
            os.close(one)


def ended(pidfd: int) -> bool:
    return bool(_ready([pidfd], timeout_s=0.0))


def all_ended_s(ends: Sequence[int], *, since_at: float, within_s: float) -> float | None:
    """Seconds from `since_at` to the last of these deaths; None: one still lives. Blocks the loop: nothing else may
    come between a death and its time."""
    left = list(ends)
    while left:
        wait_s = since_at + within_s - time.monotonic()
        gone = _ready(left, timeout_s=max(0.0, wait_s))
        if not gone and wait_s <= 0:
            return None
        left = [end for end in left if end not in gone]
    return time.monotonic() - since_at


def _ready(ends: Sequence[int], *, timeout_s: float) -> list[int]:
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    return [end for end, _ in poll.poll(timeout_s * 1000)]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_zombie(pid: int) -> bool:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace")).state == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _fds(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - one call, no objects
    except (FileNotFoundError, ProcessLookupError):
        return 0
