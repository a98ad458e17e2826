"""Which lists of built-in kinds a strategic merge patch merges, and by which key their items are told apart.

Every list that is not named here is replaced as a whole. Source: the `patchStrategy` and `patchMergeKey` tags of
`k8s.io/api`, which the real server publishes as `x-kubernetes-patch-merge-key`; the contract suite compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from khook.sandbox.kinds import (
    CONFIG_MAPS,
    CRDS,
    CRON_JOBS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One field. A `key` makes it a list that is merged: by that field of its items, or as a set where it is empty."""

    key: str | None = None
    inside: Mapping[str, "Rule"] = field(default_factory=dict)
    """The rules of its fields, or of its items' fields."""
    retain: bool = False
    """A client that computes a patch says with `$retainKeys` which fields are all that shall be there."""


Rules = Mapping[str, Rule]

NOTHING: Final = Rule()


def _by(**keys: str) -> dict[str, Rule]:
    return {name: Rule(key) for name, key in keys.items()}


_METADATA: Final[Rules] = _by(finalizers="", ownerReferences="uid")
_CONTAINER: Final[Rules] = _by(env="name", ports="containerPort", volumeDevices="devicePath", volumeMounts="mountPath")
_CLAIM: Final[Rules] = {"volumeClaimTemplate": Rule(inside={"metadata": Rule(inside=_METADATA)})}
_POD_SPEC: Final[Rules] = (
    {name: Rule("name", _CONTAINER) for name in ("containers", "initContainers", "ephemeralContainers")}
    | _by(
        hostAliases="ip",
        imagePullSecrets="name",
        schedulingGates="name",
        topologySpreadConstraints="topologyKey",
    )
    | {
        "resourceClaims": Rule("name", retain=True),
        "volumes": Rule("name", {"ephemeral": Rule(inside=_CLAIM)}, retain=True),
    }
)
_POD_STATUS: Final[Rules] = _by(conditions="type", hostIPs="ip", podIPs="ip") | {
    "resourceClaimStatuses": Rule("name", retain=True)
}
_CONDITIONS: Final[Rules] = _by(conditions="type")
_TEMPLATE: Final[Rules] = {"metadata": Rule(inside=_METADATA), "spec": Rule(inside=_POD_SPEC)}
_TEMPLATED: Final = {"template": Rule(inside=_TEMPLATE)}


def _object(*, spec: Rules | None = None, status: Rules | None = None, **more: Rule) -> Rules:
    parts = {"metadata": _METADATA, "spec": spec, "status": status}
    return {name: Rule(inside=rules) for name, rules in parts.items() if rules} | more


_JOB_TEMPLATE: Final = _object(spec=_TEMPLATED)

RULES: Final[Mapping[str, Rules]] = {
    NAMESPACES.storage_key: _object(status=_CONDITIONS),
    PODS.storage_key: _object(spec=_POD_SPEC, status=_POD_STATUS),
    EVENTS.storage_key: _object(),
    LEASES.storage_key: _object(),
    CRDS.storage_key: _object(),
    SECRETS.storage_key: _object(),
    CONFIG_MAPS.storage_key: _object(),
    SERVICE_ACCOUNTS.storage_key: _object(secrets=Rule("name")),
    DEPLOYMENTS.storage_key: _object(spec=_TEMPLATED | {"strategy": Rule(retain=True)}, status=_CONDITIONS),
    REPLICA_SETS.storage_key: _object(spec=_TEMPLATED, status=_CONDITIONS),
    JOBS.storage_key: _object(spec=_TEMPLATED, status=_CONDITIONS),
    CRON_JOBS.storage_key: _object(spec={"jobTemplate": Rule(inside=_JOB_TEMPLATE)}),
}
"""By storage."""
