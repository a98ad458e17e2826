"""Settings: every problem at once, each with its name and the way out; nothing secret is ever shown."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from khook.api import duration
from khook.errors import EXIT_SETTINGS, SettingsError
from khook.settings import ALIASES, NAMES, Settings, load, one
from khook.sizing import Because, WorkerCount, auto_workers

KEY = {"KAGENT_API_KEY": "k-secret-1"}
MIB = 1024 * 1024


def no_files(_path: str) -> None:
    return None


def files(contents: dict[str, str]) -> Callable[[str], str | None]:
    return lambda path: contents.get(path.removeprefix("/sys/fs/cgroup/"))


def problems(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(KEY | environ, read=no_files)
    return caught.value.problems


def test_defaults_are_what_works_today() -> None:
    settings = load(KEY, read=no_files)
    assert (settings.kagent_base_url, settings.kagent_credentials_dir) == (None, None)
    assert settings.kagent_api_key is not None
    assert settings.kagent_api_key.get_secret_value() == "k-secret-1"
    assert (settings.metrics_port, settings.health_port) == (8080, 8081)
    assert str(settings.status_address) == "127.0.0.1:8082"
    assert (settings.log_level, settings.log_format) == ("info", "json")
    assert settings.leader_election is True
    assert (settings.kagent_protocol, settings.watch_scope, settings.watch_namespaces) == ("auto", "namespace", ())
    assert settings.workers == WorkerCount(count=2, because=Because.NO_CPU_QUOTA)
    assert (settings.virtual_nodes, settings.max_load_factor) == (256, 1.25)
    assert settings.cooldown == timedelta(minutes=10)
    assert settings.resolve_after == timedelta(minutes=2)
    assert settings.max_signal_age == timedelta(minutes=15)
    assert settings.stuck_pending == timedelta(seconds=60)
    assert (settings.kagent_timeout_s, settings.retry_attempts, settings.retry_backoff_s) == (30.0, 3, 2.0)
    assert (settings.calls_per_worker, settings.calls_per_agent, settings.calls_per_hook_hour) == (64, 8, 300)
    assert (settings.redeliver_for, settings.run_deadline_s) == (timedelta(minutes=15), 600.0)
    assert (settings.agent_namespace, settings.allowed_agent_namespaces) == ("kagent", ())
    assert (settings.drain_s, settings.heartbeat_timeout_s) == (20.0, 10.0)
    assert settings.kagent_user_id == "admin@kagent.dev"
    unset = (settings.kagent_ca_file, settings.pod_namespace, settings.pod_name, settings.multiproc_dir)
    assert unset == (None, None, None, None)


def test_every_problem_is_reported_at_once_one_line_each() -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            {
                "KHOOK_COOLDWN": "10m",
                "KHOOK_DRAIN": "soon",
                "LOG_LEVEL": "loud",
                "METRICS_PORT": "70000",
                "KAGENT_API_URL": "http://a",
                "KAGENT_BASE_URL": "http://b",
                "KHOOK_CALLS_PER_WORKER": "4",
            },
            read=no_files,
        )
    assert caught.value.problems == [
        "KAGENT_API_URL: disagrees with KAGENT_BASE_URL, which is the same setting: set one of the two",
        "KHOOK_CALLS_PER_AGENT: 8 is more than KHOOK_CALLS_PER_WORKER (4): lower it or raise that",
        "KHOOK_COOLDWN: not a setting of khook; did you mean KHOOK_COOLDOWN?",
        "KHOOK_DRAIN: not a duration: write it as 10m, 1.5s, 1h30m or 250ms",
        "LOG_LEVEL: 'loud' is not allowed: choose debug, info, warn or error",
        "METRICS_PORT: '70000' is not allowed: a whole number from 0 to 65535",
    ]
    assert caught.value.exit_code == EXIT_SETTINGS


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("KHOOK_WATCH_SCOPE", "auto", "set KHOOK_WATCH_SCOPE=namespace"),
        ("KHOOK_WATCH_SCOPE", "cluster", "set KHOOK_WATCH_SCOPE=namespace"),
    ],
)
def test_a_value_whose_feature_is_missing_is_refused_with_the_way_out(name: str, value: str, way_out: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}: '{value}' is not supported in this version")
    assert problem.endswith(way_out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEADER_ELECTION", "true"),
        ("KAGENT_PROTOCOL", "auto"),
        ("KAGENT_PROTOCOL", "AUTO"),
        ("KHOOK_WATCH_SCOPE", "namespace"),
        ("KHOOK_CALLS_PER_HOOK_HOUR", "300"),
        ("KHOOK_REDELIVER_FOR", "15m"),
        ("KHOOK_MAX_LOAD_FACTOR", "1.25"),
    ],
)
def test_what_works_today_may_also_be_written_out(name: str, value: str) -> None:
    assert load(KEY, read=no_files) == load(KEY | {name: value}, read=no_files)


def test_khook_starts_without_a_key_because_the_secret_may_come_later() -> None:
    assert load({}, read=no_files).kagent_api_key is None
    assert load({"KAGENT_API_KEY": ""}, read=no_files) == load({}, read=no_files)


def test_how_kagent_is_called_is_the_users_choice() -> None:
    chosen = {
        "KAGENT_PROTOCOL": "a2a",
        "KAGENT_USER_ID": "sre@example.com",
        "KAGENT_CREDENTIALS_DIR": "/var/run/kagent",
    }
    settings = load(chosen, read=no_files)
    assert (settings.kagent_protocol, settings.kagent_user_id) == ("a2a", "sre@example.com")
    assert settings.kagent_credentials_dir == "/var/run/kagent"
    assert load({"KAGENT_PROTOCOL": "execute"}, read=no_files).kagent_protocol == "execute"


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", timedelta(0)), ("0s", timedelta(0)), ("90s", timedelta(seconds=90)), ("24h", timedelta(1))],
)
def test_how_long_calls_are_redelivered_may_be_set_and_0_switches_it_off(text: str, value: timedelta) -> None:
    assert load({"KHOOK_REDELIVER_FOR": text}, read=no_files).redeliver_for == value


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"KAGENT_API_KEY"}))
def test_the_empty_string_counts_as_unset(name: str) -> None:
    assert load(KEY, read=no_files) == load(KEY | {name: ""}, read=no_files)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KHOOK_COOLDOWN", "59s"),
        ("KHOOK_COOLDOWN", "25h"),
        ("KHOOK_WORKERS", "0"),
        ("KHOOK_WORKERS", "17"),
        ("KHOOK_WORKERS", "many"),
        ("KHOOK_VIRTUAL_NODES", "0"),
        ("KAGENT_RETRY_ATTEMPTS", "-1"),
        ("KAGENT_TIMEOUT", "30"),
        ("KHOOK_AGENT_NAMESPACE", "Kagent"),
        ("KHOOK_WATCH_NAMESPACES", "a,b_c"),
        ("LEADER_ELECTION", "maybe"),
        ("KHOOK_CALLS_PER_AGENT", "65"),
        ("HEALTH_PORT", "8080"),
        ("KHOOK_STATUS_ADDRESS", "8082"),
        ("KHOOK_STATUS_ADDRESS", "127.0.0.1:8080"),
        ("KHOOK_STATUS_ADDRESS", "[::1]:8081"),
        ("KHOOK_STATUS_ADDRESS", "127.0.0.1:99999"),
        ("KHOOK_MAX_LOAD_FACTOR", "1.04"),
        ("KHOOK_MAX_LOAD_FACTOR", "10.5"),
        ("KHOOK_MAX_LOAD_FACTOR", "nan"),
        ("KHOOK_MAX_LOAD_FACTOR", "1e1"),
        ("LOG_FORMAT", "xml"),
        ("KAGENT_PROTOCOL", "grpc"),
        ("KHOOK_REDELIVER_FOR", "25h"),
        ("KAGENT_CREDENTIALS_DIR", "secrets/kagent"),
    ],
)
def test_a_value_out_of_bounds_is_refused_under_its_name(name: str, value: str) -> None:
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}: ")


def test_ports_may_both_be_any_free_one() -> None:
    settings = load(KEY | {"METRICS_PORT": "0", "HEALTH_PORT": "0"}, read=no_files)
    assert (settings.metrics_port, settings.health_port) == (0, 0)


@pytest.mark.parametrize(("text", "factor"), [("1.05", 1.05), ("1.25", 1.25), ("2", 2.0), ("10", 10.0)])
def test_how_uneven_the_workers_may_be_is_the_users_choice(text: str, factor: float) -> None:
    assert load({"KHOOK_MAX_LOAD_FACTOR": text}, read=no_files).max_load_factor == factor


@pytest.mark.parametrize("text", ["127.0.0.1:0", "0.0.0.0:9000", "[::1]:8082"])
def test_where_the_status_is_served_is_the_users_choice(text: str) -> None:
    assert str(load({"KHOOK_STATUS_ADDRESS": text}, read=no_files).status_address) == text


def test_a_port_that_another_setting_has_is_refused_also_where_it_is_the_default() -> None:
    assert problems(METRICS_PORT="8082") == ["KHOOK_STATUS_ADDRESS: 8082 is METRICS_PORT too: choose another port"]


def test_one_setting_can_be_asked_for_alone() -> None:
    environ = {"KHOOK_VIRTUAL_NODES": "64", "LOG_LEVEL": "loud", "KHOOK_MAX_LOAD_FACTOR": " "}
    assert one("KHOOK_VIRTUAL_NODES", environ) == 64
    assert one("KHOOK_MAX_LOAD_FACTOR", environ) == 1.25
    assert str(one("KHOOK_STATUS_ADDRESS", environ)) == "127.0.0.1:8082"
    with pytest.raises(SettingsError) as caught:
        one("LOG_LEVEL", environ)
    assert caught.value.problems == ["LOG_LEVEL: 'loud' is not allowed: choose debug, info, warn or error"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://kagent:8083/", "http://kagent:8083"),
        ("https://kagent.example.com/api", "https://kagent.example.com/api"),
        ("http://[::1]:8083", "http://[::1]:8083"),
    ],
)
def test_a_base_url_is_kept_without_its_trailing_slash(url: str, kept: str) -> None:
    assert load(KEY | {"KAGENT_BASE_URL": url}, read=no_files).kagent_base_url == kept


@pytest.mark.parametrize(
    "url",
    ["ftp://kagent", "kagent:8083", "http://", "http://u:hunter2@k", "http://k?hunter2=1", "http://k#a", "http://k:x",
     "http://k:99999", "http://k ey", "http://[::1", "http://" + "hunter2" * 300],
)  # fmt: skip
def test_a_base_url_that_could_mislead_is_refused_and_not_repeated(url: str) -> None:
    (problem,) = problems(KAGENT_BASE_URL=url)
    assert problem.startswith("KAGENT_BASE_URL: ")
    assert "hunter2" not in problem


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_each_alias_of_the_go_controller_works(alias: str, name: str) -> None:
    value = "45s" if name == "KAGENT_TIMEOUT" else "http://kagent:8083"
    by_alias, by_name = (load(KEY | {key: value}, read=no_files) for key in (alias, name))
    assert by_alias == by_name
    assert by_alias != load(KEY, read=no_files)


def test_two_aliases_that_agree_are_fine_and_two_that_disagree_are_not() -> None:
    same = {"KAGENT_API_URL": "http://a", "KAGENT_API_BASE_URL": "http://a"}
    assert load(KEY | same, read=no_files).kagent_base_url == "http://a"
    (problem,) = problems(KAGENT_API_URL="http://a", KAGENT_API_BASE_URL="http://b")
    assert problem.startswith("KAGENT_API_BASE_URL: disagrees with KAGENT_API_URL")


def test_names_that_kubernetes_injects_for_a_service_are_no_mistakes() -> None:
    injected = {
        "KAGENT_PORT": "tcp://10.0.0.1:80",
        "KHOOK_PORT": "tcp://10.0.0.1:80",
        "KHOOK_PORT_80_TCP_ADDR": "10.0.0.1",
        "KHOOK_METRICS_SERVICE_HOST": "10.0.0.1",
        "KHOOK_SERVICE_PORT_HTTP": "80",
    }
    assert load(KEY | injected, read=no_files) == load(KEY, read=no_files)


@pytest.mark.parametrize("key", ["hunter2 x", "hunter2\nx", "hunter2\x00", "hünter2"])
def test_a_key_that_is_no_header_value_is_refused_and_not_repeated(key: str) -> None:
    (problem,) = problems(KAGENT_API_KEY=key)
    assert problem.startswith("KAGENT_API_KEY: ")
    assert "nter2" not in problem


def test_the_key_is_in_no_repr_and_a_trailing_newline_is_dropped() -> None:
    settings = load({"KAGENT_API_KEY": "k-secret-1\n"}, read=no_files)
    assert settings.kagent_api_key is not None
    assert settings.kagent_api_key.get_secret_value() == "k-secret-1"
    assert "k-secret-1" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_settings_do_not_change() -> None:
    settings = load(KEY, read=no_files)
    with pytest.raises(ValidationError):
        settings.log_level = "debug"  # type: ignore[misc]


def test_every_setting_has_an_upper_case_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(Settings.model_fields)
    assert all(name.isupper() for name in NAMES)


def test_namespace_lists_are_trimmed_and_kept_in_order() -> None:
    lists = {"KHOOK_WATCH_NAMESPACES": "shop, pay,shop,", "KHOOK_ALLOWED_AGENT_NAMESPACES": "*"}
    settings = load(KEY | lists, read=no_files)
    assert settings.watch_namespaces == ("shop", "pay")
    assert settings.allowed_agent_namespaces == ("*",)


@pytest.mark.parametrize(
    ("contents", "count", "because"),
    [
        ({}, 2, Because.NO_CPU_QUOTA),
        ({"cpu.max": "max 100000\n"}, 2, Because.NO_CPU_QUOTA),
        ({"cpu.max": "50000 100000\n"}, 1, Because.CPU_QUOTA),
        ({"cpu.max": "250000 100000\n"}, 3, Because.CPU_QUOTA),
        ({"cpu.max": "6400000 100000\n"}, 16, Because.MAXIMUM),
        ({"cpu.max": "800000 100000\n", "memory.max": f"{(160 + 3 * 64) * MIB}\n"}, 3, Because.MEMORY_LIMIT),
        ({"cpu.max": "800000 100000\n", "memory.max": f"{(160 + 3 * 64) * MIB - 1}\n"}, 2, Because.MEMORY_LIMIT),
        ({"memory.max": f"{100 * MIB}\n"}, 1, Because.MEMORY_LIMIT),
        ({"cpu.max": "300000 100000\n", "memory.max": "max\n"}, 3, Because.CPU_QUOTA),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4, Because.CPU_QUOTA),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2, Because.NO_CPU_QUOTA),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n",
          "memory/memory.limit_in_bytes": "9223372036854771712\n"}, 4, Because.CPU_QUOTA),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n",
          "memory/memory.limit_in_bytes": f"{224 * MIB}\n"}, 1, Because.MEMORY_LIMIT),
        ({"cpu.max": "garbage"}, 2, Because.NO_CPU_QUOTA),
    ],
)  # fmt: skip
def test_auto_workers_follow_the_containers_limits(contents: dict[str, str], count: int, because: Because) -> None:
    assert auto_workers(files(contents)) == WorkerCount(count=count, because=because)
    assert load(KEY, read=files(contents)).workers == WorkerCount(count=count, because=because)


def test_a_number_of_workers_that_is_set_is_not_second_guessed() -> None:
    small = files({"cpu.max": "50000 100000\n"})
    assert load(KEY | {"KHOOK_WORKERS": "5"}, read=small).workers == WorkerCount(count=5, because=Because.SET)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10m", timedelta(minutes=10)),
        ("1.5s", timedelta(seconds=1.5)),
        ("1h30m", timedelta(hours=1.5)),
        ("250ms", timedelta(milliseconds=250)),
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, value: timedelta) -> None:
    assert duration.parse(text) == value


@pytest.mark.parametrize("text", ["", "10", "-1s", "1d", "1 m", ".5s", "1.s", "1m\n", "999999999h", "١s", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_a_plain_refusal(text: str) -> None:
    refusal, value = "", timedelta(0)
    try:
        value = duration.parse(text)
    except ValueError as error:
        refusal = str(error)
    assert "duration" in refusal or timedelta(0) <= value <= timedelta(days=3650)


@given(st.dictionaries(st.sampled_from([*NAMES, *ALIASES]), st.text(max_size=30)))
def test_any_environment_gives_settings_or_named_problems(environ: dict[str, str]) -> None:
    named = None
    try:
        load(environ, read=no_files)
    except SettingsError as error:
        named = {problem.partition(": ")[0] for problem in error.problems}
    assert named is None or (named and named <= {*NAMES, *ALIASES})
