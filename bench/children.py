"""Processes of ours beside khook: each answers a line of JSON with a line of JSON, and ends with its parent.

The API server, the agents and the load generator are such children, so that what they cost is not khook's. The first
line that a child is given is its configuration (keys never stand in a command line), its first answer says that it
is up. An answer with `error` is a failure of the run.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from shards.preload import die_with_parent

MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""A burst's answer has a line for each of its incidents."""
STARTS_WITHIN_S: Final = 30.0
ENDS_WITHIN_S: Final = 5.0
TAIL_CHARS: Final = 2_000

Message = dict[str, Any]
Answers = Callable[[Message], Awaitable[Message]]


class BenchFailed(Exception):
    """The run itself could not go on; the text says why."""


class Child:
    """A running child. `ask` one thing at a time."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.first: Message = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    @staticmethod
    async def start(module: str, config: Mapping[str, Any], *, log: Path) -> "Child":
        """`python -m module`, up and configured."""
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_LINE_BYTES,
                start_new_session=True,  # a terminal's Ctrl-C is for the parent, which stops all in order
            )
        child = Child(process, log)
        try:
            async with asyncio.timeout(STARTS_WITHIN_S):
                child.first = await child.ask(config)
        except TimeoutError:
            await child.close()
            raise BenchFailed(f"{module} was not up within {STARTS_WITHIN_S:.0f} s\n{child.tail()}") from None
        except BaseException:
            await child.close()
            raise
        return child

    async def ask(self, message: Mapping[str, Any]) -> Message:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(orjson.dumps(message) + b"\n")
            await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise BenchFailed(f"a process of this run ended by itself\n{self.tail()}")
        answer: Message = orjson.loads(line)
        if "error" in answer:
            raise BenchFailed(answer["error"])
        return answer

    async def close(self) -> None:
        """Its input ends, and so does it; SIGKILL for one that does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), ENDS_WITHIN_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARS:]


def belong_to_parent() -> None:
    """The first thing that a child does: it ends when the process that its command line names does."""
    die_with_parent(int(sys.argv[1]))


async def answer_lines(configure: Callable[[Message], Awaitable[tuple[Message, Answers]]]) -> None:
    """A child's whole life: take the configuration, say what came of it, then answer until the input ends."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    first = await reader.readline()
    if not first:
        return
    said, answers = await configure(orjson.loads(first))
    _say(said)
    while line := await reader.readline():
        try:
            _say(await answers(orjson.loads(line)))
        except BenchFailed as error:
            _say({"error": str(error)})


def _say(answer: Message) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()
