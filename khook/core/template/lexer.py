"""A template's text as tokens: what stands between the actions, trimmed as Go trims it, and the words of each action.

It knows comments and trim markers (`{{- ` and ` -}}`, white space included) and nothing of what an action means.
Tokens come one by one, so the first mistake of a text is the one that is reported.
Source: https://pkg.go.dev/text/template#hdr-Text_and_spaces, text/template/parse/lex.go of Go 1.26.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from khook.core.template.error import refusal

SPACE: Final = " \t\r\n"

_OPEN: Final = re.compile(r"\{\{(?P<trim>-[ \t\r\n])?(?P<comment>/\*)?")
_COMMENT_END: Final = re.compile(r"\*/(?P<trim>[ \t\r\n]-)?\}\}")
_SPACES: Final = re.compile(r"[ \t\r\n]*")
_TOKEN: Final = re.compile(
    r"""
    (?P<close>[ \t\r\n]*(?P<trim>[ \t\r\n]-)?\}\})
  | (?P<space>[ \t\r\n]+)
  | (?P<field>\.[^\W\d]\w*)
  | (?P<word>[^\W\d]\w*)
  | (?P<number>[+-]?(?:0|[1-9][0-9]*)(?![\w.+-]))
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*")
  | (?P<raw>`[^`]*`)
  | (?P<pipe>\|)
  | (?P<left>\()
  | (?P<right>\))
    """,
    re.VERBOSE,
)
# What Go wants to see behind a field or a word.
_TERMINATOR: Final = re.compile(r"[ \t\r\n.,|:)(]|\}\}|\Z")
_NUMBER_START: Final = re.compile(r"[+-]?\.?[0-9]")
_WRONG: Final = {
    '"': "this string is not closed on its line",
    "`": "this string is never closed by `",
    "'": 'character constants are not supported; write a text: "a"',
    "$": "variables are not supported",
    ".": "'.' alone is not supported; name a field, as in {{.Reason}}",
    "-": "this - is neither in a number nor in a trim marker; these are '{{- ' and ' -}}', white space included",
}


class Token(StrEnum):
    """Kinds of token. The values are words for messages."""

    TEXT = "text"
    OPEN = "{{"
    CLOSE = "}}"
    FIELD = "a field"
    WORD = "a word"
    NUMBER = "a number"
    STRING = "a string"
    RAW = "a raw string"
    PIPE = "|"
    LEFT = "("
    RIGHT = ")"
    END = "the end"


_WORDS: Final = frozenset({Token.FIELD, Token.WORD})
_KINDS: Final = {kind.name.lower(): kind for kind in Token}


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A token at its place; `spaced` where white space stands before it."""

    token: Token
    text: str
    at: int
    spaced: bool = False


def lexemes(text: str) -> Iterator[Lexeme]:
    """Tokens of the whole text, each action's between OPEN and CLOSE, and END. Raises TemplateError."""
    at = 0
    while (opening := _OPEN.search(text, at)) is not None:
        literal = text[at : opening.start()]
        literal = literal.rstrip(SPACE) if opening["trim"] else literal
        if literal:
            yield Lexeme(Token.TEXT, literal, at)
        if opening["comment"]:
            at = _after_comment(text, opening)
        else:
            at = yield from _action(text, opening)
    if at < len(text):
        yield Lexeme(Token.TEXT, text[at:], at)
    yield Lexeme(Token.END, "", len(text))


def _after_comment(text: str, opening: re.Match[str]) -> int:
    end = text.find("*/", opening.end())
    if end < 0:
        raise refusal(text, opening.start(), "this comment is never closed by */}}")
    closing = _COMMENT_END.match(text, end)
    if closing is None:
        raise refusal(text, end, "a comment ends in */}} or */ -}}")
    return _behind(text, closing)


def _action(text: str, opening: re.Match[str]) -> Generator[Lexeme, None, int]:
    """The tokens of one action; where the text goes on behind it."""
    yield Lexeme(Token.OPEN, "", opening.start())
    at, spaced = opening.end(), False
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise refusal(text, at, _wrong(text, at))
        at = match.end()
        if match["space"]:
            spaced = True
            continue
        token = _KINDS[match.lastgroup or ""]
        if token is Token.CLOSE:
            yield Lexeme(token, "", at - len("}}"))
            return _behind(text, match)
        if token in _WORDS and _TERMINATOR.match(text, at) is None:
            raise refusal(text, at, _wrong(text, at))
        yield Lexeme(token, match[0], match.start(), spaced)
        spaced = False
    raise refusal(text, opening.start(), "this action is never closed by }}")


def _wrong(text: str, at: int) -> str:
    if _NUMBER_START.match(text, at):
        return "only whole decimal numbers are supported"
    return _WRONG.get(text[at], f"unexpected {text[at]!r} in an action")


def _behind(text: str, closing: re.Match[str]) -> int:
    """Where the text goes on behind a closing delimiter."""
    spaces = _SPACES.match(text, closing.end()) if closing["trim"] else None
    return closing.end() if spaces is None else spaces.end()
