"""Two khooks and one Lease on a real API server: whatever happens to the leader, the other one goes on in its place.

Each replica reaches the API server over a network of its own, and both reach the agents. The tests share the two and go
on from each other; during each of them incidents come all the time, and at its end none is lost and none repeated.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cluster import Cluster
from support.installation import KEY, Agents, admin, delete_hooks, fresh_name, install_crd
from support.khook_process import KhookProcess
from support.load import Load
from support.processes import alive, descendants
from support.proxy import Proxy
from support.real_apiserver import RealApiServer

from khook.errors import EXIT_LEASE_LOST

NAMESPACES = 6
PER_SECOND = 4.0
LEASE_S = 15.0
LED_WITHIN_S = 60.0
"""A Lease stands still for 15 s before another takes it; the rest is for a busy machine."""
FENCED_WITHIN_S = 30.0
"""A leader gives up 10 s after its last renewal, and its process ends."""
FROZEN_S = 20.0
SETTLED_WITHIN_S = 60.0
ORPHANS_GONE_S = 5.0


@dataclass
class Replica:
    """One khook, its network, and its family of processes once it leads."""

    khook: KhookProcess
    network: Proxy

    @property
    def leads(self) -> bool:
        return any(line["event"] == "became leader" for line in self.khook.log())

    @property
    def family(self) -> set[int]:
        return descendants(self.khook.pid) | {self.khook.pid}

    def owned(self) -> set[str]:
        return {line["namespace"] for line in self.khook.log() if line["event"] == "namespace started"}


@dataclass
class Pair:
    server: RealApiServer
    agents: Agents
    replicas: list[Replica]
    load: Load

    def leader(self) -> Replica:
        """The one that leads and is alive."""
        (found,) = [one for one in self.replicas if one.leads and alive(one.khook.pid)]
        return found

    def standby(self) -> Replica:
        return next(one for one in self.replicas if one is not self.leader())

    def under_load(self, story: Callable[[Replica, Replica], Awaitable[None]], *, seconds: float) -> None:
        """Tell the story of the leader and the standby while incidents come."""

        async def life() -> None:
            async with admin(self.server) as http:
                load = self.load.go_on(Cluster(http))
                async with asyncio.TaskGroup() as group:
                    group.create_task(load.run(per_second=PER_SECOND, seconds=seconds))
                    group.create_task(_of(story(self.leader(), self.standby())))
                await load.settled(within_s=SETTLED_WITHIN_S)

        asyncio.run(life())


async def _of(story: Awaitable[None]) -> None:
    await story


async def until(fact: Callable[[], bool], *, within_s: float) -> float:
    """Wait for it; how long it took."""
    began_at = time.monotonic()
    async with asyncio.timeout(within_s):
        while not fact():
            await asyncio.sleep(0.05)
    return time.monotonic() - began_at


@pytest.fixture(scope="module")
def pair(real_apiserver: RealApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both are up; the first one leads, with two workers, and the second has three."""
    folder: Path = tmp_path_factory.mktemp("pair")
    agents = Agents()
    agents.start()
    lease_namespace = fresh_name("khook-system")
    replicas = []
    for number, workers in enumerate(("2", "3")):
        network = Proxy(real_apiserver.url, tls=real_apiserver.ssl_context())
        network.start()
        kubeconfig = folder / f"kubeconfig-{number}"
        real_apiserver.write_kubeconfig(kubeconfig, url=network.url)
        environ = {
            "LEADER_ELECTION": "true",
            "POD_NAMESPACE": lease_namespace,
            "POD_NAME": f"khook-{number}",
            "KHOOK_WORKERS": workers,
        }
        khook = KhookProcess(kubeconfig=kubeconfig, base_url=agents.url, api_key=KEY, environ=environ)
        replicas.append(Replica(khook, network))
    try:
        found = asyncio.run(_install(real_apiserver, agents, replicas, lease_namespace))
        yield found
    finally:
        for one in replicas:
            asyncio.run(one.khook.close())
            one.network.stop()
        agents.stop()
        asyncio.run(delete_hooks(real_apiserver))


async def _install(server: RealApiServer, agents: Agents, replicas: list[Replica], lease_namespace: str) -> Pair:
    await install_crd(server)
    async with admin(server) as http:
        cluster = Cluster(http)
        await cluster.namespace(lease_namespace)
        load = Load(cluster, agents, [fresh_name("pair") for _ in range(NAMESPACES)])
        await load.install()
    first, second = replicas
    await first.khook.start()
    await until(lambda: first.owned() >= set(load.namespaces), within_s=LED_WITHIN_S)
    await second.khook.start()
    return Pair(server, agents, replicas, load)


def test_a_standby_is_ready_owns_nothing_and_says_who_leads(pair: Pair) -> None:
    first, second = pair.replicas

    async def story() -> None:
        ready, body = await second.khook.readyz()
        assert (ready, body["namespaces"], body["leader"]["leading"]) == (True, 0, False)
        assert body["leader"]["identity"].startswith("khook-0_")
        assert (await first.khook.readyz())[1]["leader"]["leading"]

    asyncio.run(story())
    assert len(second.khook.worker_pids()) == 3
    assert second.owned() == set()
    (said,) = [line for line in second.khook.log() if line["event"] == "standing by for the leader"]
    assert (said["logger"], said["leader"][:8]) == ("leader", "khook-0_")


def test_a_graceful_change_from_two_to_three_workers_loses_and_repeats_nothing(pair: Pair) -> None:
    async def story(leader: Replica, standby: Replica) -> None:
        await asyncio.sleep(2.0)
        assert await leader.khook.stop() == 0
        await until(
            lambda: standby.owned() >= set(pair.load.namespaces), within_s=LEASE_S / 2
        )  # it need not wait for it
        assert len({line["slot"] for line in standby.khook.log() if line["event"] == "namespace started"}) == 3
        await leader.khook.start()

    sent = len(pair.agents.kagent.attempts)
    pair.under_load(story, seconds=6.0)
    calls = [attempt.call_id for attempt in pair.agents.kagent.attempts[sent:]]
    assert len(calls) == len(set(calls))


def test_a_leader_that_is_killed_is_followed_and_nothing_is_lost_or_repeated(pair: Pair) -> None:
    async def story(leader: Replica, standby: Replica) -> None:
        await asyncio.sleep(2.0)
        family = leader.family
        assert await leader.khook.kill() == -signal.SIGKILL
        await until(lambda: standby.owned() >= set(pair.load.namespaces), within_s=LED_WITHIN_S)
        await until(lambda: not any(alive(pid) for pid in family), within_s=ORPHANS_GONE_S)
        await leader.khook.start()

    pair.under_load(story, seconds=22.0)


def test_a_leader_that_is_frozen_finds_itself_replaced_and_its_workers_did_nothing_meanwhile(pair: Pair) -> None:
    async def story(leader: Replica, standby: Replica) -> None:
        await asyncio.sleep(2.0)
        family = leader.family
        os.kill(leader.khook.pid, signal.SIGSTOP)  # its workers run on, and know of nothing
        frozen_at = time.monotonic()
        await until(lambda: standby.owned() >= set(pair.load.namespaces), within_s=LED_WITHIN_S)
        await asyncio.sleep(max(0.0, FROZEN_S - (time.monotonic() - frozen_at)))
        os.kill(leader.khook.pid, signal.SIGCONT)
        assert await leader.khook.ended(within_s=FENCED_WITHIN_S) == EXIT_LEASE_LOST
        await until(lambda: not any(alive(pid) for pid in family), within_s=ORPHANS_GONE_S)
        await leader.khook.start()

    pair.under_load(story, seconds=24.0)


def test_a_leader_that_is_cut_off_gives_up_by_itself_before_another_leads(pair: Pair) -> None:
    async def story(leader: Replica, standby: Replica) -> None:
        await asyncio.sleep(2.0)
        family = leader.family
        leader.network.part()
        assert await leader.khook.ended(within_s=FENCED_WITHIN_S) == EXIT_LEASE_LOST
        await until(lambda: not any(alive(pid) for pid in family), within_s=ORPHANS_GONE_S)
        assert not standby.leads
        await until(lambda: standby.owned() >= set(pair.load.namespaces), within_s=LED_WITHIN_S)
        leader.network.heal()
        await leader.khook.start()

    pair.under_load(story, seconds=22.0)
