"""The charts as a cluster gets them: rendered by the real helm, read as objects, and a container's variables as the
kubelet resolves them. A render is made once for all tests that ask for it.
"""

import base64
import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from support.kube_tools import kube_tool
from support.objects import Json
from support.real_apiserver import REPOSITORY

CHARTS: Final = REPOSITORY / "charts"
CRDS: Final = CHARTS / "kagent-hook-crds"
CONTROLLER: Final = CHARTS / "kagent-hook-controller"
NAMESPACE: Final = "kagent-system"
NAME: Final = "kagent-hook-controller"
OLDEST, NEWEST = "1.20.0", "1.36.3"

EVERYTHING: Final[Json] = {
    "networkPolicy": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
}
"""What is off by default."""


def rendered(values: Json | None = None, *, chart: Path = CONTROLLER, kube_version: str = NEWEST) -> list[Json]:
    """The objects of `helm template`, tests of `helm test` included."""
    return [one for one in yaml.safe_load_all(manifest(values, chart=chart, kube_version=kube_version)) if one]


def manifest(values: Json | None = None, *, chart: Path = CONTROLLER, kube_version: str = NEWEST) -> str:
    """What `helm template` prints."""
    done = _template(json.dumps(values or {}), chart, kube_version)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(values: Json, *, kube_version: str = NEWEST) -> str:
    """Why helm does not render the controller with these values."""
    done = _template(json.dumps(values), CONTROLLER, kube_version)
    assert done.returncode != 0, "it was rendered"
    return done.stderr


def only(kind: str, objects: list[Json], name: str = NAME) -> Json:
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def container(objects: list[Json]) -> Json:
    """The controller's `manager`."""
    (found,) = only("Deployment", objects)["spec"]["template"]["spec"]["containers"]
    assert found["name"] == "manager"
    return dict(found)


def environment(container: Json, objects: list[Json], *, namespace: str = NAMESPACE) -> dict[str, str]:
    """Its variables in a pod of this namespace."""
    fields = {"metadata.name": "khook-0", "metadata.namespace": namespace}
    resolved: dict[str, str] = {}
    for variable in container["env"]:
        match variable:
            case {"name": name, "value": str(value)}:
                resolved[name] = value
            case {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}:
                resolved[name] = fields[path]
            case {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}:
                resolved[name] = base64.b64decode(only("Secret", objects, secret)["data"][key]).decode()
            case _:
                raise AssertionError(f"neither a value nor where it comes from: {variable}")
    assert len(resolved) == len(container["env"]), "a variable is named twice"
    return resolved


class Shell:
    """A terminal in the repository with the pinned helm and kubectl, and a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        tools = os.pathsep.join(dict.fromkeys(str(kube_tool(name).parent) for name in ("helm", "kubectl")))
        self._environ = {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "KUBECONFIG": str(kubeconfig),
            "HOME": str(kubeconfig.parent),
        }

    def export(self, **variables: str) -> None:
        """For all that is typed from now on."""
        self._environ |= variables

    def run(self, commands: str, *, stdin: str = "") -> str:
        """What they print; the first that fails ends them and the test."""
        done = self._run(commands, stdin)
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, commands: str, *, stdin: str = "") -> str:
        """What they complain of."""
        done = self._run(commands, stdin)
        assert done.returncode != 0, f"{commands}\n{done.stdout}"
        return done.stderr

    def json(self, command: str) -> Any:
        return json.loads(self.run(f"{command} -o json"))

    def _run(self, commands: str, stdin: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            env=self._environ,
            cwd=REPOSITORY,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@cache
def _template(values: str, chart: Path, kube_version: str) -> "subprocess.CompletedProcess[str]":
    helm = kube_tool("helm")
    with tempfile.TemporaryDirectory(prefix="khook-helm-") as home:
        return subprocess.run(
            [helm, "template", chart.name, chart, "--namespace", NAMESPACE, "--kube-version", kube_version, "-f", "-"],
            env={"PATH": os.environ["PATH"], "HOME": home},
            input=values,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
