"""An agent, or all of kagent, is away for a while: calls wait and are delivered, or fail where everybody can see it."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from support.objects import Json, crash_looping, entry, hook, micro, restarted
from support.world import World, play

from khook.sandbox.kagent import ANY_AGENT, Fault, FaultKind, Speaks, Step

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
PARKED_CALLS = 'kagent_hook_parked_calls{reason="%s"}'
REPEATS = 'kagent_hook_events_total{event_type="probe-failed",verdict="repeat"}'
OPEN_BREAKERS = 'kagent_hook_breakers{state="open"}'
ONE_WORKER = {"KHOOK_WORKERS": "1"}
"""Where gauges are read: all workers of a world share one process, and so its gauges."""
NAMES = {Speaks.EXECUTE: "agent", Speaks.A2A: "kagent/agent"}

both_protocols = pytest.mark.parametrize("speaks", [Speaks.EXECUTE, Speaks.A2A])


def away(world: World, kind: FaultKind = FaultKind.REFUSE, *, agent: str = ANY_AGENT) -> None:
    """Nothing of it answers (an agent, or a proxy before it: no send gets through) until `back`."""
    whole = agent == ANY_AGENT and kind in (FaultKind.REFUSE, FaultKind.DATABASE)
    world.agents.set_faults(agent, [Fault(kind=kind, on=None if whole else Step.SEND)])


def back(world: World, agent: str = ANY_AGENT) -> datetime:
    world.agents.set_faults(agent, [])
    return world.now()


def ends(world: World, agent: str | None = None) -> list[str]:
    return [attempt.end for attempt in world.agents.attempts if agent in (None, attempt.agent)]


def seconds_between_attempts(world: World) -> list[float]:
    times = [attempt.time for attempt in world.agents.attempts]
    return [round((later - earlier).total_seconds(), 3) for earlier, later in pairwise(times)]


def told(world: World) -> list[str]:
    """The pods that agents were told of, in that order."""
    return [run.context["resourceName"] for run in world.agents.runs]


async def fails(world: World, name: str = "web-1") -> Json:
    """A pod whose readiness probe has just failed."""
    web = await world.well(name)
    await world.says(*PROBE, of=web)
    return web


async def parked_behind_an_outage(world: World, *names: str, agent: str = ANY_AGENT) -> None:
    """Calls about these pods wait for their agent, whose breaker is open."""
    away(world, agent=agent)
    await world.begin(entry("probe-failed"))
    for name in names:
        await fails(world, name)
        await world.after(1)
    await world.after(15)
    assert {(row["call"]["state"], row["call"]["reason"]) for row in await world.rows()} == {("Pending", "Parked")}


@both_protocols
@pytest.mark.parametrize("kind", [FaultKind.REFUSE, FaultKind.INTERNAL, FaultKind.BAD_GATEWAY, FaultKind.DATABASE])
def test_an_agent_down_for_25_s_during_a_one_shot_oom_is_called_once_within_45_s_of_its_return(
    speaks: Speaks, kind: FaultKind
) -> None:
    async def story(world: World) -> None:
        await world.begin(entry("oom-kill"))
        web = await world.well()
        away(world, kind)
        await world.cluster.pod_status(web, crash_looping(now=world.now(), reason="OOMKilled", exit_code=137))
        await world.after(5)
        await world.cluster.pod_status(web, restarted(now=world.now(), reason="OOMKilled", exit_code=137))
        await world.after(20)
        returned = back(world)
        (run,) = await world.called(1)
        assert (run.time - returned).total_seconds() <= 45
        await world.after(300)
        assert len(world.agents.runs) == 1
        assert (await world.call())["state"] == "Completed"
        assert (await world.ready_condition())["status"] == "True"

    play(story, speaks=speaks)


def test_a_kagent_that_comes_a_minute_late_is_found_out_and_called_once() -> None:
    async def story(world: World) -> None:
        away(world)
        await world.begin(entry("oom-kill"))
        web = await world.well()
        await world.cluster.pod_status(web, crash_looping(now=world.now(), reason="OOMKilled", exit_code=137))
        await world.after(60)
        assert world.agents.attempts == []
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Parked")
        returned = back(world)
        (run,) = await world.called(1)
        assert (run.protocol, run.call_id) == ("a2a", call["id"])
        assert (run.time - returned).total_seconds() <= 45
        await world.after(30)
        assert ends(world) == ["200"]

    play(story, speaks=Speaks.BOTH)


@both_protocols
def test_an_answer_that_is_cut_after_acceptance_is_one_run(speaks: Speaks) -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(NAMES[speaks], [Fault(kind=FaultKind.DROP, times=1)])
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.called(1)
        await world.after(60)
        assert len(world.agents.runs) == 1
        assert (await world.call())["state"] == "Completed"

    play(story, speaks=speaks)


@both_protocols
def test_503_503_200_is_three_attempts_2_s_and_then_4_s_apart_and_one_run(speaks: Speaks) -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(NAMES[speaks], [Fault(kind=FaultKind.UNAVAILABLE, times=2)])
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.called(1)
        assert ends(world) == ["503", "503", "200"]
        assert seconds_between_attempts(world) == [pytest.approx(2, rel=0.1), pytest.approx(4, rel=0.1)]
        assert (await world.call())["attempts"] == 3

    play(story, speaks=speaks)


@both_protocols
@pytest.mark.parametrize("kind", [FaultKind.BUSY, FaultKind.UNAVAILABLE])
def test_the_wait_that_an_agent_asks_for_is_obeyed(speaks: Speaks, kind: FaultKind) -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(NAMES[speaks], [Fault(kind=kind, seconds=17, times=1)])
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.until(lambda: len(world.agents.runs) == 1)
        assert seconds_between_attempts(world) == [pytest.approx(17, abs=0.1)]

    play(story, speaks=speaks)


@both_protocols
def test_the_wait_that_an_agent_asks_for_at_the_last_attempt_is_obeyed_by_the_next_delivery(speaks: Speaks) -> None:
    async def story(world: World) -> None:
        world.agents.set_faults(
            NAMES[speaks],
            [Fault(kind=FaultKind.BUSY, seconds=1, times=2), Fault(kind=FaultKind.BUSY, seconds=90, times=1)],
        )
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.until(lambda: len(world.agents.runs) == 1)
        assert seconds_between_attempts(world) == [1, 1, pytest.approx(90, abs=1)]

    play(story, speaks=speaks)


@both_protocols
def test_an_agent_that_stays_away_fails_the_call_where_all_can_see_it_and_the_next_signal_fires_again(
    speaks: Speaks,
) -> None:
    failures = 'kagent_hook_calls_failed_total{reason="Unreachable"}'

    async def story(world: World) -> None:
        counted = world.metric(failures)
        await parked_behind_an_outage(world, "web-1")
        first = await world.call()
        assert world.metric(PARKED_CALLS % "outage") + world.metric(PARKED_CALLS % "protocol") == 1
        assert world.metric(OPEN_BREAKERS) == 1
        await world.after(15 * 60)
        call = await world.call()
        assert (call["id"], call["state"], call["reason"]) == (first["id"], "Failed", "Unreachable")
        assert (await world.ready_condition())["reason"] == "KagentAPIError"
        (said,) = await world.audit("AgentCallFailed")
        assert said["type"] == "Warning"
        assert world.metric(failures) == counted + 1
        assert world.agents.runs == []
        back(world)
        await world.after(300)
        assert world.agents.runs == []
        await fails(world, "web-2")
        await world.says(*PROBE, of=await world.cluster.request("GET", "/api/v1/namespaces/shop/pods/web-1"))
        runs = await world.called(2)
        assert first["id"] not in {run.call_id for run in runs}
        assert sorted(told(world)) == ["web-1", "web-2"]

    play(story, speaks=speaks, environ=ONE_WORKER)


def test_an_execute_agent_that_works_for_40_s_has_one_run() -> None:
    async def story(world: World) -> None:
        world.agents.set_faults("agent", [Fault(kind=FaultKind.SLOW, seconds=40)])
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.after(120)
        assert ends(world) == ["200"]
        assert len(world.agents.runs) == 1
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Accepted", "NoAnswer")

    play(story)


# --- the breaker and the parked calls ---


@both_protocols
def test_five_failures_in_a_row_open_the_breaker_and_delay_no_other_agent(speaks: Speaks) -> None:
    bad, good = ("bad", "good") if speaks is Speaks.EXECUTE else ("kagent/bad", "kagent/good")

    async def story(world: World) -> None:
        away(world, FaultKind.INTERNAL if speaks is Speaks.A2A else FaultKind.ERROR, agent=bad)
        await world.begin(entry("probe-failed", "bad"), entry("pod-restart", "good"))
        webs = [await fails(world, f"web-{number}") for number in range(5)]
        await world.after(1)
        late = await fails(world, "web-late")
        await world.after(20)
        assert world.metric(OPEN_BREAKERS) == 1
        assert len(ends(world, bad)) == 5
        calls = [row["call"] for row in await world.rows()]
        assert [(call["state"], call["reason"]) for call in calls] == [("Pending", "Parked")] * 6
        for web in (*webs, late):
            said, runs = world.now(), len(world.agents.runs)
            await world.says("BackOff", "Back-off restarting failed container app", of=web)
            await world.after(1)
            (run,) = world.agents.runs[runs:]
            assert (run.time - said).total_seconds() < 0.1
            assert run.agent == good

    play(story, speaks=speaks, environ=ONE_WORKER)


def test_the_oldest_parked_call_is_the_probe_and_the_others_follow_oldest_first() -> None:
    async def story(world: World) -> None:
        names = [f"web-{number}" for number in range(6)]
        await parked_behind_an_outage(world, *names, agent="agent")
        sent = len(ends(world))
        back(world, "agent")
        await world.until(lambda: len(world.agents.attempts) > sent)
        assert told(world) == names[:1]
        await world.called(6)
        assert told(world) == names
        assert set(ends(world)[sent:]) == {"200"}
        assert {row["call"]["state"] for row in await world.rows()} == {"Completed"}

    play(story)


def test_each_probe_that_fails_doubles_the_wait_for_the_next() -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-1", agent="agent")
        await world.after(14 * 60)
        assert ends(world) == ["refuse"] * len(ends(world))
        waits = seconds_between_attempts(world)
        assert waits[:2] == [pytest.approx(2, rel=0.1), pytest.approx(4, rel=0.1)]
        assert waits[2:] == [pytest.approx(wait_s, abs=1) for wait_s in (30, 60, 120, 240, 300)]

    play(story)


def test_a_call_that_itself_breaks_its_agent_does_not_keep_the_others_from_it() -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-0", "web-1", "web-2", agent="agent")
        world.agents.set_faults("agent", [Fault(kind=FaultKind.REFUSE, times=1)])  # the first probe still fails
        await world.until(lambda: len(world.agents.runs) == 3)
        assert told(world)[0] == "web-1"

    play(story)


def test_a_call_parked_when_its_hook_is_suspended_is_not_sent() -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-1", "web-2", agent="agent")
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": True}})
        back(world, "agent")
        await world.after(30 * 60)
        assert world.agents.runs == []
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": False}})
        await world.after(60)
        assert world.agents.runs == []
        await fails(world, "web-3")
        assert [run.context["resourceName"] for run in await world.called(1)] == ["web-3"]

    play(story)


def test_a_call_whose_hook_is_suspended_between_its_attempts_is_parked_for_nobody() -> None:
    async def story(world: World) -> None:
        away(world, agent="agent")
        await world.begin(entry("probe-failed"))
        await fails(world)
        await world.after(1)
        await world.cluster.patch_hook("shop", "h", {"spec": {"suspend": True}})
        await world.after(15)
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Suspended")
        back(world, "agent")
        await world.after(300)
        assert world.agents.runs == []

    play(story)


@pytest.mark.parametrize("how", ["hook", "entry"])
def test_a_parked_call_goes_with_its_hook_or_its_entry_and_keeps_nobody_waiting(how: str) -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-1", agent="agent")
        await world.cluster.hook(hook("other", entry("probe-failed"), namespace="shop"))
        await fails(world, "web-2")
        await world.after(1)
        if how == "hook":
            await world.cluster.delete_hook("shop", "h")
        else:
            entries = [entry("pod-restart", "another")]
            await world.cluster.patch_hook("shop", "h", {"spec": {"eventConfigurations": entries}})
        back(world, "agent")
        await world.until(lambda: "web-2" in told(world))
        await world.after(60)
        names = told(world)
        assert names.count("web-2") == 1
        # The other Hook has looked at the namespace too and may have its own call about the first pod.
        assert names.count("web-1") <= 1
        assert {run.context["resourceName"] for run in world.agents.runs} <= {"web-1", "web-2"}
        assert {row["call"]["state"] for row in await world.rows(name="other")} == {"Completed"}
        await fails(world, "web-3")
        await world.until(lambda: "web-3" in told(world))

    play(story)


def test_a_call_whose_hook_goes_while_it_is_the_probe_leaves_the_probe_to_the_next() -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-1", agent="agent")
        await world.cluster.hook(hook("other", entry("pod-restart"), namespace="shop"))
        sent = len(ends(world))
        world.agents.set_faults("agent", [Fault(kind=FaultKind.HANG, times=1)])
        await world.until(lambda: len(ends(world)) > sent)
        await world.cluster.delete_hook("shop", "h")
        web = await world.well("web-2")
        await world.says("BackOff", "Back-off restarting failed container app", of=web)
        await world.until(lambda: "web-2" in told(world))

    play(story)


@both_protocols
def test_a_parked_call_is_delivered_although_its_incident_has_resolved(speaks: Speaks) -> None:
    async def story(world: World) -> None:
        away(world, agent=NAMES[speaks])
        await world.begin(entry("pod-restart"))
        web = await world.well()
        await world.cluster.pod_status(web, crash_looping(now=world.now()))
        await world.after(20)
        await world.cluster.delete_pod(web)
        await world.after(180)
        (row,) = await world.rows()
        assert (row["status"], row["call"]["reason"]) == ("resolved", "Parked")
        back(world, NAMES[speaks])
        (run,) = await world.called(1)
        assert run.call_id == row["call"]["id"]
        (row,) = await world.rows()
        assert (row["status"], row["call"]["state"]) == ("resolved", "Completed")

    play(story, speaks=speaks)


def test_a_parked_call_survives_a_crash_and_is_delivered_under_its_id() -> None:
    async def story(world: World) -> None:
        await parked_behind_an_outage(world, "web-1", agent="agent")
        call = await world.call()
        await world.crash()
        await world.after(30)
        back(world, "agent")
        (run,) = await world.called(1)
        assert run.call_id == call["id"]

    play(story)


def test_calls_that_find_no_room_to_wait_fail_where_all_can_see_it() -> None:
    """A worker parks 1,000: three Hooks of one namespace have 1,002 incidents."""
    failures = 'kagent_hook_calls_failed_total{reason="ParkFull"}'

    async def story(world: World) -> None:
        counted = world.metric(failures)
        away(world, agent="agent")
        await world.cluster.namespace("shop")
        names = [f"h{number}" for number in range(3)]
        for name in names:
            await world.cluster.hook(hook(name, entry("pod-restart"), namespace="shop"))
        await world.start()
        for number in range(334):
            meta = {"metadata": {"name": f"web-{number}", "namespace": "shop", "uid": f"uid-{number}"}}
            await world.says("BackOff", "Back-off restarting failed container app", of=meta)
        await world.until(lambda: world.metric(failures) == counted + 2)
        await world.after(2)
        calls = [row["call"] for name in names for row in await world.rows(name=name)]
        full = [call for call in calls if call.get("reason") == "ParkFull"]
        assert [call["state"] for call in full] == ["Failed"] * 2
        said = [event for name in names for event in await world.audit("AgentCallFailed", name=name)]
        assert sum(event["count"] for event in said) == 2

    play(story, environ={"KHOOK_CALLS_PER_AGENT": "1", "KHOOK_CALLS_PER_HOOK_HOUR": "0"})


# --- repeats ---


def test_a_hundred_thousand_repeats_in_a_minute_are_one_call_and_a_status_write_a_second_at_most() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        said = await world.says(*PROBE, of=web)
        await world.called(1)
        await world.after(5)
        written, judged = world.status_writes, world.metric(REPEATS)
        kind, name = world.store.kind("", "v1", "events"), said["metadata"]["name"]
        for tick in range(600):
            for number in range(167):
                count = 2 + tick * 167 + number
                # A kubelet writes whole seconds; with its microseconds each is a signal of its own.
                time = micro(world.now() + timedelta(microseconds=number))
                world.store.patch(kind, "shop", name, {"count": count, "eventTime": time}, now=world.now())
            await world.after(0.1)
        assert world.metric(REPEATS) - judged >= 100_000
        assert world.status_writes - written <= 61
        await world.after(5)
        assert len(world.agents.attempts) == 1
        (row,) = await world.rows()
        assert row["count"] >= 100_000

    play(story)
