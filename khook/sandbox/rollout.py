"""A rollout as the API server sees it: a Deployment, the ReplicaSet that its controller makes, and that one's pods.

Each names its controller by uid, so they are written from the top down. What then becomes of the pods is the kubelet's
to say (`khook.sandbox.story`). Shapes: `pkg/controller/deployment/sync.go`, `pkg/controller/controller_utils.go`.
"""

import random
from dataclasses import replace
from typing import Final

from khook.sandbox.story import IMAGE, Action, Moment, Object, Write, pod_created

APPS: Final = "apps/v1"
DEPLOYMENT: Final = "Deployment"
REPLICA_SET: Final = "ReplicaSet"
HASH_LABEL: Final = "pod-template-hash"
SAFE_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names: without vowels and what looks like them (apimachinery util/rand)."""
SUFFIX_CHARS: Final = 5


def replica_names(replica_set: str, count: int) -> list[str]:
    """As the API server generates them, and the same each time."""
    chance = random.Random(replica_set)
    return [f"{replica_set}-{''.join(chance.choices(SAFE_LETTERS, k=SUFFIX_CHARS))}" for _ in range(count)]


def deployment_applied(name: str, *, replicas: int) -> Action:
    def act(namespace: str, _moment: Moment) -> list[Write]:
        return [_created(DEPLOYMENT, {"name": name, "namespace": namespace}, {"app": name}, replicas)]

    return act


def replica_set_created(name: str, *, deployment: str, replicas: int) -> Action:
    def act(namespace: str, moment: Moment) -> list[Write]:
        labels = _labels(name)
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        return [_created(REPLICA_SET, metadata | _made_by(DEPLOYMENT, deployment, namespace, moment), labels, replicas)]

    return act


def replica_created(pod: str, *, replica_set: str) -> Action:
    def act(namespace: str, moment: Moment) -> list[Write]:
        (write,) = pod_created(pod)(namespace, moment)
        made = {"labels": _labels(replica_set)} | _made_by(REPLICA_SET, replica_set, namespace, moment)
        return [replace(write, body=write.body | {"metadata": write.body["metadata"] | made})]

    return act


def _created(kind: str, metadata: Object, labels: Object, replicas: int) -> Write:
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": IMAGE}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    path = f"/apis/{APPS}/namespaces/{metadata['namespace']}/{kind.lower()}s"
    return Write(verb="POST", path=path, body={"apiVersion": APPS, "kind": kind, "metadata": metadata, "spec": spec})


def _labels(replica_set: str) -> Object:
    app, template_hash = replica_set.rsplit("-", 1)
    return {"app": app, HASH_LABEL: template_hash}


def _made_by(kind: str, name: str, namespace: str, moment: Moment) -> Object:
    reference = {
        "apiVersion": APPS,
        "kind": kind,
        "name": name,
        "uid": moment.uids[f"{namespace}/{kind}/{name}"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"ownerReferences": [reference]}
