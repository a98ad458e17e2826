"""Candidates for one Lease on the embedded API server: who leads, since when, and until when at the latest."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from khook import log
from khook.errors import KubeError, LeaseLost, SettingsError
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.lease import LEASE_NAME, Lease
from khook.sandbox import virtual_time
from khook.sandbox.api_routes import ApiCall
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import HangUp
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock
from khook.supervisor.leader import Election

PATH = f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{LEASE_NAME}"


class Fast:
    """A clock that runs `times` as fast as everybody else's."""

    def __init__(self, times: float) -> None:
        self._times = times
        self._true = VirtualClock()

    def monotonic(self) -> float:
        return self._true.monotonic() * self._times

    def now(self) -> Any:
        return self._true.now()


@dataclass(eq=False)
class Candidate:
    election: Election
    led_at: list[float] = field(default_factory=list)
    ended: BaseException | None = None
    task: "asyncio.Task[None] | None" = None

    def begin(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.election.run(lambda: self.led_at.append(asyncio.get_running_loop().time()))
        except (LeaseLost, SettingsError) as error:
            self.ended = error

    async def leave(self) -> None:
        """As a supervisor that was told to stop."""
        await self.die()
        await self.election.release()

    async def die(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def permitted(self) -> bool:
        permission_s = self.election.permission_s()
        return permission_s is None or permission_s > 0


class World:
    def __init__(self) -> None:
        self.store = Store(randomness=random.Random(1), now=START)
        self.api = ApiServer(self.store, clock=VirtualClock())
        self.kind = self.store.kind("coordination.k8s.io", "v1", "leases")
        self.chance = random.Random(7)
        self.all: list[Candidate] = []

    def candidate(self, name: str, *, clock: Any = None, namespace: str = "default") -> Candidate:
        clock = clock or VirtualClock()
        client = KubeClient(
            credentials=Credentials(server="http://api"),
            transports=InMemoryTransports({"http://api": self.api}),
            clock=clock,
        )
        election = Election(
            lease=Lease(client, namespace=namespace),
            name=name,
            clock=clock,
            now=client.server_now,
            randomness=self.chance,
            log=log.get("leader"),
        )
        self.all.append(Candidate(election))
        self.all[-1].begin()
        return self.all[-1]

    def lease(self) -> dict[str, Any]:
        return self.store.get(self.kind, "default", LEASE_NAME)

    async def watched_for(self, seconds: float) -> list[int]:
        """How many were permitted to act, seen every 50 ms."""
        counts = []
        for _ in range(int(seconds / 0.05)):
            await asyncio.sleep(0.05)
            counts.append(sum(one.permitted for one in self.all))
        return counts


def play(story: Callable[[World], Awaitable[None]]) -> None:
    async def life() -> None:
        world = World()
        await story(world)
        for one in world.all:
            await one.die()

    log.configure("error", "text", strict=True)
    virtual_time.run(life())


def of_the_lease(call: ApiCall) -> bool:
    return call.resource == "leases"


def updates(call: ApiCall) -> bool:
    return call.resource == "leases" and call.verb == "update"


def test_the_first_leads_and_the_second_stands_by_and_knows_who_leads() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(0.1)
        two = world.candidate("two")
        counts = await world.watched_for(120)
        assert (len(one.led_at), two.led_at) == (1, [])
        assert set(counts) == {1}
        assert two.election.leader == one.election.identity
        assert one.election.identity.startswith("one_")
        assert world.lease()["spec"]["holderIdentity"] == one.election.identity
        assert world.lease()["spec"]["leaseDurationSeconds"] == 15

    play(story)


def test_a_leader_that_leaves_is_followed_within_a_second() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(0.1)
        two = world.candidate("two")
        await asyncio.sleep(30.25)
        left_at = asyncio.get_running_loop().time()
        await one.leave()
        await asyncio.sleep(5)
        assert two.led_at[0] - left_at <= 1.0
        assert two.election.epoch == one.election.epoch + 1

    play(story)


def test_a_leader_that_dies_is_followed_after_the_lease_has_stood_still_for_15_s() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(0.1)
        two = world.candidate("two")
        await asyncio.sleep(30)
        died_at = asyncio.get_running_loop().time()
        await one.die()
        await asyncio.sleep(30)
        assert 12.0 <= two.led_at[0] - died_at <= 16.1

    play(story)


def test_a_leader_that_is_cut_off_gives_up_before_another_may_lead() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(10)
        undo = world.api.fault(of_the_lease, answer=HangUp(), times=None)
        await asyncio.sleep(9.9)
        assert isinstance(one.ended, LeaseLost) == (not one.permitted)
        await asyncio.sleep(1)
        assert isinstance(one.ended, LeaseLost)
        undo()

    play(story)


@pytest.mark.parametrize("speeds", [(1.0, 1.3), (1.3, 1.0), (1 / 1.3, 1.0), (1.0, 1.0)])
def test_never_two_are_permitted_though_one_clock_runs_wrong_and_the_network_comes_and_goes(
    speeds: tuple[float, float],
) -> None:
    async def story(world: World) -> None:
        world.candidate("one", clock=Fast(speeds[0]))
        await asyncio.sleep(0.1)
        world.candidate("two", clock=Fast(speeds[1]))
        counts = []
        for turn in range(12):
            undo = world.api.fault(updates, answer=HangUp(), times=None, lose_answer=turn % 2 == 0)
            counts += await world.watched_for(3.0 + turn)
            undo()
            for one in world.all:
                if one.ended is not None:
                    one.ended = None
                    one.begin()  # its process was started again
            counts += await world.watched_for(20)
        assert max(counts) == 1
        assert sum(len(one.led_at) for one in world.all) >= 3

    play(story)


def test_a_renewal_that_hangs_does_not_keep_a_leader_from_giving_up_in_time() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(10.5)  # renewed last at 10 s
        world.api.fault(updates, delay_s=3600, times=None)
        await asyncio.sleep(9.4)
        assert (one.permitted, one.ended) == (True, None)
        await asyncio.sleep(0.2)
        assert (one.permitted, type(one.ended)) == (False, LeaseLost)

    play(story)


def test_an_answer_that_was_lost_costs_nothing() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(10)
        world.api.fault(updates, answer=HangUp(), lose_answer=True)
        counts = await world.watched_for(60)
        assert (set(counts), one.ended) == ({1}, None)

    play(story)


def test_a_label_that_somebody_writes_on_the_lease_costs_nothing() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(11)
        patch = {"metadata": {"labels": {"owner": "platform"}}}
        world.store.patch(world.kind, "default", LEASE_NAME, patch, now=START)
        await asyncio.sleep(30)
        assert (one.permitted, one.ended) == (True, None)

    play(story)


def test_a_lease_that_somebody_deletes_is_made_again_by_its_holder() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(11)
        world.store.delete(world.kind, "default", LEASE_NAME, now=START)
        await asyncio.sleep(30)
        assert (one.permitted, one.ended) == (True, None)
        assert world.lease()["spec"]["holderIdentity"] == one.election.identity

    play(story)


def test_who_finds_another_in_the_lease_stops_at_once() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(11)
        patch = {"spec": {"holderIdentity": "somebody"}}
        world.store.patch(world.kind, "default", LEASE_NAME, patch, now=START)
        await asyncio.sleep(2.1)
        assert isinstance(one.ended, LeaseLost)
        assert "somebody" in str(one.ended)
        assert not one.permitted

    play(story)


def test_a_namespace_that_does_not_exist_is_a_bad_setting_with_the_way_out() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one", namespace="nowhere")
        await asyncio.sleep(1)
        assert isinstance(one.ended, SettingsError)
        (problem,) = one.ended.problems
        assert problem.startswith("POD_NAMESPACE: the namespace 'nowhere'")
        assert "LEADER_ELECTION=false" in problem

    play(story)


def test_a_candidate_that_may_not_read_the_lease_says_so_and_tries_again() -> None:
    async def story(world: World) -> None:
        world.api.forbid(resource="leases")
        one = world.candidate("one")
        await asyncio.sleep(60)
        assert one.election.problem == "the Lease in the namespace default cannot be read or written (HTTP 403)"
        assert (one.led_at, one.ended) == ([], None)
        assert world.api.requests[("get", "leases")] <= 60
        world.api.allow_all()
        await asyncio.sleep(11)
        assert len(one.led_at) == 1

    play(story)


def test_releasing_finds_the_way_past_a_renewal_that_is_still_under_way() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(1.9)
        world.api.fault(updates, delay_s=0.5)
        await asyncio.sleep(0.3)
        await one.leave()
        await asyncio.sleep(5)
        assert world.lease()["spec"].get("holderIdentity", "") == ""

    play(story)


def test_a_lease_without_its_server_is_not_released_and_nobody_minds() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(1)
        world.api.fault(of_the_lease, answer=HangUp(), times=None)
        await one.leave()
        assert not one.election.leading

    play(story)


def test_the_lease_room_says_conflict_and_not_found_as_they_are() -> None:
    async def story(world: World) -> None:
        one = world.candidate("one")
        await asyncio.sleep(1)
        lease: Lease = one.election._lease
        written = await lease.read()
        assert written is not None
        with pytest.raises(KubeError):
            await lease.create(written.spec)
        with pytest.raises(KubeError):
            await lease.update(written.spec, version="1")

    play(story)
