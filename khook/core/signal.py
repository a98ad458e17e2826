"""What a line from the API server says, before anybody decides anything.

`PodLine` and `EventLine` name only the fields that a decision needs; msgspec skips the rest of the JSON. A
`Signal` is a classified line: what happened, to which container of which pod, when. Nothing here has a clock.
Source of the shapes: core/v1 Pod and Event, events.k8s.io/v1 (its fields as core/v1 shows them).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

import msgspec

Namespace = NewType("Namespace", str)
PodUid = NewType("PodUid", str)


class EventType(StrEnum):
    """The four things a Hook's entry can ask for (`eventConfigurations[].eventType`)."""

    POD_RESTART = "pod-restart"
    POD_PENDING = "pod-pending"
    OOM_KILL = "oom-kill"
    PROBE_FAILED = "probe-failed"


class Source(StrEnum):
    """Which watch a signal came from: pods tell the truth, events tell the text."""

    POD = "pod"
    EVENT = "event"


OOM_KILLED: Final = "OOMKilled"
"""The reason of a container that was killed for its memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One classified fact about one pod. `raw_time` is the source's own time, whatever its clock says."""

    type: EventType
    source: Source
    namespace: Namespace
    pod: str
    pod_uid: PodUid
    container: str | None
    reason: str
    message: str
    raw_time: datetime
    since_time: datetime | None = None
    """When an Event that repeats was first seen; None: nothing is known from before `raw_time`."""
    listed: bool
    """It stood in a LIST (history until the table says otherwise), not on a live watch line."""
    level: bool = False
    """pod-pending from pod status: a state that lasts, of any age; `raw_time` is since when."""

    @property
    def may_be_told_better(self) -> bool:
        """An Event may soon say the same in words. Of a container's OOM kill kubelet writes none on the pod."""
        return self.source is Source.POD and not (self.type is EventType.OOM_KILL and self.reason == OOM_KILLED)


class OwnerReference(msgspec.Struct, frozen=True, rename="camel", gc=False):
    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None


class PodMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None


class Terminated(msgspec.Struct, frozen=True, rename="camel", gc=False):
    exit_code: int = 0
    reason: str | None = None
    message: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Waiting(msgspec.Struct, frozen=True, gc=False):
    reason: str | None = None
    message: str | None = None


class Running(msgspec.Struct, frozen=True, rename="camel", gc=False):
    started_at: datetime | None = None


class ContainerState(msgspec.Struct, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    restart_count: int = 0
    ready: bool = False
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodCondition(msgspec.Struct, frozen=True, rename="camel", gc=False):
    type: str
    status: str = ""
    reason: str | None = None
    message: str | None = None
    last_transition_time: datetime | None = None


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    phase: str = ""
    reason: str | None = None
    message: str | None = None
    start_time: datetime | None = None
    conditions: list[PodCondition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class ResourceLimits(msgspec.Struct, frozen=True):
    limits: dict[str, str | int | float] | None = None


class ContainerSpec(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    resources: ResourceLimits | None = None
    restart_policy: str | None = None


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    containers: list[ContainerSpec] | None = None
    init_containers: list[ContainerSpec] | None = None


class PodLine(msgspec.Struct, frozen=True):
    """A Pod, as much of it as decisions need."""

    metadata: PodMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class EventMeta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: datetime | None = None


class InvolvedObject(msgspec.Struct, frozen=True, rename="camel", gc=False):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    field_path: str | None = None


class EventSeries(msgspec.Struct, frozen=True, rename="camel", gc=False):
    count: int | None = None
    last_observed_time: datetime | None = None


class EventSource(msgspec.Struct, frozen=True, gc=False):
    component: str | None = None


class EventLine(msgspec.Struct, frozen=True, rename="camel"):
    """A core/v1 Event, as much of it as decisions need. `eventTime` is null on the kubelet's."""

    metadata: EventMeta
    involved_object: InvolvedObject = InvolvedObject()
    reason: str | None = None
    message: str | None = None
    type: str | None = None
    count: int | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    event_time: datetime | None = None
    series: EventSeries | None = None
    source: EventSource | None = None
    reporting_component: str | None = None
