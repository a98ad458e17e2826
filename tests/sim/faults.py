"""Carries out the faults of a plan, and writes down how long each of them may be felt.

`felt_s` is a promise about recovery: that long after a fault is over, nothing of it may delay a call any more. The
checkers hold khook to it.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from khook.sandbox.api_errors import failure
from khook.sandbox.api_routes import ApiCall
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Refuse, Response
from khook.sandbox.kagent import ANY_AGENT, FaultKind, Kagent
from khook.sandbox.kagent import Fault as AgentFault
from sim.history import Act, Disturbance, History
from sim.network import Network
from sim.plan import Fault, Harm, WorldPlan
from sim.replica import KEY, Replica
from sim.story import AGENT_NAMESPACE, Story

AGENT_FELT_S: Final = 400.0
"""A breaker opens for 5 min at most; then its probe, and behind it all that waited."""
API_FELT_S: Final = 75.0
"""Watches back off for 30 s at most, claims for 10 s, an Event's look-up of its pod for 30 s."""
DEATH_FELT_S: Final = 95.0
"""Silence until a process is taken for dead (36 s), a slot's back-off (30 s at most after many deaths), the restore,
and 10 s in which a "not sent" is not believed."""
RUN_FELT_S: Final = 45.0
OWNERS_FELT_S: Final = 6.0
"""A look-up is waited for no longer than this; then the direct controller stands in."""
LEASE_FELT_S: Final = 135.0
"""A leader that could not renew gives up (40 s), and its Lease runs out (60 s) before another takes it (15 s)."""

_RUN_FAULTS: Final = frozenset({"failed", "endless", "input-required", "lost", "message"})
"""The agent takes the call: nothing is delayed."""


class Faults:
    def __init__(
        self,
        *,
        plan: WorldPlan,
        replicas: list[Replica],
        api: ApiServer,
        agents: Kagent,
        network: Network,
        story: Story,
        history: History,
        at_s: Callable[[], float],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._plan = plan
        self._replicas = replicas
        self._api = api
        self._agents = agents
        self._network = network
        self._story = story
        self._history = history
        self._at_s = at_s
        self._later = later
        self._traps: list[tuple[bool, list[int], Fault]] = []
        self._refused: dict[int, None] = {}
        network.on_act = self._acted

    def do(self, fault: Fault) -> None:
        replica = self._replicas[fault.replica % len(self._replicas)]
        match fault.harm:
            case Harm.WORKER_KILLED:
                replica.signal_worker(fault.slot, signal.SIGKILL)
                self._felt(fault, DEATH_FELT_S)
            case Harm.WORKER_KILLED_AT_ACT:
                self._traps.append((fault.kind == "after", [fault.number], fault))
            case Harm.WORKER_TERMINATED:
                replica.signal_worker(fault.slot, signal.SIGTERM)
                self._felt(fault, DEATH_FELT_S, more_s=25.0)
            case Harm.WORKER_STOPPED:
                self._stop([replica.worker(fault.slot)], replica, fault)
            case Harm.SUPERVISOR_STOPPED:
                self._stop([replica.process], replica, fault)
            case Harm.ALL_STOPPED:
                self._stop(replica.all_processes(), replica, fault)
            case Harm.SUPERVISOR_KILLED:
                replica.kill()
                self._later(max(fault.seconds, 0.1), replica.start)
                self._felt(fault, DEATH_FELT_S)
            case Harm.RESTARTED:
                self._restart(replica, fault)
            case Harm.CUT_OFF:
                self._network.cut(replica.name)
                self._later(fault.seconds, lambda: self._network.mend(replica.name, after_s=fault.seconds))
                self._felt(fault, API_FELT_S + 15.0)
            case Harm.KEY_REFUSED:
                self._agents.change_key("another")
                self._later(max(fault.seconds, 0.1), lambda: self._agents.change_key(KEY))
                self._felt(fault, AGENT_FELT_S, agent=ANY_AGENT)
            case Harm.AGENT | Harm.KAGENT_AWAY:
                self._harm_agent(fault)
            case Harm.HOOKS_TOUCHED:
                self._story.touch_all()
            case _:
                self._harm_api(fault)

    def _felt(self, fault: Fault, felt_s: float, *, more_s: float = 0.0, agent: str = "") -> None:
        until_s = self._at_s() + fault.seconds + more_s
        if self._plan.election and not agent:
            felt_s += LEASE_FELT_S
        self._history.disturbances.append(
            Disturbance(
                from_s=self._at_s(), until_s=until_s, felt_until_s=until_s + felt_s, what=fault.harm.value, agent=agent
            )
        )

    # Processes.

    def _stop(self, processes: list[str], replica: Replica, fault: Fault) -> None:
        for process in processes:
            replica.freeze(process)
            self._later(max(fault.seconds, 0.1), lambda name=process: replica.thaw(name))  # type: ignore[misc]
        self._felt(fault, DEATH_FELT_S)

    def _restart(self, replica: Replica, fault: Fault) -> None:
        async def restart() -> None:
            await replica.stop()
            await asyncio.sleep(max(fault.seconds, 0.1))
            replica.start()

        if replica.alive:
            asyncio.get_running_loop().create_task(restart())
        self._felt(fault, DEATH_FELT_S, more_s=30.0)

    def _acted(self, act: Act, after: bool) -> None:
        for trap in self._traps:
            wanted_after, left, fault = trap
            if wanted_after is not after:
                continue
            left[0] -= 1
            if left[0] == 0:
                self._traps.remove(trap)
                for replica in self._replicas:
                    replica.kill_worker(act.process)
                self._felt(fault, DEATH_FELT_S)
            return

    # Agents.

    def _harm_agent(self, fault: Fault) -> None:
        if fault.harm is Harm.KAGENT_AWAY:
            agent, kind, on = ANY_AGENT, FaultKind.REFUSE, None
        else:
            agent, kind, on = fault.agent, FaultKind(fault.kind), AgentFault(kind=FaultKind.SLOW).on
        seconds = {FaultKind.SLOW: 12.0, FaultKind.BUSY: 5.0, FaultKind.UNAVAILABLE: 3.0}.get(kind, 0.0)
        if kind in (FaultKind.DATABASE, FaultKind.UNAVAILABLE, FaultKind.REFUSE):
            on = None
        drops = kind in (FaultKind.ERROR_RPC, FaultKind.INTERNAL, FaultKind.BAD_GATEWAY, FaultKind.GATEWAY_TIMEOUT)
        runs = drops and fault.slot == 0
        faults = [AgentFault(kind=kind, seconds=seconds, on=on, runs=runs, late_s=4.0 if fault.slot < 2 else 0.0)]
        self._agents.set_faults(agent, faults)
        self._later(fault.seconds, lambda: self._agents.set_faults(agent, []))
        everybody = agent == ANY_AGENT
        name = "" if everybody else agent if "/" in agent else f"{AGENT_NAMESPACE}/{agent}"
        self._felt(fault, RUN_FELT_S if fault.kind in _RUN_FAULTS else AGENT_FELT_S, agent=name or ANY_AGENT)

    # The API server.

    def _harm_api(self, fault: Fault) -> None:
        api, felt_s = self._api, API_FELT_S
        match fault.harm:
            case Harm.API_AWAY:
                self._for_a_while(fault, api.fault(_any, answer=Refuse(), times=None))
                api.cut_connections()
            case Harm.API_RESTARTED:
                api.stop()
                self._later(max(fault.seconds, 0.1), api.start)
            case Harm.API_BUSY:
                busy = failure(429, "too many requests", reason="TooManyRequests")
                self._answer(fault, 429, busy, {"retry-after": "3"})
            case Harm.API_FAILS:
                self._answer(fault, 500, failure(500, "etcdserver: request timed out", reason="InternalError"), {})
            case Harm.API_SLOW:
                self._network.slow_api = True
                self._for_a_while(fault, api.fault(_writes, delay_s=2.5, times=None))
            case Harm.ANSWERS_LOST:
                api.fault(_status_patch, lose_answer=True, times=fault.number)
            case Harm.WATCHES_ENDED:
                api.end_watches()
            case Harm.WATCHES_CUT:
                api.cut_connections()
            case Harm.COMPACTED:
                api.store.compact()
                api.store.restart_caches()
                api.cut_connections()
            case Harm.WATCHES_REFUSED:
                refused = _of(fault.kind)
                self._for_a_while(fault, api.fault(refused, answer=Refuse(), times=None))
                api.cut_connections(refused)
            case Harm.OWNERS_HIDDEN:
                hidden = Response(status=int(fault.kind), body=b'{"kind":"Status"}')
                self._for_a_while(fault, api.fault(_owner_read, answer=hidden, times=None))
                felt_s = OWNERS_FELT_S
            case Harm.LEASE_REFUSED:
                self._for_a_while(fault, api.fault(_lease_write, answer=Refuse(), times=None))
            case _:
                raise AssertionError(fault.harm)
        self._felt(fault, felt_s)

    def _answer(self, fault: Fault, code: int, status: object, headers: dict[str, str]) -> None:
        import orjson

        response = Response(
            status=code, headers={"content-type": "application/json"} | headers, body=orjson.dumps(status)
        )
        self._for_a_while(fault, self._api.fault(_any, answer=response, times=None))

    def _for_a_while(self, fault: Fault, undo: Callable[[], None]) -> None:
        self._later(max(fault.seconds, 0.1), undo)


def _any(call: ApiCall) -> bool:
    return call.kind is not None


def _writes(call: ApiCall) -> bool:
    return call.verb in ("patch", "create", "update")


def _status_patch(call: ApiCall) -> bool:
    return (call.verb, call.resource) == ("patch", "hooks/status")


def _owner_read(call: ApiCall) -> bool:
    return call.verb == "get" and call.resource in ("replicasets", "jobs")


def _lease_write(call: ApiCall) -> bool:
    return call.resource == "leases" and call.verb in ("create", "update", "patch")


def _of(resource: str) -> Callable[[ApiCall], bool]:
    return lambda call: call.resource == resource and call.verb in ("list", "watch")
