"""What a pool takes from its surroundings when its user has nothing better."""

import logging
import time

import pytest

from shards.system import StandardLog, SystemClock


def test_events_and_their_values_reach_the_standard_librarys_log(caplog: pytest.LogCaptureFixture) -> None:
    log = StandardLog()
    with caplog.at_level(logging.INFO, logger="shards"):
        log.info("worker was welcomed", slot="w0", pid=7)
        log.warning("100 % odd")
        log.error("slot is broken", slot="w0")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "worker was welcomed slot='w0' pid=7"),
        ("WARNING", "100 % odd"),
        ("ERROR", "slot is broken slot='w0'"),
    ]


def test_the_clock_is_the_monotonic_one() -> None:
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= time.monotonic()
