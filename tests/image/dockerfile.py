"""Reads a Dockerfile into stages and steps: the part of the language that ours uses, and nothing else.

Decides no meaning: what a step does is `image.build`'s. Its invariant: an instruction, a flag or a variable that it
does not know is refused with its line, never skipped, so that what it read is what a container engine would do.
Source: https://docs.docker.com/reference/dockerfile/.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

KNOWN: Final = frozenset(
    {"ARG", "FROM", "ENV", "LABEL", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
)


class NotUnderstood(Exception):
    """The Dockerfile holds something that this reader does not know; the text says what and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One instruction, its continued lines joined and its comments gone."""

    line: int
    keyword: str
    text: str

    def words(self, variables: Mapping[str, str]) -> tuple[str, ...]:
        """The text split as a shell would, with `$NAME` and `${NAME}` replaced."""
        try:
            return tuple(shlex.split(Template(self.text).substitute(variables)))
        except (KeyError, ValueError) as error:
            raise NotUnderstood(f"line {self.line}: {self.keyword} {self.text}: {error!r}") from None

    def pairs(self, variables: Mapping[str, str]) -> dict[str, str]:
        """`A=1 B="two words"`, as ENV and LABEL have it."""
        words = self.words(variables)
        if not all("=" in word for word in words):
            raise NotUnderstood(f"line {self.line}: {self.keyword} without =")
        return dict(word.split("=", 1) for word in words)

    def exec_form(self) -> tuple[str, ...]:
        """`["program", "argument"]`: the form that starts no shell."""
        try:
            words = json.loads(self.text)
        except json.JSONDecodeError:
            words = None
        if not isinstance(words, list):
            raise NotUnderstood(f"line {self.line}: {self.keyword} is not in exec form")
        return tuple(map(str, words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    base: str
    name: str
    steps: tuple[Step, ...]

    def all(self, keyword: str) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.keyword == keyword)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    stages: tuple[Stage, ...]

    @property
    def final(self) -> Stage:
        return self.stages[-1]


def load(path: Path, arguments: Mapping[str, str] | None = None) -> Dockerfile:
    """Raises NotUnderstood. `arguments` are what `--build-arg` would give."""
    return read(path.read_text(encoding="utf-8"), arguments or {})


def read(text: str, arguments: Mapping[str, str]) -> Dockerfile:
    bases: dict[str, str] = {}
    stages: list[Stage] = []
    for step in _steps(text):
        if step.keyword == "FROM":
            match step.words(bases):
                case (base,):
                    stages.append(Stage(base=base, name=str(len(stages)), steps=()))
                case (base, as_, name) if as_.upper() == "AS":
                    stages.append(Stage(base=base, name=name, steps=()))
                case _:
                    raise NotUnderstood(f"line {step.line}: FROM {step.text}")
        elif stages:
            last = stages[-1]
            stages[-1] = Stage(base=last.base, name=last.name, steps=(*last.steps, step))
        elif step.keyword == "ARG":
            bases |= argument(step, arguments)
        else:
            raise NotUnderstood(f"line {step.line}: {step.keyword} before FROM")
    if not stages:
        raise NotUnderstood("no FROM")
    return Dockerfile(stages=tuple(stages))


def argument(step: Step, given: Mapping[str, str]) -> dict[str, str]:
    """What an ARG defines: nothing where it has no default and none is given."""
    name, has_default, default = step.text.partition("=")
    if not re.fullmatch(r"[A-Z_]+", name):
        raise NotUnderstood(f"line {step.line}: ARG {step.text}")
    value = given.get(name, default if has_default else None)
    return {} if value is None else {name: value}


def _steps(text: str) -> Iterator[Step]:
    start, held = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # also between continued lines, as in a container engine
        start = start if held else number
        held += line.strip()
        if held.endswith("\\"):
            held = held.removesuffix("\\")
            continue
        keyword, _, rest = held.partition(" ")
        if keyword not in KNOWN:
            raise NotUnderstood(f"line {start}: {keyword} is not an instruction that this reader knows")
        if keyword == "RUN" and rest.lstrip().startswith(("--", "<<", "[")):
            raise NotUnderstood(f"line {start}: RUN {rest}")
        yield Step(line=start, keyword=keyword, text=rest.strip())
        held = ""
    if held:
        raise NotUnderstood(f"line {start}: not finished")
