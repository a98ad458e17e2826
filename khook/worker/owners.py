"""Which controller a pod belongs to, with the look-ups that the pod itself does not answer.

A ReplicaSet or a Job is read once, as metadata alone, and who made it is remembered by its uid: that never changes.
Signals wait for the answer, each controller's in their order. Where it cannot be had in time the direct controller
stands in, and is remembered for a while, so that one storm does not become two incidents half-way.
"""

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from khook.core.incident import Row
from khook.core.owner import REPLICA_SET, Controller, ResourceRef, controller_of
from khook.core.pods import PodFacts, unwell
from khook.errors import Forbidden, Invalid, KubeError, NotFound
from khook.kube.backoff import BackOff
from khook.kube.client import KubeClient
from khook.kube.resources import JOBS, REPLICA_SETS, OwnedObject
from khook.log import Log
from khook.seams import Clock
from khook.worker.podbook import PodBook

LOOK_UP_S: Final = 5.0
"""As long as a group is gathered (`groupWait`): the first call of a storm is not kept back for longer."""
LOOK_UPS_AT_ONCE: Final = 8
STAND_IN_FOR_S: Final = 600.0
"""How long a direct controller stands in for an owner that could not be looked up: a cooldown by default."""
KNOWN_MOST: Final = 1_000
"""Controllers of one namespace, those asked for last; some 300 bytes each. A look-up made again costs one GET."""
WAITING_MOST: Final = 10_000
"""Signals that wait for look-ups. Past this the direct controller stands in at once."""

Then = Callable[[ResourceRef], None]


@dataclass(frozen=True, slots=True)
class _Known:
    ref: ResourceRef
    until_at: float
    """Infinity for what was looked up; a stand-in is asked for again."""


class Owners:
    """One namespace's. `spawn` starts a task that ends with the namespace."""

    def __init__(
        self,
        *,
        namespace: str,
        client: KubeClient,
        clock: Clock,
        randomness: random.Random,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        log: Log,
    ) -> None:
        self._namespace = namespace
        self._client = client
        self._clock = clock
        self._randomness = randomness
        self._spawn = spawn
        self._log = log
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._waiting: dict[str, list[Then]] = {}
        self._waiting_count = 0
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._forbidden_said = False

    def of(self, pod: PodFacts) -> ResourceRef | None:
        """The owner; the pod itself where it has none. None: it has to be looked up first."""
        controller = pod.controller
        if controller is None:
            return pod.ref
        if not controller.has_maker:
            return controller.ref
        known = self._known.get(controller.uid)
        if known is None or known.until_at <= self._clock.monotonic():
            return None
        self._known.move_to_end(controller.uid)
        return known.ref

    def find(self, pod: PodFacts, then: Then) -> None:
        """Call `then` with the owner: now where it is known, else within `LOOK_UP_S`, in the order of asking."""
        controller = pod.controller
        known = self.of(pod)
        if controller is None or known is not None:
            then(known or pod.ref)
        elif controller.uid in self._waiting or self._waiting_count < WAITING_MOST:
            self._wait(controller, then)
        else:
            then(controller.ref)

    def _wait(self, controller: Controller, then: Then) -> None:
        under_way = controller.uid in self._waiting
        self._waiting.setdefault(controller.uid, []).append(then)
        self._waiting_count += 1
        if not under_way:
            self._spawn(self._look_up(controller))

    async def _look_up(self, controller: Controller) -> None:
        found: _Known | None = None
        try:
            async with asyncio.timeout(LOOK_UP_S):
                found = _Known(await self._read(controller), float("inf"))
        except TimeoutError:
            self._log.warning("owner not found in time", resource=controller.kind)
        except Forbidden as error:
            if not self._forbidden_said:
                self._forbidden_said = True
                self._log.warning("owners may not be read", resource=controller.kind, status=error.status)
        known = found or _Known(controller.ref, self._clock.monotonic() + STAND_IN_FOR_S)
        self._known[controller.uid] = known
        while len(self._known) > KNOWN_MOST:
            self._known.popitem(last=False)
        for then in self._waiting.pop(controller.uid):
            self._waiting_count -= 1
            then(known.ref)

    async def _read(self, controller: Controller) -> ResourceRef:
        """Who made it; itself where nobody did, or where it is gone. Raises Forbidden."""
        resource = REPLICA_SETS if (controller.group, controller.kind) == REPLICA_SET else JOBS
        back_off = BackOff(randomness=self._randomness)
        while True:
            try:
                async with self._look_ups:
                    found = await self._client.get_object(resource, self._namespace, controller.name, OwnedObject)
            except (NotFound, Invalid):
                return controller.ref
            except Forbidden:
                raise
            except KubeError as error:
                self._log.warning("owner read failed", resource=controller.kind, status=error.status)
                await asyncio.sleep(back_off.failed(healthy_for_s=0.0))
                continue
            if found.metadata.uid != controller.uid:
                return controller.ref
            maker = controller_of(found.metadata.owner_references)
            return controller.ref if maker is None else maker.ref


class PodsOfRows:
    """`table.PodsOf` for one moment: the pods are sorted by owner once, and only if a group asks."""

    def __init__(self, *, pods: PodBook, owners: Owners) -> None:
        self._pods = pods
        self._owners = owners
        self._by_owner: dict[ResourceRef, list[PodFacts]] | None = None
        self._is_whole = True
        """Every pod that is not well is known to somebody."""

    def __call__(self, row: Row) -> Sequence[PodFacts] | None:
        if not row.is_group:
            pod = self._pods.named(row.resource_name)
            return () if pod is None else (pod,)
        if self._by_owner is None:
            self._by_owner = self._sorted()
        return self._by_owner.get(row.resource, ()) if self._is_whole else None

    def _sorted(self) -> dict[ResourceRef, list[PodFacts]]:
        by_owner: dict[ResourceRef, list[PodFacts]] = defaultdict(list)
        for pod in self._pods:
            owner = self._owners.of(pod)
            if owner is not None:
                by_owner[owner].append(pod)
            elif unwell(pod):
                self._is_whole = False
                self._owners.find(pod, lambda _: None)
        return by_owner
