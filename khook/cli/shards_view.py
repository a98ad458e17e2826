"""What `khook shards` shows: of the live assignment and of a plan, the slots, and on demand every namespace."""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console

from khook.cli.shards_live import printable
from khook.cli.shards_plan import ShardPlan
from khook.cli.sheet import Column, Sheet, say, show
from khook.supervisor.status_document import NamespaceLoad, SlotStatus, Status

BROKEN: Final = "broken"

_LIVE_SLOTS: Final = (
    Column(title="slot"),
    Column(title="state"),
    Column(title="namespaces", number=True),
    Column(title="load", number=True),
    Column(title="of mean", number=True),
    Column(title="lines/s", number=True),
    Column(title="lag", number=True),
    Column(title="restarts", number=True),
    Column(title="last death"),
)
_LIVE_NAMESPACES: Final = (
    Column(title="namespace"),
    Column(title="slot"),
    Column(title="weight", number=True),
    Column(title="lines/s", number=True),
    Column(title="state"),
)
_PLAN_SLOTS: Final = (
    Column(title="slot"),
    Column(title="namespaces", number=True),
    Column(title="load", number=True),
    Column(title="of mean", number=True),
)
_PLAN_NAMESPACES: Final = (
    Column(title="namespace"),
    Column(title="slot"),
    Column(title="weight", number=True),
    Column(title="moves from"),
)


def show_live(console: Console, live: Status, *, every_namespace: bool) -> None:
    load = sum(slot.load for slot in live.slots)
    lines = sum(slot.lines_per_second for slot in live.slots)
    owned = sum(len(slot.namespaces) for slot in live.slots)
    say(
        console,
        f"{printable(live.leader.identity or 'nobody')} leads (epoch {live.leader.epoch}): "
        f"{_many(owned, 'namespace')} on {_many(len(live.slots), 'worker')}, load {load:.1f}, {lines:.1f} lines/s",
    )
    if live.waiting:
        say(console, f"{_many(len(live.waiting), 'namespace')} without a worker")
    serving = sum(1 for slot in live.slots if _serves(slot))
    mean = load / serving if serving else 0.0
    show(console, Sheet(columns=_LIVE_SLOTS, rows=[_live_slot(slot, mean) for slot in live.slots]))
    if every_namespace:
        show(console, Sheet(columns=_LIVE_NAMESPACES, rows=_live_namespaces(live)))


def show_plan(console: Console, plan: ShardPlan, *, every_namespace: bool) -> None:
    say(
        console,
        f"plan for {_many(len(plan.slots), 'worker')}: {_many(len(plan.weights), 'namespace')}, load {plan.load:.1f}, "
        f"the fullest has {plan.fullest:.2f} of the mean ({_bound(plan)})",
    )
    rows = [
        (slot.slot, str(len(slot.namespaces)), f"{slot.load:.1f}", _of_mean(slot.load, plan.mean))
        for slot in plan.slots
    ]
    show(console, Sheet(columns=_PLAN_SLOTS, rows=rows))
    if plan.moves is not None:
        say(console, f"from {_many(plan.from_workers or 0, 'worker')}: {_moved(plan)}")
    if every_namespace:
        show(console, Sheet(columns=_PLAN_NAMESPACES, rows=_plan_namespaces(plan)))


def plan_document(plan: ShardPlan, *, every_namespace: bool) -> dict[str, Any]:
    """The plan for a script, in the words of `/status.json`."""
    moves: dict[str, Any] | None = None
    if plan.moves is not None:
        share, load_share = _moved_shares(plan)
        moves = {
            "fromWorkers": plan.from_workers,
            "count": len(plan.moves),
            "share": share,
            "loadShare": load_share,
        }
        if every_namespace:
            moves["namespaces"] = [
                {"namespace": move.namespace, "from": move.from_slot, "to": move.to_slot, "weight": move.weight}
                for move in plan.moves
            ]
    return {
        "workers": len(plan.slots),
        "ring": {"virtualNodes": plan.shape.virtual_nodes, "maxLoadFactor": plan.shape.max_load_factor},
        "totals": {"namespaces": len(plan.weights), "load": round(plan.load, 3)},
        "maxOfMean": round(plan.fullest, 3),
        "slots": [
            {
                "slot": slot.slot,
                "count": len(slot.namespaces),
                "load": round(slot.load, 3),
                "ofMean": round(slot.load / plan.mean, 3) if plan.mean else 0.0,
            }
            | ({"namespaces": list(slot.namespaces)} if every_namespace else {})
            for slot in plan.slots
        ],
        "moves": moves,
    }


def _serves(slot: SlotStatus) -> bool:
    return slot.state != BROKEN and not slot.on_probation


def _live_slot(slot: SlotStatus, mean: float) -> tuple[str, ...]:
    return (
        printable(slot.slot),
        f"{slot.state}, on probation" if slot.on_probation and slot.state != BROKEN else slot.state,
        str(len(slot.namespaces)),
        f"{slot.load:.1f}",
        _of_mean(slot.load, mean),
        f"{slot.lines_per_second:.1f}",
        f"{slot.lag_seconds * 1000:.0f} ms",
        str(slot.restarts),
        printable(slot.last_death or "-"),
    )


def _live_namespaces(live: Status) -> list[tuple[str, ...]]:
    rows: list[tuple[NamespaceLoad, str, str]] = []
    for slot in live.slots:
        for one in slot.namespaces:
            state = printable(one.problem or ("started" if one.started else "starting"))
            rows.append((one, slot.slot, state))
    rows += [(one, "-", "waiting") for one in live.waiting]
    rows.sort(key=lambda row: (-row[0].weight, row[0].namespace))
    return [
        (printable(one.namespace), slot, f"{one.weight:.1f}", f"{one.lines_per_second:.1f}", state)
        for one, slot, state in rows
    ]


def _plan_namespaces(plan: ShardPlan) -> list[tuple[str, ...]]:
    came_from: Mapping[str, str] = {move.namespace: move.from_slot for move in plan.moves or ()}
    rows = [
        (name, slot.slot, f"{plan.weights[name]:.1f}", came_from.get(name, "-"))
        for slot in plan.slots
        for name in slot.namespaces
    ]
    return sorted(rows, key=lambda row: (-plan.weights[row[0]], row[0]))


def _bound(plan: ShardPlan) -> str:
    bound = f"bound {plan.shape.max_load_factor:g}"
    over = plan.fullest > plan.shape.max_load_factor
    return f"above the {bound}: a namespace is not split" if over else bound


def _moved(plan: ShardPlan) -> str:
    moves = plan.moves or ()
    if not moves:
        return "nothing moves"
    share, load_share = _moved_shares(plan)
    return (
        f"{len(moves)} of {_many(len(plan.weights), 'namespace')} move ({share:.0%}), with {load_share:.0%} of the load"
    )


def _moved_shares(plan: ShardPlan) -> tuple[float, float]:
    """Of the namespaces, and of the load."""
    moves = plan.moves or ()
    return _share(len(moves), len(plan.weights)), _share(sum(move.weight for move in moves), plan.load)


def _share(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0


def _of_mean(load: float, mean: float) -> str:
    return f"{load / mean:.2f}" if mean else "-"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
