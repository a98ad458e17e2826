"""What khook may do, and what its pods may: as snapshots, so that a change of either is seen in a review."""

from collections.abc import Iterable
from typing import Any

import pytest
from support.charts import EVERYTHING, NAME, NAMESPACE, only, rendered
from support.installation import RULES
from support.objects import Json

from khook.kube.lease import LEASE_NAME
from khook.supervisor.agent_credentials import INSTALLED_IN, SECRET

WATCHES_AND_WRITES = [
    {"apiGroups": ["kagent.dev"], "resources": ["hooks"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["kagent.dev"], "resources": ["hooks/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "list", "watch", "create", "patch"]},
    {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
]
LEADS = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE_NAME],
        "verbs": ["get", "update"],
    },
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
]
THE_SERVICE_ACCOUNT = [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]

Grant = tuple[str, str, list[Any]]
"""A role's kind, where it counts, its rules."""


def grants(values: Json | None = None) -> list[Grant]:
    """Everything that is granted to the service account, and to nobody else."""
    objects = rendered(values)
    roles = {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one["rules"]
        for one in objects
        if one["kind"] in ("Role", "ClusterRole")
    }
    granted = []
    for binding in (one for one in objects if one["kind"] in ("RoleBinding", "ClusterRoleBinding")):
        assert binding["subjects"] == THE_SERVICE_ACCOUNT
        namespace = binding["metadata"].get("namespace", "")
        role = (binding["roleRef"]["kind"], namespace, binding["roleRef"]["name"])
        granted.append((role[0], namespace, roles.pop(role)))
    assert not roles, "a role that nobody is bound to"
    return granted


def test_khook_may_do_this_and_nothing_more() -> None:
    assert grants(EVERYTHING) == [("ClusterRole", "", WATCHES_AND_WRITES), ("Role", NAMESPACE, LEADS)]


def test_what_every_other_test_runs_with_is_what_the_chart_grants() -> None:
    """But for `get` of Events, which is for people: `kubectl auth can-i get events`."""

    def pairs(rules: Iterable[Json]) -> set[tuple[str, str]]:
        return {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}

    assert pairs(WATCHES_AND_WRITES) - pairs(RULES) == {("get", "events")}
    assert pairs(RULES) <= pairs(WATCHES_AND_WRITES)


def test_with_watched_namespaces_nothing_is_granted_cluster_wide() -> None:
    assert grants({"watch": {"namespaces": ["shop", "bank"]}}) == [
        ("Role", "shop", WATCHES_AND_WRITES),
        ("Role", "bank", WATCHES_AND_WRITES),
        ("Role", NAMESPACE, LEADS),
    ]


def test_without_an_election_no_lease_may_be_touched() -> None:
    assert grants({"replicaCount": 1, "leaderElection": {"enabled": False}}) == [
        ("ClusterRole", "", WATCHES_AND_WRITES)
    ]


def test_whoever_grants_the_permissions_themselves_gets_none() -> None:
    assert grants({"rbac": {"create": False}}) == []


POD = {
    "automountServiceAccountToken": True,
    "serviceAccountName": NAME,
    "enableServiceLinks": False,
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [
        {"name": "kagent-credentials", "secret": {"secretName": SECRET, "optional": True}},
        {"name": "metrics", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ],
}
CONTAINER = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    },
    "volumeMounts": [
        {"name": "kagent-credentials", "mountPath": "/etc/khook/kagent-credentials", "readOnly": True},
        {"name": "metrics", "mountPath": "/var/run/khook/metrics"},
        {"name": "tmp", "mountPath": "/tmp"},
    ],
}


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_every_pod_is_restricted_and_writes_only_to_memory(kind: str) -> None:
    """Pod Security *restricted*, a root file system that is read-only, and nothing mounted but this."""
    (found,) = (one for one in rendered(EVERYTHING) if one["kind"] == kind)
    spec = found["spec"]["template"]["spec"] if kind == "Deployment" else found["spec"]
    (container,) = spec["containers"]
    assert {key: spec.get(key) for key in POD} == POD
    assert {key: container.get(key) for key in CONTAINER} == CONTAINER
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"} & set(spec)


def test_only_the_pods_that_ask_for_it_get_the_service_accounts_token() -> None:
    assert only("ServiceAccount", rendered())["automountServiceAccountToken"] is False


def test_the_secret_and_its_namespace_are_where_khooks_own_advice_points() -> None:
    assert NAMESPACE == INSTALLED_IN


def test_the_network_policy_lets_in_the_probes_and_the_scraper_and_out_to_named_ports() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    values = {"networkPolicy": {"enabled": True, "metricsFrom": peers, "egressPorts": [6443]}}
    spec = only("NetworkPolicy", rendered(values))["spec"]
    health, metrics = spec["ingress"]
    assert health == {"ports": [{"port": 8081, "protocol": "TCP"}]}
    assert metrics == {"ports": [{"port": 8080, "protocol": "TCP"}], "from": peers}
    reached = [(port["protocol"], port["port"]) for rule in spec["egress"] for port in rule["ports"]]
    assert reached == [("UDP", 53), ("TCP", 53), ("TCP", 6443)]
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_what_needs_more_than_kubernetes_or_knows_too_little_is_off_by_default() -> None:
    more = {one["kind"] for one in rendered(EVERYTHING)} - {one["kind"] for one in rendered()}
    assert more == {"NetworkPolicy", "ServiceMonitor", "PrometheusRule", "ConfigMap"}
