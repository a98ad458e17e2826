"""The facts about one pod against the Hooks of its namespace: each fact with what comes of it, and one answer.

Pure. Before any Hook stands the namespace: is it watched, has it a Hook, does a worker have it. A fact that is no
signal ends here; the others go to each Hook (`explain_hook`).
"""

from collections.abc import Sequence

from khook.cli.explain_facts import Fact
from khook.cli.explain_hook import HookJudge, Surroundings, no_entry
from khook.cli.explain_outcome import Explanation, Outcome, Reason, Told, furthest_first
from khook.core.owner import ResourceRef
from khook.core.pods import PodFacts
from khook.kube.hooks import HookObject
from khook.worker.asking import without_secrets


def explain(
    facts: Sequence[Fact],
    *,
    namespace: str,
    name: str,
    pod: PodFacts | None,
    owner: ResourceRef | None,
    hooks: Sequence[HookObject],
    around: Surroundings,
) -> Explanation:
    """`pod` None: it is gone. `owner` is the top controller where it is known. `facts` has at least one."""
    before = _before_any_hook(namespace, hooks, around)
    told = [
        Told(fact=fact, outcomes=[before] if before is not None else _of_fact(fact, pod, owner, hooks, around))
        for fact in facts
    ]
    return Explanation(namespace=namespace, pod=name, told=told, notes=around.notes)


def _before_any_hook(namespace: str, hooks: Sequence[HookObject], around: Surroundings) -> Outcome | None:
    watched = around.settings.watch_namespaces
    if watched and namespace not in watched:
        return Outcome(
            reason=Reason.NOT_WATCHED,
            words=f"KHOOK_WATCH_NAMESPACES is {','.join(watched)}, and {namespace} is not among them",
        )
    if not hooks:
        return Outcome(reason=Reason.NO_HOOK, words=f"there is no Hook in namespace {namespace}")
    if around.live is not None and (problem := around.live.not_owned(namespace)) is not None:
        return Outcome(reason=Reason.NOT_OWNED, words=problem)
    return None


def _of_fact(
    fact: Fact, pod: PodFacts | None, owner: ResourceRef | None, hooks: Sequence[HookObject], around: Surroundings
) -> list[Outcome]:
    if fact.signal is None:
        return [Outcome(reason=Reason.POD_GONE if fact.pod_gone else Reason.NOTHING, words=fact.words)]
    known = pod if pod is not None and pod.uid == fact.signal.pod_uid else None
    found = [
        outcome
        for hook in hooks
        for outcome in HookJudge(
            hook, without_secrets(fact.signal), oom=fact.oom, pod=known, owner=owner, around=around
        ).outcomes()
    ]
    return furthest_first(found) or [no_entry(fact.signal.type, "")]
