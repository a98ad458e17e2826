"""Restart Events that wait for their pod's line, because that line may say that it was an OOM kill.

Only in Hooks that have both kinds of entry, and for two seconds at most: then whoever holds them decides without.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from khook.core.classify import wait_for_pod_line
from khook.core.pods import PodFacts
from khook.core.signal import PodUid, Signal
from khook.worker.table import Audience, HookTable

POD_LINE_WAIT_S: Final = 2.0


@dataclass(slots=True, eq=False)
class Held:
    """One Event, for one table."""

    signal: Signal
    table: HookTable
    audience: Audience | None
    timer: asyncio.TimerHandle


class HeldEvents:
    """`judge` gets those that a line made clear, `waited` those whose time is up, each pod's in their order."""

    def __init__(self, *, judge: Callable[[Held], None], waited: Callable[[Held], None]) -> None:
        self._judge = judge
        self._waited = waited
        self._held: dict[PodUid, list[Held]] = {}

    def hold(self, signal: Signal, table: HookTable, audience: Audience | None) -> None:
        timer = asyncio.get_running_loop().call_later(POD_LINE_WAIT_S, self._time_is_up, signal.pod_uid)
        self._held.setdefault(signal.pod_uid, []).append(Held(signal, table, audience, timer))

    def line_came(self, pod: PodFacts) -> None:
        """Judge the Events that this pod's new line makes clear."""
        for held in self._held.pop(pod.uid, ()):
            if wait_for_pod_line(held.signal, pod):
                self._held.setdefault(pod.uid, []).append(held)
            else:
                held.timer.cancel()
                self._judge(held)

    def clear(self) -> None:
        """Forget them: the namespace is given up, and its next owner lists them again."""
        for held in [held for waiting in self._held.values() for held in waiting]:
            held.timer.cancel()
        self._held.clear()

    def _time_is_up(self, uid: PodUid) -> None:
        """The oldest Event of this pod has waited long enough."""
        waiting = self._held.get(uid)
        if not waiting:
            return
        held = waiting.pop(0)
        if not waiting:
            del self._held[uid]
        self._waited(held)
