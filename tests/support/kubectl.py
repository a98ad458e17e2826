"""The real kubectl, as a person at a terminal would use it on one of the two API servers."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# kubectl itself gives up after less; this only keeps a broken server from holding the tests up.
WITHIN_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The cells of each line of a table, by two blanks or more."""
        return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    program: Path
    kubeconfig: Path
    cache: Path
    namespace: str

    def __call__(self, *arguments: str, stdin: str = "") -> Said:
        done = subprocess.run(
            self._command(arguments),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            env=self._env(),
        )
        return Said(code=done.returncode, out=done.stdout, err=done.stderr)

    def ok(self, *arguments: str, stdin: str = "") -> Said:
        """The same, where nothing but success will do."""
        said = self(*arguments, stdin=stdin)
        assert said.code == 0, f"kubectl {' '.join(arguments)}\n{said.out}{said.err}"
        return said

    @contextmanager
    def following(self, *arguments: str) -> Iterator[Iterator[str]]:
        """The lines of a command that goes on until it is stopped."""
        process = subprocess.Popen(self._command(arguments), stdout=subprocess.PIPE, text=True, env=self._env())
        assert process.stdout is not None
        silenced = threading.Timer(WITHIN_S, process.kill)
        silenced.start()
        try:
            yield (line.rstrip("\n") for line in process.stdout)
        finally:
            silenced.cancel()
            process.kill()
            process.stdout.close()
            process.wait()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [
            str(self.program),
            f"--kubeconfig={self.kubeconfig}",
            f"--cache-dir={self.cache}",
            f"--namespace={self.namespace}",
            *arguments,
        ]

    def _env(self) -> dict[str, str]:
        """No proxy stands before a loopback address, and nobody's own settings."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.cache)}
