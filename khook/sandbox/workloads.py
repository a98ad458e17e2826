"""What kube-apiserver fills in for the kinds that are only kept: Deployments, ReplicaSets, Jobs, CronJobs, Secrets.

No controller acts on them, so this is all that ever happens to them by itself. Defaults within a pod template are left
out: nobody runs it. Sources: `pkg/apis/{apps,batch,core}/v1/defaults.go`, `pkg/registry/batch/job/strategy.go`.
"""

import base64
from typing import Any, Final

from khook.sandbox.api_errors import Cause
from khook.sandbox.kinds import CRDS, CRON_JOBS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, SECRETS, Kind

Json = dict[str, Any]

_SPEC_DEFAULTS: Final[dict[str, Json]] = {
    DEPLOYMENTS.kind: {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    },
    REPLICA_SETS.kind: {"replicas": 1},
    JOBS.kind: {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "manualSelector": False,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
    },
    CRON_JOBS.kind: {
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
    },
}
_FIRST_STATUS: Final[dict[str, Json]] = {REPLICA_SETS.kind: {"replicas": 0}}
_REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    PODS.kind: ("spec.containers",),
    CRDS.kind: ("spec.group", "spec.scope", "spec.names.plural", "spec.names.kind", "spec.versions"),
}
_TEMPLATE_AT: Final[dict[str, str]] = {
    DEPLOYMENTS.kind: "spec.template",
    REPLICA_SETS.kind: "spec.template",
    JOBS.kind: "spec.template",
    CRON_JOBS.kind: "spec.jobTemplate.spec.template",
}


def missing(kind: Kind, item: Json) -> list[Cause]:
    """What an object cannot be without. Owners of pods may lie here as a name alone, unlike on the real server; but a
    pod template that is there has containers."""
    wanted = _REQUIRED.get(kind.kind, ())
    template = _TEMPLATE_AT.get(kind.kind)
    if template is not None and _at(item, template):
        wanted = (f"{template}.spec.containers",)
    return [Cause(one, "FieldValueRequired", "Required value") for one in wanted if not _at(item, one)]


def _at(item: Json, path: str) -> Any:
    value: Any = item
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def kept(kind: Kind, item: Json, *, creating: bool) -> Json:
    """A Deployment, ReplicaSet, Job, CronJob or Secret with the server's defaults; anything else as it is."""
    if kind.kind == SECRETS.kind:
        return _secret(item)
    if kind.kind not in _SPEC_DEFAULTS:
        return item
    given = {key: value for key, value in _fields(item, "spec").items() if value not in (None, {})}
    item = item | {"spec": _SPEC_DEFAULTS[kind.kind] | given}
    if kind.kind == JOBS.kind:
        item = _labelled_job(item)
    if creating:
        item["status"] = _FIRST_STATUS.get(kind.kind, {})
    return item


def _labelled_job(job: Json) -> Json:
    """A Job selects its pods by its own uid; the labels are put on itself and on its template."""
    metadata, spec = job["metadata"], job["spec"]
    if spec["manualSelector"] or spec.get("selector"):
        return job
    uid, name = metadata["uid"], metadata["name"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    template = _fields(spec, "template")
    selector = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    spec = spec | {"selector": selector, "template": _labelled(template, labels)}
    return _labelled(job, labels) | {"spec": spec}


def _labelled(item: Json, labels: Json) -> Json:
    metadata = _fields(item, "metadata")
    return item | {"metadata": metadata | {"labels": _fields(metadata, "labels") | labels}}


def _fields(item: Json, name: str) -> Json:
    """What stands there, or nothing where it is no object: types are looked at elsewhere, if anybody asks."""
    found = item.get(name)
    return found if isinstance(found, dict) else {}


def _secret(item: Json) -> Json:
    """`stringData` can only be written: it ends in `data`, in base64."""
    result = {"type": "Opaque"} | {key: value for key, value in item.items() if key != "stringData"}
    if plain := _fields(item, "stringData"):
        coded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        result["data"] = _fields(item, "data") | coded
    return result
