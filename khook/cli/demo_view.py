"""What `khook demo` shows: a live table on a terminal, plain lines in a pipe, and the summary at its end.

All of it is made from a `Scene`: the log's account of workers, the incidents in the Hooks' status, the calls in the
agents' record. What was lost or repeated is computed from that record against the story and from nothing else.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from khook.cli.demo_calls import Calls, rows_of
from khook.cli.demo_log import Told
from khook.core.prompt import instructions
from khook.errors import EXIT_OK, EXIT_UNEXPECTED
from khook.sandbox.kagent import Run
from khook.sandbox.story import Verdict

PROMPT_CHARS: Final = 160
"""The beginning of what a Hook's author asks: two lines beside the other columns of a terminal."""

# Titles, heads and rules of three tables, and a row for each of four workers.
OTHER_LINES: Final = 20
# An incident takes one line, a call with its answer three.
LINES_OF_BOTH: Final = 4
MIN_ROWS: Final = 3
ALL_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One moment."""

    at_s: float
    words: Sequence[str]
    """What has happened in the cluster so far, oldest first."""
    told: Told
    hooks: Sequence[Mapping[str, Any]]
    calls: Calls
    """What the Hooks' status has shown of their calls so far."""
    runs: Sequence[Run]
    dead: Collection[str]
    """The slots whose worker was killed and is not back yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How it went, and so the exit code."""

    verdict: Verdict
    incidents: int
    calls: int
    parked: int
    """Calls that had to wait for their agent."""
    delivered: int
    """Of these, the ones that it has by now."""
    killed: str
    came_back: bool
    """The killed worker's slot was filled again."""
    loop: "LoopEnding"
    khook_exit: int | None
    """None: it still runs (--keep)."""

    @property
    def exit_code(self) -> int:
        workers = self.came_back and self.loop.heir != ""
        well = self.verdict.clean and self.parked == self.delivered and workers and self.khook_exit in (None, 0)
        return EXIT_OK if well else EXIT_UNEXPECTED


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopEnding:
    """What became of the slot whose worker died each time it came back."""

    slot: str
    deaths: int
    namespace: str
    heir: str
    """The slot that has its namespace now; empty: none."""


def summary(ending: Ending) -> list[str]:
    """The last lines. What was lost, repeated or called for no reason is named."""
    verdict, loop = ending.verdict, ending.loop
    went = f"went to {loop.heir}" if loop.heir else "went to NOBODY"
    back = "came back" if ending.came_back else "did NOT come back"
    lines = [
        f"incidents {ending.incidents}, calls {ending.calls}, "
        f"lost {len(verdict.lost)}, repeated {len(verdict.repeated)}",
        f"calls parked {ending.parked}, delivered {ending.delivered}",
        f"worker {ending.killed} was killed with SIGKILL and {back}",
        f"worker {loop.slot} was killed {loop.deaths} times: its slot is broken, and {loop.namespace} {went}",
    ]
    lines += [f"LOST: {one}" for one in verdict.lost]
    lines += [f"REPEATED: {one}" for one in verdict.repeated]
    lines += [f"UNEXPECTED: {one}" for one in verdict.unexpected]
    lines += [f"WRONG PROMPT: {one}" for one in verdict.misworded]
    if ending.khook_exit not in (None, 0):
        lines.append(f"khook run ended with exit code {ending.khook_exit}")
    return lines


class View:
    """Shows scenes. Use as a context manager; `say` prints one line above whatever is live."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._last: Scene | None = None
        self._said: set[str] = set()

    def __enter__(self) -> "View":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._live:
            if self._last:
                self._live.update(_drawn(self._last, newest=ALL_ROWS))  # what stays on the screen is the whole
            self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, scene: Scene) -> None:
        self._last = scene
        if self._live:
            fitting = max(MIN_ROWS, (self._console.height - OTHER_LINES) // LINES_OF_BOTH)
            self._live.update(_drawn(scene, newest=fitting), refresh=True)
            return
        for key, line in _told(scene):
            if key not in self._said:
                self._said.add(key)
                self.say(f"{scene.at_s:5.1f} s  {line}")


def _told(scene: Scene) -> Iterator[tuple[str, str]]:
    """Everything that has happened, each under a name of its own: the pods, then the calls from first to last."""
    for number, words in enumerate(scene.words):
        yield f"words {number}", words
    for call_id, what in scene.calls.parked.items():
        yield f"parked {call_id}", f"{what} is parked"
    for number, run in enumerate(scene.runs):
        after = ", after it was parked" if run.call_id in scene.calls.parked else ""
        about = f"{_about(run)} ({run.context['eventName']}){after}"
        yield f"run {number}", f'{run.agent} is asked about {about}: "{_short(run)}"'
    for run in scene.runs:
        if answer := scene.calls.answers.get(run.call_id):
            yield f"answer {run.call_id}", f'{run.agent} answers about {_about(run)}: "{answer}"'


def _about(run: Run) -> str:
    return f"{run.context['namespace']}/{run.context['resourceName']}"


def _short(run: Run) -> str:
    prompt = " ".join(instructions(run.prompt).split())
    return prompt if len(prompt) <= PROMPT_CHARS else prompt[: PROMPT_CHARS - 1] + "…"


def _drawn(scene: Scene, *, newest: int) -> Group:
    """Three tables; of incidents and calls the `newest` rows."""
    return Group(_workers(scene), _incidents(scene, newest), _calls(scene, newest))


def _table(title: str, *columns: str) -> Table:
    """The last column takes the width that the others leave, and wraps."""
    table = Table(title=title, title_justify="left", expand=True)
    *others, last = columns
    for column in others:
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    table.add_column(last, ratio=1)
    return table


def _workers(scene: Scene) -> Table:
    last = scene.words[-1] if scene.words else "starting"
    table = _table(f"{scene.at_s:.1f} s: {last}", "worker", "pid", "started", "namespaces")
    for slot, pid in sorted(scene.told.pids.items()):
        shown_pid = "[red]killed[/red]" if slot in scene.dead else str(pid)
        if slot in scene.told.broken:
            shown_pid = "[red]broken[/red]"
        table.add_row(slot, shown_pid, str(scene.told.lives[slot]), " ".join(scene.told.namespaces(slot)))
    return table


def _incidents(scene: Scene, newest: int) -> Table:
    table = _table("incidents", "hook", "event type", "resource", "status", "signals", "agent", "call")
    rows = ((hook["metadata"], row) for hook, row in rows_of(scene.hooks))
    for hook, row in sorted(rows, key=lambda one: str(one[1]["firstSeen"]))[-newest:]:
        call = row.get("call", {})
        table.add_row(
            f"{hook['namespace']}/{hook['name']}",
            row["eventType"],
            row["resourceName"],
            row["status"],
            str(row.get("count", "")),
            row.get("agent", ""),
            " ".join(filter(None, (call.get("state", ""), call.get("reason", "")))),
        )
    return table


def _calls(scene: Scene, newest: int) -> Table:
    table = _table("calls", "agent", "about", "prompt and answer")
    for run in scene.runs[-newest:]:
        answer = scene.calls.answers.get(run.call_id, "")
        table.add_row(run.agent, _about(run), escape(_short(run) + (f" → {answer}" if answer else "")))
    return table
