"""The generated CRD in a real kube-apiserver: it installs, and it refuses what the models refuse."""

import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hook_table import CASES, Case, hook, one

from khook.api.crd import crd
from khook.core import status
from khook.core.incident import (
    Call,
    CallId,
    CallReason,
    CallState,
    EntryId,
    Facts,
    FailedPod,
    LastSignal,
    Row,
    RowStatus,
)
from khook.core.signal import EventType, PodUid

pytestmark = pytest.mark.envtest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
HOOKS = "/apis/kagent.dev/v1alpha2/namespaces/default/hooks"
ESTABLISHED_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def api(real_apiserver: Any) -> Iterator[httpx.Client]:
    """A client of a server that serves Hooks."""
    context = ssl.create_default_context(cafile=real_apiserver.ca_file)
    headers = {"Authorization": f"Bearer {real_apiserver.token}"}
    with httpx.Client(base_url=real_apiserver.url, verify=context, headers=headers, trust_env=False) as client:
        install(client)
        yield client


@pytest.fixture
def a_status() -> dict[str, Any]:
    """A status that says everything a worker can say."""
    at = datetime(2024, 1, 15, 10, 30, 0, 123456, tzinfo=UTC)
    pods = (FailedPod(name="a", reason="BackOff"), FailedPod(name="b", reason=""))
    row = Row(
        entry=EntryId("pod-restart-1"),
        event_type=EventType.POD_RESTART,
        resource_kind="Pod",
        resource_name="my-app-pod-123",
        agent="kagent/k8s-agent",
        pod_uid=PodUid("u"),
        first_seen=at,
        last_seen=at,
        status=RowStatus.RESOLVED,
        resolved_time=at,
        count=3,
        last_signal=LastSignal(pod_uid=PodUid("u"), raw_time=at),
        pod_signals=(LastSignal(pod_uid=PodUid("v"), raw_time=at),),
        facts=Facts(container="c", reason="BackOff", message="m", time=at, pod="a", pods=pods, pod_count=2),
        call=Call(
            id=CallId("c-1"),
            state=CallState.COMPLETED,
            reason=CallReason.NO_ANSWER,
            protocol="execute",
            task_id="t",
            attempts=2,
            claimed_time=at,
            accepted_time=at,
            ended_time=at,
            error="e",
            result="r",
        ),
    )
    ready = {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": "2024-01-15T10:30:00Z",
        "reason": "HookConfigured",
        "message": "1 entry",
    }
    return status.render([row], [ready], last_updated=at)


def install(client: httpx.Client) -> None:
    answer = client.post(CRDS, params={"fieldValidation": "Strict"}, json=crd())
    assert answer.status_code in {201, 409}, answer.text
    give_up_at = time.monotonic() + ESTABLISHED_WITHIN_S
    while client.get(HOOKS).status_code != 200:
        assert time.monotonic() < give_up_at, "the CRD was never served"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_server_refuses_what_the_models_refuse(api: httpx.Client, case: Case) -> None:
    answer = api.post(HOOKS, params={"fieldValidation": "Strict", "dryRun": "All"}, json=hook(case))
    assert (answer.status_code == 201) == (case.path is None or case.only_models), answer.text
    assert answer.status_code in {201, 400, 422}, answer.text


def test_kubernetes_finds_nothing_wrong_with_the_schema(api: httpx.Client) -> None:
    stored = api.get(f"{CRDS}/hooks.kagent.dev").json()
    conditions = {one["type"]: one["status"] for one in stored["status"]["conditions"]}
    assert conditions.get("Established") == "True"
    assert conditions.get("NamesAccepted") == "True"
    assert conditions.get("NonStructuralSchema") is None


def test_the_status_is_a_subresource_that_keeps_every_field(api: httpx.Client, a_status: dict[str, Any]) -> None:
    body = hook(Case(name="", spec=one()), name="keeps") | {"status": a_status}
    created = api.post(HOOKS, json=body).json()
    assert "status" not in created
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"metadata": {"uid": created["metadata"]["uid"]}, "status": a_status}
    answer = api.patch(f"{HOOKS}/keeps/status", params={"fieldValidation": "Strict"}, headers=merge, json=patch)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == a_status


def test_kubectl_get_says_something(api: httpx.Client, a_status: dict[str, Any]) -> None:
    api.post(HOOKS, json=hook(Case(name="", spec=one()), name="shown"))
    merge = {"Content-Type": "application/merge-patch+json"}
    api.patch(f"{HOOKS}/shown/status", headers=merge, json={"status": a_status})
    as_table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    table = api.get(f"{HOOKS}/shown", headers=as_table).json()
    cells = dict(zip((column["name"] for column in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    assert (cells["Ready"], cells["Reason"]) == ("True", "HookConfigured")
    assert cells["First-Type"] == "pod-restart"
    assert cells["First-Incident"] == "my-app-pod-123"
    assert cells["First-Call"] == "Completed"
