"""Prompt templates: what renders, what is refused and where, and that text from events stays text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from khook.core.prompt import PROMPT_MAX_BYTES
from khook.core.template import (
    DEPTH_MAX,
    MADE_MAX_CHARS,
    NODES_MAX,
    OUTPUT_MAX_CHARS,
    SOURCE_MAX_CHARS,
    Field,
    TemplateError,
    parse,
)

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
        ("a {{/* {{.Nope}} */}} b", "a  b"),
        ("a {{- /* two\nlines */ -}} b", "ab"),
        ("a\xa0{{- 5 -}}\xa0b", "a\xa05\xa0b"),
    ],
)
def test_spaces_comments_and_trim_markers_mean_what_they_mean_in_go(text: str, expected: str) -> None:
    assert expected == rendered(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{if .Reason}}a{{end}}", "a"),
        ("{{if not .Reason}}a{{else}}b{{end}}", "b"),
        ("{{if eq .Reason .Message}}a{{else if .Reason}}b{{else}}c{{end}}", "b"),
        ("{{if .Reason}}{{if false}}a{{else}}b{{end}}{{else}}c{{end}}d", "bd"),
        ('{{if 0}}a{{end}}{{if ""}}b{{end}}{{if 1}}c{{end}}{{if true}}d{{end}}', "cd"),
        ("{{if(.Reason)}}a{{end}}{{if.Reason}}b{{end}}", "ab"),
        ("{{eq .Reason `a` `<Reason>`}} {{ne .Reason `a`}} {{eq 1 1}} {{eq true false}}", "true true true false"),
        (
            "{{and .Reason .Message}} {{and ``  .Message}} {{or .Reason .Message}} {{or `` 0 false}}",
            "<Message>  <Reason> false",
        ),
        ("{{.Reason | and true | or false | not}}", "false"),
        ("{{and (eq .Reason `<Reason>`) (not (eq .Message ``))}}", "true"),
    ],
)
def test_conditions_mean_what_they_mean_in_go(text: str, expected: str) -> None:
    assert expected == rendered(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Reason | upper | quote}} {{lower .Reason}}", '"<REASON>" <reason>'),
        ("{{upper `straße ᾳ`}} {{lower `ΟΔΟΣ İ`}}", "STRAßE ᾼ οδοσ i"),
        ('{{quote `a"b\\` 5 true}}', r'"a\"b\\" "5" "true"'),
        (r'{{quote "\a\x00\x7f\u00ad\u202e\U0010ffffé"}}', r'"\a\x00\x7f\u00ad\u202e\U0010ffffé"'),
        (
            "{{trunc 3 `abcd`}} {{trunc -3 `abcd`}} {{trunc 9 `abcd`}} {{trunc -9 `abcd`}} {{trunc 0 `a`}}",
            "abc bcd abcd abcd ",
        ),
        ("{{trunc 2 `aéb`}} {{trunc -2 `aéb`}} {{trunc 3 `aéb`}}", "a b aé"),
        ("{{.Reason | default `x`}} {{`` | default `x`}} {{default 7 0}}", "<Reason> x 7"),
        (r'{{"tab\t \"q\" \x41\101\u00e9 \xc3\xa9 }}"}} {{`raw\n }}`}}', 'tab\t "q" AAé é }} raw\\n }}'),
        ("{{5}} {{-5}} {{+5}} {{-0}} {{(true)}}", "5 -5 5 0 true"),
        ("{{((.Reason) | upper) | lower}}", "<reason>"),
    ],
)
def test_functions_and_literals_mean_what_they_mean_in_go_and_sprig(text: str, expected: str) -> None:
    assert expected == rendered(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("{{.Nope}}", 1, 3, "no field .Nope; allowed: {{.ResourceName}}"),
        ("ok {{ .resourceName}}", 1, 7, "no field .resourceName;"),
        ("é🦊\né {{if .Nope}}{{end}}", 2, 8, "no field .Nope"),
        ("{{if false}}{{.Nope}}{{end}}", 1, 15, "no field .Nope"),
        ("{{." + "x" * 50 + "}}", 1, 3, "no field ." + "x" * 39 + "…;"),
        ("{{.Reason.Sub}}", 1, 10, "fields of fields are not supported"),
        ("{{.}}", 1, 3, "'.' alone is not supported; name a field"),
        ("{{$x := .Reason}}", 1, 3, "variables are not supported"),
        ("{{range .Reason}}{{end}}", 1, 3, "range is not supported here; allowed: and default eq"),
        ("{{.Reason | printf `%s`}}", 1, 13, "printf is not supported here; allowed: and default eq"),
        ("{{.Reason | .Message}}", 1, 13, "only a function may stand behind |; allowed: and default eq"),
        ("{{len .Reason}}", 1, 3, "len is not supported here; allowed: and default eq lower"),
        ("{{}}", 1, 1, "a value is missing here"),
        ("{{if}}{{end}}", 1, 1, "a value is missing here"),
        ("{{upper ()}}", 1, 9, "a value is missing here"),
        ("{{.Reason |}}", 1, 11, "a function is missing behind |"),
        ("{{.Reason .Message}}", 1, 11, "only a function takes arguments"),
        ("{{upper(.Reason)}}", 1, 8, "white space is missing here"),
        ("{{eq upper .Reason}}", 1, 6, "a function among arguments stands in parentheses: (upper …)"),
        ("{{upper (.Reason}}", 1, 9, "this ( is never closed by )"),
        ("{{.Reason)}}", 1, 10, "unexpected ) here"),
        ("{{-.Reason}}", 1, 3, "neither in a number nor in a trim marker"),
        ("{{.Reason-}}", 1, 10, "neither in a number nor in a trim marker"),
        ("{{{.Reason}}}", 1, 3, "unexpected '{' in an action"),
        ("{{.Reason}}\n\n a {{.Reason", 3, 4, "this action is never closed by }}"),
        ("a {{/* note }}", 1, 3, "this comment is never closed by */}}"),
        ("{{/* note */ }}", 1, 11, "a comment ends in */}} or */ -}}"),
        ('{{"a\n"}}', 1, 3, "this string is not closed on its line"),
        ("{{`a}}", 1, 3, "this string is never closed by `"),
        (r'{{quote "\q"}}', 1, 9, r"not a Go string: it has no escape \q"),
        (r'{{"\xff"}}', 1, 3, "not a Go string: its escapes are no UTF-8 text"),
        ("{{trunc 0x10 .Reason}}", 1, 9, "only whole decimal numbers"),
        ("{{trunc 9223372036854775808 .Reason}}", 1, 9, "a number of more than 64 bits"),
        ("a{{end}}", 1, 2, "{{end}} without {{if}}"),
        ("{{else}}", 1, 1, "{{else}} without {{if}}"),
        ("\n {{if .Reason}} {{if .Message}} {{end}}", 2, 2, "this {{if}} has no {{end}}"),
        ("{{if .Reason}}{{else}}{{else}}{{end}}", 1, 23, "{{else}} again, where {{end}} should be"),
        ("{{if .Reason}}{{end .Reason}}", 1, 21, "nothing may stand behind end here"),
        ("{{trunc .Reason}}", 1, 3, "trunc takes a number and a text; here it has 1"),
        ("{{.Reason | trunc .Message}}", 1, 19, "trunc takes a number and a text; this is a text"),
        ("{{5 | upper}}", 1, 7, "upper takes one text; this is a whole number"),
        ("{{upper (or .Reason 1)}}", 1, 9, "upper takes one text; this is a text or a whole number"),
        ("{{eq .Reason 1}}", 1, 14, "eq compares values of one kind, not a text with a whole number"),
        ("{{.Reason | eq}}", 1, 13, "eq takes two values or more; here it has 1"),
        ('{{default "x"}}', 1, 3, "default takes a fallback and a value; here it has 1"),
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
    with pytest.raises(
        TemplateError,
        match=r"allowed: and default eq lower ne not or quote trunc upper, true, false, .* if, else, end$",
    ):
        parse("{{html .Reason}}")


# Limits.


def test_the_longest_source_is_allowed() -> None:
    assert rendered("x" * SOURCE_MAX_CHARS) == "x" * SOURCE_MAX_CHARS


def nested_ifs(depth: int) -> str:
    return "{{if 1}}" * depth + "a" + "{{end}}" * depth


def parentheses(depth: int) -> str:
    return "{{" + "(" * depth + "1" + ")" * depth + "}}"


@pytest.mark.parametrize(
    ("at_most", "too_much", "why"),
    [
        (nested_ifs(DEPTH_MAX), nested_ifs(DEPTH_MAX + 1), "within each other"),
        (parentheses(DEPTH_MAX), parentheses(DEPTH_MAX + 1), "within each other"),
        (nested_ifs(DEPTH_MAX - 1) + parentheses(1), "{{if 1}}" * DEPTH_MAX + parentheses(1), "within each other"),
        ("{{1}}" * NODES_MAX, "{{1}}" * (NODES_MAX + 1), "more than 1000 texts"),
        ("{{or" + " 1" * (NODES_MAX - 1) + "}}", "{{or" + " 1" * NODES_MAX + "}}", "more than 1000 texts"),
        ("{{1" + "|not" * (NODES_MAX - 1) + "}}", "{{1" + "|not" * NODES_MAX + "}}", "more than 1000 texts"),
    ],
)
def test_what_is_too_deep_or_too_much_is_refused(at_most: str, too_much: str, why: str) -> None:
    assert rendered(at_most)
    with pytest.raises(TemplateError, match=why):
        parse(too_much)


def test_what_stands_side_by_side_is_not_deep() -> None:
    assert rendered(parentheses(DEPTH_MAX) * 2 + nested_ifs(DEPTH_MAX) * 2) == "11aa"


def test_a_chain_of_else_if_is_not_deep() -> None:
    chain = "".join(f"{{{{else if eq .Reason `{n}`}}}}{n}" for n in range(200))
    assert rendered("{{if false}}" + chain + "{{else}}none{{end}}") == "none"


def test_a_text_put_in_many_times_ends_at_the_limit() -> None:
    message = "x" * 3_000
    text = parse("{{.Message}}" * 900).render(VALUES | {Field.MESSAGE: message})
    assert text == "x" * OUTPUT_MAX_CHARS
    assert OUTPUT_MAX_CHARS >= PROMPT_MAX_BYTES


def test_a_render_whose_functions_make_too_much_ends_there() -> None:
    doubling = parse("before {{.Message" + " | quote" * 500 + " | trunc 1}} after")
    assert doubling.render(VALUES | {Field.MESSAGE: '"\\' * 512}) == "before "
    wasteful = parse("before {{if upper .Message}}a{{end}}" * 200)
    text = wasteful.render(VALUES | {Field.MESSAGE: "x" * 4_000})
    assert text == "before a" * (MADE_MAX_CHARS // 4_000) + "before "


# Texts by chance.


@given(st.text(), st.sampled_from(["{{.Namespace}}", "{{", "}}", "{{.", "-}}"]), st.text())
def test_text_that_comes_out_of_a_value_is_never_expanded(before: str, action: str, after: str) -> None:
    message = before + action + after
    template = parse("{{.Message}}{{.Namespace}}{{if .Reason}}{{or .EventMessage `-`}}{{end}}")
    values = VALUES | {Field.MESSAGE: message, Field.EVENT_MESSAGE: message}
    assert template.render(values) == message + "<Namespace>" + message


EVERY_FUNCTION = parse(
    "{{.Reason | upper | lower | trunc 5 | quote}}{{.Message | trunc -5 | default .EventType | quote .Timestamp}}"
    "{{if and (eq .Reason .Message) (or .EventTime (not .Namespace))}}a{{else if ne .EventMessage .Reason}}b{{end}}"
)


@given(st.dictionaries(st.sampled_from(Field), st.text(st.characters())))
def test_no_value_stops_a_render(values: dict[Field, str]) -> None:
    """Also none at all, and characters that are no UTF-8."""
    assert EVERY_FUNCTION.render(values)


PIECES = [
    *(
        "{{",
        "}}",
        "{{- ",
        " -}}",
        "{{/*",
        "*/}}",
        *'{}()|- \nxé.$`"\\',
        "{{if .Reason}}",
        "{{else}}",
        "{{else if",
        "{{end}}",
    ),
    *(
        "{{.Reason | ",
        ".Reason",
        ".Nope",
        "true",
        "5",
        "-3 ",
        '"a"',
        "and ",
        "or ",
        "not ",
        "eq ",
        "ne ",
        "upper ",
        "lower ",
    ),
    *("quote ", "trunc ", "default ", "range "),
]
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(st.characters())


@given(texts)
@example('{{"\ud800\\t\ud800" | trunc 3}}')
def test_any_text_is_a_template_that_renders_or_is_refused_at_a_place_in_it(text: str) -> None:
    try:
        template = parse(text)
    except TemplateError as error:
        refused = error
    else:
        assert len(template.render(VALUES)) <= OUTPUT_MAX_CHARS
        return
    assert 1 <= refused.column <= len(text.split("\n")[refused.line - 1])
