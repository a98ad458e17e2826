"""Figures that are programs of their own: they print one JSON object, and are judged here.

The metrics directory needs a process that boots a forkserver before its loop; the ring's figures are CPU time.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.pool.verdict import Row, counted, limited

KILLS: Final = 200
TAIL_CHARS: Final = 2_000
ROOT: Final = Path(__file__).parents[2]


class ProgramFailed(Exception):
    """It ended without its object; the text has the end of what it said."""


async def metrics_directory(progress: Callable[[int, int], None]) -> list[Row]:
    progress(0, KILLS)
    found = await _run("-m", "bench.pool.metrics_kills", "--kills", str(KILLS))
    files = int(found["files"])
    return [
        counted("metrics", "workers killed with SIGKILL while counting", [found["kills"]], least=KILLS, most=KILLS),
        counted("metrics", "files", [files, files + int(found["files_more"])], least=files, most=files),
        counted("metrics", f"counters that went back in {found['scrapes']} scrapes", [found["backwards"]]),
        counted("metrics", "descriptors, processes, zombies more than before", [found["leaked"]]),
    ]


async def ring(progress: Callable[[int, int], None]) -> list[Row]:
    progress(0, 1)
    found = await _run("bench/ring_figures.py")
    where = f"{found['keys']:,} namespaces on {found['slots']} slots"
    return [
        limited("ring", f"{where}: {name.replace('_', ' ')}", seen["is"], most=seen["at_most"])
        for name, seen in found["figures"].items()
    ]


async def _run(*arguments: str) -> dict[str, Any]:
    """The object that a program of ours printed, whatever its exit code says of it. Raises ProgramFailed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = json.loads(output)
    except json.JSONDecodeError:
        raise ProgramFailed(f"{' '.join(arguments)} failed:\n{errors.decode()[-TAIL_CHARS:]}") from None
    assert isinstance(found, dict), "these programs print an object"
    return found
