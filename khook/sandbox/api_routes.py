"""What a request asks for: which verb, of which resource, where, chosen by what, shown how. No state of its own.

`parse` gives an `ApiCall`, which RBAC and fault rules look at and `api_answers` carries out. Source: apiserver
`pkg/endpoints/request`.
"""

from dataclasses import dataclass
from typing import Any, Final

from khook.sandbox import api_errors
from khook.sandbox.exchange import Request
from khook.sandbox.forms import Form, wanted
from khook.sandbox.kinds import Kind
from khook.sandbox.selectors import Matcher, both, parse_fields, parse_labels
from khook.sandbox.store import Store

Json = dict[str, Any]

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
