"""OpenAPI v3 as kubectl reads it: one document for each group and version, made when it is asked for.

`kubectl explain` takes the schemas; `apply` and `create` look whether a PATCH takes `fieldValidation`, and then leave
the validation to the server. Paths say only that much. Sources: KEP-2896, apiserver `pkg/endpoints/installer.go`.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import orjson

from khook.sandbox import builtin_schemas
from khook.sandbox.kinds import Kind
from khook.sandbox.patches import accepted

Json = dict[str, Any]

INFO: Final = {"title": "Kubernetes", "version": "v1.36.3"}
_ANY: Final = {"schema": {"type": "object"}}
_WRITES: Final = ("dryRun", "fieldManager", "fieldValidation")
_READS: Final = ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch")


def index(kinds: Iterable[Kind]) -> Json:
    """Where each document is; the hash changes when the document does, for clients keep them on disk."""
    groups: dict[str, list[Kind]] = {}
    for kind in kinds:
        groups.setdefault(prefix(kind), []).append(kind)
    return {
        "paths": {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={fingerprint(of_group)}"}
            for path, of_group in groups.items()
        }
    }


def document(kinds: Iterable[Kind]) -> Json:
    """The document of the kinds of one group and version."""
    paths: Json = {}
    schemas: Json = {}
    for kind in kinds:
        name = _name(kind)
        of_kind = _custom(kind, name) if kind.custom else builtin_schemas.schemas(kind)
        schemas |= of_kind | {name: of_kind[name] | {"x-kubernetes-group-version-kind": [_gvk(kind)]}}
        paths |= _paths(kind, name)
    return {"openapi": "3.0.0", "info": INFO, "paths": paths, "components": {"schemas": schemas}}


def prefix(kind: Kind) -> str:
    """`api/v1` or `apis/kagent.dev/v1alpha2`."""
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.api_version}"


def fingerprint(kinds: list[Kind]) -> str:
    """What the document of these kinds is known by."""
    said = [[kind.api_version, kind.plural, kind.schema] for kind in kinds]
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest().upper()


def _name(kind: Kind) -> str:
    if not kind.custom:
        return builtin_schemas.root(kind)
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _custom(kind: Kind, name: str) -> Json:
    assert kind.schema is not None
    said = "Standard object's metadata."
    metadata = {"description": said, "allOf": [{"$ref": f"#/components/schemas/{builtin_schemas.OBJECT_META}"}]}
    properties = (kind.schema.get("properties") or {}) | {"metadata": metadata}
    for key in ("apiVersion", "kind"):
        properties.setdefault(key, {"type": "string"})
    return builtin_schemas.object_meta() | {name: kind.schema | {"properties": properties}}


def _gvk(kind: Kind) -> Json:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def _paths(kind: Kind, name: str) -> Json:
    where = "namespaces/{namespace}/" if kind.namespaced else ""
    collection = f"/{prefix(kind)}/{where}{kind.plural}"
    one = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    answer = {"200": {"description": "OK", "content": one}}

    def operation(action: str, parameters: Iterable[str] = (), body: Json | None = None) -> Json:
        asked: Json = {"requestBody": {"content": body, "required": True}} if body else {}
        query = [{"name": each, "in": "query", "schema": {"type": "string"}} for each in parameters]
        marks = {"x-kubernetes-action": action, "x-kubernetes-group-version-kind": _gvk(kind)}
        return {"parameters": query, "responses": answer} | asked | marks

    patches = dict.fromkeys(accepted(kind), _ANY)
    return {
        collection: {"get": operation("list", _READS), "post": operation("post", _WRITES, one)},
        f"{collection}/{{name}}": {
            "get": operation("get"),
            "put": operation("put", _WRITES, one),
            "patch": operation("patch", _WRITES, patches),
            "delete": operation("delete", ("dryRun", "gracePeriodSeconds", "propagationPolicy")),
        },
    }
