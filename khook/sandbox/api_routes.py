"""From a request to the store and back: paths, verbs, content types. No state of its own.

`parse` says what a request asks for (`ApiCall`, what RBAC and fault rules look at); `answer` carries out everything
but a watch, whose stream needs time and is the server's own. Paths and verbs: apiserver `pkg/endpoints/request`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, repeat
from typing import Any, Final

import orjson

from khook.sandbox import api_errors
from khook.sandbox.bodies import read
from khook.sandbox.builtin import from_storage
from khook.sandbox.discovery import discovered
from khook.sandbox.exchange import Request, Response
from khook.sandbox.forms import Form, wanted
from khook.sandbox.history import Rendered, encoded
from khook.sandbox.kinds import PODS, SERVICE_ACCOUNTS, Kind
from khook.sandbox.paging import ListOptions, integer, list_body, list_page
from khook.sandbox.patches import accepted, patching
from khook.sandbox.printers import table
from khook.sandbox.selectors import Matcher, both, parse_fields, parse_labels
from khook.sandbox.store import Store

Json = dict[str, Any]

_JSON: Final = {"content-type": "application/json"}
_TRUE: Final = frozenset({"1", "true", "True", "TRUE", "t", "T"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """What a request asks for, in the words of RBAC: `list` `pods`, `patch` `hooks/status`."""

    verb: str
    """get list watch create update patch delete deletecollection; the path itself for what is no resource."""
    resource: str
    namespace: str | None
    name: str
    subresource: str
    kind: Kind | None
    request: Request


def parse(store: Store, request: Request) -> ApiCall:
    """Raises ApiError 404 (JSON) for a resource that is not served; `kind` is None where no resource is meant."""
    parts = [part for part in request.path.split("/") if part]
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return _no_resource(request)
    if not store.serves(group, version):
        return _no_resource(request)
    namespace: str | None = None
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    kind = store.kind(group, version, plural)
    served = (kind.namespaced or namespace is None) and (not name or namespace is not None or not kind.namespaced)
    known = not subresource or (subresource == "status" and kind.status_subresource)
    if not served or not known or len(rest) > 3:
        raise api_errors.no_such_resource()
    return ApiCall(
        verb=_verb(request, name),
        resource=f"{plural}/{subresource}" if subresource else plural,
        namespace=namespace,
        name=name,
        subresource=subresource,
        kind=kind,
        request=request,
    )


def _no_resource(request: Request) -> ApiCall:
    return ApiCall(
        verb=request.method.lower(),
        resource=request.path,
        namespace=None,
        name="",
        subresource="",
        kind=None,
        request=request,
    )


def _verb(request: Request, name: str) -> str:
    match request.method, bool(name):
        case "GET", False:
            return "watch" if flag(request, "watch") else "list"
        case "GET", True:
            return "get"
        case "POST", False:
            return "create"
        case "PUT", True:
            return "update"
        case "PATCH", True:
            return "patch"
        case "DELETE", True:
            return "delete"
        case "DELETE", False:
            return "deletecollection"
    raise api_errors.method_not_allowed()


def flag(request: Request, name: str) -> bool:
    return request.query.get(name, "") in _TRUE


def selector(call: ApiCall) -> Matcher | None:
    """Both selectors of a LIST or WATCH. Raises ApiError 400."""
    assert call.kind is not None
    query = call.request.query
    return both(parse_fields(query.get("fieldSelector", ""), call.kind), parse_labels(query.get("labelSelector", "")))


def form(call: ApiCall) -> Form:
    """What form of answer the client wants. Raises ApiError 406, 400."""
    return wanted(call.request, verb=call.verb)


def failed(error: api_errors.ApiError) -> Response:
    headers = dict(_JSON)
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return Response(status=error.code, headers=headers, body=orjson.dumps(error.status))


def answer(store: Store, call: ApiCall, *, now: datetime) -> Response:
    """Everything but a watch. Raises ApiError."""
    if call.kind is None:
        return discovered(store, call.request)
    match call.verb:
        case "list":
            return _listed(store, call, call.kind, now=now)
        case "get":
            return _object(call, store.get(call.kind, call.namespace, call.name), now=now)
        case "create":
            created = store.create(call.kind, call.namespace, _body(call), now=now)
            return _object(call, created, status=201, now=now)
        case "update":
            item, new = store.replace(
                call.kind, call.namespace, call.name, _body(call), subresource=call.subresource, now=now
            )
            return _object(call, item, status=201 if new else 200, now=now)
        case "patch":
            return _object(call, _patched(store, call, call.kind, now=now), now=now)
        case "delete":
            return _deleted(store, call, call.kind, now=now)
        case _:
            return _deleted_collection(store, call, call.kind, now=now)


def _listed(store: Store, call: ApiCall, kind: Kind, *, now: datetime) -> Response:
    shown, options, matches = form(call), ListOptions.parse(call.request.query), selector(call)
    if shown.table:
        metadata, items = list_page(store, kind, call.namespace, options=options, matches=matches)
        body = table(kind, items, metadata=metadata, form=shown, now=now)
    else:
        body = list_body(store, kind, call.namespace, options=options, matches=matches, partial=shown.partial)
    return Response(status=200, headers=dict(_JSON), body=body)


def _object(call: ApiCall, item: Json, *, status: int = 200, now: datetime) -> Response:
    assert call.kind is not None
    shown = form(call)
    if shown.table:
        metadata = {"resourceVersion": item["metadata"]["resourceVersion"]}
        body = table(call.kind, [item], metadata=metadata, form=shown, now=now)
    else:
        body = encoded(call.kind, item, partial=shown.partial)
    return Response(status=status, headers=dict(_JSON), body=body)


def rows(call: ApiCall, now: Callable[[], datetime]) -> Rendered | None:
    """How the lines of a watch show objects where the client asks for Tables; only the first one has the columns."""
    assert call.kind is not None
    kind, shown = call.kind, form(call)
    if not shown.table:
        return None
    headers = chain((True,), repeat(False))

    def rendered(item: Json) -> bytes:
        metadata = {"resourceVersion": item["metadata"]["resourceVersion"]}
        return table(kind, [item], metadata=metadata, form=shown, now=now(), headers=next(headers))

    return rendered


def _body(call: ApiCall) -> Json:
    assert call.kind is not None
    return read(call.request, call.kind.kind)


def _patched(store: Store, call: ApiCall, kind: Kind, *, now: datetime) -> Json:
    content_type = call.request.headers.get("content-type", "").partition(";")[0].strip()
    how = patching(kind, content_type)
    if how is None:
        raise api_errors.unsupported_media_type(accepted(kind))
    try:
        patch = orjson.loads(call.request.body)
    except orjson.JSONDecodeError as error:
        raise api_errors.bad_request(f"error decoding patch: {error}") from None
    return store.patch(kind, call.namespace, call.name, patch, subresource=call.subresource, how=how, now=now)


def _deleted(store: Store, call: ApiCall, kind: Kind, *, now: datetime) -> Response:
    options = _body(call) if call.request.body else {}
    grace = call.request.query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
    last = store.delete(
        kind,
        call.namespace,
        call.name,
        uid=(options.get("preconditions") or {}).get("uid"),
        grace_s=None if grace is None else integer(str(grace)),
        now=now,
    )
    if kind in (PODS, SERVICE_ACCOUNTS):
        return _object(call, last, now=now)
    details = {"name": call.name} | ({"group": kind.group} if kind.group else {})
    details |= {"kind": kind.plural, "uid": last["metadata"]["uid"]}
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    return Response(status=200, headers=dict(_JSON), body=orjson.dumps(status))


def _deleted_collection(store: Store, call: ApiCall, kind: Kind, *, now: datetime) -> Response:
    matches = selector(call)
    found = [item for _, item in store.items_at(kind, call.namespace, store.revision) if not matches or matches(item)]
    for item in found:
        metadata = item["metadata"]
        store.delete(kind, metadata.get("namespace"), metadata["name"], grace_s=0, now=now)
    body = {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(store.revision)},
        "items": [from_storage(kind, item) for item in found],
    }
    return Response(status=200, headers=dict(_JSON), body=orjson.dumps(body))
