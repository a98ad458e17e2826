"""Which entries a signal concerns, and what an incident remembers of its entry."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incidents import a_signal, an_entry

from khook.core.match import Entry, Mismatch, Selector, consider, identity, match, matches, with_identities
from khook.core.signal import EventType
from khook.core.template import parse

SHOP = Selector(match_labels=(("app", "shop"),))
RESTART = an_entry()
OOM = an_entry(event_type=EventType.OOM_KILL)
SHOP_OOM = an_entry(event_type=EventType.OOM_KILL, selector=SHOP)
SHOP_RESTART = an_entry(selector=SHOP)
OWNER_RESTART = an_entry(group_by_owner=True)
PENDING = an_entry(event_type=EventType.POD_PENDING)

KILLED = a_signal(type=EventType.OOM_KILL)
RESTARTED = a_signal()


def matched(
    *entries: Entry, labels: dict[str, str] | None = None, known: bool = True, oom: bool = False, killed: bool = False
) -> list[Entry]:
    signal = KILLED if killed else RESTARTED
    return match(entries, signal, pod_labels=labels, pod_known=known, oom=oom)


def test_every_entry_of_the_type_takes_the_signal() -> None:
    other_agent = replace(RESTART, agent="kagent/other")
    assert matched(RESTART, OOM, other_agent, PENDING) == [RESTART, other_agent]


def test_a_selector_that_misses_takes_nothing() -> None:
    assert matched(SHOP_RESTART, labels={"app": "shop"}) == [SHOP_RESTART]
    assert matched(SHOP_RESTART, labels={"app": "cart"}) == []
    assert matched(SHOP_RESTART, labels=None) == []


def test_of_a_pod_that_is_gone_only_entries_that_need_nothing_of_it_hear() -> None:
    everything = an_entry(selector=Selector())
    entries = (RESTART, everything, SHOP_RESTART, OWNER_RESTART)
    assert matched(*entries, known=False, labels={"app": "shop"}) == [RESTART, everything]


# One OOM kill, one agent.


def test_a_restart_after_an_oom_kill_is_the_business_of_the_oom_entry_alone() -> None:
    assert matched(RESTART, OOM, oom=True) == [OOM]
    assert matched(RESTART, OOM, oom=False) == [RESTART]
    assert matched(RESTART, OOM, oom=True, killed=True) == [OOM]


def test_without_an_oom_entry_that_selects_the_pod_it_stays_a_restart() -> None:
    assert matched(RESTART, oom=True) == [RESTART]
    assert matched(RESTART, SHOP_OOM, oom=True, labels={"app": "cart"}) == [RESTART]
    assert matched(RESTART, SHOP_OOM, oom=True, labels={"app": "shop"}) == [SHOP_OOM]
    assert matched(RESTART, OOM, SHOP_OOM, oom=True, labels={"app": "cart"}) == [OOM]


def test_an_entry_says_why_it_does_not_take_the_signal() -> None:
    entries = [RESTART, SHOP_OOM, OOM, PENDING]
    judged = consider(entries, RESTARTED, pod_labels={}, pod_known=True, oom=True)
    assert [mismatch for _, mismatch in judged] == [
        Mismatch.TAKEN_BY_OOM,
        Mismatch.SELECTOR,
        None,
        Mismatch.NO_ENTRY_OF_TYPE,
    ]


# Selectors.


@pytest.mark.parametrize(
    ("operator", "values", "labels", "expected"),
    [
        ("In", ("a", "b"), {"k": "a"}, True),
        ("In", ("a", "b"), {"k": "c"}, False),
        ("In", ("a", "b"), {}, False),
        ("NotIn", ("a", "b"), {"k": "c"}, True),
        ("NotIn", ("a", "b"), {"k": "a"}, False),
        ("NotIn", ("a", "b"), {}, True),
        ("Exists", (), {"k": ""}, True),
        ("Exists", (), {}, False),
        ("DoesNotExist", (), {}, True),
        ("DoesNotExist", (), {"k": ""}, False),
    ],
)
def test_an_expression_means_what_it_means_in_kubernetes(
    operator: str, values: tuple[str, ...], labels: dict[str, str], expected: bool
) -> None:
    assert expected == matches(Selector(expressions=(("k", operator, values),)), labels)


def test_all_of_a_selector_must_hold() -> None:
    selector = Selector(match_labels=(("app", "shop"),), expressions=(("tier", "Exists", ()),))
    assert matches(selector, {"app": "shop", "tier": "web"})
    assert not matches(selector, {"app": "shop"})
    assert not matches(selector, {"tier": "web"})


# Identity.

words = st.sampled_from(["a", "b", "c"])
selectors = st.builds(
    Selector,
    match_labels=st.lists(st.tuples(words, words), max_size=3).map(tuple),
    expressions=st.lists(
        st.tuples(words, st.sampled_from(["In", "NotIn"]), st.lists(words, min_size=1, max_size=3).map(tuple)),
        max_size=2,
    ).map(tuple),
)
entries_of_hooks = st.lists(
    st.builds(
        an_entry,
        event_type=st.sampled_from(EventType),
        agent=words,
        template=words.map(parse),
        selector=st.none() | selectors,
        group_by_owner=st.booleans(),
    ),
    max_size=6,
)


@given(entries_of_hooks, st.randoms())
def test_reordering_entries_changes_no_identity(entries: list[Entry], chance: random.Random) -> None:
    shuffled = list(entries)
    chance.shuffle(shuffled)
    named, again = with_identities(entries), with_identities(shuffled)
    assert len({entry.identity for entry in named}) == len(entries)
    assert {entry.identity for entry in named} == {entry.identity for entry in again}


@given(selectors)
def test_the_order_inside_a_selector_changes_no_identity(selector: Selector) -> None:
    turned = Selector(
        match_labels=selector.match_labels[::-1],
        expressions=tuple((key, operator, values[::-1]) for key, operator, values in selector.expressions[::-1]),
    )
    assert an_entry(selector=selector).identity == an_entry(selector=turned).identity


def test_an_identity_outlives_a_new_prompt_or_cooldown_and_nothing_else() -> None:
    assert an_entry(template=parse("Other?"), index=7, agent_id="x").identity == RESTART.identity
    assert an_entry(selector=Selector()).identity == RESTART.identity
    different = [OOM, SHOP_RESTART, OWNER_RESTART, an_entry(agent="kagent/other")]
    assert len({entry.identity for entry in (RESTART, *different)}) == 5


def test_identities_of_this_version_stay_what_they_are() -> None:
    """Stored in every Hook's status: another algorithm would forget all incidents at an upgrade."""
    asked: dict[str, Any] = {
        "event_type": EventType.OOM_KILL,
        "agent": "kagent/a",
        "group_by_owner": False,
        "selector": SHOP,
    }
    assert identity(**asked, kth=0) == "oom-kill-21d60ea847d54ce6"
    assert identity(**asked, kth=1) == "oom-kill-21d60ea847d54ce6-2"
