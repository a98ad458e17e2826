"""Lives through one world: from its plan to the history of what happened."""

import asyncio
import gc
import heapq
import logging
import random
import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from itertools import count
from typing import Any, Final

import structlog

from khook.api.crd import crd
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Service
from khook.sandbox.history import Watch
from khook.sandbox.kagent import Behaviour, Kagent, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.sandbox.virtual_time import START, Deadlock, TooManySteps, VirtualClock
from sim.faults import Faults
from sim.history import AttemptFact, Disturbance, History, IncidentKey, RowFact, RunFact
from sim.network import AGENTS, API, Network
from sim.plan import WorldPlan
from sim.processes import Processes, SimLoop
from sim.replica import KEY, Book, Replica
from sim.story import AGENT_NAMESPACE, Cluster, Story

STARTED_BY_S: Final = 15.0
STOPS_WITHIN_S: Final = 60.0
READY_WITHIN_S: Final = 30.0
STEPS_MOST: Final = 300_000
"""Most worlds take some 12,000; one whose ticks are the real ones, with two replicas, ten times as many."""
BACKGROUND_S: Final = 50.0
"""In a cluster somebody always writes something: it moves the version that bookmarks tell."""
DEFECTS: Final = frozenset({"delivery failed"})
"""Events of khook's own log that nothing but a defect writes."""


class World:
    def __init__(self, plan: WorldPlan, loop: SimLoop) -> None:
        self._plan = plan
        self._loop = loop
        chance = random.Random(plan.seed ^ 0x5EED)
        self.history = History(plan=plan)
        clock = VirtualClock()
        self.store = Store(randomness=random.Random(chance.getrandbits(64)), now=clock.now())
        self.api = ApiServer(self.store, clock=clock)
        self.agents = Kagent(
            api_key=KEY,
            honour_keys=plan.honours_keys,
            speaks=Speaks(plan.speaks),
            behaviour=Behaviour(run_s=plan.run_s),
        )
        services: dict[str, Service] = {API: self.api, AGENTS: KagentService(self.agents, clock=clock)}
        self.processes = Processes(loop)
        latency = random.Random(chance.getrandbits(64)) if plan.latency else None
        self.network = Network(services=services, processes=self.processes, latency=latency)
        self.book = Book(self.history, at_s=loop.time, numbers=self.network.numbers)
        self.processes.on_end = self.book.died
        self.replicas = [
            Replica(
                number,
                machine,
                plan=plan,
                network=self.network,
                processes=self.processes,
                chance=random.Random(chance.getrandbits(64)),
                book=self.book,
                history=self.history,
            )
            for number, machine in enumerate(plan.machines)
        ]
        cluster = Cluster(self.store, now=clock.now)
        cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _crd())
        self.story = Story(plan, cluster=cluster, history=self.history, at_s=loop.time, now=clock.now)
        self._numbers = count()
        self._timeline: list[tuple[float, int, Callable[[], None]]] = []
        self._faults = Faults(
            plan=plan,
            replicas=self.replicas,
            api=self.api,
            agents=self.agents,
            network=self.network,
            story=self.story,
            history=self.history,
            at_s=loop.time,
            later=self._later,
        )
        self._cluster = cluster
        self._rows: dict[str, dict[IncidentKey, Any]] = {}
        """By Hook, as its last status had them."""
        self._hooks_watch: Watch | None = None

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._timeline, (self._loop.time() + seconds, next(self._numbers), do))

    def _at(self, at_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._timeline, (at_s, next(self._numbers), do))

    async def live(self) -> History:
        plan = self._plan
        self.story.begin()
        self._watch_hooks()
        for replica in self.replicas:
            replica.start()
        self.history.disturbances.append(
            Disturbance(from_s=0.0, until_s=STARTED_BY_S, felt_until_s=STARTED_BY_S, what="start")
        )
        for edit in plan.edits:
            self._at(edit.at_s, lambda edit=edit: self.story.edit(edit))  # type: ignore[misc]
        for tell in plan.tells:
            self._at(tell.at_s, lambda tell=tell: self._tell(tell))  # type: ignore[misc]
        for fault in plan.faults:
            self._at(fault.at_s, lambda fault=fault: self._faults.do(fault))  # type: ignore[misc]
        self._background()
        while self._timeline and self._timeline[0][0] < plan.end_s:
            at_s, _, do = heapq.heappop(self._timeline)
            if at_s > self._loop.time():
                await asyncio.sleep(at_s - self._loop.time())
            do()
            self._measure()
        await asyncio.sleep(max(0.0, plan.end_s - self._loop.time()))
        self._measure()
        await self._until_ready()
        self._look_at_the_end()
        await self._stop()
        self._read_records()
        return self.history

    def _background(self) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        if self._loop.time() == 0.0:
            self._cluster.create(path, {"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "node-1"}})
        self._cluster.patch(f"{path}/node-1", {"spec": {"leaseTransitions": int(self._loop.time())}})
        self._later(BACKGROUND_S, self._background)

    def _tell(self, tell: Any) -> None:
        due_s = self.story.tell(tell)
        if due_s is not None:
            uid = self.story.uid(tell.pod)
            self._later(due_s, lambda: self.story.quiet_due(tell.pod, uid))

    def _measure(self) -> None:
        sizes = self.history.sizes
        sizes.tasks = max(sizes.tasks, self.processes.tasks())
        sizes.streams = max(sizes.streams, self.network.open_streams)

    # What the API server holds.

    def _watch_hooks(self) -> None:
        kind = self.store.kind("kagent.dev", "v1alpha2", "hooks")
        self._hooks_watch = self.store.watch(kind, None, start=self.store.revision)
        self._hooks_watch.notify = self._hooks_moved

    def _hooks_moved(self) -> None:
        assert self._hooks_watch is not None
        while self._hooks_watch.pending:
            change = self._hooks_watch.pending.popleft()
            if change.new is not None and "status" in change.new:
                self._status_moved(change.new)

    def _status_moved(self, hook: dict[str, Any]) -> None:
        uid, rows = hook["metadata"]["uid"], hook["status"].get("activeEvents") or ()
        self.history.sizes.rows = max(self.history.sizes.rows, len(rows))
        before = self._rows.get(uid, {})
        after: dict[IncidentKey, Any] = {}
        for row in rows:
            key, call = _key(uid, row), row.get("call") or {}
            seen = after[key] = (call, row["status"])
            if before.get(key) != seen:
                self._row_moved(key, call, firing=row["status"] == "firing")
        for key in before:
            if key not in after:
                self._row_moved(key, {}, firing=False)
        self._rows[uid] = after

    def _row_moved(self, key: IncidentKey, call: dict[str, Any], *, firing: bool) -> None:
        self.history.rows.append(
            RowFact(
                at_s=self._loop.time(),
                key=key,
                call_id=call.get("id", ""),
                state=call.get("state", ""),
                reason=call.get("reason", ""),
                firing=firing,
                number=next(self.network.numbers),
                claimed_s=_seconds(call.get("claimedTime")) or 0.0,
                accepted_s=_seconds(call.get("acceptedTime")),
                ended_s=_seconds(call.get("endedTime")),
            )
        )

    # The end.

    async def _until_ready(self) -> None:
        """A moment's grace: what `/readyz` says is as old as the last beat, and as the last look at it."""
        for _ in range(int(READY_WITHIN_S)):
            if all(one.supervisor is not None and one.supervisor.ready()[0] for one in self.replicas):
                return
            await asyncio.sleep(1.0)

    def _look_at_the_end(self) -> None:
        end = self.history.end
        self.history.end_s = self._loop.time()
        leaders = 0
        for replica in self.replicas:
            supervisor = replica.supervisor
            if supervisor is None:
                end.why_not += f"{replica.name} does not run; "
                continue
            ready, body = supervisor.ready()
            leader = body["leader"]
            assert isinstance(leader, dict)
            leaders += leader["leading"]
            if not ready:
                end.why_not += f"{replica.name}: {body.get('reasons')}; "
            for namespace, key in supervisor.view().keys.items():
                if key.slot is not None and key.started:
                    end.owners.setdefault(namespace, []).append(f"{replica.name}.{key.slot}")
        if leaders != 1:
            end.why_not += f"{leaders} leaders; "
        end.ready = not end.why_not
        for namespace, uid, path in self.story.hook_paths():
            if namespace not in end.wanted:
                end.wanted.append(namespace)
            status = self._cluster.get(path).get("status") or {}
            for row in status.get("activeEvents") or ():
                end.rows[_key(uid, row)] = row

    async def _stop(self) -> None:
        tasks = asyncio.ensure_future(asyncio.gather(*(replica.stop() for replica in self.replicas)))
        done, _ = await asyncio.wait([tasks], timeout=STOPS_WITHIN_S)
        if not done:
            self.history.end.stop_error = f"not stopped after {STOPS_WITHIN_S:.0f} s"
        # Requests that nobody waits for any more end by their own timeouts.
        await asyncio.sleep(STOPS_WITHIN_S)
        mine = asyncio.current_task()
        left = [task for task in asyncio.all_tasks() if task is not mine and not task.done()]
        self.history.end.tasks_left = sorted(task.get_name() + _where(task) for task in left)

    def _read_records(self) -> None:
        history = self.history
        history.acts, history.streams = self.network.acts, self.network.streams
        pods: dict[str, set[str]] = {}
        for pod in self._plan.pods:
            if any(one.owner for one in self._plan.pods if one.namespace == pod.namespace):
                pods.setdefault(pod.namespace, set()).add(pod.name)
        for run in self.agents.runs:
            agent = run.agent if "/" in run.agent else f"{AGENT_NAMESPACE}/{run.agent}"
            history.runs.append(
                RunFact(
                    at_s=_elapsed(run.time),
                    agent=agent,
                    call_id=run.call_id,
                    event_type=run.context["eventName"],
                    pod=run.context["resourceName"],
                    namespace=run.context["namespace"],
                    protocol=run.protocol,
                    named=_named(run.prompt, pods.get(run.context["namespace"])),
                )
            )
        for attempt in self.agents.attempts:
            agent = attempt.agent if "/" in attempt.agent else f"{AGENT_NAMESPACE}/{attempt.agent}"
            history.attempts.append(
                AttemptFact(at_s=_elapsed(attempt.time), agent=agent, call_id=attempt.call_id, end=attempt.end)
            )


@cache
def _crd() -> dict[str, Any]:
    """The Hook's CRD without its rules: the contract tests try these, and here they cost a tenth of the time."""
    made = crd()
    for version in made["spec"]["versions"]:
        version["schema"]["openAPIV3Schema"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return made


def _key(uid: str, row: dict[str, Any]) -> IncidentKey:
    kind, name = row.get("resourceKind", "Pod"), row["resourceName"]
    return (uid, row["eventType"], row.get("agent", ""), name if kind == "Pod" else f"{kind}/{name}")


def _named(prompt: str, pods: set[str] | None) -> tuple[str, ...]:
    """Those of these pods whose name stands in it, sorted: a world is the same whatever strings hash to."""
    return tuple(sorted(pods.intersection(re.findall("[a-z0-9-]+", prompt)))) if pods else ()


def _where(task: "asyncio.Task[Any]") -> str:
    return f" ({getattr(task.get_coro(), '__qualname__', '?')})"


def _elapsed(time: datetime) -> float:
    return (time - START).total_seconds()


def _seconds(text: str | None) -> float | None:
    return None if text is None else _elapsed(datetime.fromisoformat(text))


class Log:
    """khook's log, kept as far as it matters: warnings, or all of it where somebody wants to read along."""

    def __init__(self, *, level: int) -> None:
        self.lines: list[tuple[float, str, dict[str, Any]]] = []
        self.loop: SimLoop | None = None
        self._before = structlog.get_config()
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, self._keep],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.ReturnLoggerFactory(),
            cache_logger_on_first_use=False,
        )
        self.library = _Library()
        root = logging.getLogger()
        self._root = (root.handlers, root.level)
        root.handlers = [self.library]
        root.setLevel(logging.WARNING)

    def close(self) -> None:
        structlog.configure(**self._before)
        logging.getLogger().handlers, level = self._root
        logging.getLogger().setLevel(level)

    def _keep(self, _: Any, level: str, event: Any) -> Any:
        at_s = 0.0 if self.loop is None else self.loop.time()
        name = event.pop("event")
        self.lines.append((at_s, f"{level}: {name}", event))
        raise structlog.DropEvent


class _Library(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(
            f"{record.name}: {record.getMessage()} {record.exc_info[1]!r}" if record.exc_info else record.getMessage()
        )


def live(plan: WorldPlan, *, level: int = logging.ERROR) -> tuple[History, Log]:
    """One world, from its beginning to its end; its history, and what khook's log said."""
    log = Log(level=level)
    loops: list[SimLoop] = []

    def make_loop() -> SimLoop:
        loops.append(SimLoop(start=START, max_steps=STEPS_MOST))
        return loops[0]

    gc.disable()
    history = History(plan=plan)
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            loop = runner.get_loop()
            assert isinstance(loop, SimLoop)
            log.loop = loop

            async def life() -> History:
                nonlocal history
                world = World(plan, loop)
                history = world.history
                return await world.live()

            runner.run(life())
    except (Deadlock, TooManySteps) as error:
        history.errors.append(repr(error))
    finally:
        gc.collect()
        gc.enable()
        log.close()
    for at_s, name, values in log.lines:
        if name.partition(": ")[2] in DEFECTS:
            history.errors.append(f"{at_s:.3f} {name} {values}")
    history.errors += log.library.said
    return history, log
