"""`khook demo`: the whole system on an embedded cluster, and an honest count of what it did.

It serves an API server and a kagent on loopback ports, starts the real `khook run` with four workers against them,
lets the story's pods fail, kills one worker half-way and another until its slot is broken, takes an agent away for a
while, rolls out forty pods of which none stays up, stops khook as a cluster would, and sets the agents' own record
against the story. Whatever happens, Ctrl-C included, everything it started is stopped and removed.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from rich.console import Console

from khook.cli.demo_stage import (
    DemoFailed,
    Stage,
    apply,
    check,
    end_deleted_pods,
    install_crd,
    kill,
    staged,
    start_khook,
    still_runs,
    stop_khook,
    until_ready,
)
from khook.cli.demo_view import Ending, LoopEnding, Scene, View, summary
from khook.errors import EXIT_UNEXPECTED
from khook.sandbox.demo_story import DEMO
from khook.sandbox.kagent import Fault, FaultKind
from khook.sandbox.reckoning import Expected, compare, expected, storm
from khook.sandbox.story import Moment, Story

# A parked call waits for the breaker's probe, 30 s after its delivery failed; a run is seen to end within 5 s.
SETTLED_WITHIN_S: Final = 50.0
# Ten deaths take some 50 s of back-off; after that another worker has its namespaces at once.
BROKEN_WITHIN_S: Final = 120.0
# After the last expected call: time for one that should not come.
QUIET_S: Final = 1.5
TICK_S: Final = 0.2
# How long a deleted pod is seen Terminating.
KUBELET_S: Final = 1.0
INTERRUPTED: Final = 130
"""128 + SIGINT, as a shell has it."""

T = TypeVar("T")


def demo(*, keep: bool = False, seconds: float | None = None) -> int:
    """Run it and return the exit code. `seconds`: how long the story takes; None: as it was written."""
    console = Console()
    return asyncio.run(_until_interrupted(_Demo(console=console, keep=keep, seconds=seconds)))


async def _until_interrupted(one: "_Demo") -> int:
    """Ctrl-C and SIGTERM cancel the demo, which then cleans up; one that had its verdict (--keep) keeps it."""
    work = asyncio.create_task(one.run())

    def interrupt() -> None:
        if not work.cancelling():  # a second Ctrl-C must not cut the clean-up short: it has its own deadlines
            work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        return one.ending.exit_code if one.ending else INTERRUPTED


class _Demo:
    def __init__(self, *, console: Console, keep: bool, seconds: float | None, story: Story = DEMO) -> None:
        self._console = console
        self._keep = keep
        self._story = story
        self._pace = 1.0 if seconds is None else seconds / story.duration_s
        self.ending: Ending | None = None

    async def run(self) -> int:
        try:
            async with staged() as stage:
                with View(self._console) as view:
                    self.ending = await self._play(stage, view)
                for line in summary(self.ending):
                    view.say(line)
                if self._keep:
                    _say_where(stage, view)
                    await _stay(stage)
                return self.ending.exit_code
        except DemoFailed as error:
            self._console.print(f"khook demo: {error}", markup=False, highlight=False, soft_wrap=True)
            return EXIT_UNEXPECTED

    async def _play(self, stage: Stage, view: View) -> Ending:
        await install_crd(stage)
        await start_khook(stage)
        await until_ready(stage)
        stage.started_at = stage.clock.monotonic()
        async with (
            _beside(self._tell(stage)) as telling,
            _beside(self._kill_half_way(stage)) as killing,
            _beside(self._take_agent_away(stage)) as outage,
            _beside(self._break_a_slot(stage)) as breaking,
        ):
            while not (telling.done() and killing.done() and outage.done() and breaking.done()):
                await _show(stage, view)
                _raise_first(telling, killing, outage, breaking)
            killed, loop = killing.result(), breaking.result()
        wanted = expected(self._story)
        await _settle(stage, view, wanted)
        came_back = stage.log.follow().lives.get(killed, 0) > 1
        khook_exit = None if self._keep else await stop_khook(stage)
        return Ending(
            verdict=compare(wanted, stage.kagent.runs),
            incidents=len(wanted),
            calls=len(stage.kagent.runs),
            parked=len(stage.calls.parked),
            delivered=stage.calls.delivered(stage.kagent.runs),
            killed=killed,
            came_back=came_back,
            loop=loop,
            storm=storm(wanted, stage.kagent.runs),
            khook_exit=khook_exit,
        )

    async def _tell(self, stage: Stage) -> None:
        start = stage.clock.now()
        for step in self._story.steps:
            at_s = await self._until(stage, step.at_s)
            await apply(stage, step, Moment(now=start + timedelta(seconds=at_s), uids=stage.uids))

    async def _kill_half_way(self, stage: Stage) -> str:
        await self._until(stage, self._story.kill_at_s)
        told = stage.log.follow()
        slot = told.busiest(but=told.owners.get(self._story.crash_loop.namespace))
        if slot is None or not kill(stage, slot):
            raise DemoFailed("found no worker to kill")
        stage.words.append(f"worker {slot} (pid {told.pids[slot]}) is killed with SIGKILL")
        return slot

    async def _break_a_slot(self, stage: Stage) -> LoopEnding:
        """Kill the worker of one namespace whenever it is back; then let the namespace's heir show that it has it."""
        crash_loop = self._story.crash_loop
        await self._until(stage, crash_loop.from_s)
        slot = stage.log.follow().owners[crash_loop.namespace]
        stage.words.append(f"worker {slot} is killed with SIGKILL, and whenever it comes back")
        deaths = 0
        async with _patience(BROKEN_WITHIN_S, f"slot {slot} to be broken"):
            while slot not in stage.log.follow().broken:
                deaths += slot not in stage.dead and kill(stage, slot)
                await asyncio.sleep(TICK_S / 4)
        stage.words.append(f"worker {slot} died {deaths} times: its slot is broken")
        async with _patience(BROKEN_WITHIN_S, f"{crash_loop.namespace} to be owned again"):
            heir = slot
            while heir == slot:
                await asyncio.sleep(TICK_S / 4)
                heir = stage.log.follow().owners[crash_loop.namespace]
        stage.words.append(f"worker {heir} takes {crash_loop.namespace}")
        for step in crash_loop.encore:
            await asyncio.sleep(step.at_s * self._pace)
            await apply(stage, step, Moment(now=stage.clock.now(), uids=stage.uids))
        return LoopEnding(slot=slot, deaths=deaths, namespace=crash_loop.namespace, heir=heir)

    async def _take_agent_away(self, stage: Stage) -> None:
        outage = self._story.outage
        await self._until(stage, outage.from_s)
        stage.kagent.set_faults(outage.agent, [Fault(kind=FaultKind.UNAVAILABLE, on=None)])
        stage.words.append(f"agent {outage.agent} is unreachable")
        await self._until(stage, outage.until_s)
        stage.kagent.set_faults(outage.agent, [])
        stage.words.append(f"agent {outage.agent} is back: its parked calls go 30 s after its breaker opened")

    async def _until(self, stage: Stage, at_s: float) -> float:
        """Wait for a time of the story; when that is on our watch."""
        at_s *= self._pace
        await asyncio.sleep(max(0.0, at_s - stage.at_s()))
        return at_s


@contextlib.asynccontextmanager
async def _patience(within_s: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise DemoFailed(f"waited {within_s:.0f} s for {what}") from None


async def _settle(stage: Stage, view: View, wanted: Sequence[Expected]) -> None:
    """Until every call was made and answered and a quiet while has passed, or patience ends: the record will tell."""
    give_up_at = stage.clock.monotonic() + SETTLED_WITHIN_S
    while (compare(wanted, stage.kagent.runs).lost or stage.calls.under_way) and stage.clock.monotonic() < give_up_at:
        await _show(stage, view)
    quiet_at = stage.clock.monotonic() + QUIET_S
    while stage.clock.monotonic() < quiet_at:
        await _show(stage, view)


async def _show(stage: Stage, view: View) -> None:
    still_runs(stage)
    told = stage.log.follow()
    for slot in [slot for slot, lives in stage.dead.items() if told.lives[slot] > lives]:
        stage.words.append(f"worker {slot} is back as pid {told.pids[slot]}")
        del stage.dead[slot]
    answer = await stage.client.get("/apis/kagent.dev/v1alpha2/hooks")
    check(answer, "a list of Hooks")
    hooks = answer.json()["items"]
    stage.calls.read(hooks)
    view.show(
        Scene(
            at_s=stage.at_s(),
            words=tuple(stage.words),
            told=told,
            hooks=hooks,
            calls=stage.calls,
            runs=tuple(stage.kagent.runs),
            dead=tuple(stage.dead),
        )
    )
    await asyncio.sleep(TICK_S)


async def _stay(stage: Stage) -> None:
    """Until somebody interrupts; meanwhile the cluster is theirs."""
    while True:
        await end_deleted_pods(stage.client)
        await asyncio.sleep(KUBELET_S)


def _say_where(stage: Stage, view: View) -> None:
    told = stage.log.follow()
    view.say(f"kubeconfig  export KUBECONFIG={stage.kubeconfig}")
    view.say(f"metrics     http://127.0.0.1:{told.metrics_port}/metrics")
    view.say(f"health      http://127.0.0.1:{told.health_port}/readyz")
    view.say(f"status      http://{told.status_address}/, or: khook shards --address {told.status_address}")
    view.say(f"calls       {stage.agents_url}/sandbox/record")
    view.say(f"log         {stage.log.path}")
    view.say("Ctrl-C stops and removes everything.")


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Runs beside the block and never outlives it."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def _raise_first(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        if task.done():
            task.result()
