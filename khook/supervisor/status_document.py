"""What `/status.json` says: who leads, which slot owns what, and what it costs.

Pure: made from the pool's view, the measured rates and what is known of the leader. It shows names of namespaces,
numbers, and reasons of our own; never the text of an Event, a prompt or a secret.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, Final

from khook.api import names
from khook.log import redacted
from khook.supervisor.leader import JOINT, Leadership
from shards.user import KeyView, PoolView, SlotView

VERSION: Final = version("khook")
DIGITS: Final = 3
"""Of a weight, a rate or a lag: what is below that is noise."""

Json = dict[str, Any]


def status_document(
    *,
    leadership: Leadership,
    lease_namespace: str,
    virtual_nodes: int,
    max_load_factor: float,
    view: PoolView,
    rates: Mapping[str, float],
) -> Json:
    """`rates`: lines a second; a namespace that is not in it has none."""
    waiting = sorted(name for name, key in view.keys.items() if key.slot is None)
    slots = [_slot(name, slot, view.keys, rates) for name, slot in view.slots.items()]
    return {
        "version": VERSION,
        "identity": leadership.identity,
        "leading": leadership.leading,
        "leader": {"identity": leadership.leader or None, "epoch": leadership.epoch},
        "askTheLeader": None if leadership.leading else command(leadership.leader, lease_namespace),
        "ring": {"virtualNodes": virtual_nodes, "maxLoadFactor": max_load_factor},
        "slots": slots,
        "waiting": [_load(name, view.keys[name], rates) for name in waiting],
        "totals": {
            "namespaces": len(view.keys),
            "waiting": len(waiting),
            "load": _rounded(sum(key.weight for key in view.keys.values())),
            "linesPerSecond": _rounded(sum(rates.values())),
            "restarts": sum(slot.restarts for slot in view.slots.values()),
        },
    }


def command(leader: str, namespace: str) -> str | None:
    """What asks the leader's pod, to be pasted into a shell; None where it is not known, or is no pod's name: anybody
    who may write the Lease writes what stands there."""
    pod = leader.rpartition(JOINT)[0]
    try:
        return f"kubectl exec -n {names.namespace(namespace)} {names.agent(pod)} -- khook shards"
    except ValueError:
        return None


def _slot(name: str, slot: SlotView, keys: Mapping[str, KeyView], rates: Mapping[str, float]) -> Json:
    return {
        "slot": name,
        "state": slot.state.value,
        "onProbation": slot.on_probation,
        "pid": slot.pid,
        "restarts": slot.restarts,
        "lagSeconds": _rounded(slot.lag_s),
        "lastDeath": slot.last_death or None,
        "load": _rounded(slot.load),
        "linesPerSecond": _rounded(_together(slot.keys, rates)),
        "namespaces": [_owned(key, keys[key], rates) for key in sorted(slot.keys)],
    }


def _owned(name: str, key: KeyView, rates: Mapping[str, float]) -> Json:
    return _load(name, key, rates) | {
        "epoch": key.epoch,
        "started": key.started,
        "problem": redacted(key.problem) or None,
    }


def _load(name: str, key: KeyView, rates: Mapping[str, float]) -> Json:
    return {
        "namespace": name,
        "weight": _rounded(key.weight),
        "linesPerSecond": _rounded(rates.get(name, 0.0)),
    }


def _together(namespaces: Iterable[str], rates: Mapping[str, float]) -> float:
    return sum(rates.get(name, 0.0) for name in namespaces)


def _rounded(number: float) -> float:
    return round(number, DIGITS)
