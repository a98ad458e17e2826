"""What the server says of itself: health, version, groups, the resources of each version, and their schemas.

A client learns here which kinds there are and by which names people call them. Sources: apimachinery
`pkg/apis/meta/v1` (APIResourceList), client-go `discovery`. The aggregated form is not offered: clients then ask
version by version.
"""

from typing import Any, Final

import orjson

from khook.sandbox import openapi
from khook.sandbox.exchange import Request, Response
from khook.sandbox.kinds import Kind
from khook.sandbox.reviews import REVIEWS
from khook.sandbox.store import Store

Json = dict[str, Any]

GIT_VERSION: Final = "v1.36.3"
VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_JSON: Final = {"content-type": "application/json"}
_TEXT: Final = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
_HEALTH: Final = frozenset({"/healthz", "/livez", "/readyz"})


def discovered(store: Store, request: Request) -> Response:
    """The answer to a path that is no resource; 404 in plain text where there is nothing."""
    path = request.path.rstrip("/")
    if path in _HEALTH:
        return Response(status=200, headers=dict(_TEXT), body=b"ok")
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["openapi", "v3"] and parts[2:]:
        kinds = [kind for kind in store.kinds() if openapi.prefix(kind) == "/".join(parts[2:])]
        return _schemas(kinds, request) if kinds else _nothing()
    found = _document(store, parts)
    return _nothing() if found is None else Response(status=200, headers=dict(_JSON), body=orjson.dumps(found))


def _nothing() -> Response:
    return Response(status=404, headers=dict(_TEXT), body=b"404 page not found\n")


def _schemas(kinds: list[Kind], request: Request) -> Response:
    """A client keeps the document under its hash, and need not ask again."""
    tag = f'"{openapi.fingerprint(kinds)}"'
    headers = _JSON | {"etag": tag, "vary": "Accept"}
    if request.query.get("hash") == tag.strip('"'):
        headers["cache-control"] = "public, immutable"
    if request.headers.get("if-none-match") == tag:
        return Response(status=304, headers=headers)
    return Response(status=200, headers=headers, body=orjson.dumps(openapi.document(kinds)))


def _document(store: Store, parts: list[str]) -> Json | None:
    groups = _groups(store)
    match parts:
        case ["openapi", "v3"]:
            return openapi.index(store.kinds())
        case ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": GIT_VERSION, "platform": "linux/amd64"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(name, versions) for name, versions in groups.items() if name],
            }
        case ["api", "v1"]:
            return _resources(store, "", "v1")
        case ["apis", group] if group in groups:
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, groups[group])
        case ["apis", group, version] if version in groups.get(group, ()):
            return _resources(store, group, version)
    return None


def _groups(store: Store) -> dict[str, list[str]]:
    """The versions of each group, in the order in which they came."""
    served = dict.fromkeys([(kind.group, kind.version) for kind in store.kinds()] + [(r.group, "v1") for r in REVIEWS])
    groups: dict[str, list[str]] = {}
    for group, version in served:
        groups.setdefault(group, []).append(version)
    return groups


def _group(name: str, versions: list[str]) -> Json:
    rows = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": rows, "preferredVersion": rows[0]}


def _resources(store: Store, group: str, version: str) -> Json:
    rows: list[Json] = []
    for kind in store.kinds():
        if (kind.group, kind.version) == (group, version):
            rows += _rows(kind)
    for review in REVIEWS:
        if (review.group, "v1") == (group, version):
            names = {"name": review.plural, "singularName": review.kind.lower(), "namespaced": False}
            rows.append(names | {"kind": review.kind, "verbs": ["create"]})
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": rows}


def _rows(kind: Kind) -> list[Json]:
    row: Json = {
        "name": kind.plural,
        "singularName": kind.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": VERBS,
    }
    named: Json = {"shortNames": list(kind.short_names), "categories": list(kind.categories)}
    rows = [row | {key: names for key, names in named.items() if names}]
    if kind.status_subresource:
        rows.append(row | {"name": f"{kind.plural}/status", "singularName": "", "verbs": ["get", "patch", "update"]})
    return rows
