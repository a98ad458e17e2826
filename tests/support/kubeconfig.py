"""Kubeconfigs, and exec plug-ins for them: small shell scripts."""

from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import yaml

from support.objects import Json

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"


def kubeconfig(path: Path, *, user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, str]:
    """The environment that names it."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "ops"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:8001"} | cluster}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return {"KUBECONFIG": str(path)}


def plugin(path: Path, script: str) -> Path:
    """An executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def exec_user(program: Path | str, **fields: Any) -> dict[str, Any]:
    """A kubeconfig's user whose credentials a plug-in gives; a field that is None is left out."""
    described = {"apiVersion": V1, "interactiveMode": "Never", "command": str(program)} | fields
    return {"exec": {name: value for name, value in described.items() if value is not None}}


def exec_credential(*, version: str = V1, expires: datetime | str | None = None, **status: Any) -> Json:
    """What a plug-in answers."""
    if expires is not None:
        status["expirationTimestamp"] = expires if isinstance(expires, str) else expires.isoformat()
    return {"apiVersion": version, "kind": "ExecCredential", "spec": {}, "status": status}


def answering(answer: Json | str) -> str:
    """A script that prints it."""
    text = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
    return f"cat <<'END'\n{text}\nEND"
