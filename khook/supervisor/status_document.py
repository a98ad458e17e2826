"""What `/status.json` and the page say: who leads, which slot owns what at which cost, and what the workers told.

Pure: made from the pool's view, the measured rates, what is known of the leader, and the workers' summaries. It shows
names, times, numbers, and reasons of our own; never the text of an Event, a prompt or a secret. Structs, because ten
thousand of them are made at once in the loop that supervises; the command that reads the document decodes the same
ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec

from khook.api import names
from khook.core.election import JOINT
from khook.log import redacted
from khook.summary import HeldBack, HookTrouble, IncidentSummary
from khook.supervisor.merged_summary import AgentStatus, merge
from khook.supervisor.summaries import NOTHING, Told
from shards.user import KeyView, PoolView, SlotView

if TYPE_CHECKING:  # the command that reads the document has no use for the election
    from khook.supervisor.leader import Leadership

VERSION: Final = version("khook")
PARTS: Final = 1000
"""Of a weight, a rate or a lag: what is below a thousandth is noise."""


class NamespaceLoad(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str
    weight: float
    """What it counts for in the pool; 0: it is on its way out."""
    lines_per_second: float


class OwnedNamespace(NamespaceLoad, frozen=True, rename="camel"):
    epoch: int
    started: bool
    problem: str | None
    """Why its worker could not start or stop it."""


class SlotStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    slot: str
    state: str
    on_probation: bool
    pid: int | None
    restarts: int
    lag_seconds: float
    last_death: str | None
    load: float
    lines_per_second: float
    namespaces: list[OwnedNamespace]


class LeaderStatus(msgspec.Struct, frozen=True, rename="camel"):
    identity: str | None
    """None: nobody leads, as far as is known."""
    epoch: int


class RingStatus(msgspec.Struct, frozen=True, rename="camel"):
    virtual_nodes: int
    max_load_factor: float


class Watched(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Wanted namespaces by how their watches are, as `/readyz` counts them."""

    live: int = 0
    starting: int = 0
    forbidden: int = 0
    deaf: int = 0


class Totals(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    namespaces: int
    waiting: int
    load: float
    lines_per_second: float
    restarts: int
    hooks: int = 0
    suspended_hooks: int = 0
    hooks_in_trouble: int = 0
    firing: int = 0
    resolved: int = 0
    """Lately: those that are still remembered."""
    held_signals: int = 0
    """Those that wait for their entry's `holdFor`: no incident yet."""
    calls: dict[str, int] = msgspec.field(default_factory=dict)
    """Of the incidents, by state, and state/reason where there is one."""
    watched: Watched = Watched()


class AgentAccessStatus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The key for kagent: never what it is, only whether there is one."""

    key: bool
    needed: bool = False
    command: str | None = None
    """What gives one, where there is none."""
    problems: list[str] = msgspec.field(default_factory=list)


class Status(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    version: str
    identity: str
    leading: bool
    leader: LeaderStatus
    ask_the_leader: str | None
    """The command that does, where another replica leads and its pod is known."""
    ring: RingStatus
    slots: list[SlotStatus]
    waiting: list[NamespaceLoad]
    """Wanted, and with nobody."""
    totals: Totals
    # A khook that was older than these has none of them: `khook shards` of this version can read it all the same.
    port_forward: str | None = None
    """The command that brings the leader's page here, where another replica leads and its pod is known."""
    generated_time: datetime | None = None
    started_time: datetime | None = None
    uptime_seconds: float = 0.0
    ready: bool = True
    reasons: list[str] = msgspec.field(default_factory=list)
    """Why it is not ready, as `/readyz` says."""
    agent_access: AgentAccessStatus | None = None
    incidents: list[IncidentSummary] = msgspec.field(default_factory=list)
    """Firing ones first, then the newest first; of each worker so many at most, see `totals` for how many there are."""
    held_back: list[HeldBack] = msgspec.field(default_factory=list)
    agents: list[AgentStatus] = msgspec.field(default_factory=list)
    hooks_in_trouble: list[HookTrouble] = msgspec.field(default_factory=list)
    silent_slots: list[str] = msgspec.field(default_factory=list)
    """Their workers did not tell in time: what they have is missing in all that is about incidents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """This process, as it is when somebody looks."""

    now: datetime
    started_time: datetime
    uptime_s: float
    ready: bool
    reasons: Sequence[str]
    watched: Watched
    agent_access: AgentAccessStatus
    status_port: int = 0
    """Where all replicas serve their status; 0: each wherever it found room."""


def status_document(
    *,
    leadership: "Leadership",
    lease_namespace: str,
    ring: RingStatus,
    view: PoolView,
    rates: Mapping[str, float],
    replica: Replica,
    told: Told = NOTHING,
) -> Status:
    """`rates`: lines a second; a namespace that is not in it has none. `told`: by the workers."""
    merged = merge(told.summaries)
    waiting = sorted(name for name, key in view.keys.items() if key.slot is None)
    return Status(
        version=VERSION,
        identity=leadership.identity,
        leading=leadership.leading,
        leader=LeaderStatus(leadership.leader or None, leadership.epoch),
        ask_the_leader=None if leadership.leading else command(leadership.leader, lease_namespace),
        ring=ring,
        slots=[_slot(name, slot, view.keys, rates) for name, slot in view.slots.items()],
        waiting=[NamespaceLoad(name, _rounded(view.keys[name].weight), _rate(name, rates)) for name in waiting],
        totals=Totals(
            namespaces=len(view.keys),
            waiting=len(waiting),
            load=_rounded(sum(key.weight for key in view.keys.values())),
            lines_per_second=_rounded(sum(rates.values())),
            restarts=sum(slot.restarts for slot in view.slots.values()),
            hooks=merged.hooks,
            suspended_hooks=merged.suspended_hooks,
            hooks_in_trouble=merged.hooks_in_trouble_count,
            firing=merged.firing,
            resolved=merged.resolved,
            held_signals=merged.held_signals,
            calls=merged.calls,
            watched=replica.watched,
        ),
        port_forward=None if leadership.leading else _port_forward(leadership.leader, lease_namespace, replica),
        generated_time=replica.now,
        started_time=replica.started_time,
        uptime_seconds=_rounded(replica.uptime_s),
        ready=replica.ready,
        reasons=[redacted(reason) for reason in replica.reasons],
        agent_access=replica.agent_access,
        incidents=merged.incidents,
        held_back=merged.held_back,
        agents=merged.agents,
        hooks_in_trouble=merged.hooks_in_trouble,
        silent_slots=list(told.silent),
    )


def encode(status: Status) -> bytes:
    return msgspec.json.encode(status)


def decode(body: bytes) -> Status:
    """What a later version adds is passed over. Raises ValueError."""
    return msgspec.json.decode(body, type=Status)


def command(leader: str, namespace: str) -> str | None:
    """What asks the leader's pod, to be pasted into a shell; None where that is not known."""
    where = _pod(leader, namespace)
    return None if where is None else f"kubectl exec {where} -- khook shards"


def _port_forward(leader: str, namespace: str, replica: Replica) -> str | None:
    where = _pod(leader, namespace)
    return None if where is None or not replica.status_port else f"kubectl port-forward {where} {replica.status_port}"


def _pod(leader: str, namespace: str) -> str | None:
    """The leader's pod as arguments of kubectl; None where it is not known, or is no pod's name: anybody who may
    write the Lease writes what stands there."""
    try:
        return f"-n {names.namespace(namespace)} {names.agent(leader.rpartition(JOINT)[0])}"
    except ValueError:
        return None


def _slot(name: str, slot: SlotView, keys: Mapping[str, KeyView], rates: Mapping[str, float]) -> SlotStatus:
    return SlotStatus(
        slot=name,
        state=slot.state.value,
        on_probation=slot.on_probation,
        pid=slot.pid,
        restarts=slot.restarts,
        lag_seconds=_rounded(slot.lag_s),
        last_death=slot.last_death or None,
        load=_rounded(slot.load),
        lines_per_second=_rounded(sum(rates.get(key, 0.0) for key in slot.keys)),
        namespaces=[_owned(key, keys[key], rates) for key in sorted(slot.keys)],
    )


def _owned(name: str, key: KeyView, rates: Mapping[str, float]) -> OwnedNamespace:
    problem = redacted(key.problem) if key.problem else None
    return OwnedNamespace(name, _rounded(key.weight), _rate(name, rates), key.epoch, key.started, problem)


def _rate(name: str, rates: Mapping[str, float]) -> float:
    return _rounded(rates.get(name, 0.0))


def _rounded(number: float) -> float:
    """Not below 0. A third of what `round` takes, which looks for the exact decimal."""
    return int(number * PARTS + 0.5) / PARTS
