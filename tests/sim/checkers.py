"""What must hold in every world: functions from a history to what is wrong with it, in words.

    sound         nothing in khook broke
    no_lost       P1: every signal that matches an entry and is no repeat leads to an accepted call or a visible failure
    justified     and nothing is called that nobody told; a failure has a cause that the world had put there
    claimed       nothing is sent before the API server holds its call id as `Calling`
    window        P2: two accepted calls of one incident are a cooldown apart
    single_owner  P3: who acts on a namespace holds it, by the highest epoch there is
    fair          P4: another agent's trouble delays nobody
    groups        one call for all pods of an owner that fail together, and it names those that did
    budget        no Hook makes more calls than its bucket allows, and none waits that it does allow
    holds         no call for trouble that was over before its entry's `holdFor` was
    bounded       P8: queues, rows, requests stay within what the world can explain
    converges     in the end all is owned, told and written, and nothing is left behind

Each is a promise of khook's made exact. Where the promise has an exception it stands in the checker's docstring.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

from khook.worker.lot import UNASKED_S
from sim.history import Act, History, Hold, IncidentKey, Stream
from sim.model import (
    ACCEPTED_FAILURES,
    SLACK_S,
    Call,
    Due,
    answers,
    by_key,
    calls,
    concerns,
    dues,
    is_about,
    lives,
    spoken,
)
from sim.storm_checkers import budget, groups, holds

Checker = Callable[[History], list[str]]

ATTEMPTS_MOST: Final = 40
"""Of one call: three a delivery, and within a quarter of an hour a breaker lets no more than a dozen through."""
CLAIMED_WITHIN_S: Final = 0.3
"""Evidence that came so shortly before a claim may not have been seen by it."""
AT_ONCE_S: Final = 1.0
BREAKER_REMEMBERS_S: Final = UNASKED_S + 300.0
"""A breaker that nobody asks is forgotten so long after its time was over, which is five minutes at most."""
TASKS_MOST: Final = 400
STATUS_WRITES_A_SECOND: Final = 12
"""Of one namespace with up to two Hooks, beside those that moved a row: repeats cost one a second each."""


def sound(history: History) -> list[str]:
    return list(history.errors)


def no_lost(history: History) -> list[str]:
    return _unanswered(history, dues(history, fair=False))


def fair(history: History) -> list[str]:
    """The same with less patience: only its own agent's trouble, and everybody's, excuses a call for being late."""
    return _unanswered(history, dues(history, fair=True))


def _unanswered(history: History, wanted: Iterable[Due]) -> list[str]:
    keyed = by_key(calls(history))
    return [
        f"{due.told.at_s:.3f} {due.told.trouble} of {due.told.namespace}/{due.told.pod}"
        f" ({'Event' if due.told.is_event else 'status'}) for {_names(due.keys)}:"
        f" nothing by {due.by_s:.3f}; calls {_told_calls(keyed, due.keys)}"
        for due in wanted
        if not any(answers(call, due) for key in due.keys for call in keyed.get(key, ()))
    ]


def justified(history: History) -> list[str]:
    """Each accepted call has evidence that is newer than the last accepted call of its incident.

    Where nothing is parked (`KHOOK_REDELIVER_FOR=0`) a call that meets its agent's breaker, open or just being probed,
    fails at once: the cause is then the earlier failure that opened it, for as long as the breaker remembers.
    """
    known, found = lives(history), calls(history)
    wrong = [
        f"{run.at_s:.3f} run of a call that no status ever named: {run}"
        for run in history.runs
        if run.call_id not in found
    ]
    for key, its_calls in by_key(found).items():
        life = known.get(key[:3])
        if life is None:
            wrong.append(f"{its_calls[0].facts[0].at_s:.3f} a row for an entry that never stood: {key}")
            continue
        evidence = sorted(told.at_s for told in history.told if is_about(told, life, key[3]))
        before_s = float("-inf")
        for call in sorted((one for one in its_calls if one.accepted), key=lambda one: one.claimed_s):
            if not any(before_s - CLAIMED_WITHIN_S <= at_s <= call.accepted_s for at_s in evidence):
                wrong.append(f"{call.accepted_s:.3f} called for nothing new: {spoken(key)}, call {call.id}")
            before_s = call.claimed_s
        failures = [call for call in its_calls if not _behind_breaker(history, call, found.values())]
        wrong += [problem for call in failures if (problem := _without_cause(history, call, life.until_s))]
    return wrong + _misdirected(history, found)


def _behind_breaker(history: History, call: Call, others: Iterable[Call]) -> bool:
    if history.plan.redeliver_for_s or call.failed_s is None or call.failed_s - call.claimed_s > AT_ONCE_S:
        return False
    return any(
        other.key[2] == call.key[2]
        and other.failed_s is not None
        and 0 < call.claimed_s - other.failed_s < BREAKER_REMEMBERS_S
        for other in others
    )


def _without_cause(history: History, call: Call, gone_s: float) -> str:
    failed_s = call.failed_s
    if failed_s is None or gone_s <= failed_s:
        return ""
    if call.waits and any(fact.reason == "Budget" for fact in call.facts if fact.state == "Failed"):
        return ""
    concerned = concerns(call.key[2])
    for one in history.disturbances:
        if one.agent and concerned(one) and one.from_s <= failed_s and call.claimed_s <= one.felt_until_s:
            return ""
    reason = next(fact.reason for fact in call.facts if fact.state == "Failed")
    return f"{failed_s:.3f} {reason} for no reason: {spoken(call.key)}, call {call.id}"


def _misdirected(history: History, found: dict[str, Call]) -> list[str]:
    wrong = []
    owners = {(pod.namespace, pod.name): (pod.owner, pod.controller) for pod in history.plan.pods}
    for run in history.runs:
        if (call := found.get(run.call_id)) is None:
            continue
        resources = (run.pod, *owners.get((run.namespace, run.pod), ()))
        if (run.event_type, run.agent) != call.key[1:3] or call.key[3] not in resources:
            wrong.append(f"{run.at_s:.3f} {run} is not what the claim says: {spoken(call.key)}")
    return wrong


def claimed(history: History) -> list[str]:
    """By the newest version of the status that the API server had when the request left."""
    wrong = []
    facts = iter(history.rows)
    fact = next(facts, None)
    states: dict[IncidentKey, tuple[str, str]] = {}
    keys: dict[str, IncidentKey] = {}
    for act in history.acts:
        while fact is not None and fact.number < act.number:
            states[fact.key] = (fact.call_id, fact.state)
            keys[fact.call_id] = fact.key
            fact = next(facts, None)
        if act.what != "send":
            continue
        key = keys.get(act.call_id)
        if key is None or states[key] != (act.call_id, "Calling"):
            held = None if key is None else states[key]
            wrong.append(f"{act.at_s:.3f} {act.process} sent {act.call_id} while its status held {held}")
    return wrong


def window(history: History) -> list[str]:
    """From acceptance to acceptance, by the agents' own record.

    Exceptions: over `execute`, which nobody can ask, each break (a process that dies, an answer that is no 2xx though
    the agent set to work) may cost one repetition: of that call where keys are not honoured, of its incident where
    the call was given up. A machine whose clock runs 1.3 times fast measures no cooldown to speak of, for what it
    knows of the API server's time is as old as its last requests: there no window is promised.
    """
    known = lives(history)
    fastest = max(machine.rate for machine in history.plan.machines)
    wrong = []
    for key, its_calls in by_key(calls(history)).items():
        life = known.get(key[:3])
        if life is None:
            continue
        apart_s = life.cooldown_s - SLACK_S if fastest == 1.0 else float("-inf")
        runs = sorted((run for call in its_calls for run in call.runs), key=lambda run: run.at_s)
        repeats: dict[str, int] = {}
        for before, run in pairwise(runs):
            if run.call_id == before.call_id:
                repeats[run.call_id] = repeats.get(run.call_id, 0) + 1
            elif run.at_s - before.at_s < apart_s and not _breaks(history, before.call_id):
                wrong.append(
                    f"{run.at_s:.3f} called {run.at_s - before.at_s:.3f} s after the last call,"
                    f" cooldown {life.cooldown_s:.0f} s: {spoken(key)}, calls {before.call_id} and {run.call_id}"
                )
        for call_id, times in repeats.items():
            if times > (allowed := 0 if history.plan.honours_keys else _breaks(history, call_id)):
                wrong.append(f"call {call_id} ran {times + 1} times over {allowed} breaks: {spoken(key)}")
    return wrong


def _breaks(history: History, call_id: str) -> int:
    """How often nobody could know what became of this call."""
    if history.plan.speaks != "execute":
        return 0
    senders = {act.process for act in history.acts if act.call_id == call_id}
    deaths = sum(death.process in senders for death in history.deaths)
    return deaths + sum(one.call_id == call_id and one.end[:1] != "2" for one in history.attempts)


def single_owner(history: History) -> list[str]:
    """Every act and every watch lies within a hold of its process; at an act no higher epoch was ever granted.

    Within one replica no two holds of a namespace meet. Those of two replicas may: a leader that was stopped or cut
    off holds until it notices. What it may not do in that time is act.
    """
    holds: dict[str, list[Hold]] = {}
    for hold in history.holds:
        holds.setdefault(hold.namespace, []).append(hold)
    election = history.plan.election
    wrong = [problem for namespace in holds for problem in _meeting(holds[namespace], election=election)]
    deaths = {(death.process, death.at_s) for death in history.deaths}
    named = {call.id: call.key[0] for call in calls(history).values()}
    places = {life.uid: life.namespace for life in history.entries}
    for act in history.acts:
        namespace = act.namespace or places.get(named.get(act.call_id, ""), "")
        if namespace:
            wrong += _unheld(act, namespace, holds.get(namespace, []))
    for stream in history.streams:
        held = [one for one in holds.get(stream.namespace, ()) if one.process == stream.process]
        if not any(one.from_s <= stream.from_s and _ended_within(stream, one, deaths) for one in held):
            wrong.append(
                f"{stream.from_s:.3f} {stream.process} watched {stream.resource} of {stream.namespace}, not its own"
            )
    return wrong


def _ended_within(stream: Stream, hold: Hold, deaths: set[tuple[str, float]]) -> bool:
    """Closed before its process let go of the namespace; a process that dies lets go of everything at once."""
    dies = (hold.process, hold.until_s) in deaths
    return stream.until_number < hold.until_number or (dies and stream.until_s <= hold.until_s)


def _meeting(holds: list[Hold], *, election: bool) -> list[str]:
    wrong = []
    ordered = sorted(holds, key=lambda hold: hold.number)
    for before, after in pairwise(ordered):
        same_pool = before.process.split(".")[:2] == after.process.split(".")[:2]
        if same_pool and after.from_s < before.until_s:
            wrong.append(f"{after.from_s:.3f} two owners of {after.namespace}: {before.process} and {after.process}")
        if (same_pool or election) and before.epoch >= after.epoch:
            wrong.append(f"{after.from_s:.3f} epoch {after.epoch} of {after.namespace} follows epoch {before.epoch}")
    return wrong


def _unheld(act: Act, namespace: str, holds: list[Hold]) -> list[str]:
    mine = [one for one in holds if one.process == act.process and one.number < act.number < one.until_number]
    if not mine:
        return [f"{act.at_s:.3f} {act.process}: {act.what} on {namespace}, which it does not hold"]
    newest = max((one for one in holds if one.number < act.number), key=lambda one: one.number, default=None)
    if newest is not None and newest.process != act.process:
        return [f"{act.at_s:.3f} {act.process}: {act.what} on {namespace}, which was granted to {newest.process} since"]
    return []


def bounded(history: History) -> list[str]:
    wrong = []
    plan, sizes = history.plan, history.sizes
    namespaces = len({hook.namespace for hook in plan.hooks})
    streams_most = (2 * namespaces + 1) * len(plan.machines)
    if sizes.streams > streams_most:
        wrong.append(f"{sizes.streams} watches open at once, {streams_most} are needed")
    if sizes.tasks > TASKS_MOST:
        wrong.append(f"{sizes.tasks} tasks at once")
    if sizes.rows > 500:
        wrong.append(f"{sizes.rows} rows in one Hook")
    sends: dict[str, int] = {}
    for attempt in history.attempts:
        sends[attempt.call_id] = sends.get(attempt.call_id, 0) + 1
    wrong += [f"call {call_id} was sent {times} times" for call_id, times in sends.items() if times > ATTEMPTS_MOST]
    writes: dict[tuple[str, int], int] = {}
    for act in history.acts:
        if act.what == "status":
            second = (act.namespace, int(act.at_s))
            writes[second] = writes.get(second, 0) + 1
    places = {life.uid: life.namespace for life in history.entries}
    moved = Counter((places.get(fact.key[0], ""), int(fact.at_s)) for fact in history.rows)
    wrong += [
        f"{second}.000 {times} status writes within a second in {namespace}"
        for (namespace, second), times in writes.items()
        if times > STATUS_WRITES_A_SECOND + moved[namespace, second]
    ]
    return wrong


def converges(history: History) -> list[str]:
    """At the end, minutes after the last fault. A run may still be followed, up to its deadline."""
    end, wrong = history.end, []
    if not end.ready:
        wrong.append(f"not ready at the end: {end.why_not}")
    for namespace in end.wanted:
        if len(owners := end.owners.get(namespace, [])) != 1:
            wrong.append(f"{namespace} is owned by {owners or 'nobody'} at the end")
    wrong += [
        f"{namespace} is owned and nobody asked for it" for namespace in end.owners if namespace not in end.wanted
    ]
    wrong += [problem for key in end.rows if (problem := _unfinished(history, key))]
    wrong += _unwritten(history)
    if end.stop_error:
        wrong.append(end.stop_error)
    if end.tasks_left:
        wrong.append(f"tasks left behind: {end.tasks_left[:5]}")
    return wrong


def _unfinished(history: History, key: IncidentKey) -> str:
    call = history.end.rows[key].get("call") or {}
    state, reason = call.get("state"), call.get("reason")
    if state == "Calling" or (state == "Pending" and reason not in ("Suspended", "Budget")):
        return f"{spoken(key)} is still {state} {reason or ''} at the end"
    return ""


def _unwritten(history: History) -> list[str]:
    """What an agent took stands on the Hook as taken."""
    known, wrong = lives(history), []
    for call in calls(history).values():
        life = known.get(call.key[:3])
        if not call.runs or life is None or life.until_s < history.end_s or _breaks(history, call.id):
            continue
        last = call.facts[-1]
        if last.state in ("Accepted", "Completed") or last.reason in ACCEPTED_FAILURES:
            continue
        wrong.append(f"{spoken(call.key)}: an agent has call {call.id}, and the Hook says {last.state} {last.reason}")
    return wrong


CHECKERS: Final[dict[str, Checker]] = {
    "sound": sound,
    "no_lost": no_lost,
    "justified": justified,
    "claimed": claimed,
    "window": window,
    "single_owner": single_owner,
    "fair": fair,
    "groups": groups,
    "budget": budget,
    "holds": holds,
    "bounded": bounded,
    "converges": converges,
}


def check(history: History) -> list[str]:
    """All that is wrong, each with its checker's name in front."""
    return [f"{name}: {problem}" for name, checker in CHECKERS.items() for problem in checker(history)]


def _names(keys: Iterable[IncidentKey]) -> str:
    return " or ".join(spoken(key) for key in keys)


def _told_calls(keyed: dict[IncidentKey, list[Call]], keys: Iterable[IncidentKey]) -> list[str]:
    return [
        f"{call.id[:8]} claimed {call.claimed_s:.1f} {call.facts[-1].state} {call.facts[-1].reason}"
        + (f" accepted {call.accepted_s:.1f}" if call.accepted else "")
        for key in keys
        for call in keyed.get(key, ())
    ]
