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
    singular: str = field(default="", compare=False)
    """What people may also call it; empty means the kind in lower case."""
    short_names: tuple[str, ...] = field(default=(), compare=False)
    categories: tuple[str, ...] = field(default=(), compare=False)
    """Groups of kinds that people ask for by one name: `all`."""
    printer_columns: tuple[Json, ...] = field(default=(), compare=False)
    """`additionalPrinterColumns` of a custom resource."""
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
ALL: Final = ("all",)

NAMESPACES: Final = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    namespaced=False,
    status_subresource=True,
    selectable=frozenset({"status.phase"}),
    short_names=("ns",),
)
PODS: Final = Kind(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    status_subresource=True,
    generation=True,
    selectable=POD_FIELDS,
    short_names=("po",),
    categories=ALL,
)
EVENTS: Final = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    cached=False,
    create_on_update=True,
    selectable=EVENT_FIELDS,
    short_names=("ev",),
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
    short_names=("ev",),
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
    short_names=("crd", "crds"),
    categories=("api-extensions",),
)
SECRETS: Final = Kind(group="", version="v1", kind="Secret", plural="secrets", selectable=frozenset({"type"}))
CONFIG_MAPS: Final = Kind(group="", version="v1", kind="ConfigMap", plural="configmaps", short_names=("cm",))
SERVICE_ACCOUNTS: Final = Kind(
    group="", version="v1", kind="ServiceAccount", plural="serviceaccounts", short_names=("sa",)
)
DEPLOYMENTS: Final = Kind(
    group="apps",
    version="v1",
    kind="Deployment",
    plural="deployments",
    status_subresource=True,
    generation=True,
    short_names=("deploy",),
    categories=ALL,
)
REPLICA_SETS: Final = Kind(
    group="apps",
    version="v1",
    kind="ReplicaSet",
    plural="replicasets",
    status_subresource=True,
    generation=True,
    selectable=frozenset({"status.replicas"}),
    short_names=("rs",),
    categories=ALL,
)
JOBS: Final = Kind(
    group="batch",
    version="v1",
    kind="Job",
    plural="jobs",
    status_subresource=True,
    generation=True,
    selectable=frozenset({"status.successful"}),
    categories=ALL,
)
CRON_JOBS: Final = Kind(
    group="batch",
    version="v1",
    kind="CronJob",
    plural="cronjobs",
    status_subresource=True,
    generation=True,
    short_names=("cj",),
    categories=ALL,
)

BUILT_IN: Final = (
    NAMESPACES,
    PODS,
    EVENTS,
    EVENTS_V1,
    LEASES,
    CRDS,
    SECRETS,
    CONFIG_MAPS,
    SERVICE_ACCOUNTS,
    DEPLOYMENTS,
    REPLICA_SETS,
    JOBS,
    CRON_JOBS,
)
"""Deployments, ReplicaSets, Jobs and the like are only kept: no controller acts on them."""


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
            singular=names.get("singular") or "",
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
            schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
        )
        for version in spec["versions"]
        if version.get("served")
    ]
