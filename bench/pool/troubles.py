"""Incidents told to the API server, and what the agents' own record must hold because of them.

Each incident is one pod whose container backs off, told by an Event as a kubelet writes it; told again, the Event's
count rises. However often it is told and whatever dies meanwhile, the agent has to be asked about it, once.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bench.pool.stage import Stage
from khook.sandbox.story import Moment, kubelet_event, pod_created, pod_running

REASON: Final = "BackOff"
MESSAGE: Final = "Back-off restarting failed container app in pod"
CALLED_WITHIN_S: Final = 60.0
"""A call whose answer broke is looked for and tried again for so long at worst; what is not called then is lost."""
QUIET_S: Final = 0.5
"""After the last expected call: time for one that should not come."""
POLL_S: Final = 0.02


@dataclass(slots=True, kw_only=True)
class Incident:
    namespace: str
    pod: str
    uid: str
    told_time: datetime
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    lost: int
    repeated: int
    """Calls beyond the one for each incident."""


class Troubles:
    """`tell` of new ones and old ones; `settle`, then `judged` is final."""

    def __init__(self, stage: Stage, namespaces: Iterable[str]) -> None:
        self.namespaces = tuple(namespaces)
        self.incidents: list[Incident] = []
        self._stage = stage
        self._numbers = itertools.count(1)

    async def tell(self, namespace: str) -> Incident:
        """A pod that was well is not."""
        pod = f"app-{next(self._numbers)}"
        moment = self._moment({})
        created = await self._stage.write(*pod_created(pod)(namespace, moment))
        await self._stage.write(*pod_running(pod)(namespace, moment))
        incident = Incident(
            namespace=namespace, pod=pod, uid=created["metadata"]["uid"], told_time=self._stage.clock.now()
        )
        self.incidents.append(incident)
        await self._event(incident)
        return incident

    async def tell_again(self, incidents: Sequence[Incident] | None = None) -> None:
        """Of all there were so far, or of these."""
        for incident in self._those(incidents):
            incident.count += 1
            await self._event(incident)

    async def tell_steadily(self, *, per_second: float) -> None:
        """New ones, the namespaces taking turns, and now and then of an old one again; until cancelled."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        for number, namespace in enumerate(itertools.cycle(self.namespaces)):
            await asyncio.sleep(max(0.0, began_at + number / per_second - loop.time()))
            await self.tell(namespace)
            if number % 3 == 2:
                await self.tell_again([self.incidents[len(self.incidents) // 2]])

    @contextlib.asynccontextmanager
    async def steadily(self, *, per_second: float) -> AsyncIterator[None]:
        """`tell_steadily` beside the block."""
        telling = asyncio.create_task(self.tell_steadily(per_second=per_second))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])
        if not telling.cancelled():
            telling.result()  # it ends only by an error

    async def settle(self) -> None:
        """Wait for what is missing. Then one more in each namespace: what would be repeated stands before it on the
        same stream, so it has been judged when that one's call is there."""
        await self._called()
        for namespace in self.namespaces:
            await self.tell(namespace)
        await self._called()
        await asyncio.sleep(QUIET_S)

    def judged(self) -> Judged:
        wanted = Counter((one.namespace, one.pod) for one in self.incidents)
        found = self._found()
        return Judged(lost=(wanted - found).total(), repeated=(found - wanted).total())

    def answered_s(self, incidents: Sequence[Incident] | None = None) -> list[float]:
        """From telling to acceptance by the agent, for each of these, or of all, that was called."""
        accepted = {self._key(run.context): run.time for run in reversed(self._stage.kagent.runs)}
        times = [(accepted.get((one.namespace, one.pod)), one.told_time) for one in self._those(incidents)]
        return [(accepted_time - told_time).total_seconds() for accepted_time, told_time in times if accepted_time]

    def calls(self) -> int:
        return self._found().total()

    def _those(self, incidents: Sequence[Incident] | None) -> list[Incident]:
        return list(self.incidents if incidents is None else incidents)

    async def _called(self) -> None:
        with contextlib.suppress(TimeoutError):  # what is missing now is lost, and `judged` says so
            async with asyncio.timeout(CALLED_WITHIN_S):
                while self.judged().lost:
                    await asyncio.sleep(POLL_S)

    def _found(self) -> Counter[tuple[str, str]]:
        mine = set(self.namespaces)
        keys = (self._key(run.context) for run in self._stage.kagent.runs)
        return Counter(key for key in keys if key[0] in mine)

    @staticmethod
    def _key(context: Mapping[str, str]) -> tuple[str, str]:
        return context["namespace"], context["resourceName"]

    async def _event(self, incident: Incident) -> None:
        moment = self._moment({f"{incident.namespace}/{incident.pod}": incident.uid})
        act = kubelet_event(incident.pod, reason=REASON, message=MESSAGE, count=incident.count)
        await self._stage.write(*act(incident.namespace, moment))

    def _moment(self, uids: Mapping[str, str]) -> Moment:
        return Moment(now=self._stage.clock.now(), uids=uids)
