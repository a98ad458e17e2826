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
from khook.settings import ALIASES, DEFAULT_BASE_URL, NAMES, Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*NAMES, *ALIASES])
def test_the_readme_names_every_setting(name: str) -> None:
    assert f"`{name}" in README


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("KAGENT_BASE_URL", DEFAULT_BASE_URL),
        *(
            (str(field.alias), str(field.default))
            for field in Settings.model_fields.values()
            if isinstance(field.default, int | str) and not isinstance(field.default, bool)
        ),
    ],
)
def test_the_readme_shows_the_defaults_that_are_numbers_and_words(name: str, shown: str) -> None:
    (line,) = [line for line in README.splitlines() if re.match(rf"\|.*`{name}`.*\|", line)] or [README]
    assert f"`{shown}`" in line or f"`{name}={shown}`" in line


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
