"""From a template's text to its nodes; every mistake is found here, with its place.

A template that Go would refuse, when it parses or when it executes, is never accepted. The other way round the subset
is smaller on purpose: no variables, loops or definitions, and what Go checks only in a branch that is taken is checked
in all of them. Grammar: text/template/parse/parse.go of Go 1.26.
"""

from dataclasses import dataclass
from typing import Final

from khook.core.template import functions, gotext
from khook.core.template.error import TemplateError, refusal
from khook.core.template.lexer import Lexeme, Token, lexemes
from khook.core.template.nodes import (
    NUMBER,
    TEXT,
    TRUTH,
    Action,
    Block,
    Branch,
    Call,
    Constant,
    Field,
    FieldValue,
    Function,
    If,
    Kinds,
    Node,
    Operand,
    Pipeline,
    Text,
)
from khook.core.template.render import Template

SOURCE_MAX_CHARS: Final = 16_384
"""The CRD's maxLength of `prompt`."""
NODES_MAX: Final = 1_000
"""Texts, ifs, values and calls; a long prompt has some dozens. Nothing loops, so a render takes as many steps at most,
and reading a template some 10 ms."""
DEPTH_MAX: Final = 32
"""Ifs within ifs and parentheses within parentheses, together: reading and rendering recurse that deep."""
_INT64: Final = range(-(2**63), 2**63)
_INT64_CHARS: Final = 20
_SHOWN_CHARS: Final = 40
"""Of the text that an error shows."""

_FIELDS_ALLOWED: Final = "allowed: " + " ".join(f"{{{{.{field}}}}}" for field in Field)
_FUNCTIONS_ALLOWED: Final = f"allowed: {' '.join(functions.FUNCTIONS)}"
_WORDS_ALLOWED: Final = f"{_FUNCTIONS_ALLOWED}, true, false, and at the beginning if, else, end"

_OPERANDS: Final = frozenset({Token.FIELD, Token.WORD, Token.NUMBER, Token.STRING, Token.RAW, Token.LEFT})
_UNSPACED: Final = frozenset({Token.PIPE, Token.RIGHT, Token.CLOSE})
_STOPPING: Final = frozenset({"else", "end"})
_BRANCHING: Final = frozenset({"if"}) | _STOPPING
_TRUTHS: Final = {"true": True, "false": False}


def parse(text: str) -> Template:
    """The template that `text` is; raises TemplateError."""
    if len(text) > SOURCE_MAX_CHARS:
        raise TemplateError(f"longer than {SOURCE_MAX_CHARS} characters", line=1, column=1)
    return Template(body=_Parser(text).whole())


@dataclass(frozen=True, slots=True)
class _Stop:
    """What ended a block: `word` is `else`, `end`, or empty at the end of the text."""

    word: str
    opening: Lexeme


class _Parser:
    """Recursive descent with one token of look-ahead, which is read when it is asked for and not before."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lexemes = lexemes(text)
        self._ahead: Lexeme | None = None
        self._nodes = 0
        self._depth = 0

    def whole(self) -> Block:
        body, stop = self._block()
        if stop.word:
            raise self._error(stop.opening, f"{{{{{stop.word}}}}} without {{{{if}}}}")
        return body

    # Blocks.

    def _block(self) -> tuple[Block, _Stop]:
        """Up to `{{end`, `{{else` or the end of the text; the word is taken."""
        nodes: list[Node] = []
        while (first := self._take()).token is not Token.END:
            if first.token is Token.TEXT:
                self._count(first)
                nodes.append(Text(first.text))
                continue
            word = self._take().text if self._peek().text in _BRANCHING else ""
            if word in _STOPPING:
                return tuple(nodes), _Stop(word, first)
            nodes.append(self._if(first) if word else Action(self._pipeline(first, end=Token.CLOSE)))
        return tuple(nodes), _Stop("", first)

    def _if(self, opening: Lexeme) -> If:
        self._count(opening)
        self._descend(opening)
        branches: list[Branch] = []
        while True:
            condition = self._pipeline(opening, end=Token.CLOSE)
            body, stop = self._block()
            branches.append(Branch(condition, body))
            if stop.word != "else" or self._peek().text != "if":
                break
            self._take()
        otherwise, stop = self._else() if stop.word == "else" else ((), stop)
        if not stop.word:
            raise self._error(opening, "this {{if}} has no {{end}}")
        self._close(stop.word)
        self._depth -= 1
        return If(tuple(branches), otherwise)

    def _else(self) -> tuple[Block, _Stop]:
        self._close("else")
        body, stop = self._block()
        if stop.word == "else":
            raise self._error(stop.opening, "{{else}} again, where {{end}} should be")
        return body, stop

    def _close(self, word: str) -> None:
        after = self._take()
        if after.token is not Token.CLOSE:
            raise self._error(after, f"nothing may stand behind {word} here")

    # Pipelines.

    def _pipeline(self, opening: Lexeme, *, end: Token) -> Pipeline:
        """Up to `end`, which is taken; `opening` is where a reader looks when it, or all of it, is missing."""
        if self._peek().token is end:
            raise self._error(opening, "a value is missing here")
        first = self._command()
        stages: list[Call] = []
        while self._peek().token is Token.PIPE:
            kinds = stages[-1].kinds if stages else first.kinds
            stages.append(self._stage(self._take(), kinds))
        after = self._take()
        if after.token is Token.CLOSE and end is Token.RIGHT:
            raise self._error(opening, "this ( is never closed by )")
        if after.token is not end:
            raise self._error(after, f"unexpected {after.token} here")
        return Pipeline(first, tuple(stages))

    def _command(self) -> Operand | Call:
        function = functions.FUNCTIONS.get(self._peek().text)
        if function is not None:
            return self._call(function, None)
        operand = self._operand()
        if self._peek().token in _OPERANDS:
            raise self._error(self._peek(), "only a function takes arguments, and it stands before them")
        return operand

    def _stage(self, pipe: Lexeme, before: Kinds) -> Call:
        after = self._peek()
        function = functions.FUNCTIONS.get(after.text)
        if function is not None:
            return self._call(function, before)
        if after.token in _UNSPACED:
            raise self._error(pipe, f"a function is missing behind |; {_FUNCTIONS_ALLOWED}")
        if after.token is Token.WORD and after.text not in _TRUTHS:
            raise self._unknown(after)
        raise self._error(after, f"only a function may stand behind |; {_FUNCTIONS_ALLOWED}")

    def _call(self, function: Function, before: Kinds | None) -> Call:
        """`before`: kinds of what a pipeline hands over as the last argument."""
        name = self._take()
        self._count(name)
        self._gap()
        places, arguments = [], []
        while self._peek().token in _OPERANDS:
            places.append(self._peek())
            arguments.append(self._operand())
        kinds = [argument.kinds for argument in arguments] + ([] if before is None else [before])
        mistake = functions.mistake(function, kinds)
        if mistake is not None:
            place, message = mistake
            raise self._error(name if place is None or place >= len(places) else places[place], message)
        return Call(function, tuple(arguments), functions.result(function, kinds))

    def _operand(self) -> Operand:
        first = self._take()
        self._count(first)
        operand: Operand
        match first.token:
            case Token.FIELD:
                operand = self._field(first)
            case Token.NUMBER:
                operand = self._number(first)
            case Token.STRING | Token.RAW:
                operand = self._string(first)
            case Token.WORD:
                operand = self._word(first)
            case Token.LEFT:
                self._descend(first)
                operand = self._pipeline(first, end=Token.RIGHT)
                self._depth -= 1
            case _:
                raise self._error(first, f"unexpected {first.token} here")
        self._gap()
        return operand

    def _field(self, lexeme: Lexeme) -> FieldValue:
        try:
            return FieldValue(Field(lexeme.text[1:]))
        except ValueError:
            raise self._error(lexeme, f"no field {_shown(lexeme.text)}; {_FIELDS_ALLOWED}") from None

    def _number(self, lexeme: Lexeme) -> Constant:
        number = int(lexeme.text) if len(lexeme.text) <= _INT64_CHARS else _INT64.stop
        if number not in _INT64:
            raise self._error(lexeme, "a number of more than 64 bits")
        return Constant(number, NUMBER)

    def _string(self, lexeme: Lexeme) -> Constant:
        unquote = gotext.unquote_raw if lexeme.token is Token.RAW else gotext.unquote
        try:
            return Constant(unquote(lexeme.text), TEXT)
        except ValueError as error:
            raise self._error(lexeme, f"not a Go string: {error}") from None

    def _word(self, lexeme: Lexeme) -> Constant:
        if lexeme.text in _TRUTHS:
            return Constant(_TRUTHS[lexeme.text], TRUTH)
        if lexeme.text in functions.FUNCTIONS:
            raise self._error(lexeme, f"a function among arguments stands in parentheses: ({lexeme.text} …)")
        raise self._unknown(lexeme)

    def _unknown(self, word: Lexeme) -> TemplateError:
        return self._error(word, f"{_shown(word.text)} is not supported here; {_WORDS_ALLOWED}")

    # Tokens.

    def _peek(self) -> Lexeme:
        if self._ahead is None:
            self._ahead = next(self._lexemes)
        return self._ahead

    def _take(self) -> Lexeme:
        lexeme, self._ahead = self._peek(), None
        return lexeme

    def _gap(self) -> None:
        """Operands stand apart: Go takes neither `upper(.Reason)` nor `"a""b"`."""
        after = self._peek()
        if after.spaced or after.token in _UNSPACED:
            return
        chained = after.token is Token.FIELD
        raise self._error(after, "fields of fields are not supported" if chained else "white space is missing here")

    def _count(self, lexeme: Lexeme) -> None:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise self._error(lexeme, f"more than {NODES_MAX} texts, ifs, values and calls")

    def _descend(self, lexeme: Lexeme) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._error(lexeme, f"more than {DEPTH_MAX} ifs and parentheses within each other")

    def _error(self, lexeme: Lexeme, message: str) -> TemplateError:
        return refusal(self._text, lexeme.at, message)


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
