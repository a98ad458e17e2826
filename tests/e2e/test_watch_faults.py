"""Watches that end, versions that are compacted, an API server that is killed: nothing lost, nothing repeated.

khook reaches an API server of this module's own through a proxy that ends every watch after 10 s. The two tests share
one khook and go on from each other, as a bad day does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
from support.cluster import Cluster
from support.installation import Installation, fresh_name, installed
from support.load import KINDS, Load
from support.proxy import Proxy, watches_end_after
from support.real_apiserver import RealApiServer, find_binaries

WATCH_S = 10
COMPACT_EVERY_S = 10.0
FAULTS_S = 18.0
"""By the time that its last calls are there each watch has ended twice, with two compactions between."""
OUTAGE_S = 30.0
BACK_WITHIN_S = 45.0
"""A watch backs off for up to 30 s, and the call that it leads to has to be made."""
ENDS = "kagent_hook_watch_ends_total"
RELISTS = "kagent_hook_relists_total"
BUSY, QUIET = ("busy",) * 4, ("quiet",) * 2


@dataclass(frozen=True)
class Faulty:
    """One khook behind the proxy, and every load that it was given."""

    server: RealApiServer
    proxy: Proxy
    installation: Installation
    loads: list[Load] = field(default_factory=list)

    async def load(self, cluster: Cluster, *prefixes: str) -> Load:
        """A load on namespaces of its own, once they are watched."""
        load = Load(cluster, self.installation.agents, [fresh_name(prefix) for prefix in prefixes])
        self.loads.append(load)
        await load.install()
        count = sum(len(one.namespaces) for one in self.loads)
        async with asyncio.timeout(20):
            while (await self.installation.khook.readyz())[1]["live"] < count:
                await asyncio.sleep(0.05)
        return load

    def tell(self, story: Callable[[Cluster], Awaitable[None]]) -> None:
        async def life() -> None:
            async with self.installation.cluster() as cluster:
                await story(cluster)

        asyncio.run(life())


@pytest.fixture(scope="module")
def faulty(real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """A server of our own, because compaction and death are everybody's; the shared one tells that there is one."""
    binaries = find_binaries()
    assert binaries is not None
    server = RealApiServer(binaries)
    server.start()
    proxy = Proxy(server.url, tls=server.ssl_context(), rewrite=watches_end_after(WATCH_S))
    proxy.start()
    try:
        with installed(server, folder=tmp_path_factory.mktemp("khook"), url=proxy.url) as installation:
            yield Faulty(server, proxy, installation)
    finally:
        proxy.stop()
        server.stop()


async def compact_for_ever(server: RealApiServer) -> None:
    """Between two ends of a watch, so that a quiet one has to go on from a version that is gone."""
    await asyncio.sleep(COMPACT_EVERY_S / 2)
    while True:
        await asyncio.to_thread(server.compact)
        await asyncio.sleep(COMPACT_EVERY_S)


def test_watches_that_end_and_versions_that_are_compacted_lose_and_repeat_nothing(faulty: Faulty) -> None:
    async def story(cluster: Cluster) -> None:
        khook = faulty.installation.khook
        load = await faulty.load(cluster, *BUSY, *QUIET)
        compacting = asyncio.create_task(compact_for_ever(faulty.server))
        await load.run(per_second=3, seconds=FAULTS_S, namespaces=load.namespaces[: len(BUSY)])
        for resource, watches in (("pods", 6), ("events", 6), ("hooks_metadata", 1)):
            async with asyncio.timeout(WATCH_S):
                while await khook.counted(ENDS, resource=resource, cause="timeout") < 2 * watches:
                    await asyncio.sleep(0.1)
        compacting.cancel()
        await load.settled(within_s=15)

        gone = await khook.counted(ENDS, resource="events", cause="gone")
        assert gone >= len(QUIET)
        assert await khook.counted(RELISTS, resource="events", cause="gone") == gone
        assert await khook.counted(ENDS, cause="unavailable") == 0
        assert faulty.proxy.rewritten >= 4 * len(load.namespaces)

    faulty.tell(story)


def test_an_api_server_killed_for_thirty_seconds_loses_and_repeats_nothing(faulty: Faulty) -> None:
    async def story(cluster: Cluster) -> None:
        khook = faulty.installation.khook
        load = await faulty.load(cluster, *BUSY)
        well = [await load.prepare(namespace) for namespace in load.namespaces for _ in KINDS]
        for namespace in load.namespaces:
            await load.fresh(namespace)
        await asyncio.to_thread(faulty.server.kill)
        killed_at = time.monotonic()
        while (left_s := OUTAGE_S - (time.monotonic() - killed_at)) > 0:
            ready, body = await khook.readyz()
            assert ready, body
            await asyncio.sleep(min(1.0, left_s))
        await asyncio.to_thread(faulty.server.restart)
        # Most watches are in their back-off now: this is told to nobody, and has to be found.
        await asyncio.gather(*(load.tell(incident) for incident in well))
        late = Load(cluster, faulty.installation.agents, [fresh_name("late")])
        await late.install()
        faulty.loads.append(late)
        await asyncio.gather(*(one.go_on(cluster).settled(within_s=BACK_WITHIN_S) for one in faulty.loads))

        for resource in ("hooks_metadata", "pods", "events"):
            assert await khook.counted(ENDS, resource=resource, cause="unavailable") > 0
        # The API server's cache of pods starts anew; Events are read from etcd and go on.
        assert await khook.counted(RELISTS, resource="pods", cause="gone") > 0

    faulty.tell(story)
