"""Prompt templates: what renders, what is refused and where, and that text from events stays text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.core.template import SOURCE_MAX_CHARS, Field, TemplateError, parse

VALUES = {field: f"<{field}>" for field in Field}


def rendered(text: str) -> str:
    return parse(text).render(VALUES)


@pytest.mark.parametrize("field", list(Field))
def test_each_field_stands_for_its_value(field: Field) -> None:
    assert rendered(f"a {{{{.{field}}}}} b") == f"a <{field}> b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no fields, { braces } and }} stay", "no fields, { braces } and }} stay"),
        ("{{.Reason}}{{.Reason}}", "<Reason><Reason>"),
        ("{{ .Reason }}|{{\t.Reason\n}}", "<Reason>|<Reason>"),
        ("a \n {{- .Reason -}} \t b", "a<Reason>b"),
        ("a {{- .Reason }} b", "a<Reason> b"),
        ("a {{ .Reason -}} b", "a <Reason>b"),
        ("{{.Reason -}}  {{- .Message}}", "<Reason><Message>"),
    ],
)
def test_spaces_and_trim_markers_mean_what_they_mean_in_go(text: str, expected: str) -> None:
    assert expected == rendered(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("{{.Nope}}", 1, 1, "no field .Nope;"),
        ("ok {{.resourceName}}", 1, 4, "no field .resourceName;"),
        ("one\ntwo {{if .Reason}}", 2, 5, "{{if .Reason}} is not supported;"),
        ("{{.Reason | upper}}", 1, 1, "not supported"),
        ("{{.Reason.Sub}}", 1, 1, "not supported"),
        ("{{}}", 1, 1, "{{}} is not supported"),
        ("{{-.Reason}}", 1, 1, "not supported"),
        ("{{.Reason-}}", 1, 1, "not supported"),
        ("{{{.Reason}}}", 1, 1, "not supported"),
        ("{{/* note */}}", 1, 1, "not supported"),
        ("{{.Reason}}\n\n a {{.Reason", 3, 4, "{{.Reason is never closed by }};"),
        ("{{.Reason " + "x" * 50, 1, 1, "{{.Reason " + "x" * 30 + "… is never closed"),
        ("x" * (SOURCE_MAX_CHARS + 1), 1, 1, "longer than 16384 characters"),
    ],
)
def test_anything_else_is_refused_with_its_place(text: str, line: int, column: int, part: str) -> None:
    with pytest.raises(TemplateError) as refused:
        parse(text)
    assert (refused.value.line, refused.value.column) == (line, column)
    assert part in refused.value.message
    assert str(refused.value) == f"line {line}, column {column}: {refused.value.message}"


def test_a_refusal_says_what_is_allowed() -> None:
    with pytest.raises(TemplateError, match=r"allowed: \{\{\.ResourceName\}\} .*\{\{\.Timestamp\}\}$"):
        parse("{{.Pod}}")


def test_the_longest_source_is_allowed() -> None:
    assert rendered("x" * SOURCE_MAX_CHARS) == "x" * SOURCE_MAX_CHARS


@given(st.text(), st.sampled_from(["{{.Namespace}}", "{{", "}}", "{{.", "-}}"]), st.text())
def test_text_that_comes_out_of_a_value_is_never_expanded(before: str, action: str, after: str) -> None:
    message = before + action + after
    template = parse("{{.Message}}{{.Namespace}}{{.EventMessage}}")
    values = VALUES | {Field.MESSAGE: message, Field.EVENT_MESSAGE: message}
    assert template.render(values) == message + "<Namespace>" + message


pieces = st.sampled_from(["{{", "}}", "{", "}", ".Reason", ".Nope", "-", " ", "\n", "x", "{{.Reason}}"])


@given(st.lists(pieces, max_size=12).map("".join))
def test_parsing_gives_a_template_or_the_place_of_an_action(text: str) -> None:
    assert _refused_at(text) in (None, "{{")


def _refused_at(text: str) -> str | None:
    try:
        parse(text)
    except TemplateError as error:
        start = error.column - 1
        return text.split("\n")[error.line - 1][start : start + 2]
    return None
