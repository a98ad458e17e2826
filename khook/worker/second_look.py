"""A second look at a namespace, for the entries that a Hook gained: its pods and Events are listed for them alone.

One look a Hook at a time; entries that come while one is under way share the next. A Hook that goes in the meantime
ends it.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from khook.core import pods as pod_rules
from khook.core.incident import EntryId
from khook.core.pods import PodFacts
from khook.core.signal import EventLine, PodLine, Signal
from khook.errors import KubeError
from khook.kube.backoff import BackOff
from khook.kube.listing import list_into
from khook.kube.resources import EVENTS, PODS, Resource
from khook.kube.watch import Skip
from khook.worker.intake import EventIntake
from khook.worker.parts import Parts
from khook.worker.podbook import PodBook
from khook.worker.table import Audience, HookTable

T = TypeVar("T")

Judge = Callable[[HookTable, Signal, PodFacts, Audience], None]


@dataclass(frozen=True, slots=True)
class _Pages(Generic[T]):
    """A list's sink that is told of pages only: nothing is compared with what is known."""

    take: Callable[[Sequence[T]], None]

    def list_started(self) -> None: ...

    def listed(self, objects: Sequence[T]) -> None:
        self.take(objects)

    def list_ended(self) -> None: ...


class SecondLooks:
    """`judge` gets each signal with its pod; `owns` says whether a table is still the namespace's."""

    def __init__(
        self,
        *,
        namespace: str,
        parts: Parts,
        pods: PodBook,
        intake: EventIntake,
        judge: Judge,
        owns: Callable[[HookTable], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._namespace = namespace
        self._parts = parts
        self._pods = pods
        self._intake = intake
        self._judge = judge
        self._owns = owns
        self._spawn = spawn
        self._wanted: dict[HookTable, frozenset[EntryId]] = {}
        """Tables with a look under way, and the entries that came since it began."""

    def want(self, audience: Audience) -> None:
        table = audience.table
        under_way = table in self._wanted
        self._wanted[table] = self._wanted.get(table, frozenset()) | audience.entries
        if not under_way:
            self._spawn(self._look_again(table))

    async def _look_again(self, table: HookTable) -> None:
        await self._pods.synced.wait()
        while (entries := self._wanted[table]) and self._owns(table):
            self._wanted[table] = frozenset()
            await self._look(Audience(table=table, entries=entries))
        del self._wanted[table]

    async def _look(self, audience: Audience) -> None:
        def pods_listed(lines: Sequence[PodLine]) -> None:
            for line in lines:
                pod, signals = pod_rules.observe(
                    None, line, listed=True, now=self._parts.now(), stuck_pending=self._parts.stuck_pending
                )
                for signal in signals:
                    self._judge(audience.table, signal, pod, audience)

        def events_listed(lines: Sequence[EventLine]) -> None:
            for event in lines:
                self._intake.take(event, listed=True, audience=audience)

        await self._list_once(PODS, pods_listed, table=audience.table)
        await self._list_once(EVENTS, events_listed, table=audience.table)

    async def _list_once(
        self, resource: Resource[T], listed: Callable[[Sequence[T]], None], *, table: HookTable
    ) -> None:
        """A LIST on its own, tried until it is whole: what it shows twice is stale the second time."""
        back_off = BackOff(randomness=self._parts.randomness)
        while self._owns(table):
            try:
                await list_into(
                    _Pages(listed),
                    client=self._parts.client,
                    resource=resource,
                    namespace=self._namespace,
                    skipped=lambda _: self._parts.watches.skipped(resource.name, Skip.MALFORMED),
                )
            except KubeError as error:
                self._parts.log.warning(
                    "list failed", namespace=self._namespace, resource=resource.name, status=error.status
                )
                await asyncio.sleep(back_off.failed(healthy_for_s=0.0))
            else:
                return
