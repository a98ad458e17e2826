"""One worker process: wires the real objects together and carries out the pool's grants and revokes.

The only place in the worker that knows where its parts come from. A worker is told everything over the channel
(settings, credentials); it reads no environment. What it cannot survive ends the process, and its successor in
the slot starts from what stands in the Hooks' status.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from khook import log, messages, metrics
from khook.agents.a2a import A2aProtocol
from khook.agents.auto import Protocols
from khook.agents.exchange import Exchange
from khook.agents.execute import ExecuteProtocol
from khook.agents.tls import agent_tls
from khook.core.configure import configure
from khook.core.incident import IncidentRules
from khook.core.signal import EventType
from khook.kube import credentials as kube_credentials
from khook.kube.audit import AuditTrail
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.hooks import Hooks
from khook.kube.resources import EVENTS, PODS
from khook.seams import DEFAULT_TICKS, Clock, Ticks, Transports
from khook.worker.delivery import Delivery, DeliveryLimits
from khook.worker.namespace import OwnedNamespace
from khook.worker.parts import Parts
from khook.worker.summary import summarize
from shards.launch import Seat
from shards.member import Member

PARK_WITHIN_S: Final = 3.0
"""How long a namespace that is given up waits for calls in flight: a revoke is acknowledged within 5 s."""
FLUSH_S: Final = 1.0
"""For the last status writes of a namespace that is given up, and of a worker that stops: with the wait for calls
it leaves a second of the 5 for a busy loop."""
AUDIT_FLUSH_S: Final = 1.0
OVER_BUDGET: Final = "budget"
"""Beside the `ParkReason`s: calls that wait for their Hook's budget."""
CREDENTIALS_WAIT_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    """What a worker takes from outside."""

    clock: Clock
    randomness: random.Random
    transports: Transports
    configure_log: Callable[[str, str], None]
    """How this process logs, once it is told the level and the format."""
    ticks: Ticks = DEFAULT_TICKS


class WorkerWork:
    """`shards.member.Work`: a key is a namespace. `joins` before anything else."""

    _member: Member

    def __init__(self, *, seams: Seams) -> None:
        self._seams = seams
        self._log = log.get("worker")
        self._namespaces: dict[str, OwnedNamespace] = {}
        self._fresh: asyncio.Future[Credentials] | None = None
        self._defect: BaseException | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: Parts | None = None
        self._summing: asyncio.Task[None] | None = None

    def joins(self, member: Member) -> None:
        self._member = member

    async def welcome(self, payload: bytes) -> None:
        config = messages.decode_config(payload)
        self._seams.configure_log(config.log_level, config.log_format)
        log.register_secret(config.access.api_key)
        self._parts = self._make_parts(config)
        for work in (self._tick(), self._parts.audit.run(), self._parts.delivery.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def start(self, key: str, epoch: int) -> None:
        assert self._parts is not None, "a grant follows the welcome"
        self._log.info("namespace started", namespace=key, epoch=epoch)
        namespace = self._namespaces[key] = OwnedNamespace(key, parts=self._parts)
        namespace.start()

    async def stop(self, key: str, epoch: int) -> None:
        namespace = self._namespaces.pop(key, None)
        if namespace is not None:
            await namespace.stop(within_s=PARK_WITHIN_S, flush_s=FLUSH_S)
            self._log.info("namespace stopped", namespace=key, epoch=epoch)

    def told(self, payload: bytes) -> None:
        match messages.decode_to_worker(payload):
            case messages.HooksChanged(namespace=name):
                if (namespace := self._namespaces.get(name)) is not None:
                    namespace.hooks_changed()
            case messages.FreshCredentials(credentials=encoded):
                credentials = kube_credentials.decode(encoded)
                if self._fresh is not None and not self._fresh.done():
                    self._fresh.set_result(credentials)
                if self._parts is not None:  # also where nobody waits for the answer any more
                    self._parts.client.replace(credentials)
            case messages.AgentAccess() as access:
                log.register_secret(access.api_key)
                if self._parts is not None:
                    self._parts.delivery.access_changed(access)
            case messages.TellSummary():
                self._spawn_summary()

    def report(self) -> bytes:
        if self._defect is not None:
            raise self._defect
        found = (namespace.report() for namespace in self._namespaces.values())
        return messages.encode(
            messages.WorkerReport(
                not_live=tuple(report for report in found if report),
                needs_key=self._parts is not None and self._parts.delivery.needs_key,
                lines={name: lines for name, one in self._namespaces.items() if (lines := one.lines_since())},
            )
        )

    def _spawn_summary(self) -> None:
        """One at a time: whoever asks again meanwhile gets this one."""
        if self._parts is not None and (self._summing is None or self._summing.done()):
            self._summing = asyncio.create_task(self._tell_summary(self._parts))
            self._summing.add_done_callback(self._ended)

    async def _tell_summary(self, parts: Parts) -> None:
        tables = [table for namespace in self._namespaces.values() for table in namespace.tables]
        summary = await summarize(tables, parts.delivery.troubled(), now=parts.now())
        self._member.ask(messages.encode(summary))

    async def drain(self, drain_s: float) -> None:
        within_s = max(0.0, drain_s - FLUSH_S - 1.0)
        namespaces, self._namespaces = self._namespaces, {}  # no tick any more: it could begin a call
        await asyncio.gather(*(one.stop(within_s=within_s, flush_s=FLUSH_S) for one in namespaces.values()))
        if self._parts is not None:
            await self._parts.audit.flush(self._seams.clock.monotonic() + AUDIT_FLUSH_S)
        for task in (*self._tasks, *([self._summing] if self._summing else ())):
            task.cancel()
        self._gauge(Counter(), Counter())
        self._gauge_delivery()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._seams.ticks.worker_s)
            firing: Counter[EventType] = Counter()
            forbidden: Counter[str] = Counter()
            for namespace in list(self._namespaces.values()):
                namespace.tick()
                forbidden.update(namespace.forbidden())
                for table in namespace.tables:
                    firing.update(table.firing())
            self._gauge(firing, forbidden)
            self._gauge_delivery()

    def _gauge_delivery(self) -> None:
        if self._parts is not None:
            for state, agents in self._parts.delivery.breakers().items():
                metrics.breakers(state.value, agents)
            for reason, calls in self._parts.delivery.parked().items():
                metrics.parked_calls(reason.value, calls)
            tables = (table for namespace in self._namespaces.values() for table in namespace.tables)
            metrics.parked_calls(OVER_BUDGET, sum(table.over_budget for table in tables))

    @staticmethod
    def _gauge(firing: "Counter[EventType]", forbidden: "Counter[str]") -> None:
        for event_type in EventType:
            metrics.active_events(event_type.value, firing[event_type])
        for resource in (PODS, EVENTS):
            metrics.watch_forbidden(resource.name, forbidden[resource.name])

    def _make_parts(self, config: messages.WorkerConfig) -> Parts:
        seams, incidents = self._seams, config.incidents
        client = KubeClient(
            credentials=kube_credentials.decode(config.credentials),
            transports=seams.transports,
            clock=seams.clock,
            fresh=self._ask_for_credentials,
        )
        audit = AuditTrail(
            client=client, clock=seams.clock, randomness=seams.randomness, instance=config.instance, log=self._log
        )
        default_cooldown = timedelta(seconds=incidents.cooldown_s)
        return Parts(
            clock=seams.clock,
            now=client.server_now,
            randomness=seams.randomness,
            permission=self._member.permission,
            client=client,
            hooks=Hooks(client),
            delivery=self._make_delivery(config, client),
            audit=audit,
            rules=IncidentRules(
                resolve_after=timedelta(seconds=incidents.resolve_after_s),
                max_signal_age=timedelta(seconds=incidents.max_signal_age_s),
            ),
            configure=partial(
                configure,
                default_cooldown=default_cooldown,
                agent_namespace=incidents.agent_namespace,
                allowed_agent_namespaces=incidents.allowed_agent_namespaces,
            ),
            default_cooldown=default_cooldown,
            calls_per_hook_hour=incidents.calls_per_hook_hour,
            stuck_pending=timedelta(seconds=incidents.stuck_pending_s),
            events=metrics.EVENTS,
            suppressed=metrics.CALLS,
            watches=metrics.WATCHES,
            broken=self._broken,
            log=self._log,
        )

    def _make_delivery(self, config: messages.WorkerConfig, client: KubeClient) -> Delivery:
        seams, agents = self._seams, config.agents
        return Delivery(
            access=config.access,
            connect=partial(self._connect, agents),
            limits=DeliveryLimits(
                attempts=agents.retry_attempts,
                back_off_s=agents.retry_backoff_s,
                calls_per_worker=agents.calls_per_worker,
                calls_per_agent=agents.calls_per_agent,
                redeliver_for=timedelta(seconds=agents.redeliver_for_s),
                run_deadline=timedelta(seconds=agents.run_deadline_s),
            ),
            cluster=config.cluster_name,
            permission=self._member.permission,
            clock=seams.clock,
            now=client.server_now,
            randomness=seams.randomness,
            counters=metrics.CALLS,
            log=log.get("kagent-api"),
        )

    def _connect(self, agents: messages.AgentConfig, access: messages.AgentAccess) -> Protocols:
        """Both protocols at one address, each with connections of its own."""
        clock = self._seams.clock
        tls = agent_tls(access.base_url, agents.ca_file)
        a2a = A2aProtocol(
            base_url=access.base_url,
            api_key=access.api_key,
            user_id=agents.user_id,
            transport=self._seams.transports.exact(tls=tls),
            clock=clock,
            read_timeout_s=agents.timeout_s,
        )
        execute = ExecuteProtocol(
            base_url=access.base_url,
            api_key=access.api_key,
            transport=self._seams.transports.exact(tls=tls),
            clock=clock,
            read_timeout_s=agents.timeout_s,
            key_hint=access.key_hint,
        )
        version = Exchange(
            base_url=access.base_url,
            api_key=access.api_key,
            transport=self._seams.transports.exact(tls=tls),
            clock=clock,
            read_timeout_s=agents.timeout_s,
        )
        return Protocols((a2a, execute), fixed=agents.protocol, version=version)

    async def _ask_for_credentials(self) -> Credentials | None:
        """After a 401: the supervisor loads them afresh. None when it has nothing to say in time; it may later."""
        if self._fresh is None or self._fresh.done():
            self._fresh = asyncio.get_running_loop().create_future()
            self._member.ask(messages.encode(messages.NeedCredentials()))
        try:
            async with asyncio.timeout(CREDENTIALS_WAIT_S):
                return await asyncio.shield(self._fresh)
        except TimeoutError:
            self._fresh = None  # the next 401 asks again
            return None

    def _broken(self, error: BaseException) -> None:
        if self._defect is None:
            self._defect = error

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)


async def serve(seat: Seat, *, seams: Seams) -> None:
    """The whole life of a worker: until the pool stops it, or is gone."""
    with structlog.contextvars.bound_contextvars(slot=seat.slot):
        work = WorkerWork(seams=seams)
        member = Member(seat, work=work, clock=seams.clock)
        work.joins(member)
        await member.run()
