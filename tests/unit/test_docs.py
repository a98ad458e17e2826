"""The documents say what the code does: every setting, every target, Hooks that work, folders that exist."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from khook.core.configure import configure
from khook.core.prompt import Told, render_prompt
from khook.core.signal import EventType
from khook.core.template import parse
from khook.metrics import _REGISTRY
from khook.settings import ALIASES, DEFAULT_BASE_URL, NAMES, load, one
from reference.metrics import LABELS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


SETTINGS = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| ", README, re.MULTILINE)
"""Name, default and what is allowed, as the README says them."""


@pytest.mark.parametrize("name", [*NAMES, *ALIASES])
def test_the_readme_names_every_setting(name: str) -> None:
    assert f"`{name}" in README


@pytest.mark.parametrize(("name", "shown"), [(name, shown[1:-1]) for name, shown, _ in SETTINGS if shown[0] == "`"])
def test_a_default_that_the_readme_shows_changes_nothing_where_it_is_set(name: str, shown: str) -> None:
    assert load({name: shown}, read=lambda _: None) == load({}, read=lambda _: None)


def test_the_readme_names_the_address_that_is_called_where_nobody_says_one() -> None:
    assert f"else `{DEFAULT_BASE_URL}`" in {name: shown for name, shown, _ in SETTINGS}["KAGENT_BASE_URL"]


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        (name, bound)
        for name, _, allowed in SETTINGS
        for bound in re.findall(r"([0-9.]+[a-z]*) to ([0-9.]+[a-z]*)", allowed)
    ],
)
def test_both_ends_of_what_the_readme_allows_are_allowed(name: str, bound: tuple[str, str]) -> None:
    for text in bound:
        one(name, {name: text})


@pytest.mark.parametrize("document", [README, SECURITY], ids=["README", "security"])
def test_every_hook_in_the_documents_works(document: str) -> None:
    blocks = re.findall(r"```yaml\n(apiVersion.*?)```", document, re.DOTALL)
    hooks = [hook for block in blocks for hook in yaml.safe_load_all(block) if hook["kind"] == "Hook"]
    assert hooks
    for hook in hooks:
        done = configure(
            hook, default_cooldown=timedelta(minutes=10), agent_namespace="kagent", allowed_agent_namespaces=()
        )
        assert done.problems == ()
        assert len(done.entries) == len(hook["spec"]["eventConfigurations"])


def test_every_target_of_make_is_helped_and_those_in_the_docs_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (help .*)$", makefile, re.MULTILINE)
    helped = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert helped == set(phony.split())
    documents = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", documents, re.MULTILINE)) <= helped


def test_the_readme_names_only_metrics_that_exist() -> None:
    exist = {name for metric in _REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    assert set(re.findall(r"kagent_hook_\w+", README)) <= exist


def test_the_architecture_has_a_heading_for_each_room() -> None:
    headings = set(re.findall(r"^## (\S+)$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.MULTILINE))
    rooms = {f"khook/{room.parent.name}" for room in (ROOT / "khook").glob("*/__init__.py")} | {"shards"}
    assert headings == rooms


def test_the_security_page_links_to_what_exists_and_names_settings_that_do() -> None:
    links = set(re.findall(r"\]\(([^)#]+)\)", SECURITY))
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert set(re.findall(r"`((?:KHOOK|KAGENT)_[A-Z_]+)", SECURITY)) <= {*NAMES, *ALIASES}


def test_the_security_page_shows_a_prompt_as_it_is() -> None:
    failed = ("web-6d4b75cb6d-2xkqv", "BackOff"), ("web-6d4b75cb6d-7hx9p", "OOMKilled")
    told = Told(
        event_type=EventType.POD_RESTART,
        namespace="shop",
        hook="shop/restarts",
        resource_kind="Deployment",
        resource_name="web",
        pod=failed[0][0],
        container="app",
        reason="BackOff",
        message="Back-off restarting failed container app in pod web-6d4b75cb6d-2xkqv",
        time=datetime(2024, 1, 15, 10, 31, 30, tzinfo=UTC),
        first_time=datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        count=5,
        pods=failed,
        pod_count=2,
        call_id="5f0c1a52-6f1d-4b0e-9a52-3f1f0a3f8f11",
    )
    template = parse("A workload in {{.Namespace}} restarts. Find the most likely cause.")
    assert render_prompt(template, told) in SECURITY


def test_the_security_page_names_the_permissions_that_the_readme_names() -> None:
    def verbs(document: str) -> dict[str, str]:
        rows = re.findall(r"^\| (?:`[\w.]+`|core)[^|]* \| `(\w[\w/]*)`[^|]* \| ([\w, ]+)", document, re.MULTILINE)
        return {resource: said.strip() for resource, said in rows}

    named = verbs(SECURITY)
    assert {"hooks", "hooks/status", "pods", "events", "leases"} <= set(named)
    assert {resource: verbs(README)[resource] for resource in named} == named


DOCS = ROOT / "docs"
PROMISES = re.findall(r"\[(test_\w+)\]\(([^)#]+)\)", (DOCS / "promises.md").read_text(encoding="utf-8"))
PROMISED = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "Flaws")


@pytest.mark.parametrize(("name", "path"), PROMISES)
def test_each_test_that_a_promise_is_linked_to_exists(name: str, path: str) -> None:
    assert re.search(rf"^def {name}\(", (DOCS / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_each_promise_is_linked_to_a_test() -> None:
    sections = re.split(r"^## ", (DOCS / "promises.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    held = [section for section in sections if "](../tests/" in section]
    assert [heading for heading in PROMISED if not any(section.startswith(heading) for section in held)] == []


@pytest.mark.parametrize("name", ["api-reference", "migration", "operations", "promises"])
def test_a_document_links_to_what_exists_and_names_settings_and_metrics_that_do(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")}
    assert [link for link in links if not (DOCS / link).exists()] == []
    assert set(re.findall(r"\b(?:KHOOK|KAGENT)_[A-Z_]+", text)) <= {*NAMES, *ALIASES}
    assert set(re.findall(r"kagent_hook_[a-z_]+", text)) <= set(LABELS)


@pytest.mark.parametrize("name", ["api-reference", "migration", "operations", "promises"])
def test_a_link_to_a_heading_finds_it(name: str) -> None:
    for path, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", (DOCS / f"{name}.md").read_text(encoding="utf-8")):
        target = DOCS / path if path else DOCS / f"{name}.md"
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
