"""What `khook demo` shows: a live table on a terminal, plain lines in a pipe, and the summary at its end.

All of it is made from a `Scene`: the log's account of workers, the incidents in the Hooks' status, the calls in the
agents' record. What was lost or repeated is computed from that record against the story and from nothing else.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from khook.cli.demo_calls import Calls, pods_named, rows_of
from khook.cli.demo_log import Told
from khook.core.prompt import instructions
from khook.errors import EXIT_OK, EXIT_UNEXPECTED
from khook.sandbox.kagent import Run
from khook.sandbox.reckoning import Storm, Verdict

PROMPT_CHARS: Final = 160
"""The beginning of what a Hook's author asks: two lines beside the other column of a wide terminal."""
NARROW_PROMPT_CHARS: Final = 72
"""The same on a terminal of 80 columns."""
PODS_NAMED: Final = 2
"""Of the pods that a prompt names: enough to see that it does."""
WIDE_CHARS: Final = 120
"""A terminal with as many columns has room for what one of 80 has to do without."""
# Titles, heads and rules of three tables, and a row for each of four workers.
OTHER_LINES: Final = 13
# An incident takes one line, a call with its answer three.
LINES_OF_BOTH: Final = 4
MIN_ROWS: Final = 2
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
    storm: Storm
    khook_exit: int | None
    """None: it still runs (--keep)."""

    @property
    def exit_code(self) -> int:
        workers = self.came_back and self.loop.heir != "" and self.khook_exit in (None, 0)
        calls = self.verdict.clean and self.parked == self.delivered and self.storm.calls == 1
        return EXIT_OK if workers and calls else EXIT_UNEXPECTED


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
    verdict, loop, storm = ending.verdict, ending.loop, ending.storm
    went = f"went to {loop.heir}" if loop.heir else "went to NOBODY"
    back = "came back" if ending.came_back else "did NOT come back"
    lines = [
        f"incidents {ending.incidents}, calls {ending.calls}, "
        f"lost {len(verdict.lost)}, repeated {len(verdict.repeated)}",
        f"calls parked {ending.parked}, delivered {ending.delivered}",
        f"worker {ending.killed} was killed with SIGKILL and {back}",
        f"worker {loop.slot} was killed {loop.deaths} times: its slot is broken, and {loop.namespace} {went}",
        f"rollout storm: {storm.pods} pods, {storm.calls} {'call' if storm.calls == 1 else 'calls'}",
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
                self._live.update(self._drawn(self._last, ALL_ROWS))  # what stays on the screen is the whole
            self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, scene: Scene) -> None:
        self._last = scene
        if self._live:
            fitting = max(MIN_ROWS, (self._console.height - OTHER_LINES) // LINES_OF_BOTH)
            self._live.update(self._drawn(scene, fitting), refresh=True)
            return
        for key, line in _told(scene):
            if key not in self._said:
                self._said.add(key)
                self.say(f"{scene.at_s:5.1f} s  {line}")

    def _drawn(self, scene: Scene, newest: int) -> Group:
        return _drawn(scene, newest=newest, wide=self._console.width >= WIDE_CHARS)


def _told(scene: Scene) -> Iterator[tuple[str, str]]:
    """Everything that has happened, each under a name of its own: the pods, then the calls from first to last."""
    for number, words in enumerate(scene.words):
        yield f"words {number}", words
    for call_id, what in scene.calls.parked.items():
        yield f"parked {call_id}", f"{what} is parked"
    for number, run in enumerate(scene.runs):
        after = ", after it was parked" if run.call_id in scene.calls.parked else ""
        about = f"{_about(scene, run)} ({run.context['eventName']}){after}"
        yield f"run {number}", f'{run.agent} is asked about {about}: "{_asked(run, PROMPT_CHARS)}"{_naming(run)}'
    for run in scene.runs:
        if answer := scene.calls.answers.get(run.call_id):
            yield f"answer {run.call_id}", f'{run.agent} answers about {_about(scene, run)}: "{answer}"'


def _about(scene: Scene, run: Run) -> str:
    """As the Hook's status has it; the record alone knows the pod that the call is named after."""
    return scene.calls.abouts.get(run.call_id) or f"{run.context['namespace']}/{run.context['resourceName']}"


def _asked(run: Run, chars: int) -> str:
    prompt = " ".join(instructions(run.prompt).split())
    return prompt if len(prompt) <= chars else prompt[: chars - 1] + "…"


def _naming(run: Run) -> str:
    """What a prompt says of the pods of a group."""
    names, failed = pods_named(run.prompt)
    return f", naming {len(names)} of {failed} pods: {', '.join(names[:PODS_NAMED])}, …" if names else ""


def _drawn(scene: Scene, *, newest: int, wide: bool) -> Group:
    """Three tables; of incidents and calls the `newest` rows."""
    return Group(_workers(scene), _incidents(scene, newest, wide=wide), _calls(scene, newest, wide=wide))


def _table(title: str, *columns: str) -> Table:
    """The last column takes the width that the others leave, and wraps."""
    table = Table(title=title, title_justify="left", expand=True, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
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


def _incidents(scene: Scene, newest: int, *, wide: bool) -> Table:
    more = ("hook", "status", "agent") if wide else ()
    table = _table("incidents", "about", "event type", "signals", *more, "call")
    rows = ((hook["metadata"], row) for hook, row in rows_of(scene.hooks))
    for hook, row in sorted(rows, key=lambda one: str(one[1]["firstSeen"]))[-newest:]:
        call = row.get("call", {})
        state = " ".join(filter(None, (call.get("state", ""), call.get("reason", ""))))
        table.add_row(
            f"{hook['namespace']}/{scene.calls.resource(row)}",
            row["eventType"],
            str(row.get("count", "")),
            *((hook["name"], row["status"], row.get("agent", "")) if wide else ()),
            state,
        )
    return table


def _calls(scene: Scene, newest: int, *, wide: bool) -> Table:
    table = _table("calls", "agent, about", "prompt and answer")
    for run in scene.runs[-newest:]:
        said = _asked(run, PROMPT_CHARS if wide else NARROW_PROMPT_CHARS) + _naming(run)
        answer = scene.calls.answers.get(run.call_id, "")
        table.add_row(f"{run.agent}\n{_about(scene, run)}", escape(said + (f"\n→ {answer}" if answer else "")))
    return table
