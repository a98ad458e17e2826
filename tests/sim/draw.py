"""A world out of a seed. The same seed draws the same world for ever: whoever changes this file retires the corpus.
What is to be new in some worlds is drawn from a stream of its own, as `storms` does.

What is likely here is what is likely to hurt: tells come in bursts, near the ends of windows and long after; half of
the faults fall into the seconds around a tell, when something is under way.
"""

import random
from dataclasses import replace
from typing import Final

from sim.plan import (
    Change,
    Edit,
    EntryPlan,
    Fault,
    Harm,
    HookPlan,
    How,
    Machine,
    PodPlan,
    Tell,
    Trouble,
    WorldPlan,
)
from sim.storms import with_storms

NAMESPACES: Final = 6
AGENTS: Final = ("a0", "a1", "a2", "a3")
TYPES: Final = ("pod-restart", "oom-kill", "pod-pending", "probe-failed")
COOLDOWNS_S: Final = (60, 60, 120, 300, 600)
FIRST_TELL_S: Final = 20.0
LAST_TELL_S: Final = 1180.0
LAST_FAULT_S: Final = 1150.0
"""Faults and what they leave (an open breaker, a parked call) are over well before the end."""
END_S: Final = 1800.0
MOST_TELLS_A_POD: Final = 7

TYPE_OF: Final = {
    Trouble.CRASH: "pod-restart",
    Trouble.KILLED: "pod-restart",
    Trouble.OOM: "oom-kill",
    Trouble.UNSCHEDULABLE: "pod-pending",
    Trouble.IMAGE: "pod-pending",
    Trouble.QUIET: "pod-pending",
    Trouble.PROBE: "probe-failed",
}

_DEAF: Final = frozenset({Harm.WATCHES_REFUSED, Harm.API_AWAY, Harm.CUT_OFF})
"""Of these a pod that is thought to be Pending may well be gone, or on its way."""

_SOONER: Final = {Trouble.QUIET: Trouble.UNSCHEDULABLE}

AGENT_FAULTS: Final = (
    ("refuse", 90.0),
    ("500", 90.0),
    ("-32603", 60.0),
    ("500-rpc", 60.0),
    ("503", 60.0),
    ("429", 60.0),
    ("502", 60.0),
    ("504", 40.0),
    ("cut", 60.0),
    ("drop", 60.0),
    ("drop", 60.0),
    ("slow", 90.0),
    ("hang", 90.0),
    ("404", 40.0),
    ("failed", 60.0),
    ("endless", 40.0),
    ("input-required", 40.0),
    ("lost", 30.0),
    ("message", 40.0),
    ("database", 60.0),
)
"""With how long each lasts at most."""

ONE_REPLICA: Final = (
    (Harm.WORKER_KILLED, 4, 0.0),
    (Harm.WORKER_KILLED_AT_ACT, 8, 0.0),
    (Harm.WORKER_STOPPED, 2, 40.0),
    (Harm.WORKER_TERMINATED, 1, 0.0),
    (Harm.SUPERVISOR_KILLED, 3, 60.0),
    (Harm.SUPERVISOR_STOPPED, 1, 60.0),
    (Harm.ALL_STOPPED, 1, 90.0),
    (Harm.RESTARTED, 3, 60.0),
    (Harm.AGENT, 8, 0.0),
    (Harm.KAGENT_AWAY, 2, 120.0),
    (Harm.KEY_REFUSED, 1, 60.0),
    (Harm.API_AWAY, 2, 120.0),
    (Harm.API_RESTARTED, 2, 15.0),
    (Harm.API_BUSY, 1, 60.0),
    (Harm.API_FAILS, 1, 60.0),
    (Harm.API_SLOW, 1, 60.0),
    (Harm.ANSWERS_LOST, 2, 0.0),
    (Harm.WATCHES_ENDED, 1, 0.0),
    (Harm.WATCHES_CUT, 1, 0.0),
    (Harm.COMPACTED, 3, 0.0),
    (Harm.WATCHES_REFUSED, 3, 100.0),
    (Harm.HOOKS_TOUCHED, 2, 0.0),
)
"""(harm, weight, how long it lasts at most)"""

TWO_REPLICAS: Final = (
    (Harm.SUPERVISOR_KILLED, 6, 60.0),
    (Harm.SUPERVISOR_STOPPED, 4, 80.0),
    (Harm.ALL_STOPPED, 5, 80.0),
    (Harm.CUT_OFF, 6, 90.0),
    (Harm.LEASE_REFUSED, 4, 80.0),
    (Harm.RESTARTED, 5, 60.0),
)


def draw(seed: int, *, two_replicas: bool = True) -> WorldPlan:
    """`two_replicas` False: every world has one, and is else another world than with True."""
    return with_storms(_Drawing(random.Random(seed), seed).world(two_replicas=two_replicas))


class _Drawing:
    def __init__(self, chance: random.Random, seed: int) -> None:
        self._chance = chance
        self._seed = seed
        self._quiet: frozenset[str] = frozenset()
        """Pods that are Pending without a word."""

    def world(self, *, two_replicas: bool) -> WorldPlan:
        chance = self._chance
        two = two_replicas and chance.random() < 0.3
        speaks = "a2a" if chance.random() < 0.65 else "execute"
        machines = tuple(self._machine(two=two) for _ in range(2 if two else 1))
        hooks = self._hooks()
        pods = self._pods(hooks)
        if any(machine.rate != 1.0 for machine in machines):
            # How long a pod has been Pending is then anybody's guess.
            pods = tuple(replace(pod, trouble=_SOONER.get(pod.trouble, pod.trouble)) for pod in pods)
        self._quiet = frozenset(pod.key for pod in pods if pod.trouble is Trouble.QUIET)
        tells = self._tells(pods, hooks)
        return WorldPlan(
            seed=self._seed,
            workers=chance.choice((2, 2, 3)),
            election=two or chance.random() < 0.08,
            machines=machines,
            speaks=speaks,
            honours_keys=speaks == "a2a" or chance.random() < 0.7,
            real_ticks=chance.random() < 0.02,
            frail=chance.random() < 0.25,
            latency=chance.random() < 0.3,
            calls_per_agent=chance.choice((2, 2, 8)),
            run_s=chance.choice((1.0, 2.0, 4.0, 15.0)),
            redeliver_for_s=chance.choice((900, 900, 600, 0)),
            run_deadline_s=chance.choice((600, 300)),
            hooks=hooks,
            edits=self._edits(hooks),
            pods=pods,
            tells=tells,
            faults=self._faults(tells, speaks=speaks, two=two),
            end_s=END_S,
            agents=AGENTS,
        )

    def _machine(self, *, two: bool) -> Machine:
        chance = self._chance
        skew_s = chance.choice((0.0, 0.0, -3600.0, 3600.0, -40.0, 7.0))
        return Machine(skew_s=skew_s, rate=1.3 if two and chance.random() < 0.25 else 1.0)

    # Hooks.

    def _hooks(self) -> tuple[HookPlan, ...]:
        chance = self._chance
        hooks = []
        for number in range(NAMESPACES):
            hooks.append(HookPlan(namespace=f"n{number}", name="h", entries=self._entries()))
            if chance.random() < 0.25:
                hooks.append(HookPlan(namespace=f"n{number}", name="g", entries=self._entries()))
        return tuple(hooks)

    def _entries(self) -> tuple[EntryPlan, ...]:
        count = self._chance.choice((2, 3, 4, 4))
        types = list(TYPES)
        self._chance.shuffle(types)
        entries = [self._entry(kind) for kind in types[:count]]
        if self._chance.random() < 0.25:
            kind = self._chance.choice(types[:count])
            others = [agent for agent in AGENTS if (kind, agent) not in {(e.event_type, e.agent) for e in entries}]
            entries.append(self._entry(kind, agent=self._chance.choice(others)))
        return tuple(entries)

    def _entry(self, kind: str, *, agent: str = "") -> EntryPlan:
        chance = self._chance
        return EntryPlan(
            event_type=kind,
            agent=agent or chance.choice(AGENTS),
            cooldown_s=chance.choice(COOLDOWNS_S),
            label=chance.choice(("", "", "", "shop")),
        )

    def _edits(self, hooks: tuple[HookPlan, ...]) -> tuple[Edit, ...]:
        chance = self._chance
        edits: list[Edit] = []
        for hook in chance.sample(hooks, k=chance.choice((0, 1, 2))):
            key = f"{hook.namespace}/{hook.name}"
            at_s = round(chance.uniform(60.0, 1000.0), 3)
            change = chance.choice(tuple(Change))
            match change:
                case Change.CREATE:  # it is there from then on only
                    edits.append(Edit(at_s=at_s, change=change, hook=key))
                case Change.ADD:
                    known = {(entry.event_type, entry.agent) for entry in hook.entries}
                    fresh = [
                        self._entry(kind, agent=agent)
                        for kind in TYPES
                        for agent in AGENTS
                        if (kind, agent) not in known
                    ]
                    edits.append(Edit(at_s=at_s, change=change, hook=key, entry=chance.choice(fresh)))
                case Change.REMOVE:
                    edits.append(Edit(at_s=at_s, change=change, hook=key, entry=chance.choice(hook.entries)))
                case Change.SUSPEND | Change.RESUME:
                    edits.append(Edit(at_s=at_s, change=Change.SUSPEND, hook=key))
                    resumed_s = round(at_s + chance.uniform(1.0, 300.0), 3)
                    edits.append(Edit(at_s=resumed_s, change=Change.RESUME, hook=key))
                case _:
                    edits.append(Edit(at_s=at_s, change=change, hook=key))
        return tuple(sorted(edits, key=lambda edit: edit.at_s))

    # The story.

    def _pods(self, hooks: tuple[HookPlan, ...]) -> tuple[PodPlan, ...]:
        """Most of them have a trouble that somebody asked for."""
        chance = self._chance
        pods = []
        for number in range(NAMESPACES):
            namespace = f"n{number}"
            asked = {entry.event_type for hook in hooks if hook.namespace == namespace for entry in hook.entries}
            fitting = [trouble for trouble in Trouble if TYPE_OF[trouble] in asked]
            for index in range(chance.choice((2, 2, 3))):
                trouble = chance.choice(fitting if chance.random() < 0.9 else tuple(Trouble))
                label = chance.choice(("shop", "shop", "other"))
                pods.append(PodPlan(namespace=namespace, name=f"p{index}", label=label, trouble=trouble))
        return tuple(pods)

    def _tells(self, pods: tuple[PodPlan, ...], hooks: tuple[HookPlan, ...]) -> tuple[Tell, ...]:
        tells = [tell for pod in pods for tell in self._of_pod(pod, hooks)]
        return tuple(sorted(tells, key=lambda tell: (tell.at_s, tell.pod)))

    def _of_pod(self, pod: PodPlan, hooks: tuple[HookPlan, ...]) -> list[Tell]:
        chance = self._chance
        cooldowns = [e.cooldown_s for h in hooks if h.namespace == pod.namespace for e in h.entries]
        at_s = chance.uniform(FIRST_TELL_S, 700.0)
        tells: list[Tell] = []
        count = chance.randint(4, MOST_TELLS_A_POD)
        while len(tells) < count and at_s <= LAST_TELL_S:
            tells.append(Tell(at_s=round(at_s, 3), pod=pod.key, how=self._how(pod, tells)))
            if pod.trouble is Trouble.QUIET and tells[-1].how is How.STATUS and chance.random() < 0.6:
                at_s += chance.uniform(5.0, 58.0)  # well again just before anybody would call it stuck
                continue
            cooldown_s = chance.choice(cooldowns)
            at_s += chance.choice(
                (
                    chance.uniform(2.1, 15.0),
                    chance.uniform(2.1, 90.0),
                    max(2.1, cooldown_s + chance.uniform(-8.0, 8.0)),
                    cooldown_s + chance.uniform(5.0, 120.0),
                    cooldown_s + chance.uniform(5.0, 120.0),
                )
            )
        return tells

    def _how(self, pod: PodPlan, before: list[Tell]) -> How:
        if not before:
            return How.EVENT if pod.trouble in (Trouble.PROBE, Trouble.KILLED) else How.STATUS
        said = any(tell.how is How.EVENT for tell in before)
        choices: tuple[How, ...]
        match pod.trouble:
            case Trouble.PROBE | Trouble.KILLED:
                choices = (How.EVENT, How.REPEAT, How.REPEAT, How.GONE)
            case Trouble.CRASH | Trouble.OOM:
                choices = (How.STATUS, How.STATUS, How.STATUS, How.EVENT, How.REPEAT if said else How.EVENT, How.GONE)
            case Trouble.UNSCHEDULABLE | Trouble.IMAGE:
                choices = (How.STATUS, How.EVENT, How.EVENT, How.WELL, How.GONE)
            case _:
                choices = (How.WELL, How.WELL, How.GONE) if before[-1].how is How.STATUS else (How.STATUS,)
        return self._chance.choice(choices)

    # Faults.

    def _faults(self, tells: tuple[Tell, ...], *, speaks: str, two: bool) -> tuple[Fault, ...]:
        chance = self._chance
        faults = [self._fault(tells, ONE_REPLICA, speaks=speaks) for _ in range(chance.choice((3, 3, 4, 5)))]
        if two:
            faults = faults[:2] + [
                self._fault(tells, TWO_REPLICAS, speaks=speaks) for _ in range(chance.choice((2, 3)))
            ]
        return tuple(sorted(faults, key=lambda fault: fault.at_s))

    def _fault(self, tells: tuple[Tell, ...], table: tuple[tuple[Harm, int, float], ...], *, speaks: str) -> Fault:
        chance = self._chance
        quiet = tuple(tell.at_s for tell in tells if tell.pod in self._quiet and tell.how is How.STATUS)
        harm, longest_s = self._weighted(table)
        at_s = chance.uniform(10.0, LAST_FAULT_S)
        if chance.random() < 0.6:
            near = chance.choice(tells).at_s + chance.choice((chance.uniform(-3.0, 3.0), chance.expovariate(0.3)))
            at_s = min(max(near, 10.0), LAST_FAULT_S)
        seconds = round(longest_s * chance.random() ** 1.5, 3)
        if harm in _DEAF and quiet and chance.random() < 0.5:
            at_s = min(chance.choice(quiet) + chance.uniform(1.0, 30.0), LAST_FAULT_S)
            seconds = round(chance.uniform(0.5, 1.0) * longest_s, 3)
        agent, kind, number = "", "", 1
        match harm:
            case Harm.AGENT:
                agent = f"kagent/{chance.choice(AGENTS)}" if speaks == "a2a" else chance.choice(AGENTS)
                kind, longest_s = chance.choice(AGENT_FAULTS)
                seconds = round(chance.uniform(1.0, longest_s), 3)
            case Harm.WORKER_KILLED_AT_ACT:
                kind, number = chance.choice(("before", "after", "after")), chance.randint(1, 4)
            case Harm.WATCHES_REFUSED:
                kind = chance.choice(("pods", "events"))
            case Harm.ANSWERS_LOST:
                number = chance.randint(1, 3)
            case _:
                pass
        return Fault(
            at_s=round(at_s, 3),
            harm=harm,
            seconds=seconds,
            slot=chance.randrange(3),
            replica=chance.randrange(2),
            agent=agent,
            kind=kind,
            number=number,
        )

    def _weighted(self, table: tuple[tuple[Harm, int, float], ...]) -> tuple[Harm, float]:
        at = self._chance.randrange(sum(weight for _, weight, _ in table))
        for harm, weight, longest_s in table:
            if at < weight:
                return harm, longest_s
            at -= weight
        raise AssertionError("the weights add up")
