"""The paths of a CRD's printer columns: `.a.b`, `.a[0]`, `.a[*].b`, `['a.b']`, `.a[?(@.type=="Ready")].status`.

A path gives every value that it leads to; a missing step gives none. What is no such path is refused when it is read,
never when it is used. Source: client-go `util/jsonpath`, as far as apiextensions allows it (no recursion, no unions).
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

Step = Callable[[Any], list[Any]]

_TOKEN: Final = re.compile(
    r"""\.(?P<field>(?:\\.|[^.\[\\])+)
    | \[(?P<index>-?\d+)\]
    | (?P<all>\[\*\]|\.\*)
    | \['(?P<quoted>[^']*)'\]
    | \[\?\(@(?P<path>(?:\.[\w-]+)+)\s*(?P<operator>==|!=)\s*(?P<value>"[^"]*"|'[^']*'|[\w.-]+)\s*\)\]
    """,
    re.VERBOSE,
)


class BadPath(ValueError):
    """The text is no path of this kind."""


@lru_cache(maxsize=256)
def path(text: str) -> tuple[Step, ...]:
    """The steps of a path. Raises BadPath."""
    steps: list[Step] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise BadPath(f"cannot read {text[position:]!r} in {text!r}")
        steps.append(_step(found))
        position = found.end()
    return tuple(steps)


def values(item: Any, steps: tuple[Step, ...]) -> list[Any]:
    """All that the path leads to; nulls count as missing."""
    found = [item]
    for step in steps:
        found = [value for one in found for value in step(one) if value is not None]
    return found


def _step(found: re.Match[str]) -> Step:
    if found["index"] is not None:
        return _at(int(found["index"]))
    if found["all"] is not None:
        return _everything
    if found["path"] is not None:
        wanted, equal = found["value"].strip("\"'"), found["operator"] == "=="
        steps = path(found["path"])
        return lambda value: [
            one for one in _everything(value) if ([_word(got) for got in values(one, steps)] == [wanted]) is equal
        ]
    name = found["quoted"] if found["field"] is None else re.sub(r"\\(.)", r"\1", found["field"])
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _at(index: int) -> Step:
    def step(value: Any) -> list[Any]:
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []

    return step


def _everything(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
