"""The watch over hours of virtual time: silence, back-off, Retry-After, liveness. The server is the embedded one."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.resources import EVENTS, PODS, Change
from khook.kube.watch import Watch
from khook.sandbox import virtual_time
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import HangUp, Response
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock


class World:
    """One watch on one embedded API server."""

    def __init__(self, *, resource: Any, seed: int) -> None:
        self.clock = VirtualClock()
        self.api = ApiServer(Store(randomness=random.Random(seed), now=START), clock=self.clock)
        self.api.store.create(self.kind("namespaces"), None, {"metadata": {"name": "ns"}}, now=START)
        self.said: list[str] = []
        self.counts: Counter[str] = Counter()
        self.watch: Watch[Any] = Watch(
            client=KubeClient(
                credentials=Credentials(server="http://api"),
                transports=InMemoryTransports({"http://api": self.api}),
                clock=self.clock,
            ),
            resource=resource,
            namespace="ns",
            sink=self,
            clock=self.clock,
            randomness=random.Random(seed),
            log=self,
            counters=self,
        )

    def kind(self, plural: str) -> Any:
        return self.api.store.kind("", "v1", plural)

    def create_pod(self, name: str) -> None:
        pod = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        self.api.store.create(self.kind("pods"), "ns", pod, now=self.clock.now())

    @property
    def asked(self) -> int:
        return sum(self.api.requests.values())

    async def at(self, time_s: float) -> None:
        await asyncio.sleep(time_s - self.clock.monotonic())

    def live(self) -> bool:
        return self.watch.live(self.clock.monotonic())

    def list_started(self) -> None: ...

    def listed(self, objects: Sequence[Any]) -> None:
        self.said.extend(obj.metadata.name for obj in objects)

    def list_ended(self) -> None: ...

    def line(self, change: Change, obj: Any) -> None:
        self.said.append(obj.metadata.name)

    def ended(self, resource: str, cause: str) -> None:
        self.counts[f"ended {cause}"] += 1

    def relisted(self, resource: str, cause: str) -> None:
        self.counts[f"relisted {cause}"] += 1

    def skipped(self, resource: str, cause: str) -> None:
        self.counts[f"skipped {cause}"] += 1

    def debug(self, event: str, **values: object) -> None: ...

    def warning(self, event: str, **values: object) -> None: ...


def play(test: Callable[[World], Coroutine[Any, Any, None]], *, resource: Any = PODS, seed: int = 1) -> None:
    async def main() -> None:
        world = World(resource=resource, seed=seed)
        running = asyncio.ensure_future(world.watch.run())
        try:
            await test(world)
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(main())


def any_call(call: object) -> bool:
    return True


def test_hours_of_clean_ends_lose_nothing_and_list_once() -> None:
    async def test(world: World) -> None:
        expected = [f"pod-{n}" for n in range(120)]
        for n, name in enumerate(expected):
            await world.at(60.0 * n + 30)
            world.create_pod(name)
        await world.at(2 * 3600 + 60)
        assert world.said == expected
        assert world.counts["relisted start"] == 1
        assert world.counts["ended timeout"] >= 15
        assert set(world.counts) == {"relisted start", "ended timeout"}

    play(test)


def test_a_quiet_events_watch_over_compactions_is_listed_again_and_stays_live() -> None:
    async def test(world: World) -> None:
        for n in range(120):
            await world.at(60.0 * n)
            world.create_pod(f"pod-{n}")
            if n % 5 == 0:
                world.api.store.compact()
            assert world.live()
        assert world.counts["ended gone"] >= 10
        assert world.counts["relisted gone"] == world.counts["ended gone"]
        assert world.api.answers[("watch", "events", 410)] == world.counts["ended gone"]

    play(test, resource=EVENTS)


def test_a_stalled_pods_watch_is_opened_anew_after_80_seconds_and_never_listed() -> None:
    async def test(world: World) -> None:
        await world.at(10)
        world.create_pod("before")
        await world.at(20)
        world.api.stall()
        world.create_pod("while-stalled")
        await world.at(89)
        assert world.api.requests[("watch", "pods")] == 1
        world.api.unstall()
        world.api.stall(lambda call: world.clock.monotonic() < 50)
        await world.at(91)
        assert world.said == ["before", "while-stalled"]
        assert world.counts["relisted start"] == 1

    play(test)


def test_a_pods_watch_that_stalls_and_cannot_reconnect_is_deaf_after_90_seconds_until_it_is_back() -> None:
    async def test(world: World) -> None:
        await world.at(10)
        world.create_pod("last-proof")
        await world.at(11)
        world.api.stall()
        undo = world.api.refuse(any_call)
        await world.at(99.9)
        assert world.live()
        await world.at(100.1)
        assert not world.live()
        world.api.unstall()
        undo()
        await world.at(136)
        assert world.live()
        assert world.counts["relisted start"] == 1

    play(test)


def test_an_events_watch_is_live_while_it_is_open_and_deaf_90_seconds_after_it_could_not_be_opened() -> None:
    async def test(world: World) -> None:
        await world.at(200)
        assert world.live()
        undo = world.api.refuse(any_call)
        world.api.cut_connections()
        await world.at(289)
        assert world.live()
        await world.at(291)
        assert not world.live()
        undo()
        await world.at(326)
        assert world.live()

    play(test, resource=EVENTS)


def test_an_events_watch_that_the_server_forgets_to_end_is_ended_by_us() -> None:
    async def test(world: World) -> None:
        await world.at(1)
        world.api.stall()
        await world.at(480 + 16)
        assert world.counts["ended silence"] == 1
        assert world.live()

    play(test, resource=EVENTS)


@pytest.mark.parametrize("seed", range(10))
def test_an_api_server_gone_for_ten_minutes_is_asked_rarely_and_all_is_back_within_35_seconds(seed: int) -> None:
    async def test(world: World) -> None:
        await world.at(300)
        world.api.stop()
        asked = world.asked
        refused_from = world.counts["ended unavailable"]
        await world.at(900)
        assert world.asked == asked, "a stopped server counts nothing"
        assert 600 * 0.25 >= world.counts["ended unavailable"] - refused_from > 10
        world.create_pod("while-gone")
        world.api.start()
        await world.at(935)
        assert world.live()
        assert world.said == ["while-gone"]

    play(test, seed=seed)


def test_two_minutes_of_health_forget_the_failures_before() -> None:
    async def test(world: World) -> None:
        undo = world.api.refuse(lambda call: call.verb == "watch")
        await world.at(300)
        undo()
        await world.at(330 + 130)
        world.api.cut_connections()
        await world.at(330 + 130 + 0.81)
        assert world.watch.health.opened

    play(test)


def test_retry_after_is_waited_for_and_costs_no_list() -> None:
    async def test(world: World) -> None:
        await world.at(1)
        busy = Response(status=429, headers={"retry-after": "20"}, body=b"{}")
        world.api.fail_next(any_call, busy)
        world.api.end_watches()
        await world.at(20.9)
        assert world.api.requests[("watch", "pods")] == 2
        await world.at(22.1)
        assert world.api.requests[("watch", "pods")] == 3
        assert world.watch.health.opened
        assert world.counts["relisted start"] == 1

    play(test)


def test_it_is_forbidden_by_the_last_answer_alone() -> None:
    async def test(world: World) -> None:
        await world.at(1)
        world.api.forbid(verb="watch")
        world.api.end_watches()
        await world.at(10)
        forbidden = world.watch.health.forbidden
        assert forbidden
        world.api.refuse(lambda call: call.verb == "watch")
        await world.at(60)
        forbidden = world.watch.health.forbidden
        assert not forbidden
        assert not world.watch.health.opened

    play(test)


def test_a_revoked_grant_is_asked_for_every_30_seconds() -> None:
    async def test(world: World) -> None:
        await world.at(1)
        world.api.forbid(verb="watch")
        world.api.end_watches()
        await world.at(301)
        forbidden = world.watch.health.forbidden
        assert forbidden
        assert world.counts["ended forbidden"] == 10
        world.api.allow_all()
        await world.at(332)
        forbidden = world.watch.health.forbidden
        assert not forbidden
        assert world.live()

    play(test)


def test_watches_that_end_at_once_and_bring_nothing_do_not_spin() -> None:
    async def test(world: World) -> None:
        world.api.fault(lambda call: call.verb == "watch", answer=Response(status=200), times=None)
        await world.at(600)
        assert 10 < world.counts["ended short"] < 100

    play(test)


def test_a_server_that_calls_every_version_compacted_is_not_listed_in_a_circle() -> None:
    async def test(world: World) -> None:
        world.api.fault(lambda call: call.verb == "watch", answer=Response(status=410, body=b"{}"), times=None)
        await world.at(600)
        assert 10 < world.counts["relisted gone"] < 150

    play(test)


def test_random_failures_of_every_kind_lose_nothing() -> None:
    async def test(world: World) -> None:
        chance = random.Random(7)
        answers = (
            Response(status=500, body=b"oops"),
            Response(status=429, body=b"{}"),
            Response(status=200, body=b"\x00garbage\n"),
            HangUp(),
        )
        undos: list[Callable[[], None]] = []
        faults: list[Callable[[], object]] = [
            world.api.cut_connections,
            world.api.end_watches,
            world.api.store.compact,
            world.api.store.restart_caches,
            world.api.stall,
            world.api.unstall,
            lambda: undos.append(world.api.fail_next(any_call, chance.choice(answers))),
        ]
        expected = [f"pod-{n}" for n in range(1000)]
        for name in expected:
            await asyncio.sleep(chance.uniform(0, 30))
            world.create_pod(name)
            chance.choice(faults)()
            if chance.random() < 0.3:
                world.api.cut_connections()
        world.api.unstall()
        for undo in undos:
            undo()
        await asyncio.sleep(120)
        assert set(world.said) == set(expected)
        assert world.counts["relisted gone"] == world.counts["ended gone"] > 10
        assert sum(count for what, count in world.counts.items() if what.startswith("ended")) > 500

    play(test)
