"""What the chart makes of its values, and which it refuses before anything is installed."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.charts import CHARTS, CONTROLLER, CRDS, container, manifest, only, refusal, rendered
from support.kube_tools import kube_tool
from support.objects import Json
from support.real_apiserver import REPOSITORY

from khook.settings import load
from khook.sizing import SUPERVISOR_BYTES, WORKER_BYTES

MIB = 1024 * 1024
OPEN = {"/global", "/affinity", "/networkPolicy/metricsFrom"}
"""Where the API server is the one that knows what may stand there."""


def objects_of(schema: Any, path: str = "") -> Iterator[tuple[str, Json]]:
    """Each object that a schema describes, and where."""
    if isinstance(schema, list):
        for one in schema:
            yield from objects_of(one, path)
    elif isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, one in schema.items():
            if key == "properties":
                for name, inner in one.items():
                    yield from objects_of(inner, f"{path}/{name}")
            elif key not in ("enum", "const", "required"):
                yield from objects_of(one, path)


@pytest.mark.parametrize("chart", [CONTROLLER, CRDS])
def test_helm_finds_nothing_to_complain_of(chart: Path) -> None:
    done = subprocess.run(
        [kube_tool("helm"), "lint", "--strict", chart], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("chart", [CONTROLLER, CRDS])
def test_the_schema_of_values_is_closed_everywhere(chart: Path) -> None:
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    found = list(objects_of(schema))
    assert found
    for path, one in found:
        maps_strings = one.get("additionalProperties") == {"type": "string"}
        opened = any(path.startswith(allowed) for allowed in OPEN) and one.get("additionalProperties") is True
        assert one.get("additionalProperties") is False or maps_strings or opened, path


def test_the_schema_knows_every_value() -> None:
    """Those of the file: what it does not name could not be set at all."""
    values = yaml.safe_load((CONTROLLER / "values.yaml").read_text(encoding="utf-8"))
    properties = json.loads((CONTROLLER / "values.schema.json").read_text(encoding="utf-8"))["properties"]
    assert set(values) == set(properties) - {"global"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"shards": {"wrokers": 3}}, "additional properties 'wrokers' not allowed"),
        ({"workers": 3}, "additional properties 'workers' not allowed"),
        ({"shards": {"workers": 17}}, "at '/shards/workers'"),
        ({"watch": {"namespaces": ["Shop"]}}, "at '/watch/namespaces/0'"),
        ({"agents": {"allowedNamespaces": ["*", "a"]}}, "at '/agents/allowedNamespaces'"),
        ({"kagent": {"timeout": "30"}}, "at '/kagent/timeout'"),
        ({"image": {"digest": "latest"}}, "at '/image/digest'"),
        ({"leaderElection": {"enabled": False}}, "replicaCount=2 needs leaderElection.enabled=true"),
        ({"health": {"port": 8080}}, "metrics.port and health.port are both 8080"),
        ({"calls": {"perAgent": 65}}, "calls.perAgent=65 is more than calls.perWorker=64"),
    ],
)
def test_a_mistake_is_refused_with_its_place(values: Json, said: str) -> None:
    assert said in refusal(values)


# Memory.


def memory(values: Json) -> str:
    """The limit of the pod."""
    return str(container(rendered(values))["resources"]["limits"]["memory"])


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_memory_is_computed_from_the_workers_as_khook_itself_does(workers: int) -> None:
    values = {"shards": {"workers": workers}}
    needed = (SUPERVISOR_BYTES + workers * WORKER_BYTES) // MIB
    assert memory(values) == f"{needed}Mi"
    assert f"160 MiB for the supervisor and its forkserver + {workers} workers × 64 MiB = {needed} MiB." in manifest(
        values
    )


def test_auto_workers_get_the_memory_of_what_auto_comes_to_in_such_a_pod() -> None:
    limit = int(memory({"shards": {"workers": "auto"}}).removesuffix("Mi")) * MIB
    cgroup = {"/sys/fs/cgroup/memory.max": str(limit), "/sys/fs/cgroup/cpu.max": "max 100000"}
    workers = load({}, read=cgroup.get).workers.count
    assert limit == SUPERVISOR_BYTES + workers * WORKER_BYTES


@pytest.mark.parametrize("limit", ["416Mi", "0.5Gi", "1G", "436207616"])
def test_a_memory_limit_that_fits_is_taken_as_it_is(limit: str) -> None:
    assert memory({"shards": {"workers": 4}, "resources": {"limits": {"memory": limit}}}) == limit


@pytest.mark.parametrize(
    ("workers", "limit", "said"),
    [
        (4, "415Mi", "+ 4 × 64 MiB for the workers = 416 MiB, and the limit is 415 MiB."),
        (4, "415Mi", "Set resources.limits.memory=416Mi or more, or shards.workers=3."),
        (4, "436207615", "and the limit is 415 MiB."),
        (8, "0.25Gi", "= 672 MiB, and the limit is 256 MiB. Set resources.limits.memory=672Mi or more, or"),
        (1, "200M", "= 224 MiB, and the limit is 190 MiB. Set resources.limits.memory=224Mi or more.\n"),
        ("auto", "223Mi", "+ 1 × 64 MiB for the workers = 224 MiB, and the limit is 223 MiB."),
    ],
)
def test_workers_that_cannot_fit_into_the_limit_are_refused_with_the_arithmetic(
    workers: int | str, limit: str, said: str
) -> None:
    assert said in refusal({"shards": {"workers": workers}, "resources": {"limits": {"memory": limit}}})


# The pods.


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ({}, "ghcr.io/kagent-dev/khook:{version}"),
        ({"tag": "main"}, "ghcr.io/kagent-dev/khook:main"),
        ({"repository": "r.example/k", "digest": f"sha256:{'a' * 64}"}, f"r.example/k@sha256:{'a' * 64}"),
        ({"tag": "1.2", "digest": f"sha256:{'a' * 64}"}, f"ghcr.io/kagent-dev/khook:1.2@sha256:{'a' * 64}"),
    ],
)
def test_the_image_is_the_charts_version_unless_a_tag_or_digest_says_otherwise(image: Json, named: str) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert container(rendered({"image": image}))["image"] == named.format(version=version)


def test_the_pods_give_their_words_to_what_the_image_starts() -> None:
    """Its entry point is khook, run as a user that the kubelet can see is not root."""
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    entry_points = [json.loads(line) for line in re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)]
    (user,) = re.findall(r"^USER ([0-9]+)", dockerfile, re.MULTILINE)
    assert [entry_point[-1].endswith("/khook") for entry_point in entry_points] == [True]
    assert int(user) > 0
    manager = container(rendered())
    assert ("command" in manager, manager["args"]) == (False, ["run"])


def test_both_charts_have_the_version_of_khook() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    charts = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in CHARTS.glob("*/Chart.yaml")]
    assert [(chart["version"], chart["appVersion"]) for chart in charts] == [(version, version)] * 2


@pytest.mark.parametrize("drain_s", [0, 20, 600])
def test_a_pod_may_take_25_s_longer_to_end_than_its_calls(drain_s: int) -> None:
    deployment = only("Deployment", rendered({"shards": {"drainSeconds": drain_s}}))
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == drain_s + 25


def test_without_an_election_the_old_pod_is_gone_before_the_new_one_leads() -> None:
    alone = only("Deployment", rendered({"replicaCount": 1, "leaderElection": {"enabled": False}}))
    assert alone["spec"]["strategy"] == {"type": "Recreate"}
    assert "strategy" not in only("Deployment", rendered())["spec"]


def test_two_replicas_that_may_run_side_by_side_and_are_not_drained_together() -> None:
    objects = rendered()
    deployment = only("Deployment", objects)
    selector = deployment["spec"]["selector"]["matchLabels"]
    spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert deployment["spec"]["replicas"] == 2
    assert {one["whenUnsatisfiable"] for one in spread} == {"ScheduleAnyway"}
    assert [one["labelSelector"]["matchLabels"] for one in spread] == [selector] * 2
    budget = only("PodDisruptionBudget", objects)["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (1, selector)
    assert "PodDisruptionBudget" not in {one["kind"] for one in rendered({"replicaCount": 1})}


def test_what_selects_the_controllers_pods_does_not_select_the_pod_of_helm_test() -> None:
    objects = rendered()
    (check,) = (one for one in objects if one["kind"] == "Pod")
    selector = only("Deployment", objects)["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= check["metadata"]["labels"].items()
