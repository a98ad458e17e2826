"""One owned namespace: its Hooks, its two watches, and the way from a line to a call.

Order of a start: read the Hooks and restore their rows (nothing acts before the dedup table is back), list the
pods (an Event needs its pod), then the Events. A line becomes signals, each signal meets every Hook's table, and
what fires goes to delivery. A Hook that gains an entry has the namespace looked at again for that entry alone.

Invariant: everything here runs on the worker's one loop, and between two awaits a signal is judged whole.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from khook.core import pods as pod_rules
from khook.core import rows
from khook.core.classify import belongs_to_oom, wait_for_pod_line
from khook.core.incident import EntryId
from khook.core.match import Entry
from khook.core.owner import ResourceRef
from khook.core.pods import PodFacts
from khook.core.signal import PodLine, Signal
from khook.core.text import plain
from khook.errors import Forbidden, KubeError
from khook.kube.backoff import BackOff
from khook.kube.hooks import HookObject, HookRef
from khook.kube.resources import EVENTS, PODS, Resource
from khook.kube.watch import Sink, Watch
from khook.log import redacted
from khook.messages import NamespaceReport
from khook.worker.held import Held, HeldEvents
from khook.worker.intake import EventIntake
from khook.worker.job import Job
from khook.worker.owners import Owners, PodsOfRows
from khook.worker.parts import Parts
from khook.worker.podbook import PodBook
from khook.worker.second_look import SecondLooks
from khook.worker.status import StatusWriter
from khook.worker.table import Audience, Fire, HookTable, Occasion

TEXT_WAIT_S: Final = 2.0
"""A fire from pod status waits this long for an Event that tells the same in words, where there may be one."""
GROUP_WAIT_S: Final = 5.0
"""`groupWait`: the first fire of a group waits this long for the other pods that fail with it."""
WORDS_MAX_BYTES: Final = 64 * 1024
"""Of a message that is searched for secrets. What is kept of it is 1 KiB; core/v1 lets an Event have any length."""
REPORT_FROM_S: Final = 75.0
"""Bookmarks come about once a minute: a watch silent for less is not worth a heartbeat's bytes."""

T = TypeVar("T")


class OwnedNamespace:
    """`run` until `stop`; `hooks_changed` and `tick` come from the worker."""

    def __init__(self, name: str, *, parts: Parts) -> None:
        self.name = name
        self._parts = parts
        self._log = parts.log.bind(namespace=name)
        self._tables: dict[str, HookTable] = {}
        self._held = HeldEvents(judge=self._judge_held, waited=self._waited)
        self._hooks_changed = asyncio.Event()
        self._hooks_forbidden = False
        self._started_at = parts.clock.monotonic()
        self._lines_told = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.Task[None]] = set()
        self._pods = PodBook(now=parts.now, stuck_pending=parts.stuck_pending, on_signals=self._pod_seen)
        self._intake = EventIntake(
            namespace=name,
            client=parts.client,
            pods=self._pods,
            now=parts.now,
            max_signal_age=parts.rules.max_signal_age,
            on_signal=self._event_said,
            spawn=self._spawn,
            randomness=parts.randomness,
            counters=parts.events,
            log=self._log,
        )
        self._owners = Owners(
            namespace=name,
            client=parts.client,
            clock=parts.clock,
            randomness=parts.randomness,
            spawn=self._spawn,
            log=self._log,
        )
        self._looks = SecondLooks(
            namespace=name,
            parts=parts,
            pods=self._pods,
            intake=self._intake,
            judge=self._judge,
            owns=self._owns,
            spawn=self._spawn,
        )
        self._pod_watch = self._watch(PODS, self._pods)
        self._event_watch = self._watch(EVENTS, self._intake)

    @property
    def tables(self) -> Iterable[HookTable]:
        return list(self._tables.values())

    def start(self) -> None:
        """Begin; what goes wrong from here on is tried again and shows in `report`."""
        self._spawn(self._run())

    async def _run(self) -> None:
        await self._read_hooks(first=True)
        self._spawn(self._pod_watch.run())
        self._spawn(self._follow_hooks())
        await self._pods.synced.wait()
        self._spawn(self._event_watch.run())

    async def stop(self, *, within_s: float, flush_s: float) -> None:
        """Stop watching, let calls in flight end within `within_s`, write what is left to write."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.clear()
        await self._parts.delivery.release(self.tables, within_s=within_s)
        flushed = await asyncio.gather(*(table.writer.flush(flush_s) for table in self.tables))
        if not all(flushed):
            self._log.warning("status not flushed", hooks=flushed.count(False))
        for table in self.tables:
            table.writer.close()
        # Not cancelled: a patch under way ends by its own timeout, and its answer no longer matters.

    def hooks_changed(self) -> None:
        self._hooks_changed.set()

    # Hooks.

    async def _follow_hooks(self) -> None:
        while True:
            await self._hooks_changed.wait()
            self._hooks_changed.clear()
            await self._read_hooks(first=False)

    async def _read_hooks(self, *, first: bool) -> None:
        back_off = BackOff(randomness=self._parts.randomness)
        while True:
            try:
                hooks = await self._parts.hooks.list(self.name)
            except KubeError as error:
                self._hooks_forbidden = isinstance(error, Forbidden)
                self._log.warning("hooks not read", status=error.status)
                await asyncio.sleep(back_off.failed(healthy_for_s=0.0))
                continue
            self._hooks_forbidden = False
            break
        for audience in self._take_hooks(hooks):
            if not first:
                self._looks.want(audience)

    def _take_hooks(self, hooks: Sequence[HookObject]) -> list[Audience]:
        """Tables for these Hooks and no others; returns who has entries that have not seen the namespace yet."""
        audiences = []
        present = {hook["metadata"]["uid"] for hook in hooks}
        for uid in [uid for uid in self._tables if uid not in present]:
            self._drop(self._tables.pop(uid))
        for hook in hooks:
            uid = hook["metadata"]["uid"]
            known = self._tables.get(uid)
            table = self._open(hook) if known is None else known
            was_suspended = known is not None and known.suspended
            fresh = table.take(hook)
            if known is None:
                self._tables[uid] = table
                self._resume(table, table.restore(hook.get("status") or {}))
            table.writer.now()
            if fresh:
                audiences.append(Audience(table=table, entries=fresh))
            if was_suspended and not table.suspended:
                self._tell_levels(table)
        return audiences

    def _open(self, hook: HookObject) -> HookTable:
        parts = self._parts
        meta = hook["metadata"]
        ref = HookRef(namespace=self.name, name=meta["name"], uid=meta["uid"])
        table = HookTable(
            ref=ref,
            rules=parts.rules,
            configure=parts.configure,
            default_cooldown=parts.default_cooldown,
            calls_an_hour=parts.calls_per_hook_hour,
            now=parts.now,
            randomness=parts.randomness,
            counters=parts.events,
            suppressed=parts.suppressed,
            audit=parts.audit,
            log=self._log,
        )
        table.writer = StatusWriter(
            ref=ref,
            resource_version=meta["resourceVersion"],
            written=hook.get("status") or {},
            hooks=parts.hooks,
            source=table.wanted_status,
            permission=parts.permission,
            clock=parts.clock,
            randomness=parts.randomness,
            log=self._log,
        )
        writing = asyncio.create_task(table.writer.run(), name=f"status {ref.key}")
        self._writers.add(writing)
        writing.add_done_callback(self._writer_ended)
        return table

    def _drop(self, table: HookTable) -> None:
        """The Hook is gone: what was not sent is dropped, what was sent is left alone."""
        self._log.info("hook deleted", hook=table.ref.key)
        self._parts.delivery.forget(table)
        table.writer.close()

    def _resume(self, table: HookTable, fires: Iterable[Fire]) -> None:
        for fire in fires:
            self._log.info("call carried on", hook=table.ref.key, call_id=fire.call_id)
            self._deliver(table, fire, found_after_crash=True)

    def _tell_levels(self, table: HookTable) -> None:
        """A state that lasts is a signal again once its Hook is no longer suspended."""
        for pod in self._pods:
            if (level := pod_rules.level_signal(pod)) is not None:
                self._judge(table, level, pod, None)

    def _owns(self, table: HookTable) -> bool:
        return self._tables.get(table.ref.uid) is table

    # Signals.

    def _pod_seen(self, pod: PodFacts, signals: Iterable[Signal]) -> None:
        for signal in signals:
            for table in self._tables.values():
                self._judge(table, signal, pod, None)
        for table in self._tables.values():
            table.pod_seen(pod)
        self._held.line_came(pod)

    def _event_said(self, signal: Signal, audience: Audience | None) -> None:
        pod = self._pods.get(signal.pod_uid)
        tables = self._tables.values() if audience is None else (audience.table,)
        for table in tables:
            if table.waits_for_oom and wait_for_pod_line(signal, pod):
                self._held.hold(signal, table, audience)
            else:
                self._judge(table, signal, pod, audience)

    def _waited(self, held: Held) -> None:
        if self._pod_watch.health.opened:
            self._judge_held(held)
        else:
            self._spawn(self._read_and_judge(held))

    async def _read_and_judge(self, held: Held) -> None:
        """No line can come while the pods watch is broken: the pod itself is asked, once."""
        uid, name = held.signal.pod_uid, held.signal.pod
        with self._pods.looking_up(uid):
            try:
                line = await self._parts.client.get_object(PODS, self.name, name, PodLine)
            except KubeError as error:
                self._log.warning("pod read failed", status=error.status)
            else:
                if line.metadata.uid == uid:
                    self._pods.observe(line, listed=False)
        self._judge_held(held)

    def _judge_held(self, held: Held) -> None:
        self._judge(held.table, held.signal, self._pods.get(held.signal.pod_uid), held.audience)

    def _judge(
        self,
        table: HookTable,
        signal: Signal,
        pod: PodFacts | None,
        audience: Audience | None,
        *,
        held_out: bool = False,
    ) -> None:
        """Judge a signal for these entries of a table, or all; those that group by owner once the owner is known."""
        signal = _without_secrets(signal)
        entries = None if audience is None else audience.entries
        judge = partial(self._judge_now, table, signal, oom=belongs_to_oom(signal, pod), held_out=held_out)
        if pod is None or not table.grouping:
            judge(pod, rows.pod_of(signal), entries)
        elif (owner := self._owners.of(pod)) is not None:
            judge(pod, owner, entries)
        else:
            wanted = table.grouping if entries is None else entries & table.grouping
            judge(pod, rows.pod_of(signal), table.not_grouping if entries is None else entries - table.grouping)
            if wanted:
                self._owners.find(pod, lambda owner: judge(self._pods.get(pod.uid) or pod, owner, wanted))

    def _judge_now(
        self,
        table: HookTable,
        signal: Signal,
        pod: PodFacts | None,
        resource: ResourceRef,
        entries: frozenset[EntryId] | None,
        *,
        oom: bool,
        held_out: bool,
    ) -> None:
        if not self._owns(table):
            return  # dropped while the signal waited
        occasion = Occasion(signal=signal, pod=pod, resource=resource, held_out=held_out)
        judged = table.signal(occasion, oom=oom, only=entries)
        for fire in judged.fires:
            self._deliver(table, fire, text_may_come=signal.may_be_told_better and not held_out)
        for call_id in judged.texts:
            self._parts.delivery.text_came(call_id)

    def _deliver(
        self, table: HookTable, fire: Fire, *, found_after_crash: bool = False, text_may_come: bool = False
    ) -> None:
        hold_s = GROUP_WAIT_S if fire.is_group else TEXT_WAIT_S if text_may_come else 0.0
        job = Job(table=table, key=fire.key, call_id=fire.call_id, hold_s=hold_s, found_after_crash=found_after_crash)
        self._parts.delivery.submit(job)

    # Time and truth.

    def tick(self) -> None:
        """Timers that are checked rather than set: stuck pods, resolving, expiring, lasting states."""
        for table in self.tables:
            table.show_forbidden(bool(self.forbidden()))
        if not self._pods.synced.is_set():
            return
        pods_are_told = self._pod_watch.health.opened
        if pods_are_told:
            # While nobody tells us of the pods, one that looked stuck may be long on its way.
            self._pods.tick()
        pods_of = PodsOfRows(pods=self._pods, owners=self._owners)
        for table in self.tables:
            for row, entry in table.tick(pods_of):
                self._tell_again(table, entry, pods_of(row) or ())
            for fire in table.afforded():
                self._deliver(table, fire)
            if pods_are_told:
                for signal, pod, audience in table.held_out(self._pods.get):
                    self._judge(table, signal, pod, audience, held_out=True)

    def _tell_again(self, table: HookTable, entry: Entry, pods: Sequence[PodFacts]) -> None:
        """A state that lasts, of the first of these pods that is in one."""
        for pod in pods:
            if (level := pod_rules.level_signal(pod)) is not None:
                self._judge(table, level, pod, Audience(table=table, entries=frozenset({entry.identity})))
                return

    def forbidden(self) -> list[str]:
        """The resources that RBAC does not let us watch here."""
        watches = ((PODS.name, self._pod_watch.health), (EVENTS.name, self._event_watch.health))
        return [name for name, health in watches if health.forbidden]

    def report(self) -> NamespaceReport | None:
        """None when both watches are live right now."""
        now_at = self._parts.clock.monotonic()
        watches = (self._pod_watch, self._event_watch)
        started = all(watch.health.synced for watch in watches)
        deaf_s = max(watch.deaf_s(now_at) for watch in watches) if started else now_at - self._started_at
        forbidden = self._hooks_forbidden or bool(self.forbidden())
        if started and deaf_s < REPORT_FROM_S and not forbidden:
            return None
        reason = next((watch.health.last_error for watch in watches if watch.health.last_error), "starting")
        return NamespaceReport(namespace=self.name, deaf_s=deaf_s, live=started, forbidden=forbidden, reason=reason)

    def lines_since(self) -> int:
        """Lines that the two watches brought since this was asked last."""
        lines = self._pod_watch.health.lines + self._event_watch.health.lines
        since, self._lines_told = lines - self._lines_told, lines
        return since

    def _watch(self, resource: Resource[T], sink: Sink[T]) -> Watch[T]:
        parts = self._parts
        return Watch(
            client=parts.client,
            resource=resource,
            namespace=self.name,
            sink=sink,
            clock=parts.clock,
            randomness=parts.randomness,
            log=self._log,
            counters=parts.watches,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        self._writers.discard(task)
        self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours: the worker goes down with it, and its successor starts from what is written.
            self._parts.broken(error)


def _without_secrets(signal: Signal) -> Signal:
    """Its words go into the Hook's status and to an agent; a pod may print anything, and so may a probe."""
    # Cleaned first: a key with an invisible character in it is the key again once that is gone.
    message, reason = (redacted(plain(text, max_bytes=WORDS_MAX_BYTES)) for text in (signal.message, signal.reason))
    if (message, reason) == (signal.message, signal.reason):
        return signal  # nearly always: a copy costs more than the look
    return replace(signal, message=message, reason=reason)
