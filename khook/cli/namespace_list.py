"""The list of namespaces that `khook shards` plans for: one a line, with its lines a second where they are known.

    # from: kubectl get hooks -A --no-headers | awk '{print $1}' | sort -u
    shop            40
    payments        2.5
    search

Every problem is found in one reading and named by its line. What a namespace weighs is the supervisor's own rule.
"""

import re
from collections.abc import Iterable
from typing import Final

from khook.api import names
from khook.supervisor.load import weight

MOST_NAMESPACES: Final = 100_000
"""Ten times what one khook is built for."""
MOST_PROBLEMS: Final = 100
"""A file of another kind has a problem in every line; the first hundred tell that."""
MOST_CHARS: Final = 80
"""Of a word that is shown: longer than any namespace's name."""
_RATE: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class BadList(Exception):
    """`problems`: one line each, `NAME:LINE: what is wrong`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read(lines: Iterable[str], *, name: str) -> dict[str, float]:
    """Each namespace's weight, in the list's order. `name`: what the problems call it. Raises BadList."""
    weights: dict[str, float] = {}
    first_in: dict[str, int] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            namespace, weighs = _entry(words)
            if (first := first_in.setdefault(namespace, number)) != number:
                raise ValueError(f"{namespace} stands in line {first} already")
            weights[namespace] = weighs
        except ValueError as error:
            problems.append(f"{name}:{number}: {error}")
        if len(weights) > MOST_NAMESPACES or len(problems) == MOST_PROBLEMS:
            problems.append(f"{name}:{number}: not read any further")
            break
    if not weights and not problems:
        problems.append(f"{name}: names no namespace")
    if problems:
        raise BadList(problems)
    return weights


def _entry(words: list[str]) -> tuple[str, float]:
    if len(words) > 2:
        raise ValueError("more than a namespace and its lines a second")
    try:
        namespace = names.namespace(words[0])
    except ValueError:
        raise ValueError(f"{_shown(words[0])} is not a namespace name") from None
    if len(words) == 1:
        return namespace, weight(0.0)
    if not _RATE.fullmatch(words[1]):
        raise ValueError(f"{_shown(words[1])} is not a number of lines a second, such as 2.5")
    return namespace, weight(float(words[1]))


def _shown(word: str) -> str:
    return repr(word if len(word) <= MOST_CHARS else word[:MOST_CHARS] + "…")
