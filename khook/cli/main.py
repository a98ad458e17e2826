"""`khook`: dispatches to one command, and turns errors into words and exit codes.

`khook run` is dispatched before the command line for people is even imported: typer, and what the other commands
need, would stay in the controller's memory for good. An error of ours is a line on stderr, never a traceback; an
unexpected one is a traceback and exit 1, which is Python's own way.
"""

import sys
from collections.abc import Sequence
from typing import Final

from khook.errors import KhookError, SettingsError

EXIT_INTERRUPTED: Final = 130
"""128 + SIGINT, as shells count."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Ends the process with the command's exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(given)
    except KhookError as error:
        for line in complaint(error):
            print(line, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def complaint(error: KhookError) -> list[str]:
    """What a person is told about it: one line, or one for each bad setting."""
    if isinstance(error, SettingsError):
        return ["khook: these settings cannot be used:", *(f"  {problem}" for problem in error.problems)]
    return [f"khook: {error}"]


def _dispatch(arguments: list[str]) -> None:
    if arguments == ["run"]:
        from khook.cli.run import run  # noqa: PLC0415 - each command imports what it needs, no more

        run()
        return
    from khook.cli.app import app  # noqa: PLC0415

    app(args=arguments, prog_name="khook")
