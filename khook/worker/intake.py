"""Events of one namespace, on their way to become signals.

The sink of the Events watch. An Event needs its pod (labels, phase, whether it was an OOM kill): where the pod is
not in the record it is read once, at once, and the Event waits for that answer. What is said of a pod that is
gone still counts, as far as the Event tells enough.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from khook.core.classify import Silence, classify_event, event_time
from khook.core.signal import EventLine, EventType, PodLine, PodUid, Signal
from khook.errors import Forbidden, Invalid, KubeError, NotFound
from khook.kube.backoff import BackOff
from khook.kube.client import KubeClient
from khook.kube.resources import PODS
from khook.kube.watch import Change
from khook.log import Log
from khook.worker.counters import EventCounters
from khook.worker.podbook import PodBook
from khook.worker.table import Audience

LOOK_UPS_AT_ONCE: Final = 8
"""GETs of pods under way in one namespace."""
WAITING_MOST: Final = 10_000
"""Events that wait for such a GET. Past this the oldest knowledge is as good: they are judged without their pod."""


class EventIntake:
    """`on_signal(signal, pod uid, audience)`: audience is None for everybody, or the entries that are new."""

    def __init__(
        self,
        *,
        namespace: str,
        client: KubeClient,
        pods: PodBook,
        now: Callable[[], datetime],
        max_signal_age: timedelta,
        on_signal: Callable[[Signal, Audience | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        randomness: random.Random,
        counters: EventCounters,
        log: Log,
    ) -> None:
        self._namespace = namespace
        self._client = client
        self._pods = pods
        self._now = now
        self._max_signal_age = max_signal_age
        self._on_signal = on_signal
        self._spawn = spawn
        self._randomness = randomness
        self._counters = counters
        self._log = log
        self._waiting: dict[PodUid, list[tuple[EventLine, bool, Audience | None]]] = {}
        self._waiting_count = 0
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

    def list_started(self) -> None:
        """An Event that is not listed any more has aged out; that says nothing about its pod."""

    def listed(self, objects: Sequence[EventLine]) -> None:
        for event in objects:
            self.take(event, listed=True)

    def list_ended(self) -> None:
        """See `list_started`."""

    def line(self, change: Change, obj: EventLine) -> None:
        if change is not Change.DELETED:
            self.take(obj, listed=False)

    def take(self, event: EventLine, *, listed: bool, audience: Audience | None = None) -> None:
        """Classify an Event now, or once its pod has been read."""
        uid = PodUid(event.involved_object.uid)
        pod = self._pods.get(uid)
        if pod is None and uid in self._waiting:
            # Behind the ones that wait already: Events of one pod are judged in their order.
            self._wait(uid, event, listed, audience)
            return
        if pod is None and self._worth_a_look(event, listed=listed):
            self._wait(uid, event, listed, audience)
            self._spawn(self._look_up(uid, event.involved_object.name))
            return
        self._classify(event, listed, audience)

    def _worth_a_look(self, event: EventLine, *, listed: bool) -> bool:
        without = classify_event(event, None, listed=listed)
        if isinstance(without, Silence) and without is not Silence.POD_GONE:
            return False
        time = event_time(event)
        is_history = listed and (time is None or self._now() - time > self._max_signal_age)
        return not is_history and self._waiting_count < WAITING_MOST

    def _wait(self, uid: PodUid, event: EventLine, listed: bool, audience: Audience | None) -> None:
        self._waiting.setdefault(uid, []).append((event, listed, audience))
        self._waiting_count += 1

    async def _look_up(self, uid: PodUid, name: str) -> None:
        with self._pods.looking_up(uid):
            await self._read(uid, name)
        for event, listed, audience in self._waiting.pop(uid):
            self._waiting_count -= 1
            self._classify(event, listed, audience)

    async def _read(self, uid: PodUid, name: str) -> None:
        """Until the pod is in the record, or will not be."""
        back_off = BackOff(randomness=self._randomness)
        while True:
            try:
                async with self._look_ups:
                    line = await self._client.get_object(PODS, self._namespace, name, PodLine)
            except (NotFound, Forbidden, Invalid):
                return  # gone, or nothing that waiting would change
            except KubeError as error:
                self._log.warning("pod read failed", namespace=self._namespace, status=error.status)
                await asyncio.sleep(back_off.failed(healthy_for_s=0.0))
                if self._pods.get(uid) is not None:
                    return  # its line came meanwhile
                continue
            if line.metadata.uid == uid and self._pods.get(uid) is None:
                self._pods.observe(line, listed=True)
            return

    def _classify(self, event: EventLine, listed: bool, audience: Audience | None) -> None:
        said = classify_event(event, self._pods.get(PodUid(event.involved_object.uid)), listed=listed)
        if isinstance(said, Signal):
            self._on_signal(said, audience)
        elif said is Silence.POD_GONE:
            self._counters.judged(EventType.POD_PENDING, said.value)
