"""A cluster as a test touches it: the same few verbs whether the API server is embedded, served or the real one."""

from collections.abc import Mapping
from datetime import datetime

import httpx

from support.objects import Json

HOOKS = "/apis/kagent.dev/v1alpha2/namespaces/{}/hooks"
MERGE_PATCH = {"content-type": "application/merge-patch+json"}


class Cluster:
    """`http` is any httpx client whose base_url is the API server. Answers above 399 raise httpx.HTTPStatusError."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def request(
        self, method: str, path: str, body: Json | None = None, *, headers: Mapping[str, str] = {}
    ) -> Json:
        answer = await self.http.request(method, path, json=body, headers=headers)
        answer.raise_for_status()
        found: Json = answer.json()
        return found

    async def namespace(self, name: str) -> None:
        await self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    async def crd(self, crd: Json) -> None:
        await self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)

    async def hook(self, hook: Json) -> Json:
        return await self.request("POST", HOOKS.format(hook["metadata"]["namespace"]), hook)

    async def patch_hook(self, namespace: str, name: str, patch: Json) -> Json:
        return await self.request("PATCH", f"{HOOKS.format(namespace)}/{name}", patch, headers=MERGE_PATCH)

    async def delete_hook(self, namespace: str, name: str) -> None:
        await self.request("DELETE", f"{HOOKS.format(namespace)}/{name}")

    async def get_hook(self, namespace: str, name: str) -> Json:
        return await self.request("GET", f"{HOOKS.format(namespace)}/{name}")

    async def workload(self, workload: Json) -> Json:
        """A Deployment, a ReplicaSet, a Job and so on."""
        meta, plural = workload["metadata"], f"{workload['kind'].lower()}s"
        return await self.request(
            "POST", f"/apis/{workload['apiVersion']}/namespaces/{meta['namespace']}/{plural}", workload
        )

    async def pod(self, pod: Json, status: Json | None = None) -> Json:
        """Create a pod, and give it a status as a kubelet would."""
        created = await self.request("POST", f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods", pod)
        return created if status is None else await self.pod_status(created, status)

    async def pod_status(self, pod: Json, status: Json) -> Json:
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status"
        return await self.request("PATCH", path, {"status": status}, headers=MERGE_PATCH)

    async def delete_pod(self, pod: Json) -> None:
        meta = pod["metadata"]
        await self.request("DELETE", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}?gracePeriodSeconds=0")

    async def event(self, event: Json) -> Json:
        """Post an Event through the API that its `apiVersion` names."""
        api = "/api/v1" if event["apiVersion"] == "v1" else f"/apis/{event['apiVersion']}"
        return await self.request("POST", f"{api}/namespaces/{event['metadata']['namespace']}/events", event)

    async def repeat_event(self, event: Json, *, count: int, time: str) -> Json:
        meta = event["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/events/{meta['name']}"
        return await self.request("PATCH", path, {"count": count, "lastTimestamp": time}, headers=MERGE_PATCH)

    async def events_on(self, namespace: str, hook: str) -> list[Json]:
        path = f"/api/v1/namespaces/{namespace}/events"
        listed = await self.request("GET", path)
        return [
            e
            for e in listed["items"]
            if e["involvedObject"].get("kind") == "Hook" and e["involvedObject"]["name"] == hook
        ]


def rows(hook: Json) -> list[Json]:
    found: list[Json] = (hook.get("status") or {}).get("activeEvents", [])
    return found


def ready(hook: Json) -> Json:
    conditions: list[Json] = (hook.get("status") or {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == "Ready"), {})


def parse(time: str) -> datetime:
    return datetime.fromisoformat(time)
