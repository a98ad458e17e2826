"""A load of incidents of every kind over many namespaces, and what the agents' record must hold because of it.

Each incident is one pod. It is told once, as Event or as pod status, and may be told again; however often it is told
and whatever breaks meanwhile, one agent has to be asked about it, once.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from support.cluster import Cluster, rows
from support.installation import Agents, now
from support.objects import (
    Json,
    crash_looping,
    entry,
    event,
    hook,
    pod,
    rfc3339,
    running,
    scheduling_event,
    unschedulable,
)

Key = tuple[str, str, str]
"""Namespace, agent, pod: one incident as an agent's record names it."""
Tell = Callable[[Cluster, Json, int], Awaitable[object]]
"""Tell of a pod's trouble for the n-th time."""

POLL_S: Final = 0.02
TYPES: Final = ("pod-restart", "pod-pending", "oom-kill", "probe-failed")
ENTRIES: Final = tuple(entry(kind, f"{kind}-agent") for kind in TYPES)


def _event(reason: str, message: str) -> Tell:
    async def tell(cluster: Cluster, of: Json, count: int) -> None:
        name = f"{of['metadata']['name']}.{reason.lower()}"
        first = event(reason, message, of=of, now=now(), name=name)
        if count == 1:
            await cluster.event(first)
        else:
            await cluster.repeat_event(first, count=count, time=rfc3339(now()))

    return tell


async def _crash_loop(cluster: Cluster, of: Json, count: int) -> None:
    await cluster.pod_status(of, crash_looping(now=now(), restarts=count))


async def _oom(cluster: Cluster, of: Json, count: int) -> None:
    status = crash_looping(now=now(), reason="OOMKilled", exit_code=137, restarts=count)
    await cluster.pod_status(of, status)


async def _unschedulable(cluster: Cluster, of: Json, count: int) -> None:
    if count == 1:
        await cluster.pod_status(of, unschedulable(now=now()))
    else:
        await cluster.event(scheduling_event(of=of, now=now()))


KINDS: Final[Sequence[tuple[str, Tell]]] = (
    ("pod-restart", _event("BackOff", "Back-off restarting failed container app")),
    ("pod-restart", _crash_loop),
    ("oom-kill", _oom),
    ("probe-failed", _event("Unhealthy", "Liveness probe failed: timeout")),
    ("pod-pending", _unschedulable),
)


@dataclass(slots=True)
class Incident:
    pod: Json
    kind: int
    told: int = 0

    @property
    def key(self) -> Key:
        meta = self.pod["metadata"]
        return meta["namespace"], f"kagent/{KINDS[self.kind][0]}-agent", meta["name"]


class Load:
    """`prepare` a pod, `tell` of it, `run` many; `settled` waits for the calls and judges them."""

    def __init__(self, cluster: Cluster, agents: Agents, namespaces: Iterable[str]) -> None:
        self.namespaces = tuple(namespaces)
        self.incidents: list[Incident] = []
        self._cluster = cluster
        self._agents = agents
        self._made = 0

    def go_on(self, cluster: Cluster) -> "Load":
        """The same incidents over another client: one belongs to one event loop."""
        self._cluster = cluster
        return self

    async def install(self) -> None:
        """The namespaces, each with one Hook that has an entry of every type."""
        for namespace in self.namespaces:
            await self._cluster.namespace(namespace)
            await self._cluster.hook(hook("all", *ENTRIES, namespace=namespace))

    async def prepare(self, namespace: str) -> Incident:
        """A pod that is well, or has just been created; kinds take turns."""
        number, self._made = self._made, self._made + 1
        kind = number % len(KINDS)
        status = {"phase": "Pending"} if KINDS[kind][0] == "pod-pending" else running(now=now())
        return Incident(await self._cluster.pod(pod(f"p-{number}", namespace=namespace), status), kind)

    async def tell(self, incident: Incident) -> None:
        """The first time opens the incident; every other time repeats it, and only what is there can be repeated."""
        incident.told += 1
        is_new = incident.told == 1
        await KINDS[incident.kind][1](self._cluster, incident.pod, incident.told)
        if is_new:
            self.incidents.append(incident)

    async def fresh(self, namespace: str) -> None:
        await self.tell(await self.prepare(namespace))

    async def run(self, *, per_second: float, seconds: float, namespaces: Sequence[str] = ()) -> None:
        """New incidents, the namespaces taking turns; every third time an older one is told again, too."""
        namespaces = namespaces or self.namespaces
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_second * seconds)):
                await asyncio.sleep(max(0.0, started_at + number / per_second - loop.time()))
                group.create_task(self.fresh(namespaces[number % len(namespaces)]))
                if number % 3 == 2 and number > 10 and self.incidents:
                    group.create_task(self.tell(self.incidents[len(self.incidents) // 2]))

    def judge(self) -> tuple[list[Key], list[Key]]:
        """What is lost and what is repeated, as things stand."""
        wanted = Counter(incident.key for incident in self.incidents)
        found = Counter(
            (run.context["namespace"], run.agent, run.context["resourceName"])
            for namespace in self.namespaces
            for run in self._agents.runs(namespace)
        )
        return sorted((wanted - found).elements()), sorted((found - wanted).elements())

    async def settled(self, *, within_s: float) -> None:
        """Wait until nothing is lost; then tell of one more incident in each namespace, and nothing may be repeated.

        What would be repeated stands before that one on the same streams, so it has been judged when its call is there.
        """
        await self._called(within_s)
        await asyncio.gather(*(self.fresh(namespace) for namespace in self.namespaces for _ in KINDS))
        await self._called(within_s)
        _, repeated = self.judge()
        assert repeated == [], [await self._told_of(key) for key in repeated]

    async def _told_of(self, key: Key) -> str:
        """All that there is to know of an incident that was called twice."""
        namespace, agent, name = key
        runs = [
            f"{run.call_id} at {run.time}"
            for run in self._agents.runs(namespace)
            if (run.agent, run.context["resourceName"]) == (agent, name)
        ]
        rows_now = [row for row in rows(await self._cluster.get_hook(namespace, "all")) if row["resourceName"] == name]
        return f"{key}: {runs}; {rows_now}"

    async def _called(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                while self.judge()[0]:
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise AssertionError(f"lost: {self.judge()[0]}") from None
