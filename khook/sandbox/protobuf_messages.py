"""The numbers of the protobuf fields that kubectl's `create` commands and reviews fill.

Each is `number name` with its type after a colon: a message, `int`, `bool`, `bytes`; none is a string. A star makes a
list, `map` a map. A zero is left out, as Go's JSON does, unless the type ends in `!` (a pointer in Go, where zero means
zero). What is `skipped` is the server's to say, whatever the client put there. Source: the field numbers of
`k8s.io/api` and `k8s.io/apimachinery` 0.36, which never change their meaning.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    name: str
    type: str
    repeated: bool = False
    is_map: bool = False
    zero_counts: bool = False


def _parsed(text: str) -> dict[int, Field]:
    fields = {}
    for part in text.split(", "):
        number, rest = part.split(" ", 1)
        name, _, kind = rest.partition(":")
        fields[int(number)] = Field(
            name=name,
            type=kind.removeprefix("map").strip("*!") or "string",
            repeated=kind.startswith("*"),
            is_map=kind.startswith("map"),
            zero_counts=kind.endswith("!"),
        )
    return fields


_OBJECT: Final = "1 metadata:ObjectMeta, 2 spec:{kind}Spec, 3 status:skipped"

MESSAGES: Final[dict[str, dict[int, Field]]] = {"Nothing": {}} | {
    name: _parsed(text)
    for name, text in {
        "ObjectMeta": "1 name, 2 generateName, 3 namespace, 4 selfLink:skipped, 5 uid, 6 resourceVersion, "
        "7 generation:skipped, 8 creationTimestamp:skipped, 11 labels:map, 12 annotations:map, "
        "13 ownerReferences:*OwnerReference, 14 finalizers:*",
        "OwnerReference": "1 kind, 3 name, 4 uid, 5 apiVersion, 6 controller:bool!, 7 blockOwnerDeletion:bool!",
        "LabelSelector": "1 matchLabels:map",
        "LocalObjectReference": "1 name",
        "Namespace": _OBJECT.format(kind="Namespace"),
        "NamespaceSpec": "1 finalizers:*",
        "Secret": "1 metadata:ObjectMeta, 2 data:mapbytes, 3 type, 4 stringData:map, 5 immutable:bool!",
        "ConfigMap": "1 metadata:ObjectMeta, 2 data:map, 3 binaryData:mapbytes, 4 immutable:bool!",
        "ServiceAccount": "1 metadata:ObjectMeta, 3 imagePullSecrets:*LocalObjectReference",
        "PodTemplateSpec": "1 metadata:ObjectMeta, 2 spec:PodSpec",
        "PodSpec": "2 containers:*Container, 3 restartPolicy, 4 terminationGracePeriodSeconds:int!, 6 dnsPolicy, "
        "8 serviceAccountName, 9 serviceAccount, 10 nodeName, 11 hostNetwork:bool, 12 hostPID:bool, 13 hostIPC:bool, "
        "14 securityContext:Nothing, 16 hostname, 17 subdomain, 19 schedulerName, 24 priorityClassName",
        "Container": "1 name, 2 image, 3 command:*, 4 args:*, 5 workingDir, 6 ports:*ContainerPort, 7 env:*EnvVar, "
        "8 resources:Nothing, 13 terminationMessagePath, 14 imagePullPolicy, 16 stdin:bool, 17 stdinOnce:bool, "
        "18 tty:bool, 20 terminationMessagePolicy",
        "ContainerPort": "1 name, 2 hostPort:int, 3 containerPort:int, 4 protocol, 5 hostIP",
        "EnvVar": "1 name, 2 value",
        "Deployment": _OBJECT.format(kind="Deployment"),
        "DeploymentSpec": "1 replicas:int!, 2 selector:LabelSelector, 3 template:PodTemplateSpec, "
        "4 strategy:DeploymentStrategy, 5 minReadySeconds:int, 6 revisionHistoryLimit:int!, 7 paused:bool, "
        "9 progressDeadlineSeconds:int!",
        "DeploymentStrategy": "1 type",
        "Job": _OBJECT.format(kind="Job"),
        "JobSpec": "1 parallelism:int!, 2 completions:int!, 3 activeDeadlineSeconds:int!, 4 selector:LabelSelector, "
        "5 manualSelector:bool!, 6 template:PodTemplateSpec, 7 backoffLimit:int!, 8 ttlSecondsAfterFinished:int!, "
        "9 completionMode, 10 suspend:bool!, 14 podReplacementPolicy",
        "CronJob": _OBJECT.format(kind="CronJob"),
        "CronJobSpec": "1 schedule, 2 startingDeadlineSeconds:int!, 3 concurrencyPolicy, 4 suspend:bool!, "
        "5 jobTemplate:JobTemplateSpec, 6 successfulJobsHistoryLimit:int!, 7 failedJobsHistoryLimit:int!, 8 timeZone",
        "JobTemplateSpec": "1 metadata:ObjectMeta, 2 spec:JobSpec",
        "SelfSubjectAccessReview": _OBJECT.format(kind="SelfSubjectAccessReview"),
        "SelfSubjectAccessReviewSpec": "1 resourceAttributes:ResourceAttributes, "
        "2 nonResourceAttributes:NonResourceAttributes",
        "ResourceAttributes": "1 namespace, 2 verb, 3 group, 4 version, 5 resource, 6 subresource, 7 name",
        "NonResourceAttributes": "1 path, 2 verb",
        "SelfSubjectRulesReview": _OBJECT.format(kind="SelfSubjectRulesReview"),
        "SelfSubjectRulesReviewSpec": "1 namespace",
        "SelfSubjectReview": "1 metadata:ObjectMeta, 2 status:skipped",
    }.items()
}
