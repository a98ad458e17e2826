"""What must be called in a world, worked out from what was told and which entries stood when. Knows nothing of khook.

A `Due` is one piece of evidence and the incidents of which at least one has to answer for it, by when. Where the
world makes it undecidable whether anybody could know (a pod's state that was gone again before an outage ended, an
entry that was removed meanwhile) nothing is due: such evidence justifies a call and demands none.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sim.history import Disturbance, EntryLife, History, IncidentKey, RowFact, RunFact, Told
from sim.plan import Harm, Trouble

PROMPTLY_S: Final = 8.0
"""From evidence to an agent while all is well: held for its pod's line (2 s), for its text (2 s), some milliseconds."""
GATHERED_S: Final = 6.0
"""What a group takes longer: its other pods are waited for (5 s), and its owner is looked up."""
LOOKED_FOR_S: Final = 15.0
"""What nobody says, that a pod is stuck, is found by a tick; so often does a world tick."""
SEEN_FOR_S: Final = 21.0
"""A state that lasted this long was seen by whoever looked: every tick and hold is shorter."""
MAX_SIGNAL_AGE_S: Final = 900.0
RETRY_GAP_S: Final = 60.0
SLACK_S: Final = 2.5
"""Times in statuses come from `Date` headers of whole seconds, evidence carries whole seconds too."""

STANDS_IN_FOR_S: Final = 605.0
"""How long a direct controller may stand in for its owner after a look-up failed, which itself takes five seconds."""
HIDING_OWNERS: Final = frozenset(
    {
        Harm.OWNERS_HIDDEN,
        Harm.API_AWAY,
        Harm.API_RESTARTED,
        Harm.API_BUSY,
        Harm.API_FAILS,
        Harm.API_SLOW,
        Harm.CUT_OFF,
        Harm.WORKER_STOPPED,
        Harm.ALL_STOPPED,
    }
)
"""Faults for which a look-up may not be answered in time."""

ACCEPTED_FAILURES: Final = frozenset({"RunFailed", "RunLost", "RunDeadline", "InputRequired"})
"""Reasons of `Failed` that say that an agent had the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    told: Told
    keys: tuple[IncidentKey, ...]
    """One of them has to answer."""
    by_s: float
    cooldown_s: float


@dataclass(slots=True, kw_only=True)
class Call:
    """One call id, through all versions of its Hook's status and the agents' record."""

    id: str
    key: IncidentKey
    facts: list[RowFact]
    runs: list[RunFact]

    @property
    def claimed_s(self) -> float:
        """Its own word, which is early where the API server took its time, or the server's, which is never late."""
        return min(self.facts[0].claimed_s, self.facts[0].at_s)

    @property
    def accepted(self) -> bool:
        return bool(self.runs) or any(fact.state in ("Accepted", "Completed") for fact in self.facts)

    @property
    def accepted_s(self) -> float:
        """When an agent took it, by the agents' record where it has it."""
        if self.runs:
            return self.runs[0].at_s
        return next(fact.at_s for fact in self.facts if fact.state in ("Accepted", "Completed"))

    @property
    def failed_s(self) -> float | None:
        """When the Hook said that no agent had it."""
        for fact in self.facts:
            if fact.state == "Failed" and fact.reason not in ACCEPTED_FAILURES:
                return fact.at_s
        return None

    @property
    def waits(self) -> list[tuple[float, float]]:
        """From when to when the Hook showed that its budget does not allow the call yet."""
        until_s = [fact.at_s for fact in self.facts[1:]] + [float("inf")]
        return [(fact.at_s, end_s) for fact, end_s in zip(self.facts, until_s, strict=True) if waits_for_budget(fact)]

    @property
    def named(self) -> frozenset[str]:
        """The pods that its agent was told of."""
        return frozenset(self.runs[0].named) if self.runs else frozenset()

    def mutes_until_s(self, cooldown_s: float) -> float:
        """Until when evidence is a repeat of this call's, or meets it in flight."""
        seen = [fact.accepted_s for fact in self.facts if fact.accepted_s is not None]
        ended = [fact.at_s for fact in self.facts if fact.state in ("Completed", "Failed")]
        return max([self.accepted_s + cooldown_s, *(at + cooldown_s for at in seen), *ended[:1]])


def keys_of(life: EntryLife, told: Told, *, owner_hidden: bool) -> tuple[IncidentKey, ...]:
    """The incidents that this evidence may belong to: of its pod, or of its owner; or of who stands in for that."""
    resources = [told.pod]
    if life.groups and told.owner:
        resources = [told.owner, told.controller] if owner_hidden else [told.owner]
    return tuple((life.uid, life.event_type, life.agent, resource) for resource in dict.fromkeys(resources))


def is_about(told: Told, life: EntryLife, resource: str) -> bool:
    """Whether a call of this entry about this resource may be about this evidence."""
    resources = (told.owner, told.controller) if life.groups and told.owner else (told.pod,)
    return resource in resources and justifies(told, life)


def spoken(key: IncidentKey) -> str:
    """For a person."""
    return f"{key[1]} of {key[3]} for {key[2]} (Hook {key[0][:8]})"


def may_stand_in(history: History, from_s: float, until_s: float) -> bool:
    """Whether the owner of some pod may have been out of sight for a call of that time."""
    since_s = from_s - STANDS_IN_FOR_S
    return any(
        one.what in HIDING_OWNERS and one.from_s <= until_s and one.felt_until_s >= since_s
        for one in history.disturbances
    )


def waits_for_budget(fact: RowFact) -> bool:
    return (fact.state, fact.reason) == ("Pending", "Budget")


def calls(history: History) -> dict[str, Call]:
    """By id."""
    found: dict[str, Call] = {}
    for fact in history.rows:
        if fact.call_id:
            found.setdefault(fact.call_id, Call(id=fact.call_id, key=fact.key, facts=[], runs=[])).facts.append(fact)
    for run in history.runs:
        if run.call_id in found:
            found[run.call_id].runs.append(run)
    return found


def by_key(found: dict[str, Call]) -> dict[IncidentKey, list[Call]]:
    keyed: dict[IncidentKey, list[Call]] = {}
    for call in found.values():
        keyed.setdefault(call.key, []).append(call)
    return keyed


def lives(history: History) -> dict[tuple[str, str, str], EntryLife]:
    return {(life.uid, life.event_type, life.agent): life for life in history.entries}


# When something is due.


def deadline_s(at_s: float, disturbances: Iterable[Disturbance], *, promptly_s: float = PROMPTLY_S) -> float:
    """When evidence of `at_s` must have been acted on, given what went wrong meanwhile."""
    by_s = at_s + promptly_s
    ordered = sorted(disturbances, key=lambda one: one.from_s)
    moved = True
    while moved:
        moved = False
        for one in ordered:
            if one.from_s <= by_s and one.felt_until_s >= at_s and by_s < one.felt_until_s + promptly_s:
                by_s, moved = one.felt_until_s + promptly_s, True
    return by_s


def concerns(agent: str | None) -> Callable[[Disturbance], bool]:
    """Disturbances that may delay this agent's calls; None: any at all."""
    return lambda one: agent is None or one.agent in ("", "*", agent)


def justifies(told: Told, life: EntryLife) -> bool:
    """Whether this evidence may ever lead to a call of this entry."""
    if told.namespace != life.namespace or life.label not in ("", told.label):
        return False
    match told.trouble:
        case Trouble.CRASH | Trouble.KILLED:
            return life.event_type == "pod-restart"
        case Trouble.OOM:
            return life.event_type in ("oom-kill", "pod-restart")
        case Trouble.PROBE:
            return life.event_type == "probe-failed"
        case _:
            return life.event_type == "pod-pending"


def dues(history: History, *, fair: bool) -> list[Due]:
    """`fair`: another agent's trouble is no excuse."""
    hooks: dict[str, list[EntryLife]] = {}
    for life in history.entries:
        hooks.setdefault(life.uid, []).append(life)
    return [
        due
        for told in history.told
        for entries in hooks.values()
        for due in _of_hook(history, told, entries, fair=fair)
    ]


def _of_hook(history: History, told: Told, entries: list[EntryLife], *, fair: bool) -> Iterable[Due]:
    answering = [life for life in entries if justifies(told, life)]
    if not answering:
        return
    if told.trouble is Trouble.OOM:
        ooms = [life for life in answering if life.event_type == "oom-kill"]
        if not told.oom and len(ooms) == len(answering):
            return  # a restart as far as anybody knows, and nobody asked for one
        if ooms and len(ooms) < len(answering):
            moved = any(life.from_s > told.at_s - 60.0 or life.until_s < history.end_s for life in ooms)
            if told.is_event or moved:  # whose it is depends on what is known of the pod at that moment
                dues = [_due(history, told, life, fair=fair) for life in answering]
                if all(dues):
                    found = [due for due in dues if due is not None]
                    yield Due(
                        told=told,
                        keys=tuple(key for due in found for key in due.keys),
                        by_s=max(due.by_s for due in found),
                        cooldown_s=max(due.cooldown_s for due in found),
                    )
                return
            answering = ooms
    for life in answering:
        if (due := _due(history, told, life, fair=fair)) is not None:
            yield due


def _due(history: History, told: Told, life: EntryLife, *, fair: bool) -> Due | None:
    since_s = max(told.at_s, life.from_s)
    concerned = concerns(life.agent if fair else None)
    promptly_s = PROMPTLY_S + (GATHERED_S if life.groups else 0.0)
    promptly_s += LOOKED_FOR_S if told.trouble is Trouble.QUIET or life.hold_s else 0.0
    by_s = deadline_s(since_s + life.hold_s, filter(concerned, history.disturbances), promptly_s=promptly_s)
    if life.hold_s and (told.spell is None or told.spell.until_s < by_s):
        return None
    if life.until_s < by_s + SLACK_S or by_s > history.end_s:
        return None
    if life.from_s > told.at_s and by_s - told.at_s > MAX_SIGNAL_AGE_S - 60.0:
        return None  # near the age at which it is history for a new entry
    if life.from_s > told.at_s and told.trouble is Trouble.OOM and told.is_event:
        return None  # whose it is hangs on the pod's terminations since
    if any(since <= by_s and until >= told.at_s - SLACK_S for since, until in life.suspended):
        return None
    if not _could_be_known(told, life, since_s=since_s, by_s=by_s):
        return None
    keys = keys_of(life, told, owner_hidden=may_stand_in(history, told.at_s, by_s))
    return Due(told=told, keys=keys, by_s=by_s, cooldown_s=life.cooldown_s)


def _could_be_known(told: Told, life: EntryLife, *, since_s: float, by_s: float) -> bool:
    # An Event speaks for itself; but its pod's labels, and what its container died of, only its pod tells.
    needs_pod = bool(life.label or life.groups or life.hold_s) or life.event_type == "oom-kill"
    if told.until_s is None or (told.is_event and not needs_pod):
        return True
    disturbed = by_s > since_s + life.hold_s + PROMPTLY_S + LOOKED_FOR_S + (GATHERED_S if life.groups else 0.0)
    return told.until_s >= (by_s if disturbed else since_s + SEEN_FOR_S)


def answers(call: Call, due: Due) -> bool:
    """Whether this call, its visible failure, or its visible wait for the budget is what came of the evidence."""
    if any(since <= due.by_s and due.told.at_s <= until + SLACK_S for since, until in call.waits):
        return True
    if call.accepted:
        return call.accepted_s <= due.by_s and due.told.at_s <= call.mutes_until_s(due.cooldown_s) + SLACK_S
    failed_s = call.failed_s
    if failed_s is None:
        return False
    return failed_s <= due.by_s and due.told.at_s <= failed_s + RETRY_GAP_S + SLACK_S
