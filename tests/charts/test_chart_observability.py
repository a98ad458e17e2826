"""Alerts and dashboard ask for metrics and labels that khook has, and nothing is asked of a value that never comes."""

import json
import re
from typing import Any

import pytest
from support.charts import EVERYTHING, NAME, only, rendered

from khook.core.breaker import BreakerState
from khook.metrics import _REGISTRY
from shards.policy import Phase

SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
COLLECTORS: list[Any] = list(_REGISTRY._collector_to_names)
LABELS = {
    metric.name + suffix: {*collector._labelnames, *(("le",) if suffix == "_bucket" else ())}
    for collector in COLLECTORS
    for metric in collector.describe()
    for suffix in SUFFIXES[metric.type]
}
"""The labels of each series that khook can show."""

STATES = {
    "kagent_hook_role": {"leader", "standby"},
    "kagent_hook_namespaces": {"live", "starting", "forbidden", "deaf"},
    "kagent_hook_slots": {phase.value for phase in Phase},
    "kagent_hook_breakers": {state.value for state in BreakerState},
}


def alerts() -> list[dict[str, Any]]:
    groups = only("PrometheusRule", rendered(EVERYTHING))["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    data = only("ConfigMap", rendered(EVERYTHING), f"{NAME}-dashboard")["data"]
    found: dict[str, Any] = json.loads(data["khook.json"])
    return found


def queries() -> list[str]:
    targets = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*(rule["expr"] for rule in alerts()), *targets]


def test_every_metric_and_label_that_is_asked_for_exists() -> None:
    asked = queries()
    assert asked
    for query in asked:
        series = re.findall(r"(kagent_hook_\w+)(?:\{(\w+)=\"(\w+)\"\})?", query)
        assert series, query
        for name, label, value in series:
            assert name in LABELS, query
            assert not label or (label in LABELS[name] and value in STATES[name]), query
        known = set.union(*(LABELS[name] for name, _, _ in series))
        grouped = {label.strip() for labels in re.findall(r"by \((.*?)\)", query) for label in labels.split(",")}
        assert grouped <= known, query


def test_every_label_that_is_shown_is_one_that_the_query_keeps() -> None:
    shown = [(rule["expr"], "".join(rule["annotations"].values())) for rule in alerts()]
    shown += [(one["expr"], one["legendFormat"]) for panel in dashboard()["panels"] for one in panel["targets"]]
    for query, text in shown:
        for label in re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text):
            assert label in re.search(r"by \((.*?)\)", query)[1], (query, text)  # type: ignore[index]


def test_an_alert_names_what_to_do_and_how_bad_it_is() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{rule['alert'].lower()}")


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_the_prometheus_operator_finds_it_by_the_labels_that_are_asked_for(kind: str) -> None:
    off = EVERYTHING | {kind[0].lower() + kind[1:]: {"enabled": True, "labels": {"release": "prometheus"}}}
    assert only(kind, rendered(off))["metadata"]["labels"]["release"] == "prometheus"


def test_the_service_monitor_selects_the_metrics_service() -> None:
    objects = rendered(EVERYTHING)
    service = only("Service", objects, f"{NAME}-metrics")
    monitor = only("ServiceMonitor", objects)["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [
        port["name"] for port in service["spec"]["ports"]
    ]
    pods = only("Deployment", objects)["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pods.items()
