"""Whose pod it is: the controller that an incident is about where its entry groups by owner.

A pod names its direct controller. Two kinds of controller are themselves made by another, as a rule, and say so in
their own metadata: a ReplicaSet (Deployment, or somebody's rollout) and a Job (CronJob). Those are looked up; every
other kind is the owner as it stands. A Node is none: a static pod's mirror names it, and what runs there has nothing
in common but the machine.
Source: apimachinery meta/v1 OwnerReference, `GetControllerOf`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from khook.api import names
from khook.core.signal import OwnerReference

POD_KIND: Final = "Pod"
NODE_KIND: Final = "Node"
REPLICA_SET: Final = ("apps", "ReplicaSet")
JOB: Final = ("batch", "Job")


class ResourceRef(NamedTuple):
    """What an incident is about: a pod, or the owner of pods. Its namespace is the Hook's."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """One controller reference, of a pod or of what owns it."""

    group: str
    """API group; empty is the core one."""
    kind: str
    name: str
    uid: str

    @property
    def ref(self) -> ResourceRef:
        return ResourceRef(self.kind, self.name)

    @property
    def has_maker(self) -> bool:
        """Another controller may stand behind it: it has to be looked up."""
        return (self.group, self.kind) in (REPLICA_SET, JOB)


def controller_of(references: Sequence[OwnerReference] | None) -> Controller | None:
    """The controller among these owner references; None where there is none, it is a Node, or none can exist so."""
    found = next((one for one in references or () if one.controller), None)
    if found is None or found.kind == NODE_KIND:
        return None
    if not names.can_exist(kind=found.kind, name=found.name, uid=found.uid):
        return None
    group, slash, _ = found.api_version.partition("/")
    return Controller(group=group if slash else "", kind=found.kind, name=found.name, uid=found.uid)
