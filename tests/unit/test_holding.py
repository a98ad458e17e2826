"""What `holdFor` waits for: first evidence and the time that follows from it; the rest is in tests/clock."""

from datetime import UTC, datetime, timedelta

import pytest
from incidents import an_entry, at

from khook.core.holding import LATEST, due_time
from khook.core.signal import EventType

ENTRY = an_entry(event_type=EventType.PROBE_FAILED, hold_for=timedelta(minutes=2))


@pytest.mark.parametrize(
    ("evidence", "due"),
    [(at(0), at(120)), (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), LATEST)],
    ids=["a time", "the calendar's last"],
)
def test_whatever_time_an_event_claims_its_hold_has_an_end(evidence: datetime, due: datetime) -> None:
    assert due_time(evidence, ENTRY) == due
