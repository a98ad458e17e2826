"""The chart is valid from Kubernetes 1.20 on: no API and no field that a version does not serve.

Against the newest it is installed for real in tests/e2e; for the oldest there is no API server, so what differs
between the two is listed here.
"""

import pytest
from support.charts import EVERYTHING, NEWEST, OLDEST, only, refusal, rendered

SERVED_BY_BOTH = {
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    # The Prometheus operator's, on every version that it runs on.
    ("monitoring.coreos.com/v1", "PrometheusRule"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
}


@pytest.mark.parametrize(
    ("version", "budget", "fields"),
    [
        (OLDEST, "policy/v1beta1", {"maxUnavailable", "selector"}),
        ("1.21.0", "policy/v1", {"maxUnavailable", "selector"}),
        ("v1.26.9-eks-1234", "policy/v1", {"maxUnavailable", "selector"}),
        ("v1.27.3-gke.100", "policy/v1", {"maxUnavailable", "selector", "unhealthyPodEvictionPolicy"}),
        (NEWEST, "policy/v1", {"maxUnavailable", "selector", "unhealthyPodEvictionPolicy"}),
    ],
)
def test_only_the_disruption_budget_depends_on_the_version(version: str, budget: str, fields: set[str]) -> None:
    """policy/v1 came with 1.21 and is the only one from 1.25 on; its `unhealthyPodEvictionPolicy` is on since 1.27."""
    objects = rendered(EVERYTHING, kube_version=version)
    found = only("PodDisruptionBudget", objects)
    assert (found["apiVersion"], set(found["spec"])) == (budget, fields)
    others = [one for one in objects if one is not found]
    assert others == [one for one in rendered(EVERYTHING) if one["kind"] != "PodDisruptionBudget"]
    assert {(one["apiVersion"], one["kind"]) for one in others} <= SERVED_BY_BOTH


def test_an_older_cluster_is_refused() -> None:
    assert "1.20" in refusal({}, kube_version="1.19.16")
