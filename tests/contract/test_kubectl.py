"""A person with kubectl cannot tell the embedded cluster from a real one: the real program, on both API servers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.api_servers import MERGE, Cluster, EmbeddedCluster, RealCluster, install_crd
from support.kube_tools import kube_tool
from support.kubectl import Kubectl
from support.real_apiserver import RealApiServer, find_binaries

from khook.api.crd import crd

Json = dict[str, Any]

HOOK = """
apiVersion: kagent.dev/v1alpha2
kind: Hook
metadata:
  name: my-hook
  labels: {team: web}
spec:
  eventConfigurations:
  - eventType: pod-restart
    agentId: k8s-agent
    prompt: Why?
"""
POD = """
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {app: web}
spec:
  containers:
  - name: web
    image: nginx:1
    ports: [{containerPort: 80}]
    env: [{name: MODE, value: fast}]
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller}
spec:
  selector: {matchLabels: {app: controller}}
  template:
    metadata: {labels: {app: controller}}
    spec:
      containers:
      - {name: manager, image: khook, resources: {limits: {memory: 256Mi}}}
      - {name: side, image: side}
"""


def ago(seconds: int) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.envtest)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Servers of these tests' own, where `hooks` are ours and nobody else's."""
    kube_tool("kubectl")
    server = None
    if request.param == "real":
        binaries = find_binaries()
        assert binaries is not None
        server = RealApiServer(binaries)
        server.start()
    made: Cluster = EmbeddedCluster() if server is None else RealCluster(server)
    try:
        install_crd(made.admin, crd())
        yield made
    finally:
        made.close()
        if server is not None:
            server.stop()


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    """In the test's own namespace; what discovery said is kept on disk, as at home."""
    home = tmp_path_factory.getbasetemp() / f"kubectl-{cluster.name}"
    home.mkdir(exist_ok=True)
    config = cluster.write_kubeconfig(home / "kubeconfig")
    return Kubectl(program=kube_tool("kubectl"), kubeconfig=config, cache=home / "cache", namespace=namespace)


@pytest.fixture
def told(cluster: Cluster, namespace: str, kubectl: Kubectl) -> str:
    """A Hook with a status and an Event about it, and a pod that crashes."""
    kubectl.ok("apply", "-f", "-", stdin=f"{HOOK}---{POD}")
    row = {
        "eventType": "pod-restart",
        "resourceName": "web-1",
        "firstSeen": ago(300),
        "lastSeen": ago(60),
        "status": "firing",
    }
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Working",
        "message": "All entries work",
        "lastTransitionTime": ago(300),
    }
    status = {"activeEvents": [row], "lastUpdated": ago(60), "conditions": [ready]}
    hook = f"/apis/kagent.dev/v1alpha2/namespaces/{namespace}/hooks/my-hook"
    patched = cluster.admin.patch(f"{hook}/status", json={"status": status}, headers=MERGE)
    assert patched.status_code == 200, patched.text
    about = {"kind": "Hook", "namespace": namespace, "name": "my-hook", "uid": patched.json()["metadata"]["uid"]}
    event = {
        "metadata": {"name": "my-hook.1"},
        "involvedObject": about | {"apiVersion": "kagent.dev/v1alpha2"},
        "reason": "AgentCalled",
        "message": "Called k8s-agent about web-1",
        "type": "Normal",
        "count": 2,
        "firstTimestamp": ago(300),
        "lastTimestamp": ago(60),
        "source": {"component": "kagent-hook-controller"},
    }
    made = cluster.admin.post(f"/api/v1/namespaces/{namespace}/events", json=event)
    assert made.status_code == 201, made.text
    container = {
        "name": "web",
        "ready": False,
        "restartCount": 3,
        "image": "nginx:1",
        "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": ago(300)}},
    }
    body = {"status": {"phase": "Running", "containerStatuses": [container]}}
    pod = cluster.admin.patch(f"/api/v1/namespaces/{namespace}/pods/web-1/status", json=body, headers=MERGE)
    assert pod.status_code == 200, pod.text
    return namespace


# -- get


@pytest.mark.usefixtures("told")
def test_get_hooks(kubectl: Kubectl) -> None:
    header, row = kubectl.ok("get", "hooks").rows
    assert header == ["NAME", "READY", "REASON", "SUSPENDED", "LAST-UPDATED", "AGE"]
    assert row[:3] == ["my-hook", "True", "Working"]
    header, row = kubectl.ok("get", "hook", "-o", "wide").rows
    assert header[-4:] == ["FIRST-TYPE", "FIRST-INCIDENT", "FIRST-CALL", "MESSAGE"]
    assert row[-3:] == ["pod-restart", "web-1", "All entries work"]


@pytest.mark.usefixtures("told")
def test_get_in_every_form(kubectl: Kubectl, namespace: str) -> None:
    everywhere = kubectl.ok("get", "hooks", "--all-namespaces")
    assert everywhere.rows[0][:2] == ["NAMESPACE", "NAME"]
    assert [namespace, "my-hook"] in [row[:2] for row in everywhere.rows]
    assert kubectl.ok("get", "hooks", "-o", "name").out == "hook.kagent.dev/my-hook\n"
    as_json = json.loads(kubectl.ok("get", "hook", "my-hook", "-o", "json").out)
    assert as_json["spec"]["eventConfigurations"][0]["prompt"] == "Why?"
    assert "prompt: Why?" in kubectl.ok("get", "hook/my-hook", "-o", "yaml").out
    path = "{range .items[*]}{.metadata.name}: {.status.activeEvents[0].resourceName}{'\\n'}{end}"
    assert kubectl.ok("get", "hooks", "-o", f"jsonpath={path}").out == "my-hook: web-1\n"
    columns = "custom-columns=HOOK:.metadata.name,TYPE:.spec.eventConfigurations[0].eventType"
    assert kubectl.ok("get", "hooks", "-o", columns).rows[1] == ["my-hook", "pod-restart"]
    assert kubectl.ok("get", "hooks", "--show-labels").rows[1][-1] == "team=web"
    assert kubectl.ok("get", "hooks", "-L", "team").rows[0][-1] == "TEAM"


@pytest.mark.usefixtures("told")
def test_get_pods(kubectl: Kubectl) -> None:
    header, row = kubectl.ok("get", "pods").rows
    assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row[:4] == ["web-1", "0/1", "CrashLoopBackOff", "3 (5m ago)"]
    assert kubectl.ok("get", "po", "-o", "wide").rows[0][5:] == ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]


@pytest.mark.usefixtures("told")
def test_get_what_is_selected(kubectl: Kubectl) -> None:
    kubectl.ok("run", "other", "--image=i", "--labels=app=db")
    names = ("-o", "jsonpath={.items[*].metadata.name}")
    for selector, found in (("app=web", "web-1"), ("app in (db,x)", "other"), ("app!=web", "other"), ("zone", "")):
        assert kubectl.ok("get", "pods", "-l", selector, *names).out == found
    for fields, found in (("status.phase=Pending", "other"), ("metadata.name=web-1", "web-1")):
        assert kubectl.ok("get", "pods", "--field-selector", fields, *names).out == found
    kubectl.ok("label", "pod", "other", "rank=1")
    kubectl.ok("label", "pod", "web-1", "rank=2")
    sorted_rows = kubectl.ok("get", "pods", "--sort-by=.metadata.labels.rank").rows
    assert [row[0] for row in sorted_rows] == ["NAME", "other", "web-1"]
    refused = kubectl("get", "pods", "--field-selector", "spec.bogus=1")
    assert (refused.code, "field label not supported: spec.bogus" in refused.err) == (1, True)


@pytest.mark.usefixtures("told")
def test_get_events(kubectl: Kubectl) -> None:
    of_hooks = kubectl.ok("get", "events", "--field-selector", "involvedObject.kind=Hook")
    assert of_hooks.rows[0] == ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert of_hooks.rows[1][1:] == ["Normal", "AgentCalled", "hook/my-hook", "Called k8s-agent about web-1"]
    wide = kubectl.ok("get", "events", "-o", "wide").rows
    assert wide[0][4:] == ["SUBOBJECT", "SOURCE", "MESSAGE", "FIRST SEEN", "COUNT", "NAME"]
    assert wide[1][-2:] == ["2", "my-hook.1"]
    assert kubectl.ok("events", "--for", "hook/my-hook").rows[1][2:4] == ["AgentCalled", "Hook/my-hook"]
    assert "No events found" in kubectl.ok("events", "--types=Warning").err


@pytest.mark.usefixtures("told")
def test_get_other_kinds(kubectl: Kubectl, namespace: str) -> None:
    every = kubectl.ok("get", "all").out
    assert "pod/web-1" in every
    for kind in ("ns", "leases", "rs", "deploy", "jobs", "cj", "secrets", "cm", "sa", "crd", "events.events.k8s.io"):
        assert kubectl.ok("get", kind, "-A").code == 0
    assert kubectl.ok("get", "ns", namespace).rows[1][:2] == [namespace, "Active"]
    two = kubectl.ok("get", "hooks,pods").out
    assert ("hook.kagent.dev/my-hook" in two, "pod/web-1" in two) == (True, True)


def test_what_is_not_there(kubectl: Kubectl) -> None:
    for arguments, words in (
        (("get", "hook", "none"), 'Error from server (NotFound): hooks.kagent.dev "none" not found\n'),
        (("get", "zzz"), 'error: the server doesn\'t have a resource type "zzz"\n'),
    ):
        said = kubectl(*arguments)
        assert (said.code, said.out, said.err) == (1, "", words)
    assert kubectl.ok("get", "hooks").err.startswith("No resources found in ")


def test_watch_shows_what_comes_changes_and_goes(kubectl: Kubectl) -> None:
    """Columns once, then a line for each change."""
    kubectl.ok("apply", "-f", "-", stdin=POD)
    with kubectl.following("get", "pods", "-w", "--output-watch-events") as lines:
        assert next(lines).split()[:4] == ["EVENT", "NAME", "READY", "STATUS"]
        assert next(lines).split()[:4] == ["ADDED", "web-1", "0/1", "Pending"]
        kubectl.ok("label", "pod", "web-1", "a=b")
        assert next(lines).split()[:2] == ["MODIFIED", "web-1"]
        kubectl.ok("delete", "pod", "web-1", "--wait=false")
        assert "DELETED" in (line.split()[0] for line in lines)


# -- describe, explain


@pytest.mark.usefixtures("told")
def test_describe_tells_the_hook_and_its_events(kubectl: Kubectl) -> None:
    said = kubectl.ok("describe", "hook", "my-hook").out
    for words in (
        "API Version:  kagent.dev/v1alpha2",
        "Event Type:  pod-restart",
        "Resource Name:  web-1",
        "AgentCalled",
        "kagent-hook-controller",
        "Called k8s-agent about web-1",
    ):
        assert words in said
    assert "x2 over" in said


@pytest.mark.usefixtures("told")
def test_describe_tells_a_pod(kubectl: Kubectl) -> None:
    said = kubectl.ok("describe", "pod", "web-1").out
    for words in ("Labels:", "app=web", "CrashLoopBackOff", "OOMKilled", "Exit Code:", "MODE:", "Restart Count:"):
        assert words in said


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("hook.spec", ["eventConfigurations\t<[]Object> -required-", "suspend\t<boolean>"]),
        ("hook.spec.eventConfigurations.selector", ["matchLabels\t<map[string]string>"]),
        ("hook.metadata.labels", ["labels <map[string]string>"]),
        ("pods.spec.containers", ["image\t<string>", "env\t<[]EnvVar>"]),
        ("deployment.spec.template.spec", ["containers\t<[]Container> -required-"]),
    ],
)
def test_explain(kubectl: Kubectl, what: str, words: list[str]) -> None:
    said = kubectl.ok("explain", what).out
    for word in words:
        assert word in said


def test_explain_says_what_a_field_is_for(kubectl: Kubectl) -> None:
    said = kubectl.ok("explain", "hook.spec.eventConfigurations.eventType")
    assert ("Type of event to watch for." in said.out, "pod-pending" in said.out) == (True, True)
    assert kubectl("explain", "hook.spec.none").err == 'error: field "none" does not exist\n'
    assert "containerPort" in kubectl.ok("explain", "pod", "--recursive").out


# -- apply, create, patch, delete


@pytest.mark.parametrize(
    ("manifest", "name"),
    [(HOOK, "hook.kagent.dev/my-hook"), (POD, "pod/web-1"), (DEPLOYMENT, "deployment.apps/controller")],
)
def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl, manifest: str, name: str) -> None:
    changed = manifest.replace("Why?", "Why now?").replace("nginx:1", "nginx:2").replace("image: khook", "image: k2")
    for text, done in ((manifest, "created"), (manifest, "unchanged"), (changed, "configured")):
        assert kubectl.ok("apply", "-f", "-", stdin=text).out == f"{name} {done}\n"
    assert kubectl("diff", "-f", "-", stdin=changed).code == 0
    differing = kubectl("diff", "-f", "-", stdin=manifest)
    assert (differing.code, any(line.startswith("+") for line in differing.out.splitlines())) == (1, True)
    assert kubectl.ok("delete", "-f", "-", stdin=manifest).out.startswith(f'{name.partition("/")[0]} "')


def test_apply_takes_out_what_the_manifest_no_longer_has(kubectl: Kubectl) -> None:
    """Client-side apply: three ways for a built-in kind, a merge patch for a Hook."""
    kubectl.ok("apply", "-f", "-", stdin=DEPLOYMENT)
    kubectl.ok("set", "env", "deployment/controller", "LOG_LEVEL=debug", "-c", "manager")
    fewer = DEPLOYMENT.replace("      - {name: side, image: side}\n", "")
    kubectl.ok("apply", "-f", "-", stdin=fewer)
    [only] = json.loads(kubectl.ok("get", "deployment", "controller", "-o", "json").out)["spec"]["template"]["spec"][
        "containers"
    ]
    assert (only["name"], only["env"]) == ("manager", [{"name": "LOG_LEVEL", "value": "debug"}])
    kubectl.ok("apply", "-f", "-", stdin=HOOK.replace("spec:", "spec:\n  suspend: true"))
    kubectl.ok("annotate", "hook", "my-hook", "kept=yes")
    kubectl.ok("apply", "-f", "-", stdin=HOOK)
    hook = json.loads(kubectl.ok("get", "hook", "my-hook", "-o", "json").out)
    assert ("suspend" in hook["spec"], hook["metadata"]["annotations"]["kept"]) == (False, "yes")


BAD_TYPE = HOOK.replace("pod-restart", "pod-exploded")
TYPO = HOOK.replace("prompt:", "promt: x\n    prompt:")


@pytest.mark.parametrize("command", ["apply", "create"])
def test_a_hook_that_the_schema_refuses_is_refused_in_the_servers_words(kubectl: Kubectl, command: str) -> None:
    said = kubectl(command, "-f", "-", stdin=BAD_TYPE)
    assert (said.code, said.out) == (1, "")
    assert said.err == (
        'The Hook "my-hook" is invalid: spec.eventConfigurations[0].eventType: Unsupported value: "pod-exploded": '
        'supported values: "pod-restart", "pod-pending", "oom-kill", "probe-failed"\n'
    )


@pytest.mark.parametrize(
    ("manifest", "kind", "field"),
    [
        (TYPO, 'Hook in version "v1alpha2" cannot be handled as a Hook', "spec.eventConfigurations[0].promt"),
        (
            POD.replace("image:", "imagge: x\n    image:"),
            'Pod in version "v1" cannot be handled as a Pod',
            "spec.containers[0].imagge",
        ),
    ],
)
def test_a_misspelt_field_is_named(kubectl: Kubectl, manifest: str, kind: str, field: str) -> None:
    said = kubectl("apply", "-f", "-", stdin=manifest)
    assert (said.code, said.out) == (1, "")
    assert f'{kind}: strict decoding error: unknown field "{field}"' in said.err
    warned = kubectl.ok("apply", "--validate=warn", "-f", "-", stdin=manifest)
    assert f'Warning: unknown field "{field}"' in warned.err
    kubectl.ok("delete", "-f", "-", stdin=manifest)
    assert kubectl.ok("apply", "--validate=ignore", "-f", "-", stdin=manifest).err == ""


def test_a_rehearsal_leaves_nothing_behind(kubectl: Kubectl) -> None:
    for manifest in (HOOK, POD):
        said = kubectl.ok("apply", "--dry-run=server", "-f", "-", stdin=manifest)
        assert said.out.endswith(" created (server dry run)\n")
    assert kubectl.ok("get", "hooks,pods").out == ""


def test_create_refuses_what_is_there_and_replace_takes_it(kubectl: Kubectl) -> None:
    assert kubectl.ok("create", "-f", "-", stdin=HOOK).out == "hook.kagent.dev/my-hook created\n"
    again = kubectl("create", "-f", "-", stdin=HOOK)
    assert (again.code, 'hooks.kagent.dev "my-hook" already exists' in again.err) == (1, True)
    assert kubectl.ok("replace", "-f", "-", stdin=HOOK).out == "hook.kagent.dev/my-hook replaced\n"


def test_patch_in_three_ways(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "-f", "-", stdin=f"{HOOK}---{DEPLOYMENT}")
    suspended = ("-o", "jsonpath={.spec.suspend}")
    assert kubectl.ok(
        "patch", "hook", "my-hook", "--type=merge", "-p", '{"spec":{"suspend":true}}', *suspended
    ).out == ("true")
    removal = '[{"op":"remove","path":"/spec/suspend"}]'
    assert kubectl.ok("patch", "hook", "my-hook", "--type=json", "-p", removal, *suspended).out == ""
    strategic = kubectl("patch", "hook", "my-hook", "-p", '{"spec":{"suspend":true}}')
    assert (strategic.code, "application/merge-patch+json" in strategic.err) == (1, True)
    memory = {"containers": [{"name": "manager", "resources": {"limits": {"memory": "512Mi"}}}]}
    body = json.dumps({"spec": {"template": {"spec": memory}}})
    kubectl.ok("patch", "deployment", "controller", "-p", body)
    limits = "{range .spec.template.spec.containers[*]}{.name}={.resources.limits.memory} {end}"
    assert kubectl.ok("get", "deploy", "controller", "-o", f"jsonpath={limits}").out == "manager=512Mi side= "
    wrong = kubectl("patch", "deployment", "controller", "-p", '{"spec":{"template":{"spec":{"containers":"x"}}}}')
    assert (wrong.code, wrong.out) == (1, "")


def test_label_annotate_set_and_rollout(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "-f", "-", stdin=f"{HOOK}---{DEPLOYMENT}")
    assert kubectl.ok("label", "hooks", "--all", "a=b").out == "hook.kagent.dev/my-hook labeled\n"
    taken = kubectl("label", "hook", "my-hook", "a=c")
    assert (taken.code, "--overwrite" in taken.err) == (1, True)
    kubectl.ok("label", "hook", "my-hook", "a-", "team=db", "--overwrite")
    kubectl.ok("annotate", "hook", "my-hook", "note=x")
    metadata = json.loads(kubectl.ok("get", "hook", "my-hook", "-o", "json").out)["metadata"]
    assert (metadata["labels"], metadata["annotations"]["note"]) == ({"team": "db"}, "x")
    kubectl.ok("set", "env", "deployment/controller", "LOG_LEVEL=debug")
    kubectl.ok("set", "image", "deployment/controller", "side=side:2")
    kubectl.ok("rollout", "restart", "deployment/controller")
    assert "LOG_LEVEL=debug" in kubectl.ok("set", "env", "deployment/controller", "--list").out
    described = kubectl.ok("describe", "deployment", "controller").out
    assert ("side:2" in described, "restartedAt" in described) == (True, True)


def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "-f", "-", stdin=f"{HOOK}---{POD}---{DEPLOYMENT}")
    for kind, name in (("hook", "my-hook"), ("pod", "web-1"), ("deployment", "controller")):
        assert f'"{name}" deleted' in kubectl.ok("delete", kind, name, "--timeout=20s").out
        assert kubectl("get", kind, name).code == 1
    assert kubectl.ok("delete", "hook", "none", "--ignore-not-found").out == ""
    kubectl.ok("apply", "-f", "-", stdin=HOOK)
    assert kubectl.ok("delete", "hooks", "-l", "team=web").out.startswith('hook.kagent.dev "my-hook" deleted')
    assert kubectl.ok("wait", "--for=delete", "hook/my-hook", "--timeout=10s").code == 0


def test_wait_for_a_condition(cluster: Cluster, namespace: str, kubectl: Kubectl, told: str) -> None:
    assert "condition met" in kubectl.ok("wait", "--for=condition=Ready", "hook/my-hook", "--timeout=10s").out
    assert kubectl("wait", "--for=condition=Ready=false", "hook/my-hook", "--timeout=1s").code == 1


# -- create by flags (protobuf), rights, discovery


def test_create_by_flags(kubectl: Kubectl, namespace: str) -> None:
    """kubectl sends these as protobuf."""
    kubectl.ok("create", "secret", "generic", "kagent-credentials", "--from-literal=api-key=s3cret")
    assert kubectl.ok("get", "secret", "kagent-credentials", "-o", "jsonpath={.data.api-key}").out == "czNjcmV0"
    assert kubectl.ok("get", "secrets").rows[1][:3] == ["kagent-credentials", "Opaque", "1"]
    kubectl.ok("create", "configmap", "c", "--from-literal=a=b")
    kubectl.ok("create", "serviceaccount", "sa")
    other = f"{namespace}-other"
    assert kubectl.ok("create", "namespace", other).out == f"namespace/{other} created\n"
    twice = kubectl("create", "namespace", other)
    assert (twice.code, f'namespaces "{other}" already exists' in twice.err) == (1, True)
    kubectl.ok("create", "deployment", "d", "--image=nginx", "--replicas=0", "--port=80")
    kubectl.ok("create", "cronjob", "cj", "--image=busybox", "--schedule=*/5 * * * *", "--", "date")
    kubectl.ok("create", "job", "j", "--from=cronjob/cj")
    shown = kubectl.ok("get", "all", "-o", "wide").out
    for words in ("deployment.apps/d", "0/0", "cronjob.batch/cj", "job.batch/j", "*/5 * * * *"):
        assert words in shown


@pytest.mark.usefixtures("told")
def test_rights_health_and_discovery(kubectl: Kubectl) -> None:
    assert kubectl.ok("auth", "can-i", "get", "events").out == "yes\n"
    assert kubectl.ok("auth", "can-i", "patch", "hooks/status", "--subresource=status").out == "yes\n"
    assert "*.*" in kubectl.ok("auth", "can-i", "--list").out
    assert "Username" in kubectl.ok("auth", "whoami").out
    for path in ("/healthz", "/livez", "/readyz"):
        assert kubectl.ok("get", "--raw", path).out == "ok"
    assert "Server Version: v1.36.3" in kubectl.ok("version").out
    names = [row[0] for row in kubectl.ok("api-resources").rows]
    assert {"hooks", "pods", "events", "leases", "secrets", "replicasets", "jobs"} <= set(names)
    assert kubectl.ok("api-resources", "--api-group=kagent.dev", "-o", "name").out == "hooks.kagent.dev\n"
    assert {"v1", "kagent.dev/v1alpha2", "apps/v1"} <= set(kubectl.ok("api-versions").out.split())


def test_what_one_may_not_do_is_said(cluster: Cluster, kubectl: Kubectl) -> None:
    if cluster.name == "real":
        said = kubectl("auth", "can-i", "get", "pods", "--as=plain")
    else:
        with cluster.user_may_nothing():
            said = kubectl("auth", "can-i", "get", "pods")
            refused = kubectl("get", "pods")
        assert (refused.code, refused.err.startswith("Error from server (Forbidden): pods is forbidden")) == (1, True)
    assert (said.code, said.out) == (1, "no\n")


def test_server_side_apply_is_refused_in_one_line_by_the_embedded_server(cluster: Cluster, kubectl: Kubectl) -> None:
    """It would need managedFields, which nothing there keeps; the real server has it."""
    said = kubectl("apply", "--server-side", "-f", "-", stdin=HOOK)
    if cluster.name == "real":
        assert said.out == "hook.kagent.dev/my-hook serverside-applied\n"
    else:
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith("error: Server-side apply not available on the server")
