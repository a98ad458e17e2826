"""Kubernetes Events on Hooks: written once, counted after, never in the way. The server is the embedded one."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from khook.kube.audit import BURST, KEPT_MOST, AuditTrail, Reason
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.hooks import HookRef
from khook.sandbox import virtual_time
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Response
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, VirtualClock

HOOK = HookRef(namespace="default", name="hook", uid="uid-1")
OTHER = HookRef(namespace="default", name="other", uid="uid-2")


class World:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.store = Store(randomness=random.Random(1), now=START)
        self.api = ApiServer(self.store, clock=self.clock)
        self.dropped = 0
        self.logged: list[str] = []
        self.trail = AuditTrail(
            client=KubeClient(
                credentials=Credentials(server="http://api"),
                transports=InMemoryTransports({"http://api": self.api}),
                clock=self.clock,
            ),
            clock=self.clock,
            randomness=random.Random(1),
            instance="khook-7d9f",
            log=self,
            dropped=self._drop,
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        kind = self.store.kind("", "v1", "events")
        return [item for _, item in self.store.items_at(kind, "default", self.store.revision)]

    @property
    def writes(self) -> int:
        return self.api.requests[("create", "events")] + self.api.requests[("patch", "events")]

    def _drop(self) -> None:
        self.dropped += 1

    def debug(self, event: str, **values: object) -> None: ...

    def warning(self, event: str, **values: object) -> None:
        self.logged.append(event)


def play(test: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        world = World()
        running = asyncio.ensure_future(world.trail.run())
        try:
            await test(world)
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    virtual_time.run(main())


def test_an_event_has_the_fields_of_both_event_apis() -> None:
    async def test(world: World) -> None:
        world.trail.record(HOOK, Reason.AGENT_CALL_FAILED, "the agent answered 500", warning=True)
        await asyncio.sleep(1)
        (event,) = world.events
        expected = {
            "involvedObject": {
                "apiVersion": "kagent.dev/v1alpha2",
                "kind": "Hook",
                "namespace": "default",
                "name": "hook",
                "uid": "uid-1",
            },
            "type": "Warning",
            "reason": "AgentCallFailed",
            "message": "the agent answered 500",
            "count": 1,
            "firstTimestamp": "2024-01-15T10:30:00Z",
            "lastTimestamp": "2024-01-15T10:30:00Z",
            "source": {"component": "kagent-hook-controller"},
            "reportingComponent": "kagent-hook-controller",
            "reportingInstance": "khook-7d9f",
        }
        assert expected == {key: event[key] for key in expected}
        assert event["metadata"]["name"].startswith("hook.")

    play(test)


def test_the_same_said_again_is_one_event_with_a_count() -> None:
    async def test(world: World) -> None:
        for _ in range(3):
            world.trail.record(HOOK, Reason.AGENT_CALLED, "called agent")
            await asyncio.sleep(60)
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called another agent")
        world.trail.record(OTHER, Reason.AGENT_CALLED, "called agent")
        await asyncio.sleep(1)
        assert sorted((event["count"], event["involvedObject"]["name"]) for event in world.events) == [
            (1, "hook"),
            (1, "other"),
            (3, "hook"),
        ]
        assert max(event["lastTimestamp"] for event in world.events if event["count"] == 3) == "2024-01-15T10:32:00Z"

    play(test)


def test_what_is_said_in_one_go_is_counted_and_written_once() -> None:
    async def test(world: World) -> None:
        for _ in range(100_000):
            world.trail.record(HOOK, Reason.CALLS_SUPPRESSED, "no room")
        await asyncio.sleep(1)
        assert [event["count"] for event in world.events] == [100_000]
        assert world.writes == 1

    play(test)


def test_a_noisy_hook_is_slowed_down_and_silences_nobody_else() -> None:
    async def test(world: World) -> None:
        for n in range(50):
            world.trail.record(HOOK, Reason.AGENT_CALLED, f"call {n}")
        world.trail.record(OTHER, Reason.AGENT_CALLED, "call")
        await asyncio.sleep(1)
        assert world.writes == BURST + 1
        assert "other" in {event["involvedObject"]["name"] for event in world.events}
        await asyncio.sleep(300)
        assert world.writes == BURST + 1 + 10

    play(test)


def test_more_than_is_kept_is_dropped_and_counted() -> None:
    async def test(world: World) -> None:
        for n in range(KEPT_MOST + 5):
            world.trail.record(HOOK, Reason.AGENT_CALLED, f"call {n}")
        assert world.dropped == 5
        await asyncio.sleep(1)
        for n in range(BURST):  # what is written makes room
            world.trail.record(OTHER, Reason.AGENT_CALLED, f"call {n}")
        assert world.dropped == 5

    play(test)


def test_a_lost_answer_does_not_become_a_second_event() -> None:
    async def test(world: World) -> None:
        world.api.fault(lambda call: call.verb == "create", lose_answer=True)
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
        await asyncio.sleep(120)
        assert [event["count"] for event in world.events] == [1]
        assert world.api.answers[("create", "events", 409)] == 1

    play(test)


def test_an_event_that_has_aged_out_is_written_anew() -> None:
    async def test(world: World) -> None:
        for gap_s in (40 * 60, 70 * 60, 1):
            world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
            await asyncio.sleep(gap_s)
        assert [event["count"] for event in world.events] == [1]
        kind = world.store.kind("", "v1", "events")
        name = world.events[0]["metadata"]["name"]
        world.store.delete(kind, "default", name, now=world.clock.now())
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
        await asyncio.sleep(1)
        assert [event["count"] for event in world.events] == [2]

    play(test)


@pytest.mark.parametrize("code", [500, 429])
def test_a_server_that_is_away_gets_it_later(code: int) -> None:
    async def test(world: World) -> None:
        undo = world.api.fault(lambda call: True, answer=Response(status=code, body=b"{}"), times=None)
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
        await asyncio.sleep(120)
        assert world.events == []
        undo()
        await asyncio.sleep(120)
        assert [event["count"] for event in world.events] == [1]
        assert world.dropped == 0

    play(test)


def test_a_refused_event_is_dropped_counted_and_said_in_the_log() -> None:
    async def test(world: World) -> None:
        world.api.forbid(resource="events")
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
        await asyncio.sleep(120)
        assert (world.dropped, world.logged, world.writes) == (1, ["audit event refused"], 1)

    play(test)


def test_a_message_is_cut_to_what_the_api_takes_and_never_inside_a_character() -> None:
    async def test(world: World) -> None:
        world.trail.record(HOOK, Reason.AGENT_CALLED, "é" * 1000 + "\ud800")
        await asyncio.sleep(1)
        assert [event["message"] for event in world.events] == ["é" * 512]

    play(test)


def test_flush_writes_what_may_be_written_and_gives_up_at_its_deadline() -> None:
    async def main() -> None:
        world = World()
        world.trail.record(HOOK, Reason.AGENT_CALLED, "called")
        await world.trail.flush(world.clock.monotonic() + 5)
        assert len(world.events) == 1
        world.api.fault(lambda call: True, delay_s=20.0, times=None)
        world.trail.record(HOOK, Reason.AGENT_CALL_PARKED, "parked")
        world.trail.record(HOOK, Reason.INCIDENT_RESOLVED, "resolved")
        started_at = world.clock.monotonic()
        await world.trail.flush(started_at + 5)
        assert world.clock.monotonic() == started_at + 5
        assert world.dropped == 1, "the one whose write is under way is not dropped"

    virtual_time.run(main())


def test_what_went_wrong_does_not_wait_behind_what_went_well() -> None:
    async def test(world: World) -> None:
        for number in range(BURST + 20):
            world.trail.record(HOOK, Reason.AGENT_CALLED, f"number {number}")
        await asyncio.sleep(1)
        world.trail.record(HOOK, Reason.CALLS_SUPPRESSED, "too many", warning=True)
        await asyncio.sleep(31)
        assert [event["message"] for event in world.events].count("too many") == 1

    play(test)
