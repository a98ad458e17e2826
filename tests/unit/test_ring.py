"""The ring: the same home everywhere, an even share, few moves."""

import sys
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.ring import Ring

KEYS = [f"team-{number}" for number in range(10_000)]


def slots(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def homes(ring: Ring) -> dict[str, str | None]:
    return {key: ring.owner(key) for key in KEYS}


def test_a_keys_home_is_the_same_in_every_process_and_release() -> None:
    ring = Ring(slots(4))
    pinned = {
        "default": "w1",
        "kube-system": "w3",
        "team-a": "w1",
        "team-c": "w1",
        "team-d": "w3",
        "payments": "w1",
        "größe": "w3",
        "": "w1",
    }
    assert pinned == {key: ring.owner(key) for key in pinned}


@pytest.mark.parametrize("count", range(1, 12))
def test_a_joining_slot_takes_its_share_and_moves_nothing_else(count: int) -> None:
    before, after = homes(Ring(slots(count))), homes(Ring(slots(count + 1)))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} == {f"w{count}"}
    assert len(moved) <= 1.3 / (count + 1) * len(KEYS)


@pytest.mark.parametrize("gone", slots(5))
def test_a_leaving_slot_gives_its_keys_to_all_others_and_moves_nothing_else(gone: str) -> None:
    before, after = homes(Ring(slots(5))), homes(Ring(slot for slot in slots(5) if slot != gone))
    assert {before[key] for key in KEYS if before[key] != after[key]} == {gone}
    assert {after[key] for key in KEYS if before[key] == gone} == set(slots(5)) - {gone}


@pytest.mark.parametrize("count", [2, 3, 8, 16])
def test_no_slot_has_much_more_than_its_share(count: int) -> None:
    shares = Counter(homes(Ring(slots(count))).values())
    assert max(shares.values()) <= 1.25 * len(KEYS) / count


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=6), st.text(), st.randoms(use_true_random=False))
def test_the_order_of_slots_does_not_matter(names: list[str], key: str, chance: object) -> None:
    shuffled = sorted(names, key=lambda _: chance.random())  # type: ignore[attr-defined]
    ring = Ring(names, 8)
    owner = ring.owner(key)
    assert owner == Ring(shuffled, 8).owner(key)
    assert owner in names if names else owner is None
    assert ring.owners([key]) == ({key: owner} if names else {})


@given(st.lists(st.text(min_size=1, max_size=5), unique=True, max_size=6), st.text())
def test_clockwise_goes_by_every_slot_once_in_the_order_in_which_they_would_inherit_the_key(
    names: list[str], key: str
) -> None:
    inherit: list[str] = []
    while (owner := Ring([name for name in names if name not in inherit], 8).owner(key)) is not None:
        inherit.append(owner)
    assert inherit == list(Ring(names, 8).clockwise(key))


def test_ten_thousand_keys_find_their_homes_within_50_ms() -> None:
    def took_s() -> float:
        began_at = time.process_time()
        homes(Ring(slots(8)))
        return time.process_time() - began_at

    traced = sys.gettrace() is not None  # coverage counts each line
    assert min(took_s() for _ in range(5)) <= (0.5 if traced else 0.05)


def test_a_slot_twice_or_no_virtual_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Ring(["w0", "w0"])
    with pytest.raises(ValueError, match="virtual_nodes"):
        Ring(["w0"], 0)
