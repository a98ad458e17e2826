"""`holdFor` on a real cluster: trouble that passes calls nobody, trouble that lasts calls once, whoever dies."""

import asyncio
import time
from typing import Final

import pytest
from support.cluster import Cluster, rows
from support.installation import Installation, fresh_name, now
from support.objects import Json, entry, event, hook, pod, running

HOLD_FOR_S: Final = 6
RECOVERED_AFTER_S: Final = 3
KILLED_AFTER_S: Final = 4.5
"""Late: a wait that began anew with the successor would end far beyond `LATEST_S`."""
EARLIEST_S: Final = HOLD_FOR_S - 2.0
"""A kubelet's time and the API server's `Date` are whole seconds, rounded down."""
LATEST_S: Final = HOLD_FOR_S + 3.5


async def readiness_fails(cluster: Cluster, namespace: str, name: str) -> Json:
    made = await cluster.pod(pod(name, namespace=namespace), running(now=now()))
    message = "Readiness probe failed: HTTP probe failed with statuscode: 503"
    await cluster.event(event("Unhealthy", message, of=made, now=now()))
    return await cluster.pod_status(made, running(now=now(), ready=False))


@pytest.mark.parametrize("killed", [False, True], ids=["nobody dies", "its worker is killed"])
def test_a_pod_that_is_ready_in_time_calls_nobody_and_one_that_is_not_calls_once(
    khook: Installation, *, killed: bool
) -> None:
    async def story() -> None:
        namespace = fresh_name("held")
        async with khook.cluster() as cluster:
            await cluster.namespace(namespace)
            await cluster.hook(hook("h", entry("probe-failed", holdFor=f"{HOLD_FOR_S}s"), namespace=namespace))
            recovers = await readiness_fails(cluster, namespace, "recovers")
            await asyncio.sleep(1)  # so that its call, if there was one, would come first
            began_at = time.monotonic()
            await readiness_fails(cluster, namespace, "stays")
            await asyncio.sleep(RECOVERED_AFTER_S)
            await cluster.pod_status(recovers, running(now=now()))
            assert rows(await cluster.get_hook(namespace, "h")) == []
            if killed:
                await asyncio.sleep(KILLED_AFTER_S - RECOVERED_AFTER_S)
                khook.khook.kill_worker(khook.khook.owners()[namespace])
            (run,) = await khook.called(namespace, 1)
            assert EARLIEST_S <= time.monotonic() - began_at <= LATEST_S
            assert run.context["resourceName"] == "stays"

    asyncio.run(story())
