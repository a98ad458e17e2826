"""What `/status.json` says: who leads, which slot owns what, and what it costs.

Pure: made from the pool's view, the measured rates and what is known of the leader. It shows names of namespaces,
numbers, and reasons of our own; never the text of an Event, a prompt or a secret. Structs, because ten thousand of
them are made at once in the loop that supervises; the command that reads the document decodes the same ones.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import msgspec

from khook.api import names
from khook.core.election import JOINT
from khook.log import redacted
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


class Totals(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    namespaces: int
    waiting: int
    load: float
    lines_per_second: float
    restarts: int


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


def status_document(
    *,
    leadership: "Leadership",
    lease_namespace: str,
    ring: RingStatus,
    view: PoolView,
    rates: Mapping[str, float],
) -> Status:
    """`rates`: lines a second; a namespace that is not in it has none."""
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
        ),
    )


def encode(status: Status) -> bytes:
    return msgspec.json.encode(status)


def decode(body: bytes) -> Status:
    """What a later version adds is passed over. Raises ValueError."""
    return msgspec.json.decode(body, type=Status)


def command(leader: str, namespace: str) -> str | None:
    """What asks the leader's pod, to be pasted into a shell; None where it is not known, or is no pod's name: anybody
    who may write the Lease writes what stands there."""
    pod = leader.rpartition(JOINT)[0]
    try:
        return f"kubectl exec -n {names.namespace(namespace)} {names.agent(pod)} -- khook shards"
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
