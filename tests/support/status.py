"""Status documents for the page's tests: an everyday one, and one in which every text was written by an attacker."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from khook.summary import (
    AgentSummary,
    BreakerSummary,
    CallSummary,
    HeldBack,
    HookTrouble,
    IncidentSummary,
    WorkerSummary,
)
from khook.supervisor.leader import NoElection
from khook.supervisor.status_document import (
    AgentAccessStatus,
    LeaderStatus,
    Replica,
    RingStatus,
    Status,
    Totals,
    Watched,
    status_document,
)
from khook.supervisor.summaries import Told
from shards.policy import Phase
from shards.pool import KeyView, PoolView, SlotView

NOW: Final = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LEADER: Final = "khook-0_1a2b3c4d"
EVIL: Final = (
    "<script>document.title='owned'</script>",
    "\"'><img src=x onerror=\"document.title='owned'\">",
    "{{ 7*7 }}{% raw %}</style></script><!--",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066\u200b",
    "\x00\x1b[31m\ud800",
    "w" * 5_000,
)


def incident(number: int = 1, *, status: str = "firing", text: str | None = None, **call: Any) -> IncidentSummary:
    seen = NOW - timedelta(seconds=10 + number)
    given: dict[str, Any] = {"state": "Completed", "reason": None, "error": text or "", "attempts": 1} | call
    return IncidentSummary(
        namespace=text or "shop",
        hook=text or "storefront",
        event_type=text or "pod-restart",
        resource_kind=text or "Pod",
        resource_name=text or f"web-7c9f6d5b8-{number:05}",
        agent=text or "kagent/incident-responder",
        status=status,
        first_seen=seen - timedelta(minutes=7),
        last_seen=seen,
        resolved_time=None if status == "firing" else seen,
        count=number,
        call=CallSummary(
            id=text or f"4f1c2f0e-8a5b-4c1d-9e2f-{number:012}",
            protocol=text or "a2a",
            claimed_time=seen,
            ended_time=None,
            **given,
        ),
    )


def summary(*, text: str | None = None) -> WorkerSummary:
    """What one worker tells; `text`: in the place of every name and word."""
    agent = text or "kagent/capacity-planner"
    return WorkerSummary(
        hooks=3,
        firing=3,
        resolved=1,
        calls={"Completed": 2, "Pending/Parked": 1, "Failed/AgentNotFound": 1},
        incidents=(
            incident(1, text=text),
            incident(2, text=text, state=text or "Pending", reason=text or "Parked", attempts=3),
            incident(3, text=text, state="Failed", reason="AgentNotFound", error=text or "agent kagent/x: HTTP 404"),
            incident(4, text=text, status="resolved"),
        ),
        held_back=(
            HeldBack(
                reason=text or "Parked",
                namespace=text or "shop",
                hook=text or "storefront",
                agent=agent,
                calls=2,
                oldest_time=NOW - timedelta(minutes=4),
            ),
        ),
        agents=(
            AgentSummary(
                agent=agent,
                calls={text or "Pending": 2},
                breaker=BreakerSummary(state=text or "open", retry_in_seconds=17.4),
                parked={text or "breaker": 2},
            ),
            AgentSummary(agent="kagent/incident-responder", calls={"Completed": 2}, breaker=None, parked={}),
        ),
        agents_count=2,
        hooks_in_trouble=(HookTrouble(namespace=text or "ml", hook=text or "gpu", reason=text or "AgentNotFound"),),
        hooks_in_trouble_count=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """How many slots, and how many namespaces together."""

    slots: int = 2
    namespaces: int = 6


def view(shard: Shard, *, text: str | None = None) -> PoolView:
    names = [text or "shop", *(f"team-{number:05}" for number in range(1, shard.namespaces))][: shard.namespaces]
    slots, keys = {}, {}
    for number in range(shard.slots):
        slot, mine = f"w{number}", names[number :: shard.slots]
        for name in mine:
            problem = text if text is not None and name == text else ""
            keys[name] = KeyView(slot=slot, epoch=1, started=not problem, problem=problem, weight=1.0 + len(name) / 100)
        slots[slot] = SlotView(
            state=Phase.RUNNING,
            on_probation=False,
            pid=100 + number,
            restarts=number,
            keys=tuple(mine),
            load=sum(keys[name].weight for name in mine),
            lag_s=0.0012,
            last_death=(text or "SIGKILL") if number else "",
        )
    return PoolView(slots=slots, keys=keys)


def replica(**given: Any) -> Replica:
    said: dict[str, Any] = {
        "now": NOW,
        "started_time": NOW - timedelta(hours=76),
        "uptime_s": 76 * 3600.0,
        "ready": True,
        "reasons": (),
        "watched": Watched(live=6),
        "agent_access": AgentAccessStatus(key=True),
        "status_port": 8082,
    }
    return Replica(**said | given)


def leading(
    *, text: str | None = None, shard: Shard | None = None, told: Told | None = None, **replica_said: Any
) -> Status:
    """A leader's document. `text`: in the place of every name and word that others wrote."""
    pool = view(shard or Shard(), text=text)
    return status_document(
        leadership=NoElection(identity=text or LEADER),
        lease_namespace="kagent-system",
        ring=RingStatus(256, 1.25),
        view=pool,
        rates={name: key.weight - 1 for name, key in pool.keys.items()},
        replica=replica(**replica_said),
        told=Told(summaries={"w0": summary(text=text)}) if told is None else told,
    )


def quiet(**replica_said: Any) -> Status:
    """A leader with nothing to do: no Hook, no incident."""
    return leading(shard=Shard(namespaces=0), told=Told(summaries={}), **replica_said)


def standby(leader: str | None = LEADER, **given: Any) -> Status:
    said: dict[str, Any] = {
        "version": "0.1.0",
        "identity": "khook-1_bbbbbbbb",
        "leading": False,
        "leader": LeaderStatus(leader, 4),
        "ask_the_leader": None,
        "ring": RingStatus(256, 1.25),
        "slots": [],
        "waiting": [],
        "totals": Totals(namespaces=0, waiting=0, load=0.0, lines_per_second=0.0, restarts=0),
        "generated_time": NOW,
    }
    return Status(**said | given)
