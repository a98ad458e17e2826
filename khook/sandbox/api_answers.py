"""The answers to requests for resources: carried out on the store, shown in the form that the client wants.

Everything but watches, whose streams need time. No state of its own. Sources: apiserver `pkg/endpoints/handlers`.
"""

import json
from collections.abc import Callable
from datetime import datetime
from itertools import chain, repeat
from typing import Any, Final

import orjson

from khook.sandbox import api_errors
from khook.sandbox.api_routes import ApiCall, form, selector
from khook.sandbox.bodies import read
from khook.sandbox.builtin import from_storage
from khook.sandbox.discovery import discovered
from khook.sandbox.exchange import Response
from khook.sandbox.field_validation import Findings
from khook.sandbox.history import Rendered, encoded
from khook.sandbox.kinds import PODS, SERVICE_ACCOUNTS, Kind
from khook.sandbox.paging import ListOptions, integer, list_body, list_page
from khook.sandbox.patches import accepted, patching
from khook.sandbox.printers import table
from khook.sandbox.store import Store

Json = dict[str, Any]

_JSON: Final = {"content-type": "application/json"}


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
    if not _rehearsed(call):
        return _written(store, call, call.kind, now=now)
    with store.rehearsal():
        return _written(store, call, call.kind, now=now)


def _rehearsed(call: ApiCall) -> bool:
    """`dryRun=All`; a DELETE may say it in its body. Raises ApiError 422 for any other word."""
    asked = call.request.query.get("dryRun", "")
    if not asked and call.verb == "delete" and call.request.body and b"dryRun" in call.request.body:
        asked = next(iter(_body(call).get("dryRun") or []), "")
    if asked not in ("", "All"):
        raise api_errors.bad_option(call.request.method, "dryRun", f'["{asked}"]', '"All"')
    return bool(asked)


def _written(store: Store, call: ApiCall, kind: Kind, *, now: datetime) -> Response:
    match call.verb:
        case "create" | "update" | "patch":
            findings = Findings(kind, call.request)
            if call.verb == "patch":
                item, new = _patched(store, call, kind, findings, now=now), False
            else:
                item, new = _put(store, call, kind, findings, now=now)
            response = _object(call, item, status=201 if new else 200, now=now)
            if findings.warnings:
                response.headers["warning"] = ", ".join(f"299 - {json.dumps(one)}" for one in findings.warnings)
            return response
        case "delete":
            return _deleted(store, call, kind, now=now)
        case _:
            return _deleted_collection(store, call, kind, now=now)


def _put(store: Store, call: ApiCall, kind: Kind, findings: Findings, *, now: datetime) -> tuple[Json, bool]:
    """(object, created)."""
    body = _body(call)
    findings.check_body(body)
    try:
        if call.verb == "create":
            return store.create(kind, call.namespace, body, now=now), True
        return store.replace(kind, call.namespace, call.name, body, subresource=call.subresource, now=now)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise findings.explained(body, error) from error


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


def _patched(store: Store, call: ApiCall, kind: Kind, findings: Findings, *, now: datetime) -> Json:
    content_type = call.request.headers.get("content-type", "").partition(";")[0].strip()
    how = patching(kind, content_type)
    if how is None:
        raise api_errors.unsupported_media_type(accepted(kind))
    try:
        patch = orjson.loads(call.request.body)
    except orjson.JSONDecodeError as error:
        raise api_errors.bad_request(f"error decoding patch: {error}") from None
    how = findings.checking(how)
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
