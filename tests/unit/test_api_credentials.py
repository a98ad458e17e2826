"""When credentials are loaded again: before they end, after a 401, once for all who ask, and never in a hurry."""

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta

import orjson
import pytest
import structlog

from khook import log
from khook.errors import SettingsError
from khook.kube.credentials import Credentials
from khook.sandbox.virtual_time import START, VirtualClock, run
from khook.supervisor.api_credentials import (
    FIRST_PAUSE_S,
    LOOK_AGAIN_S,
    MOST_PAUSE_S,
    ApiCredentials,
    renewal_time,
)

MINUTE = 60.0
FAILED = SettingsError(["KUBECONFIG: config: users[u]/user/exec: the plug-in ended with 1"])


@pytest.fixture(autouse=True)
def logged() -> Iterator[io.StringIO]:
    handlers = logging.getLogger().handlers[:]
    stream = io.StringIO()
    log.configure("debug", "json", stream=stream, strict=True)
    yield stream
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


class Issuer:
    """Gives tokens by their number, each living for `life_s`; `fails` and `takes_s` make it a bad one."""

    def __init__(self, *, life_s: float | None = None, skew: timedelta = timedelta(0)) -> None:
        self.clock = VirtualClock(skew=skew)
        self.life_s = life_s
        self.takes_s = 0.0
        self.fails = False
        self.server = "http://api"
        self.loaded_at: list[float] = []
        """When loads began, in virtual seconds."""
        self.taken: list[str] = []
        self.api = ApiCredentials(
            self._credentials(), load=self._load, taken=self._taken, clock=self.clock, log=log.get("supervisor")
        )

    def _credentials(self) -> Credentials:
        ends = None if self.life_s is None else START + timedelta(seconds=self.clock.monotonic() + self.life_s)
        return Credentials(server=self.server, token=f"token-{len(self.loaded_at)}", expires_time=ends)

    async def _load(self) -> Credentials:
        self.loaded_at.append(self.clock.monotonic())
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise FAILED
        return self._credentials()

    def _taken(self, credentials: Credentials) -> None:
        self.taken.append(credentials.token)

    async def for_s(self, seconds: float) -> None:
        """`run` for so long."""
        running = asyncio.create_task(self.api.run())
        await asyncio.sleep(seconds)
        running.cancel()
        await asyncio.wait([running])


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def life() -> None:
        await story()

    run(life())


@pytest.mark.parametrize(
    ("life_s", "after_s"),
    [
        (60 * MINUTE, 48 * MINUTE),  # 80 %
        (14 * MINUTE, 14 * MINUTE * 0.8),
        (10 * MINUTE, 8 * MINUTE),
        (5 * MINUTE, 3 * MINUTE),  # two minutes before
        (4 * MINUTE, 2 * MINUTE),
        (1 * MINUTE, 30),  # half
        (0, 0),
        (-3600, 0),
    ],
)
def test_renewed_at_80_percent_of_life_or_two_minutes_before_its_end_and_never_before_half(
    life_s: float, after_s: float
) -> None:
    renewed = renewal_time(START + timedelta(seconds=life_s), taken_time=START)
    assert (renewed - START).total_seconds() == pytest.approx(after_s)


def test_what_expires_is_renewed_again_and_again_and_everybody_is_told() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        await issuer.for_s(25 * MINUTE)
        assert issuer.loaded_at == pytest.approx([8 * MINUTE, 16 * MINUTE, 24 * MINUTE])
        assert issuer.taken == ["token-1", "token-2", "token-3"]
        assert issuer.api.credentials.token == "token-3"

    play(story)


def test_what_does_not_expire_is_left_alone() -> None:
    async def story() -> None:
        issuer = Issuer()
        await issuer.for_s(24 * 60 * MINUTE)
        assert issuer.loaded_at == []

    play(story)


def test_a_renewal_that_fails_is_said_and_tried_again_with_a_growing_pause_while_the_old_ones_stay(
    logged: io.StringIO,
) -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        issuer.fails = True
        await issuer.for_s(8 * MINUTE + 101)
        assert [round(at - 8 * MINUTE) for at in issuer.loaded_at] == [0, 10, 30, 60, 90]
        assert (issuer.api.credentials.token, issuer.taken) == ("token-0", [])

    play(story)
    lines = [orjson.loads(line) for line in logged.getvalue().splitlines()]
    assert [(line["event"], line["level"], line["retry_in_s"]) for line in lines[:3]] == [
        ("credentials not loaded", "error", wait_s) for wait_s in (10, 20, 30)
    ]
    assert lines[0]["reason"] == str(FAILED)


def test_after_failures_the_first_that_works_is_taken_and_the_pace_is_as_before() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        issuer.fails = True
        asyncio.get_running_loop().call_later(8 * MINUTE + 15, setattr, issuer, "fails", False)
        await issuer.for_s(17 * MINUTE)
        assert [round(at - 8 * MINUTE) for at in issuer.loaded_at] == [0, 10, 30, 30 + 8 * 60]
        assert issuer.taken == ["token-3", "token-4"]

    play(story)


def test_by_a_clock_that_calls_everything_expired_nobody_is_hurried() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=15 * MINUTE, skew=timedelta(hours=1))
        await issuer.for_s(10 * MINUTE)
        assert issuer.api.credentials.token != "token-0", "they are used: the server's clock is what counts"
        assert 10 * MINUTE / MOST_PAUSE_S <= len(issuer.loaded_at) <= 10 * MINUTE / MOST_PAUSE_S + 4

    play(story)


def test_credentials_that_live_for_a_moment_are_not_asked_for_all_the_time() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=1.0)
        await issuer.for_s(MINUTE)
        gaps = [later - one for one, later in zip(issuer.loaded_at, issuer.loaded_at[1:], strict=False)]
        assert min(gaps) >= FIRST_PAUSE_S

    play(story)


def test_a_wall_clock_that_is_set_forward_is_noticed() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=60 * MINUTE)
        asyncio.get_running_loop().call_later(MINUTE, setattr, issuer.clock, "skew", timedelta(minutes=50))
        await issuer.for_s(2 * MINUTE)
        assert len(issuer.loaded_at) == 1
        assert MINUTE <= issuer.loaded_at[0] <= MINUTE + LOOK_AGAIN_S

    play(story)


def test_all_who_are_refused_at_once_share_one_load_and_all_get_what_it_gave() -> None:
    async def story() -> None:
        issuer = Issuer()
        issuer.takes_s = 3.0
        got = await asyncio.gather(*(issuer.api.fresh() for _ in range(17)))
        assert (len(issuer.loaded_at), {one.token for one in got}, issuer.taken) == (1, {"token-1"}, ["token-1"])

    play(story)


def test_who_is_refused_during_a_renewal_waits_for_that() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        issuer.takes_s = 5.0
        running = asyncio.create_task(issuer.api.run())
        await asyncio.sleep(8 * MINUTE + 2)
        assert (await issuer.api.fresh()).token == "token-1"
        assert len(issuer.loaded_at) == 1
        running.cancel()
        await asyncio.wait([running])

    play(story)


def test_one_who_gives_up_waiting_does_not_take_the_load_from_the_others() -> None:
    async def story() -> None:
        issuer = Issuer()
        issuer.takes_s = 20.0
        patient = asyncio.create_task(issuer.api.fresh())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await issuer.api.fresh()
        assert (await patient).token == "token-1"

    play(story)


def test_who_is_refused_right_after_a_load_is_given_what_it_gave_and_nothing_is_loaded() -> None:
    async def story() -> None:
        issuer = Issuer()
        await issuer.api.fresh()
        await asyncio.sleep(1)
        assert (await issuer.api.fresh()).token == "token-1"
        assert len(issuer.loaded_at) == 1

    play(story)


def test_credentials_that_are_refused_for_ever_are_loaded_at_a_falling_rate() -> None:
    async def story() -> None:
        issuer = Issuer()
        for _ in range(int(10 * MINUTE)):
            await issuer.api.fresh()
            await asyncio.sleep(1)
        gaps = [later - one for one, later in zip(issuer.loaded_at, issuer.loaded_at[1:], strict=False)]
        assert [round(gap) for gap in gaps[:4]] == [10, 20, 30, 30]
        await asyncio.sleep(5 * MINUTE)  # taken at last
        await issuer.api.fresh()
        await asyncio.sleep(FIRST_PAUSE_S)
        await issuer.api.fresh()
        gaps = [later - one for one, later in zip(issuer.loaded_at, issuer.loaded_at[1:], strict=False)]
        assert round(gaps[-1]) == FIRST_PAUSE_S

    play(story)


def test_what_did_not_expire_may_be_followed_by_what_does() -> None:
    async def story() -> None:
        issuer = Issuer()
        running = asyncio.create_task(issuer.api.run())
        await asyncio.sleep(MINUTE)
        issuer.life_s = 10 * MINUTE
        await issuer.api.fresh()
        await asyncio.sleep(8 * MINUTE + 1)
        assert issuer.loaded_at == pytest.approx([MINUTE, 9 * MINUTE])
        running.cancel()
        await asyncio.wait([running])

    play(story)


def test_a_load_after_a_401_that_fails_gives_the_old_ones() -> None:
    async def story() -> None:
        issuer = Issuer()
        issuer.fails = True
        assert (await issuer.api.fresh()).token == "token-0"
        assert issuer.taken == []

    play(story)


def test_a_load_after_a_401_sets_the_time_of_the_next_renewal() -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        running = asyncio.create_task(issuer.api.run())
        await asyncio.sleep(7 * MINUTE)
        await issuer.api.fresh()
        await asyncio.sleep(8 * MINUTE + 1)
        assert issuer.loaded_at == pytest.approx([7 * MINUTE, 15 * MINUTE])
        running.cancel()
        await asyncio.wait([running])

    play(story)


def test_a_kubeconfig_that_names_another_server_by_now_takes_khook_nowhere_else(logged: io.StringIO) -> None:
    async def story() -> None:
        issuer = Issuer()
        issuer.server = "http://another"
        assert (await issuer.api.fresh()).server == "http://api"
        assert issuer.taken == []

    play(story)
    assert "it names http://another now, and khook works on http://api" in logged.getvalue()


def test_the_same_again_is_told_to_nobody() -> None:
    async def story() -> None:
        told: list[Credentials] = []
        same = Credentials(server="http://api", token="token")

        async def load() -> Credentials:
            return same

        api = ApiCredentials(same, load=load, taken=told.append, clock=VirtualClock(), log=log.get("supervisor"))
        assert await api.fresh() == same
        assert told == []

    play(story)


def test_when_it_is_stopped_a_load_under_way_is_given_up_and_none_is_begun() -> None:
    async def story() -> None:
        issuer = Issuer()
        issuer.takes_s = 1000 * MINUTE
        running = asyncio.create_task(issuer.api.run())
        waiting = asyncio.create_task(issuer.api.fresh())
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait([running])
        assert (await waiting).token == "token-0", "who waited goes on with what there is"
        await asyncio.sleep(MINUTE)
        assert (await issuer.api.fresh()).token == "token-0"
        assert issuer.clock.monotonic() < 2 * MINUTE
        assert len(issuer.loaded_at) == 1

    play(story)


def test_a_token_that_was_loaded_is_known_to_the_log_and_not_in_it(logged: io.StringIO) -> None:
    async def story() -> None:
        issuer = Issuer(life_s=10 * MINUTE)
        await issuer.api.fresh()

    play(story)
    assert "credentials taken" in logged.getvalue()
    assert "2024-01-15T10:40:00+00:00" in logged.getvalue()
    assert "token-" not in logged.getvalue()
    assert log.redacted("who sent token-1?") == "who sent [redacted]?"
