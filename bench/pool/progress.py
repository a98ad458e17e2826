"""How far the figures are: bars on a terminal, a line now and then in a pipe; always on stderr."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINES_A_FIGURE: Final = 4
"""In a pipe, between its beginning and its end."""


class Said:
    """A context manager; `figure` is one for each figure, several may be open at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> "Said":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextlib.contextmanager
    def figure(self, name: str, words: str) -> Iterator[Callable[[int, int], None]]:
        """Gives what is called with (steps done, steps in all)."""
        began_at = time.monotonic()
        if self._bars is not None:
            task = self._bars.add_task(f"{name:8}{words}", total=None)
            bars = self._bars
            yield lambda done, of: bars.update(task, completed=done, total=of)
            self._bars.remove_task(task)
            return
        self._line(f"{name}: {words}")
        yield self._in_lines(name)
        self._line(f"{name}: measured in {time.monotonic() - began_at:.0f} s")

    def _in_lines(self, name: str) -> Callable[[int, int], None]:
        said = 0

        def step(done: int, of: int) -> None:
            nonlocal said
            part = done * LINES_A_FIGURE // max(1, of)
            if said < part < LINES_A_FIGURE:
                said = part
                self._line(f"{name}: {done} of {of}")

        return step

    def _line(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)
