"""Good and bad Hooks: the models and the API server's schema are tried with the same ones.

`path` is where the first problem is reported, None for a Hook that works. `OnlyModels` rows say what OpenAPI cannot:
the API server stores them, and the entry becomes a problem in the Hook's status.
"""

from dataclasses import dataclass
from typing import Any

ENTRY: dict[str, Any] = {"eventType": "pod-restart", "agentId": "incident-responder", "prompt": "Look at it."}
FIRST = "spec.eventConfigurations[0]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    spec: Any
    path: str | None = None
    only_models: bool = False


def entry(**changes: Any) -> dict[str, Any]:
    """One entry; a change to `...` removes the field."""
    return {key: value for key, value in (ENTRY | changes).items() if value is not ...}


def one(**changes: Any) -> dict[str, Any]:
    return {"eventConfigurations": [entry(**changes)]}


def good(name: str, spec: Any) -> Case:
    return Case(name=name, spec=spec)


def bad(name: str, spec: Any, path: str, *, only_models: bool = False) -> Case:
    return Case(name=name, spec=spec, path=path, only_models=only_models)


EXPRESSIONS = [
    {"key": "tier", "operator": "In", "values": ["web", "api"]},
    {"key": "canary", "operator": "DoesNotExist"},
]

CASES = (
    good("the least", one()),
    good("every type", {"eventConfigurations": [
        entry(eventType=kind) for kind in ("pod-restart", "pod-pending", "oom-kill", "probe-failed")]}),
    good("two of one type", {"eventConfigurations": [entry(), entry(agentId="second")]}),
    good("fifty entries", {"eventConfigurations": [entry()] * 50}),
    good("agent with namespace", one(agentId="kagent/k8s-agent")),
    good("agentRef", one(agentId=..., agentRef={"name": "k8s-agent", "namespace": "kagent"})),
    good("agentRef without namespace", one(agentId=..., agentRef={"name": "k8s-agent"})),
    good("suspended", {"suspend": True, **one()}),
    good("the longest prompt", one(prompt="ä" * 16_384)),
    good("cooldown of a minute", one(cooldown="60000ms")),
    good("cooldown of a day", one(cooldown="23h60m")),
    good("defaults written out", one(groupBy="Pod", holdFor="0s")),
    good("grouped by owner", one(groupBy="Owner")),
    good("held for two minutes", one(eventType="pod-pending", holdFor="2m")),
    good("selector", one(selector={"matchLabels": {"app": "shop"}, "matchExpressions": EXPRESSIONS})),
    good("empty selector", one(selector={})),
    bad("no spec", None, "spec"),
    bad("no entries", {}, "spec.eventConfigurations"),
    bad("empty entries", {"eventConfigurations": []}, "spec.eventConfigurations"),
    bad("51 entries", {"eventConfigurations": [entry()] * 51}, "spec.eventConfigurations"),
    bad("suspend as text", {"suspend": "true", **one()}, "spec.suspend"),
    bad("unknown field of the spec", {"paused": True, **one()}, "spec.paused"),
    bad("unknown field of an entry", one(agent="x"), f"{FIRST}.agent"),
    bad("an entry that is text", {"eventConfigurations": ["pod-restart"]}, FIRST),
    bad("no type", one(eventType=...), f"{FIRST}.eventType"),
    bad("unknown type", one(eventType="pod-sad"), f"{FIRST}.eventType"),
    bad("no agent", one(agentId=...), FIRST),
    bad("two agents", one(agentRef={"name": "k8s-agent"}), FIRST),
    bad("no prompt", one(prompt=...), f"{FIRST}.prompt"),
    bad("empty prompt", one(prompt=""), f"{FIRST}.prompt"),
    bad("prompt too long", one(prompt="ä" * 16_385), f"{FIRST}.prompt"),
    bad("prompt as number", one(prompt=3), f"{FIRST}.prompt"),
    bad("agent in capitals", one(agentId="K8s"), f"{FIRST}.agentId"),
    bad("agent that climbs", one(agentId="../admin"), f"{FIRST}.agentId"),
    bad("agent with two slashes", one(agentId="a/b/c"), f"{FIRST}.agentId"),
    bad("agent with a line break", one(agentId="a\n"), f"{FIRST}.agentId"),
    bad("agentRef without name", one(agentId=..., agentRef={"namespace": "kagent"}), f"{FIRST}.agentRef.name"),
    bad("agentRef with a bad namespace", one(agentId=..., agentRef={"name": "a", "namespace": "a.b"}),
        f"{FIRST}.agentRef.namespace"),
    bad("cooldown without unit", one(cooldown="600"), f"{FIRST}.cooldown"),
    bad("cooldown as number", one(cooldown=600), f"{FIRST}.cooldown"),
    bad("unknown groupBy", one(groupBy="Node"), f"{FIRST}.groupBy"),
    bad("labels as list", one(selector={"matchLabels": ["app"]}), f"{FIRST}.selector.matchLabels"),
    bad("label as number", one(selector={"matchLabels": {"app": 1}}), f"{FIRST}.selector.matchLabels.app"),
    bad("unknown operator", one(selector={"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
        f"{FIRST}.selector.matchExpressions[0].operator"),
    bad("cooldown too short", one(cooldown="59s"), f"{FIRST}.cooldown", only_models=True),
    bad("cooldown too long", one(cooldown="24h1ms"), f"{FIRST}.cooldown", only_models=True),
    bad("In without values", one(selector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        f"{FIRST}.selector.matchExpressions[0]", only_models=True),
    bad("Exists with values", one(selector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        f"{FIRST}.selector.matchExpressions[0]", only_models=True),
    bad("holdFor on a restart", one(holdFor="2m"), f"{FIRST}.holdFor", only_models=True),
    bad("holdFor on an OOM kill", one(eventType="oom-kill", holdFor="2m"), f"{FIRST}.holdFor", only_models=True),
    bad("holdFor too long", one(eventType="pod-pending", holdFor="25h"), f"{FIRST}.holdFor", only_models=True),
)  # fmt: skip


def hook(case: Case, *, name: str = "hook", namespace: str = "default") -> dict[str, Any]:
    body: dict[str, Any] = {
        "apiVersion": "kagent.dev/v1alpha2",
        "kind": "Hook",
        "metadata": {"name": name, "namespace": namespace},
    }
    return body if case.spec is None else body | {"spec": case.spec}
