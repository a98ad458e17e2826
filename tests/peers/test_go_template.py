"""Templates against Go's own text/template: what both accept they render alike, and khook accepts nothing more."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from peers.template_cases import Cases
from support.go_template import rendered_by_go

from khook.core.template import Field, TemplateError, parse

SEED = 7
WHOLE = 2_500
SPOILED = 10_000
VALUES_EACH = 3

OUTSIDE = {
    "variables": "variables are not supported",
    "words": (
        r"(and|or|not|eq|ne|lt|le|gt|ge|len|index|slice|print|printf|println|html|js|urlquery|call"
        r"|range|with|define|template|block|break|continue|nil) is not supported here"
    ),
    "dot": "'.' alone is not supported",
    "numbers": "only whole decimal numbers|character constants",
    "bytes": "its escapes are no UTF-8 text",
    "nothing behind |": r"a function is missing behind \|",
    "idle calls": "quote takes .*; here it has 0|default takes .*; here it has|a function among arguments",
    "either kind": "takes .*; this is .* or a |compares values of one kind, not (.* or a .* with|.* with .* or a )",
}
"""What Go has and khook has not, by the words of the refusal."""
UNTAKEN = "not executed"
NOT_EXECUTED = "no field|fields of fields|takes|compares|only a function|more than 64 bits"
"""The words for mistakes that Go finds only where it comes by: behind an if, or where and, or, eq stop early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One template: what khook says of it (`refusal` or texts), and what Go does, for each set of values."""

    text: str
    whole: bool
    refusal: str | None
    texts: list[str]
    by_go: list[str | None]

    @property
    def go_executes(self) -> bool:
        return None not in self.by_go


@pytest.fixture(scope="module")
def judged(go_template: Path) -> list[Judged]:
    """Every case, by one process of Go's."""
    cases = Cases(SEED)
    texts = [(cases.template(depth=3, nodes=5), True) for _ in range(WHOLE)]
    texts += [(cases.spoiled(cases.template(depth=1, nodes=2)), False) for _ in range(SPOILED)]
    values = [[cases.values() for _ in range(VALUES_EACH)] for _ in texts]
    asked = [(text, one) for (text, _), several in zip(texts, values, strict=True) for one in several]
    said = iter(rendered_by_go(go_template, asked))
    return [
        _judged(text, several, whole=whole, by_go=[next(said) for _ in several])
        for (text, whole), several in zip(texts, values, strict=True)
    ]


def _judged(text: str, values: list[dict[str, str]], *, whole: bool, by_go: list[str | None]) -> Judged:
    try:
        template = parse(text)
    except TemplateError as error:
        return Judged(text=text, whole=whole, refusal=error.message, texts=[], by_go=by_go)
    texts = [template.render({Field(name): value for name, value in one.items()}) for one in values]
    return Judged(text=text, whole=whole, refusal=None, texts=texts, by_go=by_go)


def test_what_khook_accepts_go_renders_alike(judged: list[Judged]) -> None:
    accepted = [case for case in judged if case.refusal is None]
    assert [case for case in accepted if case.by_go != case.texts] == []
    assert len(accepted) >= 2_000
    print(f"{len(accepted)} templates accepted by both and rendered alike, {VALUES_EACH} times each")


def test_every_template_along_the_grammar_is_accepted(judged: list[Judged]) -> None:
    assert [case for case in judged if case.whole and case.refusal is not None] == []


def test_what_khook_refuses_and_go_executes_is_outside_the_subset(judged: list[Judged]) -> None:
    refused = [case for case in judged if case.refusal is not None]
    why = [(case, _why(case)) for case in refused if case.go_executes]
    assert [case for case, reason in why if reason is None] == []
    counts = Counter(reason for _, reason in why)
    assert counts.keys() == {*OUTSIDE, UNTAKEN}
    print(f"{len(refused) - len(why)} templates refused by both; by khook alone: {dict(counts)}")


def _why(case: Judged) -> str | None:
    assert case.refusal is not None
    reasons = (name for name, words in OUTSIDE.items() if re.search(words, case.refusal))
    may_stop_early = re.search(r"\b(if|and|or|eq|with|range|define)\b", case.text) and re.search(
        NOT_EXECUTED, case.refusal
    )
    return next(reasons, UNTAKEN if may_stop_early else None)
