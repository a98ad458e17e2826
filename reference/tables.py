"""Tables in Markdown, and the docstrings behind attributes, which Python itself throws away."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Sequence
from enum import StrEnum


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One line a row; what would end a cell or a line is escaped."""
    return _line(header) + "|---" * len(header) + "|\n" + "".join(_line(row) for row in rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"


def code(words: Iterable[str]) -> str:
    """`a`, `b`"""
    return ", ".join(f"`{word}`" for word in words)


def docstrings(owner: type) -> dict[str, str]:
    """The string literal behind each attribute of a class, by its name, as one line."""
    (made,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for statement, following in zip(made.body, made.body[1:], strict=False):
        match statement, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def members(owner: type[StrEnum]) -> list[tuple[str, str]]:
    """Each member's value and what its docstring says. Raises KeyError where one has none: no word goes unexplained."""
    said = docstrings(owner)
    return [(member.value, said[member.name]) for member in owner]
