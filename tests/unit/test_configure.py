"""A Hook becomes entries: defaults, identity, and whose agents it may call."""

from datetime import timedelta
from typing import Any

import pytest
from hook_table import CASES, FIRST, Case, entry, hook

from khook.core.configure import Configured, configure
from khook.core.match import Selector
from khook.core.signal import EventType
from khook.core.template import parse


def configured(*entries: Any, allowed: tuple[str, ...] = (), **spec: Any) -> Configured:
    return configure(
        {"metadata": {"namespace": "shop", "name": "h"}, "spec": {"eventConfigurations": list(entries), **spec}},
        default_cooldown=timedelta(minutes=10),
        agent_namespace="kagent",
        allowed_agent_namespaces=allowed,
    )


def test_an_entry_has_its_defaults_filled_in() -> None:
    result = configured(entry())
    (one,) = result.entries
    assert result.problems == ()
    assert result.suspended is False
    assert (one.index, one.event_type, one.template) == (0, EventType.POD_RESTART, parse("Look at it."))
    assert (one.agent, one.agent_id) == ("kagent/incident-responder", "incident-responder")
    assert (one.cooldown, one.selector, one.group_by_owner) == (timedelta(minutes=10), None, False)
    assert one.identity


@pytest.mark.parametrize(
    ("agent", "meant", "agent_id"),
    [
        ({"agentId": "a"}, "kagent/a", "a"),
        ({"agentId": "shop/a"}, "shop/a", "shop/a"),
        ({"agentId": "kagent/a"}, "kagent/a", "kagent/a"),
        ({"agentId": ..., "agentRef": {"name": "a"}}, "shop/a", "shop/a"),
        ({"agentId": ..., "agentRef": {"name": "a", "namespace": "kagent"}}, "kagent/a", "kagent/a"),
    ],
)
def test_agents_of_the_hooks_namespace_and_of_the_settings_may_be_called(
    agent: dict[str, Any], meant: str, agent_id: str
) -> None:
    (one,) = configured(entry(**agent)).entries
    assert (one.agent, one.agent_id) == (meant, agent_id)


@pytest.mark.parametrize(
    ("agent", "field"),
    [
        ({"agentId": "bank/a"}, "agentId"),
        ({"agentId": ..., "agentRef": {"name": "a", "namespace": "bank"}}, "agentRef.namespace"),
    ],
)
def test_a_foreign_agent_is_refused_with_its_path_and_allowed_by_the_setting(agent: dict[str, Any], field: str) -> None:
    refused = configured(entry(**agent), entry(), allowed=("bank2",))
    assert [one.index for one in refused.entries] == [1]
    (problem,) = refused.problems
    assert problem.path == f"{FIRST}.{field}"
    assert problem.reason == (
        "an agent in namespace bank may not be called from here: KHOOK_ALLOWED_AGENT_NAMESPACES does not allow it"
    )
    for allowed in (("bank",), ("*",)):
        assert len(configured(entry(**agent), allowed=allowed).entries) == 1


def test_a_broken_template_is_a_problem_of_its_entry_alone() -> None:
    result = configured(entry(prompt="{{.Nope}}"), entry(), suspend=True)
    assert [one.index for one in result.entries] == [1]
    assert [problem.path for problem in result.problems] == [f"{FIRST}.prompt"]
    assert ".Nope" in result.problems[0].reason
    assert result.suspended is True


def test_own_cooldown_and_selector_are_taken_over() -> None:
    selector = {"matchLabels": {"app": "x"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]}
    (one,) = configured(entry(cooldown="1h30m", selector=selector)).entries
    assert one.cooldown == timedelta(hours=1.5)
    assert one.selector == Selector(match_labels=(("app", "x"),), expressions=(("t", "In", ("a", "b")),))


def test_identities_differ_by_agent_and_place_among_equals_but_not_by_prompt() -> None:
    first, second, other = (one.identity for one in configured(entry(), entry(), entry(agentId="b")).entries)
    assert len({first, second, other}) == 3
    swapped = configured(entry(agentId="b"), entry(prompt="Else."), entry()).entries
    assert [one.identity for one in swapped] == [other, first, second]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_hook_of_the_table_that_works_gives_all_its_entries(case: Case) -> None:
    result = configure(
        hook(case), default_cooldown=timedelta(minutes=1), agent_namespace="kagent", allowed_agent_namespaces=()
    )
    assert bool(result.problems) == (case.path is not None)
