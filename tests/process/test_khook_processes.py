"""The real `khook run` under real signals, against an embedded API server and kagent: what a death, a freeze, a stop
may cost.

How long each takes on a quiet machine is `make pool-figures`' to say; here the bounds only tell slow from never. What
must be exact is: nothing lost, nothing repeated, nothing left behind.
"""

import asyncio
from typing import Final

from bench.pool import frozen_worker, sigterm, supervisor_death, worker_death
from bench.pool.supervisor_death import While

BUSY_MACHINE_S: Final = 20.0
HEARTBEAT_TIMEOUT_S: Final = 3.0
FROZEN_S: Final = 8.0
"""Long enough for the successor to have taken over, so that the frozen one would wake beside it."""


def test_a_killed_workers_namespaces_are_watched_again_and_nothing_is_left_behind() -> None:
    found = asyncio.run(worker_death.observe(khooks=1, workers=2, namespaces_each=4))
    assert len(found.watched_again_s) == 2
    assert max(found.watched_again_s) < BUSY_MACHINE_S
    assert (found.moved, found.leaked) == ([0], [0])


def test_nothing_outlives_a_killed_supervisor_and_its_successor_repeats_nothing() -> None:
    found = asyncio.run(supervisor_death.observe(times=1, states=(While.BUSY, While.STOPPED), storm=40))
    assert found.orphans == [0, 0]
    assert (found.lost, found.repeated) == ([0, 0], [0, 0])


def test_a_frozen_worker_is_replaced_and_never_wakes() -> None:
    found = asyncio.run(
        frozen_worker.observe(workers=2, frozen=1, frozen_s=FROZEN_S, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)
    )
    assert HEARTBEAT_TIMEOUT_S / 2 < found.replaced_s[0] < HEARTBEAT_TIMEOUT_S + BUSY_MACHINE_S
    assert (found.woken, found.lost, found.repeated, found.leaked) == (0, 0, 0, 0)


def test_sigterm_under_load_ends_in_order_and_loses_and_repeats_nothing() -> None:
    found = asyncio.run(sigterm.observe(times=1, per_second=10.0, namespaces_each=2))
    assert found.badly == [0]
    assert found.stopped_s[0] < sigterm.GRACE_S
    assert (found.lost, found.repeated, found.resent) == ([0], [0], 0)
