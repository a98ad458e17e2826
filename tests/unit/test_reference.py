"""What documents say of models, settings, metrics and log keys is what the code says: generated, and held equal."""

import ast
import re
from pathlib import Path

import pytest

from khook.log import Key
from reference.documents import DOCUMENTS, NoMark, with_parts
from reference.metrics import LABELS, exist
from reference.tables import docstrings, table

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_generated_document_is_what_make_docs_writes(name: str) -> None:
    committed = (ROOT / name).read_text(encoding="utf-8")
    assert committed == DOCUMENTS[name](committed), "make docs"


def test_what_people_write_around_a_generated_part_stays() -> None:
    text = "before\n<!-- generated: a, from x -->\n\nold\n\n<!-- end of a -->\nbehind\n"
    made = with_parts(text, parts={"a": lambda: "| new |\n"})
    assert made == "before\n<!-- generated: a, from x -->\n\n| new |\n\n<!-- end of a -->\nbehind\n"
    assert with_parts(made, parts={"a": lambda: "| new |\n"}) == made


@pytest.mark.parametrize("text", ["", "<!-- generated: a -->\n", "<!-- generated: b -->\n<!-- end of b -->"])
def test_a_document_without_its_marks_is_not_overwritten(text: str) -> None:
    with pytest.raises(NoMark):
        with_parts(text, parts={"a": lambda: ""})


def test_a_cell_cannot_end_its_row() -> None:
    assert table(("a", "b"), [("x | y", "1\n2")]) == "| a | b |\n|---|---|\n| x \\| y | 1 2 |\n"


def test_every_metric_is_listed_with_exactly_its_labels() -> None:
    labels = {name: set(metric._labelnames) for name, metric in exist().items()}
    assert labels == {name: set(values) for name, values in LABELS.items()}


def test_no_label_can_have_more_values_than_a_person_reads() -> None:
    """Else it would be no closed set: what has a name in a cluster is never among them."""
    assert max(len(values) for labels in LABELS.values() for values in labels.values()) <= 16


def test_every_log_key_is_written_by_somebody() -> None:
    """A key that no line has would be a promise in the documents that nobody keeps."""
    own = {Key.EVENT, Key.LEVEL, Key.LOGGER, Key.TIMESTAMP, Key.EXCEPTION, Key.DROPPED_KEYS, Key.TRUNCATED}
    written = {
        keyword.arg
        for room in ("khook", "shards")
        for path in (ROOT / room).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
    }
    assert {key.value for key in Key} - own <= written


def test_every_log_key_says_what_it_is() -> None:
    assert docstrings(Key).keys() == {key.name for key in Key}


def test_every_alert_has_its_section_in_the_runbook() -> None:
    installed = (ROOT / "charts/kagent-hook-controller/files/alerts.yaml").read_text(encoding="utf-8")
    runbook = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    alerts = re.findall(r"^\s*- alert: (\w+)$", installed, re.MULTILINE)
    assert alerts
    assert alerts == re.findall(r"^### (Khook\w+)$", runbook, re.MULTILINE)
