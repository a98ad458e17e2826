"""The rows of Deployments, ReplicaSets, Jobs and CronJobs, which all name the containers of their pod template.

Source: `pkg/printers/internalversion` (printDeployment, printReplicaSet, printJob, printCronJob).
"""

from datetime import datetime
from typing import Any, Final

from khook.sandbox.ages import human, parsed, since

Json = dict[str, Any]

_NONE: Final = "<none>"
# The first that is true says how a Job stands.
_JOB_ENDS: Final = ("Complete", "Failed")
_JOB_STATES: Final = ("Suspended", "FailureTarget", "SuccessCriteriaMet")


def deployment_row(item: Json, now: datetime) -> list[Any]:
    """Name, Ready, Up-to-date, Available, Age, Containers, Images, Selector."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return [
        item["metadata"].get("name", ""),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        since(item["metadata"].get("creationTimestamp"), now),
        *_template(spec),
        selector_words(spec.get("selector")),
    ]


def replica_set_row(item: Json, now: datetime) -> list[Any]:
    """Name, Desired, Current, Ready, Age, Containers, Images, Selector."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return [
        item["metadata"].get("name", ""),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        since(item["metadata"].get("creationTimestamp"), now),
        *_template(spec),
        selector_words(spec.get("selector")),
    ]


def job_row(item: Json, now: datetime) -> list[Any]:
    """Name, Status, Completions, Duration, Age, Containers, Images, Selector."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return [
        item["metadata"].get("name", ""),
        _job_status(item, status),
        _completions(spec, status),
        _duration(status, now),
        since(item["metadata"].get("creationTimestamp"), now),
        *_template(spec),
        selector_words(spec.get("selector")),
    ]


def cron_job_row(item: Json, now: datetime) -> list[Any]:
    """Name, Schedule, Timezone, Suspend, Active, Last Schedule, Age, Containers, Images, Selector."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    last = status.get("lastScheduleTime")
    job_spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        item["metadata"].get("name", ""),
        spec.get("schedule", ""),
        spec.get("timeZone") or _NONE,
        str(bool(spec.get("suspend"))),
        len(status.get("active") or []),
        since(last, now) if last else _NONE,
        since(item["metadata"].get("creationTimestamp"), now),
        *_template(job_spec),
        selector_words(job_spec.get("selector")),
    ]


def selector_words(selector: Json | None) -> str:
    """`app=a,tier in (web,api),!old`; `<none>` where nothing is selected."""
    words = [f"{key}={value}" for key, value in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for one in (selector or {}).get("matchExpressions") or []:
        key, listed = one.get("key", ""), ",".join(sorted(one.get("values") or []))
        match one.get("operator"):
            case "In":
                words.append(f"{key} in ({listed})")
            case "NotIn":
                words.append(f"{key} notin ({listed})")
            case "Exists":
                words.append(key)
            case "DoesNotExist":
                words.append(f"!{key}")
    return ",".join(words) or _NONE


def _template(spec: Json) -> tuple[str, str]:
    containers = (((spec.get("template") or {}).get("spec")) or {}).get("containers") or []
    return ",".join(one.get("name", "") for one in containers), ",".join(one.get("image", "") for one in containers)


def _job_status(item: Json, status: Json) -> str:
    true = {one.get("type") for one in status.get("conditions") or [] if one.get("status") == "True"}
    for end in _JOB_ENDS:
        if end in true:
            return end
    if "deletionTimestamp" in item["metadata"]:
        return "Terminating"
    return next((state for state in _JOB_STATES if state in true), "Running")


def _completions(spec: Json, status: Json) -> str:
    done, parallel = status.get("succeeded", 0), spec.get("parallelism") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _duration(status: Json, now: datetime) -> str:
    start, end = parsed(status.get("startTime")), parsed(status.get("completionTime"))
    return "" if start is None else human((end or now) - start)
