"""`python -m bench`: plays the rounds, shows what came of them, and says by its exit code whether nothing was lost.

Worker counts alternate, and every other turn runs backwards (1, 2, 2, 1), so that a machine that slows down slows
all of them. Ctrl-C and SIGTERM end what was started and remove what was written, as the end of a round does.
"""

import asyncio
import os
import platform
import signal
import sys
from collections.abc import Sequence

import orjson
from rich.console import Console
from rich.status import Status

from bench import proc, report
from bench.children import BenchFailed
from bench.options import Options, parse
from bench.stage import Say, play

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    errors = Console(stderr=True)
    try:
        run = asyncio.run(_until_interrupted(options, errors))
        _tell(run, options)
    except (BenchFailed, OSError) as error:
        errors.print(f"bench: {error}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_FAILED
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    return 0 if run.honest else EXIT_FAILED


def order(workers: Sequence[int], rounds: int) -> list[int]:
    """Which worker count is played when."""
    return [count for turn in range(rounds) for count in (workers[::-1] if turn % 2 else workers)]


async def _until_interrupted(options: Options, errors: Console) -> report.Run:
    work = asyncio.create_task(_play(options, errors))

    def interrupt() -> None:
        if not work.cancelling():  # a second Ctrl-C must not cut the clean-up short: it has its own deadlines
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    return await work


async def _play(options: Options, errors: Console) -> report.Run:
    turns = order(options.workers, options.rounds)
    rounds = []
    with errors.status("") as status:
        for number, workers in enumerate(turns, 1):
            say = _sayer(status, f"round {number} of {len(turns)}, {workers} worker{'s' if workers > 1 else ''}: ")
            rounds.append(await play(options, workers, say=say))
    return report.Run(options=options, machine=_machine(), rounds=rounds)


def _sayer(status: Status, before: str) -> Say:
    return lambda words: status.update(before + words)


def _machine() -> report.Machine:
    return report.Machine(
        cores=proc.cores(), cpu=proc.cpu_model(), python=platform.python_version(), kernel=os.uname().release
    )


def _tell(run: report.Run, options: Options) -> None:
    as_json = orjson.dumps(report.to_json(run), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if options.json_file is not None:
        options.json_file.write_bytes(as_json)
    if options.output == "json":
        sys.stdout.write(as_json.decode())
    else:
        report.show(run, Console())


if __name__ == "__main__":
    sys.exit(main())
