"""The API server as `khook check` sees it: is it there, may we do what we need, does its CRD know our fields.

Permissions are asked as the API server itself would decide (SelfSubjectAccessReview), for the verbs of the README's
table and in the scope of KHOOK_WATCH_NAMESPACES. The CRD itself may be read by administrators alone, so the schema is
taken from discovery (OpenAPI) where it may not.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from khook.api.crd import crd
from khook.api.v1alpha2 import API_VERSION, GROUP, KIND, VERSION
from khook.cli.findings import Finding, ok, unknown, warning, wrong
from khook.cli.reach import Cluster
from khook.errors import Forbidden, KubeError, NotFound
from khook.kube.client import PAGE_LIMIT_BYTES
from khook.settings import Settings
from khook.worker.trail import CRD_OUTDATED

LEASE: Final = "kagent-hook-controller"
OLDEST_MINOR: Final = 20
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_CRD: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hooks.kagent.dev"
_MISSING_CRD: Final = (
    "helm install kagent-hook-crds ./charts/kagent-hook-crds -n kagent-system, or kubectl apply -f crds/"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One row of the README's table."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    subresource: str = ""
    name: str = ""
    optional: str = ""
    """What does not work without it, where that is not all."""

    @property
    def words(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{resource}.{self.group}" if self.group else resource


NEEDS: Final = (
    Need(group=GROUP, resource="hooks", verbs=("get", "list", "watch")),
    Need(group=GROUP, resource="hooks", subresource="status", verbs=("patch",)),
    Need(group="", resource="pods", verbs=("get", "list", "watch")),
    Need(group="", resource="events", verbs=("list", "watch", "create", "patch")),
    Need(group="apps", resource="replicasets", verbs=("get",), optional="groupBy: Owner stops at ReplicaSets"),
    Need(group="batch", resource="jobs", verbs=("get",), optional="groupBy: Owner stops at Jobs"),
)
OWN_NEEDS: Final = (
    Need(group="coordination.k8s.io", resource="leases", verbs=("create",)),
    Need(group="coordination.k8s.io", resource="leases", verbs=("get", "update"), name=LEASE),
)
"""In khook's own namespace, with leader election."""


async def check_server(cluster: Cluster, server: str) -> Finding:
    """Raises a KubeError where nobody answers."""
    version = json.loads(await cluster.client.get("/version"))
    text = str(version.get("gitVersion", "of unknown version"))
    minor = "".join(filter(str.isdigit, str(version.get("minor", ""))))
    if minor and int(minor) < OLDEST_MINOR:
        return warning("API server", f"{server} is {text}: older than 1.{OLDEST_MINOR}, which khook was made for")
    return ok("API server", f"{server} is {text}")


async def check_permissions(cluster: Cluster, settings: Settings) -> list[Finding]:
    scopes: Iterable[str] = settings.watch_namespaces or ("",)
    findings = []
    for need in NEEDS:
        findings.append(await _permission(cluster, need, scopes))
    if settings.leader_election:
        own = settings.pod_namespace or cluster.namespace
        for need in OWN_NEEDS:
            findings.append(await _permission(cluster, need, (own,)))
    return findings


async def _permission(cluster: Cluster, need: Need, namespaces: Iterable[str]) -> Finding:
    what = f"may {', '.join(need.verbs)} {need.words}"
    refused: list[str] = []
    places: list[str] = []
    try:
        for namespace in namespaces:
            places.append(namespace)
            for verb in need.verbs:
                if not await _may(cluster, need, verb, namespace):
                    refused.append(verb + (f" in {namespace}" if namespace else ""))
    except KubeError as error:
        return unknown(what, f"the API server does not say: {error}")
    if not refused:
        return ok(what, f"in {', '.join(places)}" if any(places) else "in all namespaces")
    says = f"refused: {', '.join(refused)}"
    mend = f"grant it to khook's (Cluster)Role: {need.words}: {', '.join(need.verbs)}"
    return warning(what, f"{says}; {need.optional}", mend) if need.optional else wrong(what, says, mend)


async def _may(cluster: Cluster, need: Need, verb: str, namespace: str) -> bool:
    attributes = {"verb": verb, "group": need.group, "resource": need.resource}
    attributes |= {"subresource": need.subresource} if need.subresource else {}
    attributes |= {"namespace": namespace} if namespace else {}
    attributes |= {"name": need.name} if need.name else {}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await cluster.client.create(REVIEWS, review)
    status = answer.get("status")
    return isinstance(status, dict) and status.get("allowed") is True


async def check_crd(cluster: Cluster) -> Finding:
    what = "Hook CRD"
    try:
        schema = await _schema(cluster)
    except NotFound:
        return wrong(what, f"{API_VERSION} is not installed", _MISSING_CRD)
    except KubeError as error:
        return unknown(what, str(error))
    if schema is None:
        return unknown(what, f"{API_VERSION} is installed; its schema may not be read")
    missing = sorted(set(_paths(_ours())) - set(_paths(schema)))
    if not missing:
        return ok(what, f"{API_VERSION} knows every field of this version")
    shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
    if any(path.startswith(".status") for path in missing):
        return wrong(what, f"CRDOutdated: {CRD_OUTDATED} (without {shown})", "helm upgrade kagent-hook-crds")
    return warning(what, f"{API_VERSION} is older than this khook (without {shown})", "helm upgrade kagent-hook-crds")


async def _schema(cluster: Cluster) -> Any:
    """Raises NotFound where the version is not served. None: nobody says."""
    try:
        found = json.loads(await cluster.client.get(_CRD))
    except Forbidden:
        await cluster.client.get(f"/apis/{API_VERSION}")
        return await _published_schema(cluster)
    versions = (one for one in found["spec"]["versions"] if one.get("name") == VERSION and one.get("served"))
    version = next(versions, None)
    if version is None:
        raise NotFound(f"the CRD does not serve {VERSION}", status=404)
    return version.get("schema", {}).get("openAPIV3Schema", {})


async def _published_schema(cluster: Cluster) -> Any:
    """As OpenAPI v3 (Kubernetes 1.27) or v2 has it."""
    for path, places in (
        (f"/openapi/v3/apis/{API_VERSION}", ("components", "schemas")),
        ("/openapi/v2", ("definitions",)),
    ):
        try:
            found = json.loads(await cluster.client.get(path, limit_bytes=PAGE_LIMIT_BYTES))
        except (KubeError, ValueError):
            continue
        for place in places:
            found = found.get(place, {})
        for schema in found.values():
            kinds = schema.get("x-kubernetes-group-version-kind") or ()
            if any((one.get("group"), one.get("version"), one.get("kind")) == (GROUP, VERSION, KIND) for one in kinds):
                return schema
    return None


def _ours() -> Any:
    return crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _paths(schema: Any, before: str = "") -> Iterator[str]:
    """Every field below spec and status."""
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("items"), dict):
        yield from _paths(schema["items"], f"{before}[]")
    for name, inner in (schema.get("properties") or {}).items():
        path = f"{before}.{name}"
        if path.startswith((".spec", ".status")):
            yield path
            yield from _paths(inner, path)
