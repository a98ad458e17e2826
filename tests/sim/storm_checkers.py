"""What must hold where entries group, hold, or run out of calls; `checkers` has what must hold of all.

groups   one call for all pods of an owner that fail together; it names those that did, and nobody else's
budget   no Hook makes more calls than its bucket allows, and none waits that it does allow
holds    no call for trouble that was over before its entry's `holdFor` was
"""

from collections.abc import Iterator
from typing import Final

from sim.history import EntryLife, History, Hold, IncidentKey, RowFact, Told
from sim.model import (
    SLACK_S,
    Call,
    by_key,
    calls,
    concerns,
    deadline_s,
    is_about,
    lives,
    may_stand_in,
    spoken,
    waits_for_budget,
)
from sim.plan import PodPlan, Trouble

NAMED_MOST: Final = 20
REMEMBERED_MOST: Final = 20
GATHERED_FOR_S: Final = 3.5
"""`groupWait` is five seconds, of a clock that may run 1.3 times fast."""
GATHERED_BY_S: Final = 0.5
"""What was told so shortly before a send may have come too late for it."""
HELD_FOR_ITS_LINE_S: Final = 2.5
"""An Event may wait so long for the line of its pod."""
AFFORDED_WITHIN_S: Final = 40.0
"""A tick of 15 s finds that there is a call again; it may be one that was due for another."""
UNSEEN_S: Final = 1.0
"""A recovery so shortly before a call may not have been seen by it."""
BUDGET_SLACK: Final = 0.1
"""Of a call: claims are told in whole seconds of the API server's time."""


def groups(history: History) -> list[str]:
    """Rows of entries that group are about owners, of others about pods; what a group's call names is its own.

    The direct controller stands in for an owner only where a look-up may have failed. Which pods had joined is exact
    only while nothing went wrong between the first evidence and the send.
    """
    known = lives(history)
    wrong: list[str] = []
    pods = {(pod.namespace, pod.name): pod for pod in history.plan.pods}
    sent: dict[str, float] = {}
    for act in history.acts:
        if act.what == "send":
            sent.setdefault(act.call_id, act.at_s)
    for key, its_calls in by_key(calls(history)).items():
        life = known.get(key[:3])
        if life is None:
            continue
        wrong += _misplaced(history, key, its_calls, life, pods)
        if "/" not in key[3]:
            continue
        told = [one for one in history.told if is_about(one, life, key[3])]
        since_s = float("-inf")
        for call in sorted((one for one in its_calls if one.accepted), key=lambda one: one.claimed_s):
            wrong += _wrongly_named(call, told, since_s=since_s)
            if call.id in sent and not call.waits and sent[call.id] - call.facts[0].at_s < GATHERED_FOR_S:
                wrong.append(f"{sent[call.id]:.3f} sent before others could join: {spoken(key)}, call {call.id}")
            if not life.hold_s and call.runs and call.id in sent:
                wrong += _unnamed(history, call, told, since_s=since_s, sent_s=sent[call.id])
            since_s = sent.get(call.id, call.accepted_s)
    return wrong


def _misplaced(
    history: History, key: IncidentKey, its_calls: list[Call], life: EntryLife, pods: dict[tuple[str, str], PodPlan]
) -> Iterator[str]:
    resource = key[3]
    if "/" not in resource:
        pod = pods.get((life.namespace, resource))
        if life.groups and pod is not None and pod.owner:
            yield f"{its_calls[0].claimed_s:.3f} about a pod of {pod.owner}: {spoken(key)}"
        return
    members = [
        pod for pod in pods.values() if pod.namespace == life.namespace and resource in (pod.owner, pod.controller)
    ]
    if not life.groups or not members:
        yield f"{its_calls[0].claimed_s:.3f} nobody's owner: {spoken(key)}"
    elif all(pod.owner != resource for pod in members):
        for call in its_calls:
            if not may_stand_in(history, call.claimed_s, call.claimed_s):
                yield f"{call.claimed_s:.3f} for {members[0].owner}, which was there to be looked up: {spoken(key)}"


def _wrongly_named(call: Call, told: list[Told], *, since_s: float) -> Iterator[str]:
    """Every pod that a call names has failed since the call before it was sent, or has not been well since.

    Of a group with more pods than a row remembers a LIST may tell of one again: there any failure before will do.
    """
    if len({one.pod for one in told}) > REMEMBERED_MOST:
        since_s = float("-inf")
    failed = {
        one.pod
        for one in told
        if one.at_s <= call.accepted_s
        and (one.at_s >= since_s - SLACK_S or (one.spell is not None and one.spell.until_s >= call.claimed_s - SLACK_S))
    }
    if strangers := sorted(call.named - failed):
        yield f"{call.accepted_s:.3f} names {strangers}, of which nothing was told: {spoken(call.key)}, call {call.id}"


def _unnamed(history: History, call: Call, told: list[Told], *, since_s: float, sent_s: float) -> Iterator[str]:
    """Every pod that failed before its group's call was sent is named by it."""
    if any(one.from_s <= sent_s and one.felt_until_s >= call.claimed_s - SLACK_S for one in history.disturbances):
        return
    failed = {
        one.pod
        for one in told
        if since_s + SLACK_S < one.at_s <= sent_s - (HELD_FOR_ITS_LINE_S if one.is_event else GATHERED_BY_S)
        and one.at_s > call.facts[0].at_s  # before, it may have been a repeat of the last call's
        and (one.until_s is None or one.until_s > sent_s)
        and one.trouble is not Trouble.QUIET
        and not (one.trouble is Trouble.OOM and one.is_event)
    }
    if (missing := sorted(failed - call.named)) and len(call.named) < NAMED_MOST:
        yield f"{sent_s:.3f} does not name {missing}, which failed with it: {spoken(call.key)}, call {call.id}"


# Budgets.


def budget(history: History) -> list[str]:
    """A Hook's calls by a bucket of our own, which is reckoned from the status anew whenever its namespace is granted.

    A machine whose clock runs fast refills faster, by as much.
    """
    size = history.plan.calls_an_hour
    hooks: dict[str, list[EntryLife]] = {}
    for life in history.entries:
        hooks.setdefault(life.uid, []).append(life)
    wrong = []
    for uid, entries in hooks.items():
        grants = [hold for hold in history.holds if hold.namespace == entries[0].namespace]
        facts = [fact for fact in history.rows if fact.key[0] == uid]
        gone_s = min(history.end_s, max(life.until_s for life in entries))
        wrong += _over_budget(history, facts, grants, size=size, gone_s=gone_s)
    return wrong


class _Bucket:
    def __init__(self, size: int, *, an_hour: float) -> None:
        self._size = size
        self._a_second = an_hour / 3600
        self.level = float(size)
        self.at_s = -3600.0

    def charge(self, at_s: float) -> None:
        self.refill(at_s)
        self.level = max(0.0, self.level - 1)

    def refill(self, at_s: float) -> None:
        if at_s > self.at_s:
            self.level = min(self._size, self.level + (at_s - self.at_s) * self._a_second)
            self.at_s = at_s

    def holds_one_at_s(self) -> float:
        return self.at_s + max(0.0, 1 + BUDGET_SLACK - self.level) / self._a_second


def _over_budget(history: History, facts: list[RowFact], grants: list[Hold], *, size: int, gone_s: float) -> list[str]:
    an_hour = size * max(machine.rate for machine in history.plan.machines)
    bucket = _Bucket(size, an_hour=an_hour)
    paid: set[str] = set()
    wrong: list[str] = []
    rows: dict[IncidentKey, RowFact] = {}
    steps: list[RowFact | Hold] = sorted([*facts, *grants], key=lambda one: one.number)
    for step in steps:
        if isinstance(step, Hold):
            wrong += _kept_waiting(history, bucket, rows, until_s=min(gone_s, step.from_s))
            bucket = _Bucket(size, an_hour=an_hour)
            for claimed_s in sorted(min(row.claimed_s, row.at_s) for row in rows.values() if _is_charged(row)):
                bucket.charge(claimed_s)
            bucket.refill(step.from_s)
            continue
        if _is_charged(step) and step.call_id not in paid:
            at_s = min(step.claimed_s, step.at_s)
            wrong += _kept_waiting(history, bucket, rows, until_s=min(gone_s, step.at_s))
            bucket.refill(at_s)
            if bucket.level < 1 - BUDGET_SLACK:
                wrong.append(
                    f"{at_s:.3f} a call beyond the {size} an hour, of which {bucket.level:.2f} was left:"
                    f" {spoken(step.key)}, call {step.call_id}"
                )
            bucket.charge(at_s)
            paid.add(step.call_id)
        rows[step.key] = step
    wrong += _kept_waiting(history, bucket, rows, until_s=gone_s)
    return wrong


def _is_charged(fact: RowFact) -> bool:
    return bool(fact.call_id) and fact.reason not in ("Budget", "Suspended")


def _kept_waiting(
    history: History, bucket: _Bucket, rows: dict[IncidentKey, RowFact], *, until_s: float
) -> Iterator[str]:
    """A call that waited on, until then, though there was one to be had."""
    waiting = [row for row in rows.values() if waits_for_budget(row)]
    if not waiting or max(machine.rate for machine in history.plan.machines) > 1.0:
        return  # there the bucket refills as fast as one of the clocks says, and nobody knows which
    since_s = max(min(row.at_s for row in waiting), bucket.holds_one_at_s())
    by_s = deadline_s(since_s, filter(concerns(""), history.disturbances), promptly_s=AFFORDED_WITHIN_S)
    if by_s < until_s:
        yield f"{by_s:.3f} waits for its budget, which has had a call since {since_s:.3f}: {spoken(waiting[0].key)}"


# Entries that hold.


def holds(history: History) -> list[str]:
    """A call for a pod whose trouble had lasted for `holdFor` when it was claimed, as far as anybody could know.

    Nobody is told of a recovery while something is wrong with what tells it. A machine whose clock runs fast knows of
    no duration.
    """
    if max(machine.rate for machine in history.plan.machines) > 1.0:
        return []
    known, wrong = lives(history), []
    for key, its_calls in by_key(calls(history)).items():
        life = known.get(key[:3])
        if life is None or not life.hold_s:
            continue
        told = [one for one in history.told if is_about(one, life, key[3])]
        for call in its_calls:
            if not any(_has_lasted(history, one, call.claimed_s, hold_s=life.hold_s) for one in told):
                wrong.append(
                    f"{call.claimed_s:.3f} nothing had lasted for {life.hold_s:.0f} s: {spoken(key)}, call {call.id}"
                )
    return wrong


def _has_lasted(history: History, told: Told, at_s: float, *, hold_s: float) -> bool:
    if told.spell is None:
        return False
    evidence_s = told.spell.from_s if told.trouble is Trouble.QUIET else told.at_s
    if evidence_s + hold_s > at_s + SLACK_S:
        return False
    until_s = told.spell.until_s
    if until_s >= at_s - UNSEEN_S:
        return True
    return any(
        not one.agent and one.from_s <= until_s + UNSEEN_S and one.felt_until_s >= at_s - UNSEEN_S
        for one in history.disturbances
    )
