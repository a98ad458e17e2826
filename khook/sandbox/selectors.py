"""Field and label selectors, as a LIST or WATCH takes them: parsed once, asked for each object.

Grammar: field selectors `key=value`, `key==value`, `key!=value` (apimachinery `pkg/fields`); label selectors the
same and `in`, `notin`, `key`, `!key` (apimachinery `pkg/labels`). A missing field equals the empty string.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from khook.sandbox.api_errors import ApiError, bad_request
from khook.sandbox.kinds import Kind

Json = dict[str, Any]
Matcher = Callable[[Json], bool]

_LABEL: Final = r"[A-Za-z0-9./_-]+"
_VALUE: Final = r"[A-Za-z0-9._-]*"
_EQUALITY: Final = re.compile(rf"\s*({_LABEL})\s*(!=|==|=)\s*({_VALUE})\s*")
_SET: Final = re.compile(rf"\s*({_LABEL})\s+(in|notin)\s*\(([^()]*)\)\s*")
_EXISTS: Final = re.compile(rf"\s*(!?)\s*({_LABEL})\s*")
_COMMA_OUTSIDE_PARENTHESES: Final = re.compile(r",(?![^()]*\))")
_CORE_NAMES: Final = {
    "regarding.kind": "involvedObject.kind",
    "regarding.namespace": "involvedObject.namespace",
    "regarding.name": "involvedObject.name",
    "regarding.uid": "involvedObject.uid",
    "reportingController": "reportingComponent",
}
"""Events are stored as core/v1; a selector in the words of events.k8s.io/v1 is translated."""


def parse_fields(text: str, kind: Kind) -> Matcher | None:
    """None when there is nothing to select. Raises ApiError 400 for a bad selector or an unknown field."""
    terms: list[tuple[tuple[str, ...], bool, str]] = []
    for term in filter(None, text.split(",")):
        if "!=" in term:
            key, value, equal = *term.split("!=", 1), False
        elif "=" in term:
            key, value, equal = *re.split("==?", term, maxsplit=1), True
        else:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")
        if key not in kind.selectable and key not in ("metadata.name", "metadata.namespace"):
            raise bad_request(f"field label not supported: {key}")
        terms.append((tuple(_CORE_NAMES.get(key, key).split(".")), equal, value))
    if not terms:
        return None
    return lambda item: all((_field(item, path) == value) is equal for path, equal, value in terms)


def _field(item: Json, path: tuple[str, ...]) -> str:
    if path == ("source",):
        source = item.get("source") or {}
        return str(source.get("component") or item.get("reportingComponent") or "")
    value: Any = item
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


def parse_labels(text: str) -> Matcher | None:
    """None when there is nothing to select. Raises ApiError 400 for a bad selector."""
    terms = [_label_term(term) for term in _COMMA_OUTSIDE_PARENTHESES.split(text) if term.strip()]
    if not terms:
        return None
    return lambda item: all(term(item["metadata"].get("labels") or {}) for term in terms)


def _label_term(term: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _EQUALITY.fullmatch(term):
        key, operator, value = match.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _SET.fullmatch(term):
        key, operator, values = match.groups()
        wanted = frozenset(value.strip() for value in values.split(","))
        if operator == "notin":
            return lambda labels: labels.get(key) not in wanted
        return lambda labels: labels.get(key) in wanted
    if match := _EXISTS.fullmatch(term):
        negated, key = match.groups()
        return lambda labels: (key in labels) is not bool(negated)
    raise _unparsable(term)


def _unparsable(term: str) -> ApiError:
    return bad_request(f"unable to parse requirement: {term!r}")


def both(first: Matcher | None, second: Matcher | None) -> Matcher | None:
    """The conjunction; None where nothing is selected."""
    if first is None or second is None:
        return first or second
    return lambda item: first(item) and second(item)
