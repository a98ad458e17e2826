"""Each setting of khook is a value of the chart, with khook's own default, and khook takes what the chart says."""

from typing import Final

import pytest
import yaml
from support.charts import CONTROLLER, container, environment, rendered
from support.objects import Json

from khook.settings import NAMES, Settings, load

SET_BY_THE_CHART: Final = {"POD_NAME", "POD_NAMESPACE", "KAGENT_CREDENTIALS_DIR", "PROMETHEUS_MULTIPROC_DIR"}
"""Where the pod is and what is mounted into it: nobody chooses them."""

ALL_SET: Final[Json] = {
    "replicaCount": 1,
    "kagent": {
        "apiUrl": "http://kagent-controller.kagent:8083",
        "apiKey": "a-key-nobody-may-see",
        "protocol": "a2a",
        "userId": "sre@example.com",
        "timeout": "1m30s",
        "retryAttempts": 2,
        "retryBackoff": "500ms",
        "caConfigMap": {"name": "corporate-ca", "key": "root.pem"},
    },
    "controller": {"logLevel": "debug", "logFormat": "text", "statusAddress": "0.0.0.0:9082"},
    "leaderElection": {"enabled": False},
    "deduplication": {"timeoutMinutes": 1440, "cleanupIntervalMinutes": 5},
    "shards": {
        "workers": 16,
        "virtualNodes": 512,
        "maxLoadFactor": 2,
        "heartbeatTimeout": "20s",
        "drainSeconds": 45,
    },
    "watch": {"namespaces": ["shop", "bank"], "maxSignalAge": "1h", "stuckPending": "2m"},
    "calls": {
        "perWorker": 4096,
        "perAgent": 16,
        "perHookHour": 1_000_000,
        "redeliverFor": "0s",
        "runDeadline": "1h30m",
    },
    "agents": {"namespace": "ai", "allowedNamespaces": ["shared"], "clusterName": "eu-1/prod"},
    "metrics": {"port": 9080},
    "health": {"port": 9081},
}
"""Every value that becomes a setting, at another than its default."""

ONE_VALUE_ONLY: Final = {"KHOOK_WATCH_SCOPE"}
"""Of which this version takes no other value than the default."""


def variables(values: Json | None = None) -> dict[str, str]:
    objects = rendered(values)
    return environment(container(objects), objects)


def taken(environ: dict[str, str]) -> Settings:
    return load(environ, read=lambda _: None)


def test_every_setting_can_be_set_by_a_value() -> None:
    before, after = variables(), variables(ALL_SET)
    assert set(after) == set(NAMES)
    assert {name for name in NAMES if after[name] == before.get(name)} == SET_BY_THE_CHART | ONE_VALUE_ONLY


def test_khook_takes_what_the_chart_says_when_every_value_is_set() -> None:
    settings = taken(variables(ALL_SET))
    assert settings.kagent_base_url == "http://kagent-controller.kagent:8083"
    assert settings.kagent_api_key is not None
    assert settings.kagent_api_key.get_secret_value() == "a-key-nobody-may-see"
    assert settings.kagent_ca_file == "/etc/khook/kagent-ca/root.pem"
    assert (settings.cooldown.total_seconds(), settings.resolve_after.total_seconds()) == (86_400, 300)
    assert (settings.workers.count, settings.max_load_factor, settings.calls_per_hook_hour) == (16, 2.0, 1_000_000)
    assert (settings.watch_namespaces, settings.drain_s) == (("shop", "bank"), 45.0)


def test_the_charts_defaults_are_khooks() -> None:
    """But for the number of workers, which the memory of the pod is computed from."""
    environ = variables()
    defaults = taken({name: environ[name] for name in SET_BY_THE_CHART} | {"KHOOK_WORKERS": "2"})
    assert taken(environ) == defaults


def test_where_kagent_is_and_its_key_are_said_only_where_a_value_is_set() -> None:
    """A variable that is set wins over the secret, and an installation comes before its secret."""
    assert {"KAGENT_BASE_URL", "KAGENT_API_KEY", "KAGENT_CA_FILE"}.isdisjoint(variables())


def test_a_new_key_brings_new_pods_and_stands_in_a_secret_alone() -> None:
    first, second = (rendered({"kagent": {"apiKey": key}}) for key in ("one-key", "another-key"))
    templates = [
        next(one["spec"]["template"] for one in objects if one["kind"] == "Deployment") for objects in (first, second)
    ]
    assert templates[0] != templates[1]
    assert "one-key" not in yaml.safe_dump(first)


def test_auto_workers_and_all_agent_namespaces_are_taken() -> None:
    environ = variables({"shards": {"workers": "auto"}, "agents": {"allowedNamespaces": ["*"]}})
    assert taken(environ).allowed_agent_namespaces == ("*",)
    assert environ["KHOOK_WORKERS"] == "auto"


def test_the_pod_of_helm_test_has_the_settings_of_the_controller() -> None:
    objects = rendered(ALL_SET)
    (pod,) = (one for one in objects if one["kind"] == "Pod")
    (check,) = pod["spec"]["containers"]
    assert (check["args"], check["env"]) == (["check"], container(objects)["env"])


@pytest.mark.parametrize("name", NAMES)
def test_the_values_file_says_which_setting_a_value_becomes(name: str) -> None:
    text = (CONTROLLER / "values.yaml").read_text(encoding="utf-8")
    assert name in text or name in SET_BY_THE_CHART
