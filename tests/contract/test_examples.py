"""The Hooks in examples/ are as good as the page says: both API servers take them whole, and every entry works."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.api_servers import Cluster, install_crd

from khook.api.crd import crd
from khook.core.configure import configure

EXAMPLES = Path(__file__).parents[2] / "examples"
HOOKS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(EXAMPLES.glob("*.yaml"))}


@pytest.mark.parametrize("name", HOOKS)
def test_an_api_server_takes_an_example_and_keeps_every_word_of_it(cluster: Cluster, namespace: str, name: str) -> None:
    install_crd(cluster.admin, crd())
    hook: dict[str, Any] = HOOKS[name] | {"metadata": HOOKS[name]["metadata"] | {"namespace": namespace}}
    strict = {"fieldValidation": "Strict"}
    answer = cluster.admin.post(f"/apis/kagent.dev/v1alpha2/namespaces/{namespace}/hooks", json=hook, params=strict)
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"] == hook["spec"]


@pytest.mark.parametrize("name", HOOKS)
def test_every_entry_of_an_example_works(name: str) -> None:
    done = configure(
        HOOKS[name], default_cooldown=timedelta(minutes=10), agent_namespace="kagent", allowed_agent_namespaces=()
    )
    assert done.problems == ()
    assert len(done.entries) == len(HOOKS[name]["spec"]["eventConfigurations"])


def test_the_page_names_every_example_and_each_says_what_it_is_for() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [name for name in HOOKS if f"]({name})" not in page] == []
    assert [name for name in HOOKS if not (EXAMPLES / name).read_text(encoding="utf-8").startswith("# ")] == []
