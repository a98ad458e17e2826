"""The charts on a real API server: installed by the guide's commands, admitted by Pod Security, taken away again."""

import json
import re
import textwrap
from datetime import timedelta
from typing import Final

import pytest
import yaml
from support.charts import EVERYTHING, NAME, NAMESPACE, Shell, environment, rendered
from support.installation import fresh_name
from support.installed import ACCOUNT, INSTALL_CONTROLLER, INSTALL_CRDS
from support.objects import entry, hook
from support.real_apiserver import REPOSITORY

from khook.api.crd import crd
from khook.core.configure import configure

pytestmark = pytest.mark.envtest

ONE_LINER: Final = r"""
TMP_DIR="$(mktemp -d)" && \
  git clone --depth 1 https://github.com/antweiss/khook.git "$TMP_DIR/khook" && \
  helm install kagent-hook-crds "$TMP_DIR/khook/charts/kagent-hook-crds" \
    --namespace kagent-system \
    --create-namespace && \
  helm install kagent-hook-controller "$TMP_DIR/khook/charts/kagent-hook-controller" \
    --namespace kagent-system \
    --create-namespace && \
  rm -rf "$TMP_DIR"
"""


def test_the_one_liner_installs_from_a_clone_and_leaves_nothing_behind(shell: Shell) -> None:
    """As it is written in the guide; git is told that this repository is the one on GitHub."""
    shell.run(f"""
        export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.{REPOSITORY}.insteadOf
        export GIT_CONFIG_VALUE_0=https://github.com/antweiss/khook.git
        {ONE_LINER}
        test ! -e "$TMP_DIR"
    """)
    assert [release["name"] for release in shell.json("helm list -n kagent-system")] == [NAME, "kagent-hook-crds"]


def test_every_object_is_admitted_where_pod_security_is_restricted(shell: Shell) -> None:
    """There is no kubelet and no controller, so the pod that the Deployment stands for is created by hand."""
    namespace = fresh_name("restricted")
    shell.run(f"kubectl create namespace {namespace}")
    shell.run(f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=restricted")
    theirs = [one for one in rendered(EVERYTHING) if one["apiVersion"] != "monitoring.coreos.com/v1"]
    for one in theirs:
        if "namespace" in one["metadata"]:
            one["metadata"]["namespace"] = namespace
    (deployment,) = (one for one in theirs if one["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    in_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-pod"} | template["metadata"]}
    in_pod |= {"spec": template["spec"]}
    try:
        said = shell.run("kubectl create --validate=strict -f -", stdin=yaml.safe_dump_all(theirs))
        assert len(said.splitlines()) == len(theirs)
        create_pod = f"kubectl create --validate=strict -n {namespace} -f -"
        shell.run(create_pod, stdin=yaml.safe_dump(in_pod))
        del template["spec"]["securityContext"]["seccompProfile"]
        in_pod["metadata"]["name"] = "a-laxer-pod"
        assert "violates PodSecurity" in shell.fails(create_pod, stdin=yaml.safe_dump(in_pod))
    finally:
        shell.run(f"kubectl delete clusterrole,clusterrolebinding {NAME} --ignore-not-found")
        shell.run(f"kubectl delete deployment,pod --all -n {namespace} --grace-period=0 --force")


def test_commands_of_the_guide_work_on_the_installation(shell: Shell) -> None:
    """Those for people: what there is, what is allowed, debug logging, another memory limit. As they are written."""
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    shell.run("kubectl create -f -", stdin=yaml.safe_dump(hook("my-hook", entry("pod-restart"), namespace="default")))
    assert "my-hook" in shell.run("kubectl get hooks -o wide")
    assert "Kind:         Hook" in shell.run("kubectl describe hook my-hook")
    shell.run("kubectl get events --field-selector involvedObject.kind=Hook")
    path = '{range .items[*]}{.metadata.name}: {.status.activeEvents}{"\\n"}{end}'
    assert shell.run(f"kubectl get hooks -A -o jsonpath='{path}'") == "my-hook: \n"
    assert shell.run(f"kubectl auth can-i get events --as={ACCOUNT}").strip() == "yes"
    shell.run("kubectl set env deployment/kagent-hook-controller -n kagent-system LOG_LEVEL=debug")
    memory = {"containers": [{"name": "manager", "resources": {"limits": {"memory": "512Mi"}}}]}
    patch = json.dumps({"spec": {"template": {"spec": memory}}})
    shell.run(f"kubectl patch deployment -n kagent-system kagent-hook-controller -p '{patch}'")
    deployment = shell.json(f"kubectl get deployment {NAME} -n {NAMESPACE}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert environment(container, [])["LOG_LEVEL"] == "debug"
    assert container["resources"]["limits"] == {"memory": "512Mi"}


def test_helm_takes_back_what_was_changed_by_hand_when_it_is_told_to(shell: Shell) -> None:
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    shell.run("kubectl set env deployment/kagent-hook-controller -n kagent-system LOG_LEVEL=debug")
    upgrade = f"helm upgrade {NAME} ./charts/{NAME} -n {NAMESPACE} --set controller.logLevel=warn"
    assert "conflict" in shell.fails(upgrade)
    shell.run(f"{upgrade} --force-conflicts")
    deployment = shell.json(f"kubectl get deployment {NAME} -n {NAMESPACE}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert environment(container, [])["LOG_LEVEL"] == "warn"


@pytest.mark.parametrize("watched", ["", "--set watch.namespaces={default}"])
def test_the_notes_give_a_secret_a_hook_and_a_pod_that_the_api_server_takes(shell: Shell, watched: str) -> None:
    """In this order, as they are written; the CRD is asked for where it is missing, and only there."""
    installed = shell.run(f"{INSTALL_CONTROLLER.rstrip()} {watched}")
    assert "helm install kagent-hook-crds" in installed
    shell.run(f"helm uninstall {NAME} -n {NAMESPACE}")
    notes = shell.run(f"{INSTALL_CRDS} {INSTALL_CONTROLLER.rstrip()} {watched}").partition("khook ")[2]
    assert "does not know Hooks" not in notes
    secret, first_hook, crash = (
        textwrap.dedent(found)
        for found in re.findall(
            r"^  kubectl (?:create|apply|run).*?(?=\n\n|\n  kubectl get)", notes, re.DOTALL | re.MULTILINE
        )
    )
    shell.run(secret)
    shell.run(first_hook)
    shell.run(crash)
    made = shell.json("kubectl get hook first-hook -n default")
    done = configure(
        made, default_cooldown=timedelta(minutes=10), agent_namespace="kagent", allowed_agent_namespaces=()
    )
    assert (done.problems, len(done.entries)) == ((), 1)
    assert f"-n {NAMESPACE}" in secret
    assert f"helm test {NAME} -n {NAMESPACE}" in notes
    shell.run("kubectl delete pod crash --grace-period=0 --force")


def test_what_make_deploys_it_undeploys_and_hooks_stay(shell: Shell) -> None:
    namespace = fresh_name("kept")
    shell.run("make deploy HELM_ARGS='--set shards.workers=3'")
    shell.run(f"kubectl create namespace {namespace}")
    shell.run("kubectl create -f -", stdin=yaml.safe_dump(hook("h", entry("pod-restart"), namespace=namespace)))
    shell.run("make deploy")
    shell.run("make undeploy")
    assert shell.json("helm list -A") == []
    assert shell.run(f"kubectl get hooks -n {namespace} -o name").strip() == "hook.kagent.dev/h"
    shell.run("make undeploy && make deploy")


def test_helm_test_runs_a_pod_and_waits_for_its_verdict(shell: Shell) -> None:
    """The kubelet's part is played: the pod has ended, and well."""
    shell.run(INSTALL_CRDS + INSTALL_CONTROLLER)
    said = shell.run(f"""
        helm test {NAME} -n {NAMESPACE} --timeout 60s &
        kubectl wait --for=create pod/{NAME}-check -n {NAMESPACE} --timeout 30s
        kubectl patch pod {NAME}-check -n {NAMESPACE} --subresource status --type merge \\
          -p '{{"status": {{"phase": "Succeeded"}}}}'
        wait "$!"
    """)
    assert "Phase:          Succeeded" in said


@pytest.mark.parametrize("way", [0, 1])
def test_a_crd_that_another_chart_left_is_taken_over(shell: Shell, way: int) -> None:
    """Helm refuses what it does not own; the commands of the chart's README hand it over, and our schema comes."""
    old = crd()
    old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"].pop("status")
    shell.run("kubectl create -f -", stdin=yaml.safe_dump(old))
    assert "invalid ownership metadata" in shell.fails(INSTALL_CRDS)
    readme = (REPOSITORY / "charts" / "kagent-hook-crds" / "README.md").read_text(encoding="utf-8")
    ways = re.findall(r"```bash\n(.*?)```", readme.partition("## Take over")[2], re.DOTALL)
    assert len(ways) == 2
    shell.run(ways[way])
    found = shell.json("kubectl get crd hooks.kagent.dev")
    assert found["spec"]["versions"] == crd()["spec"]["versions"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
