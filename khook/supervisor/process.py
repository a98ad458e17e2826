"""The supervisor: Hooks become wishes to the pool, the pool's facts become health and metrics.

It never sees an Event or a Pod. Start: listen at three places, start workers, watch Hooks, wait to lead; until then
the workers are warm and own nothing. Stop, in this order: not ready, no new work, calls in flight end within the drain
time, statuses flushed, workers exit, the Lease is released, HTTP last. A Lease that is lost kills the workers at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from khook import log, messages, metrics
from khook.core.election import LeaseLimits
from khook.errors import PoolGaveUp
from khook.kube import credentials as kube_credentials
from khook.kube.client import KubeClient
from khook.kube.credentials import Credentials
from khook.kube.lease import Lease
from khook.kube.resources import HOOKS_METADATA, HookMetadata
from khook.kube.watch import Watch, WatchEnd
from khook.seams import DEFAULT_TICKS, Clock, Ticks, Transports
from khook.settings import Settings
from khook.sizing import slot_names
from khook.summary import WorkerSummary
from khook.supervisor.agent_credentials import AgentCredentials
from khook.supervisor.api_credentials import ApiCredentials
from khook.supervisor.health import CRD_MISSING, Health
from khook.supervisor.hooks import HookIndex
from khook.supervisor.leader import FIRST_EPOCHS, Election, Leadership, NoElection
from khook.supervisor.load import Loads
from khook.supervisor.reports import Reports
from khook.supervisor.status_document import AgentAccessStatus, Replica, RingStatus, Status, Watched, status_document
from khook.supervisor.summaries import NOTHING, Summaries
from shards.launch import Launcher
from shards.policy import Phase, PoolLimits
from shards.pool import Pool, PoolBroken, PoolView

GATHER_S: Final = 0.05
"""How long namespaces that come and go are gathered: a plan for 10,000 costs 20 ms."""
BALANCE_S: Final = 60.0
"""How often the pool is told what each namespace weighs now, and may move some of them: a fifth of the time in which
a rate that changed begins to count, and seldom enough that a hand-over is over long before the next."""
DEFAULT_NAMESPACE: Final = "default"
"""A kubeconfig's context that names none means this one."""


class Supervisor:
    """`shards.pool.Owner`. `run` returns after `stop`.

    It raises PoolGaveUp when no slot can be kept running, LeaseLost, and SettingsError where nobody can ever lead.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        credentials: Credentials,
        load_credentials: Callable[[], Awaitable[Credentials]],
        launcher: Launcher,
        clock: Clock,
        randomness: random.Random,
        transports: Transports,
        instance: str,
        ticks: Ticks = DEFAULT_TICKS,
        pool_limits: PoolLimits | None = None,
        lease_limits: LeaseLimits | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._instance = instance
        self._ticks = ticks
        self._lease_limits = lease_limits
        self._log = log.get("supervisor")
        self._agents = AgentCredentials(settings, clock=clock, log=self._log)
        self._api = ApiCredentials(
            credentials, load=load_credentials, taken=self._credentials_taken, clock=clock, log=self._log
        )
        self._health = Health()
        self._loads = Loads(now_at=clock.monotonic())
        self._started_at, self._started_time = clock.monotonic(), clock.now()
        self._reports = Reports(health=self._health, loads=self._loads, now_at=clock.monotonic())
        self._stop = asyncio.Event()
        self._owning: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._client = KubeClient(credentials=credentials, transports=transports, clock=clock, fresh=self._api.fresh)
        self._lease_namespace = settings.pod_namespace or credentials.namespace or DEFAULT_NAMESPACE
        self._leadership = self._make_leadership(randomness)
        scopes: Iterable[str | None] = settings.watch_namespaces or (None,)
        self._indexes = [HookIndex(wanted=self._wanted, changed=self._changed) for _ in scopes]
        self._watches: list[Watch[HookMetadata]] = [
            Watch(
                client=self._client,
                resource=HOOKS_METADATA,
                namespace=scope,
                sink=index,
                clock=clock,
                randomness=randomness,
                log=self._log,
                counters=metrics.WATCHES,
            )
            for scope, index in zip(scopes, self._indexes, strict=True)
        ]
        self._pool = Pool(
            launcher=launcher,
            owner=self,
            clock=clock,
            randomness=randomness,
            slots=slot_names(settings.workers.count),
            virtual_nodes=settings.virtual_nodes,
            max_load_factor=settings.max_load_factor,
            limits=pool_limits or PoolLimits(heartbeat_timeout_s=settings.heartbeat_timeout_s),
            log=log.get("pool"),
        )
        self._summaries = Summaries(tell=self._pool.tell_slot)

    # What runs.

    async def run(self) -> None:
        pool = asyncio.create_task(self._pool.run())
        leading = asyncio.create_task(self._leadership.run(self._lead))
        others: list[asyncio.Task[Any]] = [asyncio.create_task(watch.run()) for watch in self._watches]
        keeping = (self._keep_health(), self._keep_balance(), self._keep_agent_access(), self._api.run())
        others += [asyncio.create_task(work) for work in keeping]
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({pool, leading, stop, *others}, return_when=asyncio.FIRST_COMPLETED)
            self._health.stopping = True
            if not pool.done():
                await self._stop_pool(leading)
            await pool
            for task in (leading, *others):
                if task.done():
                    task.result()
        except PoolBroken as error:
            raise PoolGaveUp(str(error)) from error
        finally:
            if self._owning is not None:
                self._owning.cancel()
            for task in (stop, leading, *others, *self._asking):
                task.cancel()
            await asyncio.gather(stop, leading, *others, *self._asking, return_exceptions=True)
            await self._leadership.release()
            await self._client.aclose()

    async def _stop_pool(self, leading: "asyncio.Task[Any]") -> None:
        """Drain while we lead; who leads no more must not write one more line."""
        if leading.done():
            await self._pool.abort()
            return
        self._log.info("supervisor stopping", drain_s=self._settings.drain_s)
        stopping = asyncio.create_task(self._pool.stop(drain_s=self._settings.drain_s))
        await asyncio.wait({stopping, leading}, return_when=asyncio.FIRST_COMPLETED)
        if leading.done():
            await self._pool.abort()
        await stopping

    def stop(self) -> None:
        """Begin to stop; `run` returns when it is done. Safe to call from a signal handler of the loop."""
        self._health.stopping = True
        self._stop.set()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """The verdict and the body of `/readyz`."""
        now_at = self._clock.monotonic()
        leadership = self._leadership
        self._health.leading = leadership.leading
        self._health.election_problem = leadership.problem
        self._health.cold_workers = 0 if leadership.leading else self._cold_workers()
        self._look_for_crd()
        self._health.hooks_synced = all(index.synced.is_set() for index in self._indexes)
        errors = [watch.health.last_error for watch in self._watches if watch.health.last_error]
        self._health.hooks_reason = f"hooks not listed yet: {errors[0]}" if errors else "hooks not listed yet"
        ready, body = self._health.ready(now_at, hooks_deaf_s=max(watch.deaf_s(now_at) for watch in self._watches))
        return ready, body | {
            "leader": {"leading": leadership.leading, "identity": leadership.leader, "epoch": leadership.epoch},
            "agentAccess": self._agents.body(needed=self._key_needed()),
        }

    async def status(self) -> Status:
        """What `/status.json` and the page show. While we lead, the workers are asked what they have."""
        told = await self._summaries.gather(self._pool.view().slots) if self._leadership.leading else NOTHING
        return status_document(
            leadership=self._leadership,
            lease_namespace=self._lease_namespace,
            ring=RingStatus(self._settings.virtual_nodes, self._settings.max_load_factor),
            view=self._pool.view(),
            rates=self._loads.rates(self._clock.monotonic()),
            replica=self._replica(),
            told=told,
        )

    def _replica(self) -> Replica:
        ready, body = self.ready()
        now_at = self._clock.monotonic()
        return Replica(
            now=self._client.server_now(),
            started_time=self._started_time,
            uptime_s=now_at - self._started_at,
            ready=ready,
            reasons=body["reasons"],
            watched=Watched(**self._health.counts(now_at)),
            agent_access=msgspec.convert(self._agents.body(needed=self._key_needed()), AgentAccessStatus),
            status_port=self._settings.status_address.port,
        )

    def view(self) -> PoolView:
        return self._pool.view()

    def _cold_workers(self) -> int:
        return sum(1 for slot in self._pool.view().slots.values() if slot.state in (Phase.WAITING, Phase.STARTING))

    # Leading.

    def _make_leadership(self, randomness: random.Random) -> Leadership:
        if not self._settings.leader_election:
            return NoElection(identity=self._instance)
        return Election(
            lease=Lease(self._client, namespace=self._lease_namespace),
            name=self._instance,
            clock=self._clock,
            now=self._client.server_now,
            randomness=randomness,
            log=log.get("leader"),
            limits=self._lease_limits,
        )

    def _lead(self) -> None:
        self._pool.lead(self._leadership.epoch * FIRST_EPOCHS)
        self._own()

    def permission_s(self) -> float | None:
        return self._leadership.permission_s()

    # Hooks.

    def _wanted(self, _: frozenset[str]) -> None:
        """What comes in a burst (a tool applies a thousand Hooks) is planned once."""
        if self._leadership.leading and self._owning is None:
            self._owning = asyncio.get_running_loop().call_later(GATHER_S, self._own)

    def _own(self) -> None:
        self._owning = None
        namespaces = {name for index in self._indexes for name in index.namespaces}
        self._log.info("namespaces wanted", count=len(namespaces))
        self._loads.wanted(sorted(namespaces))
        self._health.wanted(namespaces, now_at=self._clock.monotonic())
        self._weigh()

    async def _keep_balance(self) -> None:
        while True:
            await asyncio.sleep(BALANCE_S)
            if self._leadership.leading:
                self._weigh()

    def _weigh(self) -> None:
        self._pool.want(self._loads.weights(self._clock.monotonic()))

    def _changed(self, namespace: str) -> None:
        # Without an owner just now nobody needs telling: the next one reads the Hooks at its start.
        self._pool.tell(namespace, messages.encode(messages.HooksChanged(namespace=namespace)))

    # The pool's facts (shards.pool.Owner).

    def welcome(self, slot: str) -> bytes:
        settings = self._settings
        return messages.encode(
            messages.WorkerConfig(
                credentials=kube_credentials.encode(self._api.credentials),
                access=self._agents.access,
                agents=messages.AgentConfig(
                    ca_file=settings.kagent_ca_file,
                    protocol=settings.kagent_protocol,
                    user_id=settings.kagent_user_id,
                    timeout_s=settings.kagent_timeout_s,
                    retry_attempts=settings.retry_attempts,
                    retry_backoff_s=settings.retry_backoff_s,
                    calls_per_worker=settings.calls_per_worker,
                    calls_per_agent=settings.calls_per_agent,
                    redeliver_for_s=settings.redeliver_for.total_seconds(),
                    run_deadline_s=settings.run_deadline_s,
                ),
                incidents=messages.IncidentConfig(
                    cooldown_s=settings.cooldown.total_seconds(),
                    resolve_after_s=settings.resolve_after.total_seconds(),
                    max_signal_age_s=settings.max_signal_age.total_seconds(),
                    stuck_pending_s=settings.stuck_pending.total_seconds(),
                    calls_per_hook_hour=settings.calls_per_hook_hour,
                    agent_namespace=settings.agent_namespace,
                    allowed_agent_namespaces=settings.allowed_agent_namespaces,
                ),
                cluster_name=settings.cluster_name or "",
                instance=self._instance,
                log_level=settings.log_level,
                log_format=settings.log_format,
            )
        )

    def reported(self, slot: str, report: bytes) -> None:
        self._reports.came(slot, messages.decode_report(report), now_at=self._clock.monotonic())

    def asked(self, slot: str, question: bytes) -> None:
        match messages.decode_from_worker(question):
            case WorkerSummary() as summary:
                self._summaries.came(slot, summary)
            case messages.NeedCredentials():
                self._answer_later(slot)

    def _answer_later(self, slot: str) -> None:
        task = asyncio.create_task(self._answer_credentials(slot))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def died(self, slot: str, how: str) -> None:
        self._reports.died(slot)
        self._summaries.died(slot)
        metrics.slot_died(slot)
        if not self._health.stopping:
            metrics.worker_restarted(slot)

    # Credentials for the API server.

    async def _answer_credentials(self, slot: str) -> None:
        """After a worker's 401."""
        self._pool.tell_slot(slot, _to_worker(await self._api.fresh()))

    def _credentials_taken(self, credentials: Credentials) -> None:
        self._client.replace(credentials)
        # A worker that is not welcomed yet is told at its welcome.
        self._pool.tell_all(_to_worker(credentials))

    # kagent's key and address.

    async def _keep_agent_access(self) -> None:
        while True:
            if self._agents.refresh():
                # A worker that is not welcomed yet is told at its welcome.
                self._pool.tell_all(messages.encode(self._agents.access))
            self._agents.remind(needed=self._key_needed())
            await asyncio.sleep(self._ticks.files_s)

    def _key_needed(self) -> bool:
        """`execute` never goes without one; kagent's own protocol may, so there it takes a call that failed for it."""
        return self._settings.kagent_protocol == "execute" or self._reports.needs_key

    # Health.

    async def _keep_health(self) -> None:
        while True:
            self._look_for_crd()
            view, now_at = self._pool.view(), self._clock.monotonic()
            self._reports.tick(view, now_at=now_at)
            metrics.role(leads=self._leadership.leading)
            for phase in Phase:
                metrics.slots(phase.value, sum(1 for slot in view.slots.values() if slot.state is phase))
            for state, count in self._health.counts(now_at).items():
                metrics.namespaces(state, count)
            await asyncio.sleep(self._ticks.health_s)

    def _look_for_crd(self) -> None:
        """Said once, each time that it goes missing; the watches ask again by themselves."""
        missing = any(watch.health.last_error == WatchEnd.MISSING for watch in self._watches)
        if missing and not self._health.crd_missing:
            self._log.error("crd not found", problem=CRD_MISSING)
        self._health.crd_missing = missing


def _to_worker(credentials: Credentials) -> bytes:
    return messages.encode(messages.FreshCredentials(credentials=kube_credentials.encode(credentials)))
