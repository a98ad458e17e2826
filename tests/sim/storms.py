"""What a third of the worlds have beside their draw: owners of pods, a small budget of calls, entries that hold.

It comes out of a stream of its own: the rest of each world, and all of the other two thirds, are what they were before
there was any of this, so that seeds go on meaning what they meant. It all happens in one namespace of the world, whose
entries group, hold or run out of calls; pods fail there in storms and one by one, flap, and get well in time or not.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from sim.plan import Change, EntryPlan, Fault, Harm, HookPlan, How, PodPlan, Tell, Trouble, WorldPlan

STREAM: Final = 0x5742E
"""One of those that leave the worlds of the corpus, and those that are known to tell a mutant, as they were."""
SHARE: Final = 0.34
APART_S: Final = 2.1
"""Between two tells of one pod: times are told in whole seconds."""
LAST_STORM_S: Final = 500.0
LAST_TELL_S: Final = 1180.0
TELLS_MOST: Final = 40
"""Of one owner's pods."""

TROUBLES: Final = {
    "pod-restart": (Trouble.CRASH, Trouble.CRASH, Trouble.KILLED),
    "oom-kill": (Trouble.OOM,),
    "pod-pending": (Trouble.UNSCHEDULABLE, Trouble.IMAGE, Trouble.QUIET),
    "probe-failed": (Trouble.PROBE,),
}
HOLDING: Final = ("pod-pending", "probe-failed")
OWNERS: Final = (
    ("Deployment/web", ("ReplicaSet/web-a",)),
    ("Deployment/web", ("ReplicaSet/web-a", "ReplicaSet/web-b")),
    ("StatefulSet/db", ("StatefulSet/db",)),
    ("CronJob/nightly", ("Job/nightly-a", "Job/nightly-b")),
    ("ReplicaSet/bare", ("ReplicaSet/bare",)),
)
"""The top, and what stands between it and its pods."""
AT_A_STORM: Final = (Harm.WORKER_KILLED, Harm.WORKER_KILLED, Harm.WORKER_KILLED_AT_ACT, Harm.SUPERVISOR_KILLED)
IN_A_WAIT: Final = (Harm.WORKER_KILLED, Harm.WORKER_KILLED, Harm.RESTARTED, Harm.COMPACTED)


def with_storms(plan: WorldPlan) -> WorldPlan:
    chance = random.Random(plan.seed ^ STREAM)
    return _Storms(plan, chance).world() if chance.random() < SHARE else plan


class _Storms:
    def __init__(self, plan: WorldPlan, chance: random.Random) -> None:
        self._plan = plan
        self._chance = chance
        features = [name for name, share in (("groups", 0.6), ("holds", 0.45), ("budget", 0.4)) if self._is(share)]
        self._features = features or ["groups"]
        self._namespace = chance.choice(plan.hooks).namespace
        self._pods: list[PodPlan] = []
        self._tells: list[Tell] = []
        self._faults: list[Fault] = []

    def _is(self, share: float) -> bool:
        return self._chance.random() < share

    def world(self) -> WorldPlan:
        plan, chance = self._plan, self._chance
        before = [hook for hook in plan.hooks if hook.namespace == self._namespace]
        changed = {hook: self._hook(hook) for hook in before}
        entries = {old: new for hook in before for old, new in zip(hook.entries, changed[hook].entries, strict=False)}
        mine = changed[before[0]]
        calls_an_hour = plan.calls_an_hour
        if "groups" in self._features:
            for owner, controllers in dict(chance.sample(OWNERS, k=chance.choice((1, 1, 2)))).items():
                self._owned(mine, owner, controllers)
        if "holds" in self._features:
            for number in range(chance.choice((2, 3, 4))):
                self._held(mine, number)
        if "budget" in self._features:
            calls_an_hour = chance.choice((4, 5, 8, 12, 20))
            self._too_many(mine, calls_an_hour)
        return replace(
            plan,
            hooks=tuple(changed.get(hook, hook) for hook in plan.hooks),
            edits=tuple(
                replace(edit, entry=entries[edit.entry])
                if edit.change is Change.REMOVE and edit.entry in entries and edit.hook.startswith(self._namespace)
                else edit
                for edit in plan.edits
            ),
            pods=(*plan.pods, *self._pods),
            tells=tuple(sorted((*plan.tells, *self._tells), key=lambda tell: (tell.at_s, tell.pod))),
            faults=tuple(sorted((*plan.faults, *self._faults), key=lambda fault: fault.at_s)),
            calls_an_hour=calls_an_hour,
        )

    # Hooks.

    def _hook(self, hook: HookPlan) -> HookPlan:
        entries = [self._entry(entry) for entry in hook.entries]
        if "holds" in self._features and not any(entry.hold_s for entry in entries):
            kind = self._chance.choice(HOLDING)
            more = [edit.entry for edit in self._plan.edits if edit.entry is not None]
            agents = {entry.agent for entry in (*entries, *more) if entry.event_type == kind}
            free = [agent for agent in self._plan.agents if agent not in agents]
            entries.append(self._entry(replace(entries[0], event_type=kind, agent=free[0]), holds=1.0))
        return replace(hook, entries=tuple(entries))

    def _entry(self, entry: EntryPlan, *, holds: float = 0.7) -> EntryPlan:
        chance = self._chance
        groups = "groups" in self._features and self._is(0.75)
        held = "holds" in self._features and entry.event_type in HOLDING and self._is(holds)
        return replace(entry, groups=groups, hold_s=chance.choice((15, 30, 60, 120)) if held else 0)

    # Owners.

    def _owned(self, hook: HookPlan, owner: str, controllers: tuple[str, ...]) -> None:
        """One owner's pods: a storm, some that join it later, a second one after the window, and single failures."""
        chance = self._chance
        entry = chance.choice([entry for entry in hook.entries if entry.groups] or list(hook.entries))
        trouble = chance.choice(TROUBLES[entry.event_type])
        name, size = owner.partition("/")[2], chance.choice((2, 3, 4, 6, 8, 12, 22))
        label = entry.label or chance.choice(("shop", "other"))
        pods = [
            self._pod(
                f"{name}-{number}",
                trouble,
                label=label if self._is(0.9) else "other",
                controller=controllers[number % len(controllers)],
                owner=owner,
            )
            for number in range(size)
        ]
        storm_s = chance.uniform(30.0, LAST_STORM_S)
        joining = pods[: chance.choice((0, 1, 1, 2))]
        times = {pod: [storm_s + chance.uniform(0.0, spread)] for pod, spread in self._spread(pods)}
        for pod in joining:
            times[pod] = [storm_s + chance.choice((chance.uniform(4.0, 9.0), chance.uniform(9.0, 200.0)))]
        again_s = storm_s + entry.cooldown_s + chance.choice((-4.0, 6.0, 30.0))
        for pod, spread in self._spread(chance.sample(pods, k=min(len(pods), chance.choice((1, 2, 4, 8))))):
            times[pod].append(again_s + chance.uniform(0.0, spread))
        for pod in chance.sample(pods, k=min(len(pods), 3)):
            times[pod].append(chance.uniform(storm_s, LAST_TELL_S))
        self._tell_all(times)
        self._harm(storm_s, AT_A_STORM)
        if self._is(0.35):
            seconds = round(chance.uniform(5.0, 150.0), 3)
            at_s = round(max(10.0, storm_s - chance.uniform(-3.0, 20.0)), 3)
            kind = chance.choice(("403", "503"))
            self._faults.append(Fault(at_s=at_s, harm=Harm.OWNERS_HIDDEN, seconds=seconds, kind=kind))

    def _spread(self, pods: Iterable[PodPlan]) -> Iterator[tuple[PodPlan, float]]:
        """With how many seconds they all fail in."""
        spread = self._chance.choice((0.0, 1.0, 3.0, 4.5, 20.0))
        return ((pod, spread) for pod in pods)

    def _tell_all(self, times: dict[PodPlan, list[float]]) -> None:
        left = TELLS_MOST
        for pod, at in times.items():
            before_s = 0.0
            for at_s in sorted(at):
                before_s = max(at_s, before_s + APART_S)
                if before_s > LAST_TELL_S or not left:
                    break
                left -= 1
                self._tell(before_s, pod, _first_how(pod.trouble))
            if pod.trouble in (Trouble.PROBE, *TROUBLES["pod-pending"]) and self._is(0.5):
                self._tell(before_s + self._chance.uniform(APART_S, 150.0), pod, How.WELL)

    # Entries that hold.

    def _held(self, hook: HookPlan, number: int) -> None:
        """A pod that is unwell again and again: well before anybody is called, or long after, or just about then."""
        chance = self._chance
        entry = chance.choice([entry for entry in hook.entries if entry.hold_s])
        owned = {"controller": "StatefulSet/cache", "owner": "StatefulSet/cache"} if self._is(0.4) else {}
        trouble = chance.choice(TROUBLES[entry.event_type])
        pod = self._pod(f"warm-{number}", trouble, label=entry.label or "shop", **owned)
        at_s = chance.uniform(30.0, 300.0)
        if number == 0:
            self._harm(at_s + 0.5 * entry.hold_s, IN_A_WAIT)
        while at_s < LAST_TELL_S:
            self._tell(at_s, pod, How.STATUS)
            lasts_s = chance.choice(
                (
                    chance.uniform(APART_S, 0.9 * entry.hold_s),
                    chance.uniform(APART_S, 0.9 * entry.hold_s),
                    entry.hold_s + chance.uniform(-3.0, 3.0),
                    entry.hold_s + chance.uniform(40.0, 120.0),
                    entry.hold_s + chance.uniform(40.0, 120.0),
                )
            )
            said_s = at_s + chance.uniform(APART_S, lasts_s)
            if said_s < at_s + lasts_s - APART_S:
                self._tell(said_s, pod, chance.choice((How.EVENT, How.REPEAT)))
            at_s += lasts_s
            self._tell(at_s, pod, chance.choice((How.WELL, How.WELL, How.WELL, How.GONE)))
            at_s += chance.choice((chance.uniform(APART_S, 12.0), chance.uniform(20.0, 250.0)))

    # A budget.

    def _too_many(self, hook: HookPlan, calls_an_hour: int) -> None:
        """More pods that fail, each its own incident, than the Hook has calls."""
        chance = self._chance
        entry = chance.choice([entry for entry in hook.entries if not entry.groups] or list(hook.entries))
        trouble = chance.choice(TROUBLES[entry.event_type])
        storm_s, spread_s = chance.uniform(30.0, LAST_STORM_S), chance.choice((3.0, 60.0, 200.0))
        times: dict[PodPlan, list[float]] = {}
        for number in range(calls_an_hour + chance.choice((2, 4, 6))):
            pod = self._pod(f"one-{number}", trouble, label=entry.label or "shop")
            times[pod] = [storm_s + chance.uniform(0.0, spread_s)]
            if self._is(0.5):
                times[pod].append(chance.uniform(storm_s + spread_s, LAST_TELL_S))
        self._tell_all(times)
        self._harm(storm_s + chance.uniform(0.0, 300.0), IN_A_WAIT)
        self._harm(storm_s, AT_A_STORM)

    # All of them.

    def _pod(self, name: str, trouble: Trouble, *, label: str, controller: str = "", owner: str = "") -> PodPlan:
        if trouble is Trouble.QUIET and any(machine.rate != 1.0 for machine in self._plan.machines):
            trouble = Trouble.UNSCHEDULABLE  # how long it has been Pending is there anybody's guess
        pod = PodPlan(
            namespace=self._namespace, name=name, label=label, trouble=trouble, controller=controller, owner=owner
        )
        self._pods.append(pod)
        return pod

    def _tell(self, at_s: float, pod: PodPlan, how: How) -> None:
        if at_s <= LAST_TELL_S:
            self._tells.append(Tell(at_s=round(at_s, 3), pod=pod.key, how=how))

    def _harm(self, near_s: float, harms: tuple[Harm, ...]) -> None:
        chance = self._chance
        if self._is(0.5):
            harm = chance.choice(harms)
            lasting = harm in (Harm.SUPERVISOR_KILLED, Harm.RESTARTED)
            self._faults.append(
                Fault(
                    at_s=round(max(10.0, near_s + chance.uniform(-0.5, 6.0)), 3),
                    harm=harm,
                    seconds=round(chance.uniform(0.1, 30.0), 3) if lasting else 0.0,
                    slot=chance.randrange(3),
                    replica=chance.randrange(2),
                    kind=chance.choice(("before", "after")) if harm is Harm.WORKER_KILLED_AT_ACT else "",
                    number=chance.randint(1, 4),
                )
            )


def _first_how(trouble: Trouble) -> How:
    return How.EVENT if trouble is Trouble.KILLED else How.STATUS
