"""The functions that a template may call: Go's own for conditions, and five of sprig's for text.

Arguments are checked when the template is read, so none of them can fail. Two are stricter than sprig's, for what they
refuse is a mistake: `quote` needs something to quote, `default` takes exactly one value beside the fallback.
Sources: https://pkg.go.dev/text/template#hdr-Functions, https://masterminds.github.io/sprig/.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from khook.core.template import gotext
from khook.core.template.nodes import ANY, NUMBER, TEXT, TRUTH, Function, Kind, Kinds, Value


def shown(value: Value) -> str:
    """As Go prints it."""
    match value:
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def _and(values: Iterator[Value]) -> Value:
    value: Value = ""
    for value in values:
        if not value:
            break
    return value


def _or(values: Iterator[Value]) -> Value:
    value: Value = ""
    for value in values:
        if value:
            break
    return value


def _not(values: Iterator[Value]) -> Value:
    return not next(values)


def _eq(values: Iterator[Value]) -> Value:
    first = next(values)
    return any(first == other for other in values)


def _ne(values: Iterator[Value]) -> Value:
    return next(values) != next(values)


def _quote(values: Iterator[Value]) -> Value:
    return " ".join(gotext.quote(shown(value)) for value in values)


def _upper(values: Iterator[Value]) -> Value:
    return gotext.upper(str(next(values)))


def _lower(values: Iterator[Value]) -> Value:
    return gotext.lower(str(next(values)))


def _trunc(values: Iterator[Value]) -> Value:
    return gotext.trunc(int(next(values)), str(next(values)))


def _default(values: Iterator[Value]) -> Value:
    fallback = next(values)
    return next(values) or fallback


_TABLE: Final = (
    Function(name="and", usage="one value or more", takes=(ANY,), rest=ANY, gives=None, apply=_and),
    Function(name="default", usage="a fallback and a value", takes=(ANY, ANY), gives=None, apply=_default),
    Function(name="eq", usage="two values or more", takes=(ANY, ANY), rest=ANY, alike=True, gives=TRUTH, apply=_eq),
    Function(name="lower", usage="one text", takes=(TEXT,), gives=TEXT, apply=_lower),
    Function(name="ne", usage="two values", takes=(ANY, ANY), alike=True, gives=TRUTH, apply=_ne),
    Function(name="not", usage="one value", takes=(ANY,), gives=TRUTH, apply=_not),
    Function(name="or", usage="one value or more", takes=(ANY,), rest=ANY, gives=None, apply=_or),
    Function(name="quote", usage="one value or more", takes=(ANY,), rest=ANY, gives=TEXT, apply=_quote),
    Function(name="trunc", usage="a number and a text", takes=(NUMBER, TEXT), gives=TEXT, apply=_trunc),
    Function(name="upper", usage="one text", takes=(TEXT,), gives=TEXT, apply=_upper),
)
FUNCTIONS: Final = {function.name: function for function in _TABLE}


def result(function: Function, arguments: Sequence[Kinds]) -> Kinds:
    """Kinds of what the function gives for arguments of these kinds."""
    return frozenset[Kind]().union(*arguments) if function.gives is None else function.gives


def mistake(function: Function, arguments: Sequence[Kinds]) -> tuple[int | None, str] | None:
    """Why it cannot be called so: which argument is wrong (None: their number), and how."""
    most = len(function.takes) if function.rest is None else len(arguments)
    if not len(function.takes) <= len(arguments) <= most:
        return None, f"{function.name} takes {function.usage}; here it has {len(arguments)}"
    for place, have in enumerate(arguments):
        want = function.takes[place] if place < len(function.takes) else function.rest or ANY
        if not have <= want:
            return place, f"{function.name} takes {function.usage}; this is {_words(have)}"
        if function.alike and len(have | arguments[0]) > 1:
            return place, f"{function.name} compares values of one kind, not {_words(arguments[0])} with {_words(have)}"
    return None


def _words(kinds: Kinds) -> str:
    return " or ".join(sorted(kinds))
