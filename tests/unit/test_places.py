"""Places of sends: bounded in all and for each agent, kept for nobody who has gone."""

import asyncio

from khook.worker.places import Places


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_an_agents_crowd_waits_and_another_agent_does_not() -> None:
    async def main() -> None:
        places = Places(per_worker=3, per_agent=2)
        crowd = [asyncio.create_task(places.take("busy")) for _ in range(4)]
        await settle()
        assert [one.done() for one in crowd] == [True, True, False, False]
        async with asyncio.timeout(1):
            await places.take("other")
        places.leave("busy")
        await settle()
        assert [one.done() for one in crowd] == [True, True, True, False]
        crowd[3].cancel()

    asyncio.run(main())


def test_no_more_are_taken_than_the_worker_may_have() -> None:
    async def main() -> None:
        places = Places(per_worker=2, per_agent=2)
        await places.take("a")
        await places.take("b")
        third = asyncio.create_task(places.take("c"))
        await settle()
        assert not third.done()
        places.leave("a")
        await third

    asyncio.run(main())


def test_whoever_gives_up_waiting_leaves_nothing_behind() -> None:
    async def main() -> None:
        places = Places(per_worker=1, per_agent=1)
        await places.take("a")
        waiting = [asyncio.create_task(places.take(agent)) for agent in ("a", "b")]
        await settle()
        for one in waiting:
            one.cancel()
        await settle()
        assert places.agents == 1
        places.leave("a")
        assert places.agents == 0
        async with asyncio.timeout(1):
            await places.take("b")

    asyncio.run(main())
