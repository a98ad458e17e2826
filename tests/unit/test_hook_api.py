"""The Hook's models: one broken entry leaves the others working, and says where and why; the CRD is theirs."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hook_table import CASES, FIRST, Case, entry, hook
from hypothesis import given
from hypothesis import strategies as st

from khook.api.crd import as_yaml, crd
from khook.api.v1alpha2 import EventConfiguration, parse_entries
from khook.core.signal import EventType

CRD_FILE = Path(__file__).parents[2] / "crds" / "kagent.dev_hooks.yaml"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["eventType", "agentId", "agentRef", "prompt", "cooldown", "groupBy", "holdFor", "selector", "x"]
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_hook_of_the_table(case: Case) -> None:
    parsed = parse_entries(hook(case))
    assert [problem.path for problem in parsed.problems][:1] == ([] if case.path is None else [case.path])
    if case.path is None:
        assert len(parsed.entries) == len(case.spec["eventConfigurations"])


def test_one_broken_entry_leaves_the_others_at_their_places() -> None:
    entries = [entry(), entry(prompt=""), entry(eventType="oom-kill"), entry(agentId="A", cooldown="x")]
    parsed = parse_entries({"spec": {"eventConfigurations": entries, "suspend": True}})
    assert [(index, one.event_type) for index, one in parsed.entries] == [(0, "pod-restart"), (2, "oom-kill")]
    assert [(problem.path, problem.reason) for problem in parsed.problems] == [
        ("spec.eventConfigurations[1].prompt", "must have at least 1 character"),
        (
            "spec.eventConfigurations[3].agentId",
            "must be an agent's name or namespace/name: lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit",
        ),
        ("spec.eventConfigurations[3].cooldown", "not a duration: write it as 10m, 1.5s, 1h30m or 250ms"),
    ]
    assert parsed.suspended is True


def test_null_is_not_the_same_as_absent() -> None:
    (problem,) = parse_entries({"spec": {"eventConfigurations": [entry(cooldown=None)]}}).problems
    assert (problem.path, problem.reason) == (f"{FIRST}.cooldown", "must not be null")


def test_a_hold_for_what_cannot_pass_says_what_to_write_instead() -> None:
    parsed = parse_entries({"spec": {"eventConfigurations": [entry(holdFor="1m")]}})
    assert parsed.entries == ()
    assert [(problem.path, problem.reason) for problem in parsed.problems] == [
        (f"{FIRST}.holdFor", "is for pod-pending and probe-failed; use 0s or leave it out")
    ]


def test_more_than_fifty_entries_leave_the_first_fifty_working() -> None:
    parsed = parse_entries({"spec": {"eventConfigurations": [entry()] * 60}})
    assert len(parsed.entries) == 50


@given(st.dictionaries(FIELDS, JSON) | JSON)
def test_whatever_an_entry_holds_its_neighbour_works(broken: Any) -> None:
    parsed = parse_entries({"spec": {"eventConfigurations": [broken, entry()]}})
    assert parsed.entries[-1][0] == 1
    assert all(problem.path.startswith(FIRST) and problem.reason for problem in parsed.problems)
    assert bool(parsed.problems) == (len(parsed.entries) == 1)


@given(JSON)
def test_whatever_a_spec_is_nothing_is_raised(spec: Any) -> None:
    assert parse_entries({"spec": spec}).problems


def test_a_problem_never_repeats_a_prompt_and_stays_short() -> None:
    parsed = parse_entries({"spec": {"eventConfigurations": [entry(prompt="hunter2" * 4000, **{"k" * 9999: 1})]}})
    assert len(parsed.problems) == 2
    assert not any("hunter2" in problem.reason or len(problem.path) > 256 for problem in parsed.problems)


def test_the_api_and_the_decisions_know_the_same_types() -> None:
    assert set(get_args(EventConfiguration.model_fields["event_type"].annotation)) == set(EventType)


def test_the_crd_in_the_repository_is_the_generated_one() -> None:
    assert CRD_FILE.read_text(encoding="utf-8") == as_yaml(crd()), "run `make crd`"
    assert yaml.safe_load(CRD_FILE.read_text(encoding="utf-8")) == crd()


def test_the_schema_holds_nothing_that_kubernetes_1_20_refuses() -> None:
    keywords = set(_keywords(crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    assert not keywords & {"$ref", "$defs", "title", "default", "anyOf", "propertyNames", "x-kubernetes-validations"}
    assert "oneOf" in keywords


def test_every_field_of_the_schema_explains_itself() -> None:
    schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    mute = [path for name in ("spec", "status") for path in _without_description(schema[name], name)]
    assert mute == []


def _keywords(schema: dict[str, Any]) -> list[str]:
    own = list(schema)
    for one in [schema.get("items"), schema.get("additionalProperties"), *schema.get("properties", {}).values()]:
        own += _keywords(one) if isinstance(one, dict) else []
    return own


def _without_description(schema: dict[str, Any], path: str) -> list[str]:
    mute = [] if schema.get("description") else [path]
    for name, one in (schema.get("items") or schema).get("properties", {}).items():
        mute += _without_description(one, f"{path}.{name}")
    return mute
