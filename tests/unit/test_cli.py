"""The command line: it teaches, it complains in words, and it exits with the code that says why."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from khook.cli.main import complaint, main
from khook.cli.run import SECOND_SIGNAL_EXIT, stop_on_signals
from khook.errors import KhookError, LeaseLost, PoolGaveUp, SettingsError


def khook(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """The real command in a fresh interpreter, with these variables and none of ours."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", "from khook.cli.main import main; main()", *arguments],
        env=inherited | {"NO_COLOR": "1", "COLUMNS": "200", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_first_signal_asks_to_stop_and_the_second_exits_at_once() -> None:
    async def main() -> None:
        stops, exits = asyncio.Queue[str](), asyncio.Queue[int]()
        stop_on_signals(lambda: stops.put_nowait("stop"), exit_now=exits.put_nowait)
        async with asyncio.timeout(5):
            os.kill(os.getpid(), signal.SIGTERM)
            await stops.get()
            assert exits.empty()
            os.kill(os.getpid(), signal.SIGINT)
            assert await exits.get() == SECOND_SIGNAL_EXIT

    asyncio.run(main())


def test_help_teaches_every_command() -> None:
    done = khook("--help")
    assert done.returncode == 0
    assert {"run", "demo", "shards", "check", "explain", "version"} <= set(done.stdout.split())
    assert "khook demo" in done.stdout
    assert "78 bad settings" in done.stdout


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("run", "KAGENT_API_KEY"),
        ("demo", "--keep"),
        ("shards", "--workers"),
        ("check", "--offline"),
        ("explain", "--call"),
        ("version", "which khook"),
    ],
)
def test_each_command_explains_itself(command: str, taught: str) -> None:
    """What it is for, and two commands to type."""
    done = khook(command, "--help")
    assert done.returncode == 0
    assert taught in done.stdout
    examples = [line for line in done.stdout.splitlines() if f"khook {command}" in line and "Usage:" not in line]
    assert len(examples) >= 2


def test_a_shell_completes_the_commands() -> None:
    done = khook(_KHOOK_COMPLETE="complete_bash", COMP_WORDS="khook ex", COMP_CWORD="1")
    assert done.stdout.split() == ["explain"]
    assert (
        "_khook_completion"
        in khook("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    )


def test_colour_is_for_a_terminal_and_can_be_switched_off(tmp_path: Path) -> None:
    """rich takes TTY_COMPATIBLE for a terminal that we do not have here."""
    (tmp_path / "h.yaml").write_text("kind: Hook\n")
    arguments = ("check", "--offline", str(tmp_path / "h.yaml"))
    as_terminal = {"TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}
    assert "\x1b[32mok" in khook(*arguments, NO_COLOR="", **as_terminal).stdout
    assert "\x1b[32m" not in khook(*arguments, **as_terminal).stdout
    assert "\x1b" not in khook(*arguments, NO_COLOR="").stdout


def test_version_names_the_installed_package() -> None:
    done = khook("version")
    assert done.returncode == 0
    assert done.stdout.startswith("khook 0.")


def test_bad_settings_are_listed_line_by_line_with_exit_78_and_no_traceback() -> None:
    done = khook("run", LOG_LEVEL="loud", KHOOK_WORKERS="99")
    assert done.returncode == 78
    assert done.stderr.splitlines() == [
        "khook: these settings cannot be used:",
        "  KHOOK_WORKERS: '99' is not allowed: auto, or a whole number from 1 to 16",
        "  LOG_LEVEL: 'loud' is not allowed: choose debug, info, warn or error",
    ]


def test_an_unknown_command_is_a_usage_error() -> None:
    done = khook("rum")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SettingsError(["A: x", "B: y"]), ["khook: these settings cannot be used:", "  A: x", "  B: y"]),
        (PoolGaveUp("no slot can be kept running"), ["khook: no slot can be kept running"]),
        (LeaseLost("another replica leads"), ["khook: another replica leads"]),
    ],
)
def test_an_error_of_ours_is_told_in_words(error: KhookError, words: list[str]) -> None:
    assert complaint(error) == words


def test_the_controller_does_not_carry_the_command_line_for_people() -> None:
    code = (
        "import sys\n"
        "from khook.cli.main import main\n"
        "try: main(['run'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('typer', 'yaml', 'khook.cli.app', 'khook.cli.check') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"LOG_LEVEL": "loud"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[]\n", done.stderr


def test_help_is_shown_where_no_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert "demo" in capsys.readouterr().out
