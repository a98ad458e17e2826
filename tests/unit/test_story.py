"""The demo's story: what its steps write is what they claim to show, and no call can go missing or double unseen."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.api.v1alpha2 import parse_entries
from khook.core.classify import classify_event
from khook.core.owner import controller_of
from khook.core.pods import PodFacts, observe
from khook.core.signal import EventLine, EventType, PodLine, Signal
from khook.kube.resources import OwnedObject
from khook.sandbox.demo_story import AGENTS, DEMO
from khook.sandbox.kagent import Run
from khook.sandbox.reckoning import Expected, Storm, Verdict, compare, expected, qualified, storm
from khook.sandbox.story import Moment, Step, Write, uid_key, writes
from khook.worker.namespace import GROUP_WAIT_S

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
WANTED = [
    Expected("batch/nightly", "pod-restart", "export-1", "kagent/incident-responder"),
    Expected("batch/nightly", "pod-restart", "import-1", "kagent/incident-responder"),
    Expected("payments/month-end", "pod-pending", "invoice-1", "kagent/capacity-planner"),
    Expected("payments/month-end", "pod-pending", "report-1", "kagent/capacity-planner"),
    Expected("payments/month-end", "pod-restart", "ledger-1", "kagent/incident-responder"),
    Expected("search/latency", "oom-kill", "index-1", "kagent/capacity-planner"),
    Expected("search/latency", "probe-failed", "query-1", "kagent/incident-responder"),
    Expected("search/latency", "probe-failed", "query-2", "kagent/incident-responder"),
    Expected("shop/storefront", "oom-kill", "cart-1", "kagent/capacity-planner"),
    Expected("shop/storefront", "pod-restart", "Deployment checkout", "kagent/incident-responder"),
    Expected("shop/storefront", "pod-restart", "orders-1", "kagent/incident-responder"),
    Expected("shop/storefront", "pod-restart", "web-1", "kagent/incident-responder"),
]


def call(one: Expected, *, call_id: str = "c", prompt: str | None = None) -> Run:
    context = {
        "eventName": one.event_type,
        "eventTime": "2024-01-15T10:30:00Z",
        "resourceName": min(one.pods, default=one.resource),
        "namespace": one.namespace,
        "eventMessage": "",
    }
    said = f"{one.opening} and so on {' '.join(one.pods)}" if prompt is None else prompt
    return Run(agent=one.agent, call_id=call_id, prompt=said, context=context, time=NOW)


def test_the_story_asks_for_these_calls_and_no_others() -> None:
    assert expected(DEMO) == WANTED


def test_each_expected_call_knows_how_its_prompt_begins() -> None:
    assert {(one.resource, one.opening) for one in expected(DEMO)} == {
        ("web-1", "Pod web-1 in shop restarted at "),
        ("orders-1", "Pod orders-1 in shop restarted at "),
        ("Deployment checkout", "Pod "),
        ("cart-1", "OOM kill of cart-1 at "),
        ("invoice-1", "invoice-1 cannot run ("),
        ("report-1", "report-1 cannot run ("),
        ("ledger-1", "ledger-1 restarted at "),
        ("query-1", "probe-failed on query-1: "),
        ("query-2", "probe-failed on query-2: "),
        ("index-1", "The index of search/index-1 ran out of memory at "),
        ("import-1", "The nightly job import-1 restarted: "),
        ("export-1", "The nightly job export-1 restarted: "),
    }


@pytest.mark.parametrize("prompt", ["", "OOM kill of web-1 at 10:30", "OOM kill of cart-1 at {{.EventTime}}"])
def test_a_call_with_another_prompt_than_its_entrys_is_named(prompt: str) -> None:
    wanted = expected(DEMO)
    (cart,) = [one for one in wanted if one.resource == "cart-1"]
    runs = [call(one, prompt=prompt if one == cart else None) for one in wanted]
    verdict = compare(wanted, runs)
    assert verdict == Verdict(lost=(), repeated=(), unexpected=(), misworded=(cart,))
    assert not verdict.clean


def checkout() -> Expected:
    (one,) = [one for one in expected(DEMO) if one.pods]
    return one


def test_a_storm_is_one_call_named_after_any_of_its_pods() -> None:
    group = checkout()
    assert (group.resource, len(group.pods)) == ("Deployment checkout", 40)
    for pod in group.pods:
        run = call(replace(group, resource=pod, pods=frozenset()), prompt="Pod and " + " ".join(group.pods))
        assert compare([group], [run]).clean
        assert storm([group], [run]) == Storm(pods=40, calls=1)


def test_a_storm_that_calls_for_each_pod_is_thirty_nine_calls_too_many() -> None:
    group = checkout()
    runs = [call(replace(group, resource=pod, pods=frozenset()), call_id=pod) for pod in group.pods]
    assert compare([group], runs).repeated == (group,) * 39
    assert storm([group], runs) == Storm(pods=40, calls=40)
    assert storm([group], []) == Storm(pods=40, calls=0)


def test_a_prompt_about_a_group_that_names_one_pod_alone_is_named() -> None:
    group = checkout()
    assert compare([group], [call(group, prompt=f"Pod {min(group.pods)} in shop")]).misworded == (group,)


def test_the_whole_storm_is_over_before_its_call_goes() -> None:
    at_s = [step.at_s for step in DEMO.steps if step.owner and step.shows]
    assert max(at_s) - min(at_s) < GROUP_WAIT_S - 1


def test_the_pods_of_the_storm_are_their_deployments() -> None:
    made = {body["metadata"]["uid"]: body for _, body in lines(DEMO.steps)}
    pods = [body for body in made.values() if body["metadata"]["name"] in checkout().pods]
    assert len(pods) == 40
    for one in pods:
        replica_set = controller_of(msgspec.convert(one, PodLine).metadata.owner_references)
        assert replica_set is not None
        deployment = controller_of(msgspec.convert(made[replica_set.uid], OwnedObject).metadata.owner_references)
        assert deployment is not None
        assert (deployment.ref, made[deployment.uid]["kind"]) == (("Deployment", "checkout"), "Deployment")


def test_an_agent_without_a_namespace_is_the_one_in_kagents_own() -> None:
    runs = [call(replace(one, agent=one.agent.removeprefix("kagent/"))) for one in WANTED]
    assert compare(WANTED, runs).clean


def test_a_record_with_each_call_once_is_clean() -> None:
    verdict = compare(WANTED, [call(one) for one in reversed(WANTED)])
    assert verdict == Verdict(lost=(), repeated=(), unexpected=())
    assert verdict.clean


def test_a_dropped_call_and_a_doubled_one_are_both_named() -> None:
    dropped, doubled = WANTED[3], WANTED[6]
    runs = [call(one) for one in WANTED if one != dropped] + [call(doubled, call_id="again")] * 2
    verdict = compare(WANTED, runs)
    assert verdict == Verdict(lost=(dropped,), repeated=(doubled, doubled), unexpected=())
    assert not verdict.clean


@pytest.mark.parametrize(
    "change",
    [{"agent": "kagent/other"}, {"resource": "web-9"}, {"event_type": "oom-kill"}, {"hook": "shop/storefront"}],
)
def test_a_call_that_no_incident_asked_for_is_named(change: dict[str, Any]) -> None:
    stray = replace(WANTED[4], **change)
    verdict = compare(WANTED, [*(call(one) for one in WANTED), call(stray), call(stray)])
    assert (verdict.lost, verdict.repeated, verdict.unexpected) == ((), (), (stray, stray))


def test_a_call_from_a_foreign_namespace_is_named() -> None:
    stray = Expected("elsewhere/?", "pod-restart", "x", "kagent/incident-responder")
    assert compare([], [call(stray)]).unexpected == (stray,)


@given(times=st.lists(st.integers(0, 3), min_size=len(WANTED), max_size=len(WANTED)))
def test_lost_and_repeated_are_counted_exactly(times: list[int]) -> None:
    runs = [call(one) for one, n in zip(WANTED, times, strict=True) for _ in range(n)]
    verdict = compare(WANTED, runs)
    assert len(verdict.lost) == times.count(0)
    assert len(verdict.repeated) == sum(max(0, n - 1) for n in times)
    assert verdict.clean == (set(times) == {1})


def test_the_story_has_something_to_lose_on_both_sides_of_the_kill() -> None:
    firsts: dict[tuple[str, str, EventType], float] = {}
    noisy_after = set()
    for step in DEMO.steps:
        if step.shows:
            key = (step.namespace, step.pod, step.shows)
            if step.at_s > DEMO.kill_at_s and firsts.setdefault(key, step.at_s) < DEMO.kill_at_s:
                noisy_after.add(key)
            firsts.setdefault(key, step.at_s)
    namespaces = {hook["metadata"]["namespace"] for hook in DEMO.hooks} - {DEMO.crash_loop.namespace}
    firsts = {key: at_s for key, at_s in firsts.items() if key[0] in namespaces}
    assert {ns for (ns, _, _), at_s in firsts.items() if at_s < DEMO.kill_at_s} == namespaces
    assert {ns for (ns, _, _), at_s in firsts.items() if DEMO.kill_at_s < at_s < DEMO.kill_at_s + 1} == namespaces
    assert {ns for ns, _, _ in noisy_after} == namespaces
    assert DEMO.duration_s <= 49
    assert [step.at_s for step in DEMO.steps] == sorted(step.at_s for step in DEMO.steps)


def test_two_incidents_of_the_agent_that_is_away_open_long_before_it_is_back() -> None:
    outage = DEMO.outage
    firsts: dict[tuple[str, str, str], float] = {}
    for step in DEMO.steps:
        if step.shows:
            firsts.setdefault((step.namespace, step.shows.value, step.pod), step.at_s)
    away = [
        one
        for one in expected(DEMO)
        if one.agent == outage.agent
        and outage.from_s < firsts[one.hook.split("/")[0], one.event_type, one.resource] < outage.until_s - 5
    ]
    assert [one.resource for one in away] == ["invoice-1", "index-1"]
    assert outage.from_s < DEMO.kill_at_s < outage.until_s


def test_the_story_covers_every_event_type_and_both_agents_with_hooks_that_are_valid() -> None:
    assert {one.event_type for one in WANTED} == {event_type.value for event_type in EventType}
    assert {one.agent for one in WANTED} == {qualified(agent) for agent in AGENTS}
    for hook in DEMO.hooks:
        assert parse_entries(hook).problems == ()


# --- what the steps write, read by the classification -----------------------------------------------------------


class Cluster:
    """Objects by path as a JSON merge patch leaves them (RFC 7386), and uids as the API server gives them."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.uids: dict[str, str] = {}

    def apply(self, write: Write) -> dict[str, Any]:
        body = json.loads(json.dumps(write.body))
        if write.verb == "POST":
            path = f"{write.path}/{body['metadata']['name']}"
            assert path not in self.objects, "created twice"
            uid = body["metadata"]["uid"] = f"uid-{len(self.objects)}"
            self.uids[uid_key(body)] = uid
            self.objects[path] = body
            return self.objects[path]
        stored = self.objects[write.path.removesuffix("/status")]
        stored.update(body)  # no step patches a nested field that it does not state whole
        return stored


def lines(steps: Iterable[Step]) -> Iterator[tuple[Step, dict[str, Any]]]:
    cluster = Cluster()
    for step in steps:
        moment = Moment(now=NOW + timedelta(seconds=step.at_s), uids=cluster.uids)
        for write in writes(step, moment):
            yield step, cluster.apply(write)


def as_core_event(body: dict[str, Any]) -> dict[str, Any]:
    if body["apiVersion"] == "v1":
        return body
    renamed = {
        "involvedObject": body["regarding"],
        "message": body["note"],
        "reportingComponent": body["reportingController"],
    }
    return {**body, **renamed}


def signals() -> Iterator[tuple[Step, list[Signal]]]:
    pods: dict[str, PodFacts] = {}
    encore = [replace(step, at_s=DEMO.duration_s + step.at_s) for step in DEMO.crash_loop.encore]
    for step, body in lines((*DEMO.steps, *encore)):
        moment = NOW + timedelta(seconds=step.at_s)
        if body["kind"] == "Pod":
            line = msgspec.convert(body, PodLine)
            pods[step.pod], found = observe(
                pods.get(step.pod), line, listed=False, now=moment, stuck_pending=timedelta(seconds=60)
            )
            yield step, list(found)
        elif body["kind"] == "Event":
            said = classify_event(msgspec.convert(as_core_event(body), EventLine), pods[step.pod], listed=False)
            yield step, [said] if isinstance(said, Signal) else []


def test_what_a_step_writes_is_classified_as_what_it_shows() -> None:
    """A restart after an OOM kill is a signal of both kinds: which one fires is the Hook's matter, not the pod's."""
    for step, found in signals():
        types = {signal.type for signal in found}
        if step.shows is EventType.OOM_KILL:
            assert types <= {EventType.OOM_KILL, EventType.POD_RESTART}, step.words
        else:
            assert types == ({step.shows} if step.shows else set()), step.words
        for signal in found:
            assert (signal.namespace, signal.pod) == (step.namespace, step.pod)


def test_each_incident_that_is_expected_is_signalled() -> None:
    seen = {(step.namespace, signal.type.value, signal.pod) for step, found in signals() for signal in found}
    assert {
        (one.namespace, one.event_type, pod) for one in expected(DEMO) for pod in one.pods or {one.resource}
    } <= seen


def test_an_oom_kill_is_in_pod_status_alone_and_says_its_limit() -> None:
    (first,) = [found for step, found in signals() if step.words == "cart-1 is OOM-killed"]
    (signal,) = first
    assert (signal.type, signal.source.value, signal.container) == (EventType.OOM_KILL, "pod", "app")
    assert "256Mi" in signal.message
