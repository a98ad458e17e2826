"""From a template and the values of its fields to text, in one pass.

What comes out of a value is never looked at again, so an event whose message holds `{{.Namespace}}` stays as it is.
Nothing fails here: what could was refused when the template was read. Nothing grows either: a text of a KiB may be put
in a thousand times, and `quote | quote | quote …` doubles it each time, so two limits end a render early, without a
word, for the text is cut afterwards in any case.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Final, assert_never

from khook.core.template.functions import shown
from khook.core.template.nodes import (
    Action,
    Block,
    Call,
    Constant,
    Field,
    FieldValue,
    If,
    Operand,
    Pipeline,
    Text,
    Value,
)

OUTPUT_MAX_CHARS: Final = 32 * 1024
"""As many as a prompt has bytes (`khook.core.prompt`): what comes after them would be cut."""
MADE_MAX_CHARS: Final = 4 * OUTPUT_MAX_CHARS
"""What all functions of one render may make, also for conditions: at most some 0.05 s of work, whatever the texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A prompt that was read, and that renders whatever the values are."""

    body: Block

    def render(self, values: Mapping[Field, str]) -> str:
        """The text with each field's value put in once, at most `OUTPUT_MAX_CHARS`; a field without value is empty."""
        run = _Run(values)
        with suppress(_Enough):
            run.block(self.body)
        return "".join(run.parts)


class _Enough(Exception):
    """A limit is reached; what was put together so far is the text."""


class _Run:
    """One render: what it has put together, and what it may still."""

    def __init__(self, values: Mapping[Field, str]) -> None:
        self.parts: list[str] = []
        self._values = values
        self._output_chars = 0
        self._made_chars = 0

    def block(self, block: Block) -> None:
        for node in block:
            match node:
                case Text(text):
                    self._put(text)
                case Action(pipeline):
                    self._put(shown(self._pipeline(pipeline)))
                case If(branches, otherwise):
                    bodies = (branch.body for branch in branches if self._pipeline(branch.condition))
                    self.block(next(bodies, otherwise))
                case _:
                    assert_never(node)

    def _put(self, text: str) -> None:
        self.parts.append(text[: OUTPUT_MAX_CHARS - self._output_chars])
        self._output_chars += len(text)
        if self._output_chars >= OUTPUT_MAX_CHARS:
            raise _Enough

    def _pipeline(self, pipeline: Pipeline) -> Value:
        first = pipeline.first
        value = self._call(first, iter(())) if isinstance(first, Call) else self._operand(first)
        for stage in pipeline.stages:
            value = self._call(stage, iter((value,)))
        return value

    def _call(self, call: Call, piped: Iterator[Value]) -> Value:
        made = call.function.apply(chain(map(self._operand, call.arguments), piped))
        if isinstance(made, str):
            self._made_chars += len(made)
            if self._made_chars > MADE_MAX_CHARS:
                raise _Enough
        return made

    def _operand(self, operand: Operand) -> Value:
        match operand:
            case Constant(value, _):
                return value
            case FieldValue(field):
                return self._values.get(field, "")
            case Pipeline():
                return self._pipeline(operand)
            case _:
                assert_never(operand)
