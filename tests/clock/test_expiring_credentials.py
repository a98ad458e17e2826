"""Credentials that expire, as an exec plug-in gives them: everybody has the next ones in time, from one load."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from support.objects import entry, hook
from support.world import API, World, play

from khook.errors import SettingsError
from khook.kube.credentials import Credentials

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
LIFE = timedelta(minutes=10)
RENEWED_S = 480.0
NAMESPACES = ("shop", "desk", "yard", "mill", "port", "farm")
WORKERS = 3


class Issuer:
    """An identity provider that the API server believes for as long as a token lives, and no longer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._issued = 0
        self._valid = {"test"}
        world.http.headers["authorization"] = "Bearer test"
        world.credentials = self.issue
        world.supervisor = world._new_supervisor()

    def issue(self) -> Credentials:
        self._issued += 1
        token = f"token-{self._issued}"
        self._accept(self._valid | {token})
        asyncio.get_running_loop().call_later(LIFE.total_seconds(), self.revoke, token)
        return Credentials(server=API, token=token, expires_time=self._world.now() + LIFE)

    def revoke(self, token: str) -> None:
        self._accept(self._valid - {token})

    def revoke_all(self) -> None:
        self._accept({"test"})

    def _accept(self, tokens: set[str]) -> None:
        self._valid = tokens
        self._world.api.tokens = frozenset(tokens)


def refused(world: World) -> int:
    return sum(count for (_, _, code), count in world.api.answers.items() if code == 401)


def tell(story: Callable[[World, Issuer], Awaitable[None]]) -> None:
    """Play it in a world with a Hook in a namespace of every worker."""

    async def life(world: World) -> None:
        issuer = Issuer(world)
        for namespace in NAMESPACES[1:]:
            await world.cluster.namespace(namespace)
            await world.cluster.hook(hook("h", entry("probe-failed"), namespace=namespace))
        await world.begin(entry("probe-failed"))
        assert len({world.owner(namespace) for namespace in NAMESPACES}) == WORKERS
        await story(world, issuer)

    play(life, environ={"KHOOK_WORKERS": str(WORKERS)})


def test_tokens_of_ten_minutes_are_renewed_for_an_hour_and_none_is_ever_refused() -> None:
    async def story(world: World, _: Issuer) -> None:
        for number in range(12):
            await world.says(*PROBE, of=await world.well(f"web-{number}"))
            await world.after(300)
            world.api.end_watches()
        await world.called(12)
        assert refused(world) == 0
        assert world.loads == 7  # at 8, 16 … 56 minutes
        assert world.is_ready()

    tell(story)


def test_a_worker_that_is_replaced_after_a_renewal_starts_with_the_new_ones() -> None:
    async def story(world: World, issuer: Issuer) -> None:
        await world.after(RENEWED_S + 1)
        issuer.revoke("token-1")
        world.kill_worker("shop")
        await world.says(*PROBE, of=await world.well())
        await world.called(1)
        assert refused(world) == 0

    tell(story)


def test_a_slow_renewal_holds_nobody_up() -> None:
    async def story(world: World, _: Issuer) -> None:
        world.load_s = 50.0
        await world.after(RENEWED_S + 1)
        since = world.now()
        await world.says(*PROBE, of=await world.well())
        await world.until(lambda: len(world.agents.runs) == 1)
        assert (world.now() - since).total_seconds() < 10
        await world.after(150)
        assert (world.loads, refused(world)) == (1, 0)

    tell(story)


def test_a_plug_in_that_is_broken_for_a_while_costs_nothing_before_the_end_of_the_old_ones() -> None:
    async def story(world: World, issuer: Issuer) -> None:
        world.credentials = SettingsError(["KUBECONFIG: config: users[u]/user/exec: the plug-in ended with 1"])
        await world.after(RENEWED_S + 60)
        assert 3 <= world.loads <= 5
        world.credentials = issuer.issue
        await world.after(120)
        world.api.end_watches()
        await world.says(*PROBE, of=await world.well())
        await world.called(1)
        assert refused(world) == 0

    tell(story)


def test_tokens_that_are_revoked_early_cost_one_load_for_supervisor_and_workers() -> None:
    async def story(world: World, issuer: Issuer) -> None:
        await world.after(60)
        world.load_s = 3.0
        issuer.revoke_all()
        world.api.cut_connections()
        await world.after(1)
        assert refused(world) >= WORKERS
        await world.after(30)
        assert world.loads == 1
        await world.says(*PROBE, of=await world.well())
        await world.called(1)
        assert world.is_ready()

    tell(story)


def test_a_plug_in_that_takes_longer_than_a_request_waits_is_not_run_again_and_what_it_gives_reaches_all() -> None:
    async def story(world: World, issuer: Issuer) -> None:
        world.load_s = 45.0
        issuer.revoke_all()
        world.api.cut_connections()
        await world.says(*PROBE, of=await world.well())
        await world.after(50)
        assert world.loads == 1
        await world.called(1)
        await world.until(world.is_ready)
        assert world.loads == 1
        assert world.restarts() == 0

    tell(story)


def test_while_the_server_refuses_all_it_gives_a_plug_in_is_run_twice_a_minute_at_most() -> None:
    async def story(world: World, issuer: Issuer) -> None:
        def useless() -> Credentials:
            credentials = issuer.issue()
            issuer.revoke_all()
            return credentials

        world.credentials = useless
        issuer.revoke_all()
        world.api.cut_connections()
        await world.after(600)
        assert 10 <= world.loads <= 24
        world.credentials = issuer.issue
        await world.until(world.is_ready)
        await world.says(*PROBE, of=await world.well())
        await world.called(1)

    tell(story)


def test_khook_stops_in_time_while_a_plug_in_hangs() -> None:
    async def story(world: World, _: Issuer) -> None:
        world.load_s = 1e6
        await world.after(RENEWED_S + 1)
        assert world.loads == 1
        assert await world.seconds_to_stop() < 5

    tell(story)
