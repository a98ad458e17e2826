"""The window between two calls about one incident, to the second."""

import pytest
from support.objects import entry
from support.world import World, play

UNHEALTHY = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")


@pytest.mark.parametrize(("after_s", "calls"), [(59, 1), (61, 2)])
def test_a_cooldown_of_one_minute_mutes_at_59_s_and_fires_again_at_61_s(after_s: int, calls: int) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", cooldown="1m"))
        web = await world.well()
        await world.says(*UNHEALTHY, of=web)
        (first,) = await world.called(1)
        await world.after(after_s - (world.now() - first.time).total_seconds())
        await world.says(*UNHEALTHY, of=web)
        await world.called(calls)
        (row,) = await world.rows()
        assert row["count"] == 2

    play(story)


def test_repeats_do_not_push_the_window_further_away() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed", cooldown="1m"))
        web = await world.well()
        for _ in range(10):
            await world.says(*UNHEALTHY, of=web)
            await world.after(10)
        await world.called(2)
        first, second = world.agents.runs
        assert 60 <= (second.time - first.time).total_seconds() <= 71
        assert first.call_id != second.call_id

    play(story)
