"""What `khook check` found, line by line, and how it is shown.

Three results: `ok`; `warning`, for what works but not as one may think, and for what belongs to somebody else (a
tenant's Hook); `wrong`, for what keeps khook, or a file that was given, from working. `mend` is what a person does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console

from khook.cli.sheet import Column, Sheet, show
from khook.core.text import plain

LINE_MAX_BYTES = 2048


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"
    UNKNOWN = "not known"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    what: str
    result: Result
    says: str
    mend: str = ""


def ok(what: str, says: str) -> Finding:
    return Finding(what=what, result=Result.OK, says=says)


def warning(what: str, says: str, mend: str = "") -> Finding:
    return Finding(what=what, result=Result.WARNING, says=says, mend=mend)


def wrong(what: str, says: str, mend: str = "") -> Finding:
    return Finding(what=what, result=Result.WRONG, says=says, mend=mend)


def unknown(what: str, says: str) -> Finding:
    return Finding(what=what, result=Result.UNKNOWN, says=says)


def all_well(findings: Sequence[Finding]) -> bool:
    return all(found.result is not Result.WRONG for found in findings)


_COLOURS = {Result.OK: "green", Result.WARNING: "yellow", Result.WRONG: "bold red", Result.UNKNOWN: "dim"}


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    columns = (
        Column(title="check"),
        Column(title="result", colours={result.value: colour for result, colour in _COLOURS.items()}),
        Column(title="says"),
    )
    rows = [(_plain(found.what), found.result.value, _plain(_said(found))) for found in findings]
    show(console, Sheet(columns=columns, rows=rows))


def document(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "ok": all_well(findings),
        "checks": [
            {
                "check": _plain(found.what),
                "result": found.result.value,
                "says": _plain(found.says),
                "mend": found.mend or None,
            }
            for found in findings
        ],
    }


def _said(found: Finding) -> str:
    return f"{found.says}; mend it: {found.mend}" if found.mend else found.says


def _plain(text: str) -> str:
    return plain(text, max_bytes=LINE_MAX_BYTES)
