"""`/status.json` of a hand-made pool: who leads, who owns what at which cost, and nothing that others wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import orjson
import pytest

from khook import log
from khook.summary import AgentSummary, BreakerSummary, HeldBack, HookTrouble, IncidentSummary, WorkerSummary
from khook.supervisor.leader import NoElection
from khook.supervisor.status_document import (
    VERSION,
    AgentAccessStatus,
    Replica,
    RingStatus,
    Watched,
    command,
    decode,
    encode,
    status_document,
)
from khook.supervisor.summaries import Told
from shards.policy import Phase
from shards.pool import KeyView, PoolView, SlotView


@dataclass
class Standby:
    """Some other replica leads, or nobody."""

    leader: str
    identity: str = "khook-1_bbbbbbbb"
    leading: bool = False
    epoch: int = 7
    problem: str = ""

    def permission_s(self) -> float | None:
        return 0.0

    async def run(self, lead: Callable[[], None]) -> NoReturn:
        raise AssertionError("nobody runs it")

    async def release(self) -> None: ...


def slot(*keys: str, load: float = 0.0, **fields: Any) -> SlotView:
    given: dict[str, Any] = {
        "state": Phase.RUNNING, "on_probation": False, "pid": 10, "restarts": 0, "lag_s": 0.0, "last_death": "",
    }  # fmt: skip
    return SlotView(keys=keys, load=load, **given | fields)


def key(slot: str | None, weight: float, *, epoch: int = 5, started: bool = True, problem: str = "") -> KeyView:
    return KeyView(slot=slot, epoch=epoch, started=started, problem=problem, weight=weight)


VIEW = PoolView(
    slots={
        "w0": slot("shop", "bank", load=4.50049, lag_s=0.00123),
        "w1": slot(state=Phase.BROKEN, pid=None, restarts=10, last_death="SIGKILL", on_probation=True),
    },
    keys={
        "shop": key("w0", 3.50049),
        "bank": key("w0", 1.0, started=False, problem="ValueError: boom"),
        "late": key(None, 1.25, epoch=0, started=False),
        "early": key(None, 1.0, epoch=0, started=False),
    },
)
RATES = {"shop": 2.50049, "late": 0.25}


NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
REPLICA = Replica(
    now=NOW,
    started_time=NOW - timedelta(hours=2),
    uptime_s=7200.0,
    ready=False,
    reasons=("stopping",),
    watched=Watched(live=2, deaf=1),
    agent_access=AgentAccessStatus(key=True),
    status_port=8082,
)


def document(view: PoolView = VIEW, **given: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "leadership": NoElection(identity="khook-0"),
        "lease_namespace": "kagent-system",
        "ring": RingStatus(256, 1.25),
        "rates": RATES,
        "replica": REPLICA,
    }
    made = status_document(view=view, **chosen | given)
    assert decode(encode(made)) == made
    found: dict[str, Any] = orjson.loads(encode(made))
    return found


def test_the_leader_shows_its_slots_with_their_namespaces_and_who_waits() -> None:
    assert document() == {
        "version": VERSION,
        "identity": "khook-0",
        "leading": True,
        "leader": {"identity": "khook-0", "epoch": 1},
        "askTheLeader": None,
        "ring": {"virtualNodes": 256, "maxLoadFactor": 1.25},
        "slots": [
            {
                "slot": "w0", "state": "running", "onProbation": False, "pid": 10, "restarts": 0, "lagSeconds": 0.001,
                "lastDeath": None, "load": 4.5, "linesPerSecond": 2.5,
                "namespaces": [
                    {"namespace": "bank", "weight": 1.0, "linesPerSecond": 0.0, "epoch": 5, "started": False,
                     "problem": "ValueError: boom"},
                    {"namespace": "shop", "weight": 3.5, "linesPerSecond": 2.5, "epoch": 5, "started": True,
                     "problem": None},
                ],
            },
            {
                "slot": "w1", "state": "broken", "onProbation": True, "pid": None, "restarts": 10, "lagSeconds": 0.0,
                "lastDeath": "SIGKILL", "load": 0.0, "linesPerSecond": 0.0, "namespaces": [],
            },
        ],
        "waiting": [
            {"namespace": "early", "weight": 1.0, "linesPerSecond": 0.0},
            {"namespace": "late", "weight": 1.25, "linesPerSecond": 0.25},
        ],
        "totals": {
            "namespaces": 4, "waiting": 2, "load": 6.75, "linesPerSecond": 2.75, "restarts": 10, "hooks": 0,
            "suspendedHooks": 0, "hooksInTrouble": 0, "firing": 0, "resolved": 0, "heldSignals": 0, "calls": {},
            "watched": {"live": 2, "starting": 0, "forbidden": 0, "deaf": 1},
        },
        "portForward": None,
        "generatedTime": "2026-05-04T12:00:00Z",
        "startedTime": "2026-05-04T10:00:00Z",
        "uptimeSeconds": 7200.0,
        "ready": False,
        "reasons": ["stopping"],
        "agentAccess": {"key": True, "needed": False, "command": None, "problems": []},
        "incidents": [], "heldBack": [], "agents": [], "hooksInTrouble": [], "silentSlots": [],
    }  # fmt: skip


def test_what_a_later_version_adds_is_passed_over_and_what_an_older_one_lacks_is_empty() -> None:
    said = document()
    older = {name: said[name] for name in list(said)[: list(said).index("portForward")]}
    older["totals"] = {
        name: said["totals"][name] for name in ("namespaces", "waiting", "load", "linesPerSecond", "restarts")
    }
    read = decode(orjson.dumps(older | {"of a later version": True}))
    assert (read.totals.namespaces, read.incidents, read.agent_access) == (4, [], None)


def test_what_the_workers_told_is_one_list_each_with_whole_counts() -> None:
    told = Told(
        summaries={
            "w0": WorkerSummary(
                hooks=2,
                firing=70,
                resolved=1,
                calls={"Completed": 3, "Pending/Parked": 1},
                incidents=(incident("old", seen_s=-90), incident("over", seen_s=-1, status="resolved")),
                held_back=(held("Parked", 1),),
                agents=(agent("kagent/a", breaker="open", parked={"breaker": 1}), agent("kagent/b", calls=9)),
                hooks_in_trouble=(HookTrouble(namespace="shop", hook="h", reason="AgentNotFound"),),
                hooks_in_trouble_count=1,
            ),
            "w1": WorkerSummary(
                hooks=1,
                firing=1,
                calls={"Completed": 1},
                incidents=(incident("new", seen_s=-5),),
                held_back=(held("Budget", 7),),
                agents=(agent("kagent/a", calls=2), agent("kagent/b", calls=1)),
            ),
        },
        silent=("w2",),
    )
    said = document(told=told)
    totals = {name: said["totals"][name] for name in ("hooks", "firing", "resolved", "calls", "hooksInTrouble")}
    assert totals == {
        "hooks": 3, "firing": 71, "resolved": 1, "calls": {"Completed": 4, "Pending/Parked": 1}, "hooksInTrouble": 1,
    }  # fmt: skip
    assert [one["resourceName"] for one in said["incidents"]] == ["new", "old", "over"]
    assert [(one["reason"], one["calls"]) for one in said["heldBack"]] == [("Budget", 7), ("Parked", 1)]
    assert said["agents"] == [
        {
            "agent": "kagent/a", "calls": {"Completed": 2}, "parked": {"breaker": 1},
            "breakers": [{"slot": "w0", "state": "open", "retryInSeconds": 12.5}],
        },
        {"agent": "kagent/b", "calls": {"Completed": 10}, "breakers": [], "parked": {}},
    ]  # fmt: skip
    assert said["silentSlots"] == ["w2"]


def incident(name: str, *, seen_s: float, status: str = "firing") -> IncidentSummary:
    seen = NOW + timedelta(seconds=seen_s)
    return IncidentSummary(
        namespace="shop",
        hook="h",
        event_type="pod-restart",
        resource_kind="Pod",
        resource_name=name,
        agent="kagent/a",
        status=status,
        first_seen=seen,
        last_seen=seen,
        resolved_time=None if status == "firing" else seen,
        count=1,
        call=None,
    )


def held(reason: str, calls: int) -> HeldBack:
    return HeldBack(reason=reason, namespace="shop", hook="h", agent="kagent/a", calls=calls, oldest_time=NOW)


def agent(name: str, *, calls: int = 0, breaker: str = "", parked: dict[str, int] | None = None) -> AgentSummary:
    return AgentSummary(
        agent=name,
        calls={"Completed": calls} if calls else {},
        breaker=BreakerSummary(state=breaker, retry_in_seconds=12.5) if breaker else None,
        parked=parked or {},
    )


def test_a_standby_says_who_leads_and_how_to_ask_it() -> None:
    warm = PoolView(slots={"w0": slot()}, keys={})
    said = document(warm, leadership=Standby("khook-0_aaaaaaaa"), rates={})
    assert (said["leading"], said["identity"]) == (False, "khook-1_bbbbbbbb")
    assert said["leader"] == {"identity": "khook-0_aaaaaaaa", "epoch": 7}
    assert said["askTheLeader"] == "kubectl exec -n kagent-system khook-0 -- khook shards"
    assert said["portForward"] == "kubectl port-forward -n kagent-system khook-0 8082"
    assert (said["slots"][0]["state"], said["slots"][0]["namespaces"], said["waiting"]) == ("running", [], [])


def test_a_standby_without_a_leader_names_none() -> None:
    said = document(leadership=Standby(""))
    assert (said["leader"]["identity"], said["askTheLeader"], said["portForward"]) == (None, None, None)


@pytest.mark.parametrize("leader", ["", "khook-0", "_a", "x; rm -rf ~_a", "$(id)_a", "-n_a", "Khook_a", "a\nb_a"])
def test_what_is_no_pods_name_is_made_into_no_command_to_paste(leader: str) -> None:
    assert command(leader, "kagent-system") is None


def test_a_secret_in_a_problem_is_blotted_out() -> None:
    log.register_secret("hunter2-in-a-problem")
    view = PoolView(slots={"w0": slot("shop")}, keys={"shop": key("w0", 1.0, problem="E: hunter2-in-a-problem")})
    assert document(view)["slots"][0]["namespaces"][0]["problem"] == "E: [redacted]"
