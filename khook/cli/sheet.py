"""One table, shown to a person as a rich table on a terminal and as aligned plain lines in a pipe.

Plain lines have no colour, no frame and no cut: `grep`, `awk` and a log want them so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.console import Console
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    title: str
    number: bool = False
    """Aligned to the right."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """On a terminal: a rich style for each of these texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """`rows` have a text for each of the columns."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def show(console: Console, sheet: Sheet) -> None:
    if console.is_terminal:
        console.print(_table(sheet))
        return
    for line in plain(sheet):
        say(console, line)


def say(console: Console, line: str) -> None:
    """One line of text, as it is."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def plain(sheet: Sheet) -> list[str]:
    """A head and the rows; columns stand two spaces apart."""
    lines = [[column.title.upper() for column in sheet.columns], *sheet.rows]
    widths = [max(map(len, texts)) for texts in zip_longest(*lines, fillvalue="")]
    return [
        "  ".join(
            text.rjust(width) if column.number else text.ljust(width)
            for text, width, column in zip(line, widths, sheet.columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def _table(sheet: Sheet) -> Table:
    table = Table()
    for column in sheet.columns:
        table.add_column(column.title, justify="right" if column.number else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*(_cell(text, column) for text, column in zip(row, sheet.columns, strict=True)))
    return table


def _cell(text: str, column: Column) -> Text:
    return Text(text, style=column.colours.get(text, ""))
