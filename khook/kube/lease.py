"""The Lease of an election, read and written: one request each, nothing retried, nothing decided.

All three requests go over the exact transport and end by short timeouts of their own: a renewal that hangs must leave
time for another before the deadline. RBAC: get and update by name, create (which cannot be limited by name).
"""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from khook.core.election import LeaseSpec
from khook.errors import NotFound
from khook.kube.client import KubeClient

LEASE_NAME: Final = "kagent-hook-controller"
ANSWER_S: Final = 4.0
"""Two tries, and the pause between them, fit into the 10 s of the renew deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The Lease as the API server holds it; `version` is what the next update starts from."""

    spec: LeaseSpec
    version: str


class LeaseNamespaceMissing(NotFound):
    """The namespace for the Lease does not exist: nobody can ever lead."""


class Lease:
    """Every method raises KubeErrors."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str = LEASE_NAME) -> None:
        self._client = client
        self.namespace: Final = namespace
        self._name = name
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"

    async def read(self) -> Written | None:
        """None where there is none (or no such namespace: `create` tells)."""
        try:
            return _written(await self._client.ask("GET", self._path, within_s=ANSWER_S))
        except NotFound:
            return None

    async def create(self, spec: LeaseSpec) -> Written:
        """Raises Conflict when somebody was faster, LeaseNamespaceMissing."""
        try:
            return _written(await self._client.ask("POST", self._collection, body=self._body(spec), within_s=ANSWER_S))
        except NotFound as error:
            raise LeaseNamespaceMissing(str(error), status=error.status) from error

    async def update(self, spec: LeaseSpec, *, version: str) -> Written:
        """Raises Conflict when it is not this version any more, NotFound when it is gone."""
        body = self._body(spec)
        body["metadata"]["resourceVersion"] = version
        return _written(await self._client.ask("PUT", self._path, body=body, within_s=ANSWER_S))

    @property
    def _path(self) -> str:
        return f"{self._collection}/{self._name}"

    def _body(self, spec: LeaseSpec) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self.namespace},
            "spec": spec.to_json(),
        }


def _written(lease: dict[str, Any]) -> Written:
    return Written(spec=LeaseSpec.of(lease), version=lease["metadata"]["resourceVersion"])
