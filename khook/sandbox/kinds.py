"""The resources that the embedded API server serves, as data: what one kind does that another does not.

A `Kind` is an endpoint (group, version, plural); two endpoints may share one storage (`core/v1` and
`events.k8s.io/v1` Events are the same objects). `cached` says whether kube-apiserver keeps a watch cache for it:
cached kinds send bookmarks and forget their history at a restart, the others are read from etcd and forget at
compaction. Sources: `pkg/registry/*/strategy.go` (create on update, unconditional update), `--watch-cache-sizes`
(events default to no cache), `pkg/apis/core/v1/conversion.go` (selectable fields).
"""

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    storage: str = ""
    """Where the objects lie; empty means `group_resource`."""
    cached: bool = True
    status_subresource: bool = False
    generation: bool = False
    create_on_update: bool = False
    unconditional_update: bool = True
    """A PUT without a resourceVersion overwrites; false answers 422."""
    selectable: frozenset[str] = frozenset()
    """Field selector keys beyond metadata.name and metadata.namespace."""
    schema: Json | None = field(default=None, compare=False)
    """The structural schema of a custom resource; None for a built-in kind."""

    @property
    def custom(self) -> bool:
        return self.schema is not None

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def storage_key(self) -> str:
        return self.storage or self.group_resource


EVENT_FIELDS: Final = frozenset(
    {
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    }
)
EVENT_V1_FIELDS: Final = frozenset(
    {
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "reason",
        "reportingController",
        "type",
    }
)
POD_FIELDS: Final = frozenset({"spec.nodeName", "spec.restartPolicy", "status.phase"})

NAMESPACES: Final = Kind(
    group="", version="v1", kind="Namespace", plural="namespaces", namespaced=False, status_subresource=True
)
PODS: Final = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    status_subresource=True,
    generation=True,
    selectable=POD_FIELDS,
)
EVENTS: Final = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    cached=False,
    create_on_update=True,
    selectable=EVENT_FIELDS,
)
EVENTS_V1: Final = Kind(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    storage="events",
    cached=False,
    create_on_update=True,
    selectable=EVENT_V1_FIELDS,
)
LEASES: Final = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    create_on_update=True,
    unconditional_update=False,
)
CRDS: Final = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
    status_subresource=True,
    generation=True,
    unconditional_update=False,
)

BUILT_IN: Final = (
    NAMESPACES,
    PODS,
    EVENTS,
    EVENTS_V1,
    LEASES,
    CRDS,
    Kind(group="apps", version="v1", kind="ReplicaSet", plural="replicasets", status_subresource=True, generation=True),
    Kind(group="apps", version="v1", kind="Deployment", plural="deployments", status_subresource=True, generation=True),
    Kind(group="batch", version="v1", kind="Job", plural="jobs", status_subresource=True, generation=True),
)


def kinds_of_crd(crd: Json) -> list[Kind]:
    """The served versions of a CustomResourceDefinition (apiextensions.k8s.io/v1)."""
    spec = crd["spec"]
    names = spec["names"]
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            namespaced=spec.get("scope") == "Namespaced",
            status_subresource="status" in (version.get("subresources") or {}),
            generation=True,
            unconditional_update=False,
            schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
        )
        for version in spec["versions"]
        if version.get("served")
    ]
