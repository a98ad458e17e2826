"""Prompt templates: the subset of Go's text/template that Hooks use today, `{{.Field}}`.

`parse` finds every mistake when the Hook is read, with its line and column, so that nothing can fail when an
incident is on. `Template.render` is one pass: what comes out of the values is never looked at again, so an event
whose message holds `{{.Namespace}}` stays as it is. White space inside the braces and the trim markers `{{- ` and
` -}}` mean what they mean in Go (https://pkg.go.dev/text/template#hdr-Text_and_spaces).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# The CRD's maxLength of `prompt`.
SOURCE_MAX_CHARS: Final = 16_384
# Of the text that an error shows.
_SHOWN_CHARS: Final = 40

_SPACE: Final = " \t\r\n"
_ACTION: Final = re.compile(
    r"\{\{(?P<trim_left>-(?=[ \t\r\n]))?(?P<body>.*?)(?P<trim_right>(?<=[ \t\r\n])-)?\}\}", re.DOTALL
)
_FIELD: Final = re.compile(r"\.(\w+)")


class Field(StrEnum):
    """What a template can name."""

    RESOURCE_NAME = "ResourceName"
    EVENT_TIME = "EventTime"
    NAMESPACE = "Namespace"
    EVENT_MESSAGE = "EventMessage"
    EVENT_TYPE = "EventType"
    REASON = "Reason"
    MESSAGE = "Message"
    TIMESTAMP = "Timestamp"


ALLOWED: Final = "allowed: " + " ".join(f"{{{{.{field}}}}}" for field in Field)


class TemplateError(ValueError):
    """A prompt that cannot be rendered: what is wrong, and where (line and column count from 1)."""

    def __init__(self, message: str, *, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A parsed prompt: `literals[0] fields[0] literals[1] fields[1] … literals[-1]`."""

    literals: tuple[str, ...]
    fields: tuple[Field, ...]

    def render(self, values: Mapping[Field, str]) -> str:
        """The text with each field's value put in once; `values` holds every `Field`."""
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            parts += (values[field], literal)
        return "".join(parts)


def parse(text: str) -> Template:
    """The template that `text` is; raises TemplateError."""
    if len(text) > SOURCE_MAX_CHARS:
        raise TemplateError(f"longer than {SOURCE_MAX_CHARS} characters", line=1, column=1)
    literals: list[str] = []
    fields: list[Field] = []
    at, trim = 0, False
    for action in _ACTION.finditer(text):
        fields.append(_field(text, action))
        literals.append(_literal(text[at : action.start()], left=trim, right=action["trim_left"] is not None))
        at, trim = action.end(), action["trim_right"] is not None
    unclosed = text.find("{{", at)
    if unclosed >= 0:
        raise _error(text, unclosed, f"{_shown(text[unclosed:])} is never closed by }}}}; {ALLOWED}")
    literals.append(_literal(text[at:], left=trim, right=False))
    return Template(literals=tuple(literals), fields=tuple(fields))


def _field(text: str, action: re.Match[str]) -> Field:
    named = _FIELD.fullmatch(action["body"].strip(_SPACE))
    if named is None:
        raise _error(text, action.start(), f"{_shown(action[0])} is not supported; {ALLOWED}")
    try:
        return Field(named[1])
    except ValueError:
        raise _error(text, action.start(), f"no field {_shown(named[0])}; {ALLOWED}") from None


def _literal(text: str, *, left: bool, right: bool) -> str:
    text = text.lstrip(_SPACE) if left else text
    return text.rstrip(_SPACE) if right else text


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _error(text: str, at: int, message: str) -> TemplateError:
    return TemplateError(message, line=text.count("\n", 0, at) + 1, column=at - text.rfind("\n", 0, at))
