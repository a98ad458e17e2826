"""`/status.json` of a hand-made pool: who leads, who owns what at which cost, and nothing that others wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import pytest

from khook import log
from khook.supervisor.leader import NoElection
from khook.supervisor.status_document import VERSION, RingStatus, command, decode, encode, status_document
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


def document(view: PoolView = VIEW, **given: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "leadership": NoElection(identity="khook-0"),
        "lease_namespace": "kagent-system",
        "ring": RingStatus(256, 1.25),
        "rates": RATES,
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
        "totals": {"namespaces": 4, "waiting": 2, "load": 6.75, "linesPerSecond": 2.75, "restarts": 10},
    }  # fmt: skip


def test_a_standby_says_who_leads_and_how_to_ask_it() -> None:
    warm = PoolView(slots={"w0": slot()}, keys={})
    said = document(warm, leadership=Standby("khook-0_aaaaaaaa"), rates={})
    assert (said["leading"], said["identity"]) == (False, "khook-1_bbbbbbbb")
    assert said["leader"] == {"identity": "khook-0_aaaaaaaa", "epoch": 7}
    assert said["askTheLeader"] == "kubectl exec -n kagent-system khook-0 -- khook shards"
    assert (said["slots"][0]["state"], said["slots"][0]["namespaces"], said["waiting"]) == ("running", [], [])


def test_a_standby_without_a_leader_names_none() -> None:
    said = document(leadership=Standby(""))
    assert (said["leader"]["identity"], said["askTheLeader"]) == (None, None)


@pytest.mark.parametrize("leader", ["", "khook-0", "_a", "x; rm -rf ~_a", "$(id)_a", "-n_a", "Khook_a", "a\nb_a"])
def test_what_is_no_pods_name_is_made_into_no_command_to_paste(leader: str) -> None:
    assert command(leader, "kagent-system") is None


def test_a_secret_in_a_problem_is_blotted_out() -> None:
    log.register_secret("hunter2-in-a-problem")
    view = PoolView(slots={"w0": slot("shop")}, keys={"shop": key("w0", 1.0, problem="E: hunter2-in-a-problem")})
    assert document(view)["slots"][0]["namespaces"][0]["problem"] == "E: [redacted]"
