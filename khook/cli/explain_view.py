"""An explanation as a person reads it, and as a script does.

All text of Events, pods and Hooks is made plain: what it holds must not steer a terminal.
"""

from typing import Any, Final

from rich.console import Console
from rich.text import Text

from khook.cli.explain_outcome import Explanation, Outcome, Reason, Told
from khook.core.moment import rfc3339_seconds
from khook.core.text import plain
from khook.log import redacted

LINE_MAX_BYTES: Final = 2048
PROMPT_LINES_MOST: Final = 2000


def show(console: Console, explanation: Explanation, *, with_prompt: bool) -> None:
    """`with_prompt`: also of entries that ask nobody."""
    _say(console, f"pod {explanation.namespace}/{explanation.pod}")
    for told in explanation.told:
        _show_fact(console, told, with_prompt=with_prompt)
    for note in explanation.notes:
        _say(console, f"note: {note}", "yellow")
    outcome = explanation.outcome
    if outcome.fires:
        _say(console, f"FIRES: {outcome.words} ({_where(outcome)})", "bold green")
    else:
        where = _where(outcome)
        said = f"SILENT, {outcome.reason}: {outcome.words}" + (f" ({where})" if where else "")
        _say(console, said, "bold red")


def document(explanation: Explanation) -> dict[str, Any]:
    return {
        "namespace": explanation.namespace,
        "pod": explanation.pod,
        **_outcome(explanation.outcome),
        "facts": [_fact(told) for told in explanation.told],
        "notes": [_plain(note) for note in explanation.notes],
    }


def _show_fact(console: Console, told: Told, *, with_prompt: bool) -> None:
    fact, signal = told.fact, told.fact.signal
    when = f" at {rfc3339_seconds(signal.raw_time)}" if signal is not None else ""
    _say(console, f"{fact.source}{when}" + (f": {signal.message}" if signal is not None and signal.message else ""))
    _say(console, f"  class  {signal.type.value if signal is not None else f'nothing: {fact.words}'}", "cyan")
    _say(console, f"  row    {fact.row}")
    for outcome in told.outcomes:
        if outcome.entry is None and outcome.reason is Reason.NOTHING:
            continue
        said = "fires" if outcome.fires else f"silent, {outcome.reason}"
        where = _where(outcome)
        _say(console, f"  {where + ': ' if where else ''}{said}: {outcome.words}", "green" if outcome.fires else "")
        if outcome.request is not None and (outcome.fires or with_prompt):
            for line in outcome.request.prompt.splitlines()[:PROMPT_LINES_MOST]:
                _say(console, f"  | {line}")


def _fact(told: Told) -> dict[str, Any]:
    fact, signal = told.fact, told.fact.signal
    return {
        "source": _plain(fact.source),
        "class": None if signal is None else signal.type.value,
        "row": fact.row,
        "time": None if signal is None else rfc3339_seconds(signal.raw_time),
        "reason": "" if signal is None else _plain(signal.reason),
        "message": fact.words if signal is None else _plain(signal.message),
        "outcomes": [_outcome(outcome) | _prompt(outcome) for outcome in told.outcomes],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "fires": outcome.fires,
        "silence": outcome.reason,
        "words": _plain(outcome.words),
        "hook": outcome.hook or None,
        "entry": outcome.entry,
        "agent": outcome.agent or None,
        "until": None if outcome.until_time is None else rfc3339_seconds(outcome.until_time),
    }


def _prompt(outcome: Outcome) -> dict[str, Any]:
    if outcome.request is None:
        return {"prompt": None}
    return {"prompt": "\n".join(_plain(line) for line in outcome.request.prompt.splitlines())}


def _where(outcome: Outcome) -> str:
    if not outcome.hook:
        return ""
    entry = "" if outcome.entry is None else f", entry {outcome.entry}"
    return f"hook {outcome.hook}{entry}" + (f" for {outcome.agent}" if outcome.agent else "")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(_plain(line), style=style), soft_wrap=True)


def _plain(text: str) -> str:
    return plain(redacted(text), max_bytes=LINE_MAX_BYTES)
