"""What one namespace's pods are known to be, and the signals their lines give.

The sink of the pods watch. A relist compares with what is known: a pod that was not listed is gone. Timers of
pods that hang in Pending for no reason that anybody names are kept here too.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from khook.core import pods as pod_rules
from khook.core.pods import PodFacts
from khook.core.signal import PodLine, PodUid, Signal
from khook.kube.watch import Change


class PodBook:
    """`on_signals` gets each line's pod with its signals (often none), also when the pod is merely newer."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        stuck_pending: timedelta,
        on_signals: Callable[[PodFacts, Iterable[Signal]], None],
    ) -> None:
        self._now = now
        self._stuck_pending = stuck_pending
        self._on_signals = on_signals
        self._pods: dict[PodUid, PodFacts] = {}
        self._by_name: dict[str, PodUid] = {}
        self._stuck: dict[PodUid, datetime] = {}
        self._listed: set[PodUid] = set()
        self._looked_up: Counter[PodUid] = Counter()
        self._deleted: set[PodUid] = set()
        """Of those that are looked up: a GET answered before the DELETED line must not bring the pod back."""
        self.synced = asyncio.Event()
        """Set by the first complete LIST: from then on "unknown" means "gone or very new"."""

    def get(self, uid: PodUid) -> PodFacts | None:
        return self._pods.get(uid)

    def named(self, name: str) -> PodFacts | None:
        uid = self._by_name.get(name)
        return None if uid is None else self._pods.get(uid)

    def __iter__(self) -> Iterator[PodFacts]:
        return iter(list(self._pods.values()))

    def list_started(self) -> None:
        self._listed.clear()

    def listed(self, objects: Sequence[PodLine]) -> None:
        for line in objects:
            self._listed.add(PodUid(line.metadata.uid))
            self.observe(line, listed=True)

    def list_ended(self) -> None:
        for uid in [uid for uid in self._pods if uid not in self._listed]:
            self._forget(uid)
        self._listed.clear()
        self.synced.set()

    def line(self, change: Change, obj: PodLine) -> None:
        if change is Change.DELETED:
            uid = PodUid(obj.metadata.uid)
            self._forget(uid)
            if uid in self._looked_up:
                self._deleted.add(uid)
        else:
            self.observe(obj, listed=False)

    def observe(self, line: PodLine, *, listed: bool) -> None:
        """Take a pod as the API server shows it, from a watch, a LIST or a GET (inside `looking_up`)."""
        uid = PodUid(line.metadata.uid)
        if uid in self._deleted:
            return
        pod, signals = pod_rules.observe(
            self._pods.get(uid), line, listed=listed, now=self._now(), stuck_pending=self._stuck_pending
        )
        self._pods[uid] = pod
        self._by_name[pod.name] = uid
        due = pod_rules.stuck_at(pod, self._stuck_pending)
        if due is None:
            self._stuck.pop(uid, None)
        else:
            self._stuck[uid] = due
        self._on_signals(pod, signals)

    @contextmanager
    def looking_up(self, uid: PodUid) -> Iterator[None]:
        """While this pod is read and what was read is observed."""
        self._looked_up[uid] += 1
        try:
            yield
        finally:
            self._looked_up[uid] -= 1
            if not self._looked_up[uid]:
                del self._looked_up[uid]
                self._deleted.discard(uid)

    def tick(self) -> None:
        """Fire the timers of pods stuck in Pending."""
        now = self._now()
        for uid in [uid for uid, due in self._stuck.items() if due <= now]:
            del self._stuck[uid]
            if (pod := self._pods.get(uid)) is None:
                continue
            if (signal := pod_rules.stuck_signal(pod, now=now, stuck_pending=self._stuck_pending)) is not None:
                pod = self._pods[uid] = pod_rules.level_told(pod, signal)
                self._on_signals(pod, (signal,))

    def _forget(self, uid: PodUid) -> None:
        pod = self._pods.pop(uid, None)
        self._stuck.pop(uid, None)
        # A StatefulSet's next pod has the same name and another uid: the name may be its already.
        if pod is not None and self._by_name.get(pod.name) == uid:
            del self._by_name[pod.name]
