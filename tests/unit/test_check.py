"""`khook check` says what is wrong and how to mend it, and fails for what is ours: the installation and given files."""

import asyncio
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.objects import Json, entry, hook

from khook import log
from khook.api.crd import crd
from khook.cli import check
from khook.cli.check_cluster import NEEDS
from khook.cli.findings import Finding, Result, all_well
from khook.cli.main import main
from khook.kube.credentials import Credentials
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Request, Response, Service
from khook.sandbox.http import InMemoryTransports
from khook.sandbox.kagent import Kagent, Speaks
from khook.sandbox.kagent_routes import KagentService
from khook.sandbox.store import Store
from khook.seams import SystemClock

API, AGENTS, KEY = "http://api", "http://agents", "a-key-nobody-may-see"
HOOKS = "/apis/kagent.dev/v1alpha2/namespaces/shop/hooks"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Reviewing:
    """An API server that refuses some permissions, and remembers for which it was asked."""

    def __init__(self, *, refuse: frozenset[str] = frozenset()) -> None:
        self.inner = ApiServer(Store(randomness=random.Random(1), now=datetime.now(UTC)), clock=SystemClock())
        self.asked: list[tuple[str, str, str]] = []
        self._refuse = refuse

    async def handle(self, request: Request) -> Response:
        if not request.path.endswith("/selfsubjectaccessreviews"):
            return await self.inner.handle(request)
        about = json.loads(request.body)["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (about["resource"], about.get("subresource", ""))))
        self.asked.append((about["verb"], resource, about.get("namespace", "")))
        if resource not in self._refuse:
            return await self.inner.handle(request)
        return Response(status=201, body=orjson.dumps({"status": {"allowed": False}}))

    async def post(self, path: str, body: Json) -> None:
        request = Request(
            method="POST", path=path, query={}, headers={"content-type": "application/json"}, body=orjson.dumps(body)
        )
        assert (await self.inner.handle(request)).status == 201


@pytest.fixture(autouse=True)
def logs_elsewhere() -> Iterator[None]:
    """A command binds the log to its stderr, which here is a captured one that is closed after the test."""
    yield
    log.configure("error", "text", stream=sys.__stderr__)


def checked(
    *files: str,
    server: Reviewing | None = None,
    hook_crd: Json | None = None,
    hooks: tuple[Json, ...] = (),
    agents: Kagent | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Finding]:
    """With an installation that is well, but for what a test changes."""

    async def run() -> list[Finding]:
        api = server or Reviewing()
        await api.post("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        if hook_crd != {}:
            await api.post(CRDS, hook_crd or crd())
        for one in hooks:
            await api.post(HOOKS, one)
        kagent = agents or Kagent(api_key=KEY, speaks=Speaks.A2A)
        services: Mapping[str, Service] = {API: api, AGENTS: KagentService(kagent, clock=SystemClock())}
        return await check.found(
            files,
            offline=False,
            environ={"KAGENT_BASE_URL": AGENTS, "KAGENT_API_KEY": KEY} | dict(environ or {}),
            credentials=Credentials(server=API),
            transports=InMemoryTransports(dict(services)),
        )

    return asyncio.run(run())


def about(findings: list[Finding], what: str) -> Finding:
    (found,) = [one for one in findings if one.what == what]
    return found


def test_an_installation_that_is_well_has_only_oks() -> None:
    findings = checked(hooks=(hook("h", entry("pod-restart", prompt="Look."), namespace="shop"),))
    assert {one.result for one in findings} == {Result.OK}, findings
    assert "speaks a2a" in about(findings, "kagent").says
    assert about(findings, "agent kagent/agent").says == "is there; hook shop/h names it"


@pytest.mark.parametrize(
    ("refused", "result"),
    [
        ("hooks", Result.WRONG),
        ("hooks/status", Result.WRONG),
        ("pods", Result.WRONG),
        ("events", Result.WRONG),
        ("leases", Result.WRONG),
        ("replicasets", Result.WARNING),
        ("jobs", Result.WARNING),
    ],
)
def test_a_permission_that_is_missing_is_named_and_only_look_ups_of_owners_can_be_done_without(
    refused: str, result: Result
) -> None:
    findings = [one for one in checked(server=Reviewing(refuse=frozenset({refused}))) if one.result is not Result.OK]
    assert {one.result for one in findings} == {result}
    assert all(refused in one.what and one.mend for one in findings)
    assert all_well(findings) is (result is Result.WARNING)


def test_every_verb_of_the_readmes_table_is_asked_in_the_watched_namespaces_alone() -> None:
    server = Reviewing()
    checked(server=server, environ={"KHOOK_WATCH_NAMESPACES": "shop,bank", "LEADER_ELECTION": "false"})
    table = [(verb, "/".join(filter(None, (need.resource, need.subresource)))) for need in NEEDS for verb in need.verbs]
    assert sorted(server.asked) == sorted((verb, what, where) for verb, what in table for where in ("shop", "bank"))
    rows = (Path(__file__).parents[2] / "README.md").read_text().splitlines()
    for need in NEEDS:
        resource = "/".join(filter(None, (need.resource, need.subresource)))
        assert f"| {f'`{need.group}`' if need.group else 'core'} | `{resource}` | {', '.join(need.verbs)} |" in rows


def test_a_crd_that_is_not_there_and_one_that_drops_our_fields_are_told_apart() -> None:
    assert about(checked(hook_crd={}), "Hook CRD").says == "kagent.dev/v1alpha2 is not installed"
    older = crd()
    status = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    del status["properties"]["activeEvents"]["items"]["properties"]["call"]
    found = about(checked(hook_crd=older), "Hook CRD")
    assert (found.result, found.says.partition(":")[0]) == (Result.WRONG, "CRDOutdated")
    assert ".status.activeEvents[].call" in found.says


@pytest.mark.parametrize(
    ("agents", "environ", "what", "result", "says", "mend"),
    [
        (Kagent(api_key="other", speaks=Speaks.A2A), {}, "kagent key", Result.WRONG, "refused (HTTP 401)", "API_KEY"),
        (
            Kagent(api_key="k"), {"KAGENT_API_KEY": ""}, "kagent key", Result.WRONG,
            "missing, and execute needs one: no agent is called", "export KAGENT_API_KEY=",
        ),
        (Kagent(api_key=KEY), {}, "kagent", Result.OK, f"{AGENTS} speaks execute (found out); healthy", ""),
        (None, {"KAGENT_BASE_URL": "http://other"}, "kagent", Result.WRONG, "could not be asked", ""),
    ],
)  # fmt: skip
def test_kagent_is_named_with_its_protocol_its_health_and_its_key(
    agents: Kagent | None, environ: dict[str, str], what: str, result: Result, says: str, mend: str
) -> None:
    found = about(checked(agents=agents, environ=environ), what)
    assert found.result is result
    assert says in found.says
    assert mend in found.mend


def test_an_agent_that_kagent_does_not_know_is_wrong_in_a_file_and_a_warning_in_the_cluster(tmp_path: Path) -> None:
    agents = Kagent(api_key=KEY, speaks=Speaks.A2A, agents=["kagent/other"])
    named = hook("h", entry("pod-restart"), namespace="shop")
    (tmp_path / "h.json").write_text(json.dumps(named))
    assert about(checked(agents=agents, hooks=(named,)), "agent kagent/agent").result is Result.WARNING
    found = about(checked(str(tmp_path / "h.json"), agents=agents), "agent kagent/agent")
    assert (found.result, found.says) == (Result.WRONG, "kagent does not know it; hook shop/h names it")


def test_agents_are_not_asked_for_without_the_key_that_kagent_wants() -> None:
    named = (hook("h", entry("pod-restart"), namespace="shop"),)
    findings = checked(hooks=named, agents=Kagent(api_key="other", speaks=Speaks.A2A))
    assert [one.what for one in findings if one.what.startswith("agent")] == ["agents"]


def test_a_broken_hook_of_somebody_else_is_no_reason_to_fail() -> None:
    findings = checked(hooks=(hook("h", entry("pod-restart", prompt="{{.Nope}}"), namespace="shop"),))
    assert about(findings, "hook shop/h").result is Result.WARNING
    assert all_well(findings)


# Files.

FILE = """\
apiVersion: kagent.dev/v1alpha2
kind: Hook
metadata:
  name: first
spec:
  eventConfigurations:
  - eventType: pod-restart
    agentId: k8s-agent
    prompt: "Look at {{.ResourceName}}."
---
apiVersion: v1
kind: ConfigMap
metadata: {name: not-ours}
---
apiVersion: kagent.dev/v1alpha2
kind: Hook
metadata: {name: second, namespace: shop}
spec:
  eventConfigurations:
  - eventType: pod-pending
    agentId: k8s-agent
    prompt: |
      {{if .Reason}}{{.EventMessage | upper}}{{end}}
  - eventType: oom-kill
    agentId: k8s-agent
    prompt: "{{.Nope}}"
    selector:
      matchLabels:
        app.kubernetes.io/name: 5
  - eventType: oom-kill
    agentId: elsewhere/agent
    prompt: Look.
    coolDown: 10m
"""

LABELS = "spec.eventConfigurations[1].selector.matchLabels"

Khook = Callable[..., tuple[int, str, str]]


@pytest.fixture
def khook(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Khook:
    """`khook check`, with a home where no cluster is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_files_are_checked_with_lines_where_no_cluster_is(khook: Khook, tmp_path: Path) -> None:
    (tmp_path / "hooks.yaml").write_text(FILE)
    code, out, err = khook(str(tmp_path / "hooks.yaml"), "--output", "json")
    assert (code, err) == (78, "")
    said = [
        (one["check"], one["result"], one["says"].removeprefix(f"{tmp_path}/")) for one in json.loads(out)["checks"]
    ]
    found = [(what, result, " ".join(says.split()[:2])) for what, result, says in said]
    assert found == [
        ("settings", "ok", "0 set,"),
        ("hook default/first", "ok", "hooks.yaml:1: 1"),
        ("hook shop/second", "wrong", f"hooks.yaml:29: {LABELS}.app.kubernetes.io/name:"),
        ("hook shop/second", "wrong", "hooks.yaml:33: spec.eventConfigurations[2].coolDown:"),
        ("hook shop/second", "warning", "hooks.yaml:20: entry"),
        ("hook shop/second", "warning", "hooks.yaml:22: entry"),
        ("cluster", "not known", "not asked:"),
    ]  # fmt: skip
    assert "{{.EventMessage}}" in said[5][2]
    assert "{{.Reason}}" not in said[5][2]  # only a condition looks at it


def test_files_that_work_pass_and_hold_for_silences_its_warning(khook: Khook, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(
        json.dumps(hook("h", entry("probe-failed", holdFor="2m", prompt="Look."), namespace="a"))
    )
    code, out, _ = khook("--offline", str(tmp_path / "good.json"))
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["CHECK", "settings", "hook", "cluster"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("apiVersion: kagent.dev/v1\nkind: Hook\nmetadata: {name: h}\n", ":1: apiVersion: must be kagent.dev/v1alpha2"),
        ("apiVersion: kagent.dev/v1alpha2\nkind: Hook\nmetadata: {}\n", ":3: metadata: metadata.name is required"),
        ("apiVersion: kagent.dev/v1alpha2\nkind: Hook\nmetadata: {name: A b}\n", ":3: metadata.name: "),
        ("apiVersion: kagent.dev/v1alpha2\nkind: Hook\nmetadata: {name: h}\nsepc: {}\n", ":4: sepc: unknown field"),
        ("- a\n- b\n", ":1: a Hook is a map"),
        ("a: {", ":1: "),
        ("x: \x1b[2J\n", "not YAML"),
    ],
)  # fmt: skip
def test_what_is_no_hook_is_said_with_its_line(khook: Khook, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "h.yaml").write_text(content)
    code, out, err = khook(str(tmp_path / "h.yaml"))
    assert code == 78
    assert f"h.yaml{words}" in out or words in out
    assert err == ""
    assert "\x1b" not in out


def test_bad_settings_stand_in_the_table(khook: Khook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "h.yaml").write_text(FILE)
    monkeypatch.setenv("LOG_LEVEL", "loud")
    code, out, _ = khook("--offline", str(tmp_path / "h.yaml"))
    assert code == 78
    assert "LOG_LEVEL: 'loud' is not allowed" in out


def test_without_files_and_without_a_cluster_the_kubeconfig_is_what_is_wrong(
    khook: Khook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGENT_BASE_URL", "http://127.0.0.1:1")
    code, out, _ = khook()
    assert code == 78
    assert "no such file" in out
    assert "refused" in out


def test_no_key_is_ever_shown() -> None:
    said: list[Any] = [(one.says, one.mend) for one in checked(agents=Kagent(api_key="x", speaks=Speaks.A2A))]
    assert KEY not in str(said)
