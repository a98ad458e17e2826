"""Which kinds the API server serves right now: the built-in ones and those of installed CRDs.

Source: apiextensions-apiserver `pkg/apiserver/customresource_handler.go`. A CRD is accepted at once; there are no
name conflicts here.
"""

from datetime import datetime
from typing import Any

from khook.sandbox import api_errors
from khook.sandbox.kinds import BUILT_IN, Kind, kinds_of_crd
from khook.sandbox.metadata import rfc3339

Json = dict[str, Any]


class Installed:
    """The registry, by (group, version, plural)."""

    def __init__(self) -> None:
        self._kinds = {(kind.group, kind.version, kind.plural): kind for kind in BUILT_IN}
        self._group_versions = self._served()

    def kind(self, group: str, version: str, plural: str) -> Kind:
        """Raises ApiError 404 when nothing is installed there."""
        try:
            return self._kinds[(group, version, plural)]
        except KeyError:
            raise api_errors.no_such_resource() from None

    def serves(self, group: str, version: str) -> bool:
        return (group, version) in self._group_versions

    def all(self) -> list[Kind]:
        return list(self._kinds.values())

    def install(self, crd: Json) -> list[Kind]:
        """Serve the CRD's versions, and no others of its group and plural."""
        self.uninstall(crd)
        kinds = kinds_of_crd(crd)
        self._kinds |= {(kind.group, kind.version, kind.plural): kind for kind in kinds}
        self._group_versions = self._served()
        return kinds

    def uninstall(self, crd: Json) -> list[Kind]:
        """Serve nothing of this CRD any more; the kinds that were served."""
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        gone = [kind for kind in self._kinds.values() if (kind.group, kind.plural) == (group, plural)]
        for kind in gone:
            del self._kinds[(kind.group, kind.version, kind.plural)]
        self._group_versions = self._served()
        return gone

    def _served(self) -> frozenset[tuple[str, str]]:
        return frozenset((group, version) for group, version, _ in self._kinds)


def accepted(crd: Json, *, now: datetime) -> Json:
    """The CRD with the status that says: names accepted, established."""
    if crd.get("status"):
        return crd
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": rfc3339(now), "reason": reason, "message": ""}
        for kind, reason in (("NamesAccepted", "NoConflicts"), ("Established", "InitialNamesAccepted"))
    ]
    stored = [version["name"] for version in crd["spec"]["versions"] if version.get("storage")]
    status = {"conditions": conditions, "acceptedNames": crd["spec"]["names"], "storedVersions": stored}
    return crd | {"status": status}
