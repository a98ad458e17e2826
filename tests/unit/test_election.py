"""Who may lead, by what was observed of a Lease."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from khook.core.election import LeaseLimits, LeaseSpec, Observation, Standing, micro_time, released, renewed, taken

NOON = datetime(2024, 1, 15, 12, 0, tzinfo=UTC)
HERS = LeaseSpec(holder="her", duration_s=15, transitions=3, acquire_time="a", renew_time="b")


def watching() -> Observation:
    return Observation("me", 15.0)


def test_no_lease_and_a_released_one_are_free_at_once() -> None:
    seen = watching()
    seen.saw(None, 0.0)
    assert seen.standing(0.0) is Standing.FREE
    seen.saw(released(HERS, time=NOON), 0.0)
    assert seen.standing(0.0) is Standing.FREE


def test_a_lease_is_free_after_it_stood_still_for_its_whole_duration_by_our_clock() -> None:
    seen = watching()
    seen.saw(HERS, 100.0)
    seen.saw(HERS, 110.0)
    assert seen.standing(114.9) is Standing.HELD
    assert seen.standing(115.0) is Standing.FREE


def test_every_renewal_makes_the_wait_start_again() -> None:
    seen = watching()
    seen.saw(HERS, 100.0)
    seen.saw(renewed(HERS, time=NOON), 114.0)
    assert seen.standing(128.9) is Standing.HELD
    assert seen.standing(129.0) is Standing.FREE


@pytest.mark.parametrize("renew_time", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "soon", ""])
def test_what_the_holder_says_about_the_time_is_never_believed(renew_time: str) -> None:
    seen = watching()
    seen.saw(LeaseSpec(holder="her", duration_s=15, renew_time=renew_time), 0.0)
    assert (seen.standing(14.9), seen.standing(15.0)) == (Standing.HELD, Standing.FREE)


def test_a_holder_who_names_no_duration_is_waited_for_as_long_as_we_would_be() -> None:
    seen = watching()
    seen.saw(LeaseSpec(holder="her"), 0.0)
    assert (seen.standing(14.9), seen.standing(15.0)) == (Standing.HELD, Standing.FREE)


def test_a_lease_in_our_name_is_ours_however_old() -> None:
    seen = watching()
    seen.saw(taken(HERS, identity="me", duration_s=15.0, time=NOON), 0.0)
    assert seen.standing(1000.0) is Standing.MINE


def test_each_change_of_leader_is_counted_and_no_other_write_is() -> None:
    mine = taken(HERS, identity="me", duration_s=15.0, time=NOON)
    assert (mine.holder, mine.transitions) == ("me", 4)
    assert taken(mine, identity="me", duration_s=15.0, time=NOON).transitions == 4
    assert renewed(mine, time=NOON).transitions == released(mine, time=NOON).transitions == 4
    assert taken(released(mine, time=NOON), identity="you", duration_s=15.0, time=NOON).transitions == 5
    assert taken(None, identity="me", duration_s=15.0, time=NOON).transitions == 0


def test_a_spec_survives_its_way_over_the_wire() -> None:
    mine = taken(HERS, identity="me", duration_s=15.0, time=NOON)
    assert LeaseSpec.of({"spec": mine.to_json()}) == mine
    assert LeaseSpec.of({}) == LeaseSpec.of({"spec": {"holderIdentity": None, "renewTime": None}}) == LeaseSpec()


def test_times_are_written_in_utc_with_six_decimals() -> None:
    assert micro_time(NOON) == "2024-01-15T12:00:00.000000Z"
    assert micro_time(NOON.astimezone(timezone(timedelta(hours=2)))) == "2024-01-15T12:00:00.000000Z"


@pytest.mark.parametrize(
    "limits",
    [
        {"duration_s": 10.0, "renew_deadline_s": 10.0},
        {"renew_deadline_s": 2.0, "retry_s": 2.0},
        {"retry_s": 0.0},
        {"poll_s": 0.0},
    ],
)
def test_numbers_with_which_two_could_lead_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LeaseLimits(**limits)
