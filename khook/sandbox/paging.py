"""LIST as kube-apiserver answers it: which version, which page, and the `continue` token of the next one.

All pages of one LIST show the version of the first. A token holds that version and the key to go on from; its
version -1 means "whatever is there now" (the offer in the body of a 410). Source: apiserver
`pkg/storage/continue.go`, `pkg/storage/etcd3/store.go` (GetList).
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from khook.sandbox.api_errors import ApiError, bad_request, continue_expired, version_from_the_future
from khook.sandbox.history import encoded
from khook.sandbox.kinds import Kind
from khook.sandbox.selectors import Matcher
from khook.sandbox.store import Store

Json = dict[str, Any]

INCONSISTENT: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    limit: int
    token: str
    resource_version: str
    match: str

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "ListOptions":
        return cls(
            limit=max(0, integer(query.get("limit", ""))),
            token=query.get("continue", ""),
            resource_version=query.get("resourceVersion", ""),
            match=query.get("resourceVersionMatch", ""),
        )


def integer(text: str) -> int:
    """A query parameter; 0 when absent. Raises ApiError 400."""
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def list_body(
    store: Store,
    kind: Kind,
    namespace: str | None,
    *,
    options: ListOptions,
    matches: Matcher | None,
    partial: bool,
) -> bytes:
    """The body of a LIST. Raises ApiError 400, 410, 504."""
    metadata, items = list_page(store, kind, namespace, options=options, matches=matches)
    return _rendered(kind, metadata, items, partial=partial)


def list_page(
    store: Store, kind: Kind, namespace: str | None, *, options: ListOptions, matches: Matcher | None
) -> tuple[Json, list[Json]]:
    """The metadata of a LIST and its objects as they are stored. Raises ApiError 400, 410, 504."""
    version, start, limit = _where(store, kind, options)
    try:
        everything = store.items_at(kind, namespace, version)
    except ApiError as error:
        if error.code == 410 and options.token:
            raise continue_expired(_token(INCONSISTENT, start)) from None
        raise
    found = [(key, item) for key, item in everything if key >= start and (matches is None or matches(item))]
    page = found[:limit] if limit else found
    metadata: Json = {"resourceVersion": str(version)}
    if len(page) < len(found):
        metadata["continue"] = _token(version, page[-1][0] + "\0")
        if matches is None:
            metadata["remainingItemCount"] = len(found) - len(page)
    return metadata, [item for _, item in page]


def _where(store: Store, kind: Kind, options: ListOptions) -> tuple[int, str, int]:
    """(version to show, key to start at, limit or 0)."""
    if options.token:
        version, start = _parse_token(options.token)
        return (store.revision if version == INCONSISTENT else version), start, options.limit
    if not options.resource_version:
        return store.revision, "", options.limit
    try:
        asked = version_number(options.resource_version)
    except ValueError as error:
        raise bad_request(f"invalid resource version: {error}") from None
    if asked > store.revision:
        raise version_from_the_future(asked, store.revision)
    if options.match == "Exact":
        return asked, "", options.limit
    from_cache = kind.cached and asked == 0
    return store.revision, "", 0 if from_cache else options.limit


def version_number(text: str) -> int:
    """A resourceVersion in a query. Raises ValueError with the server's sentence."""
    if text.isascii() and text.isdigit():
        return int(text)
    raise ValueError(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')


def _token(version: int, start: str) -> str:
    raw = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _parse_token(token: str) -> tuple[int, str]:
    try:
        content = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(content["rv"]), str(content["start"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from None


def _rendered(kind: Kind, metadata: Json, items: list[Json], *, partial: bool) -> bytes:
    """Items of built-in kinds carry neither kind nor apiVersion; custom resources and partial ones do."""
    head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
    if partial:
        head |= {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
    if partial or kind.custom or kind.storage:
        rows = [orjson.Fragment(encoded(kind, item, partial=partial)) for item in items]
        if kind.storage and not partial:
            rows = [orjson.Fragment(_bare(kind, item)) for item in items]
        return orjson.dumps(head | {"items": rows})
    return orjson.dumps(head | {"items": items})


def _bare(kind: Kind, item: Json) -> bytes:
    shown = orjson.loads(encoded(kind, item))
    return orjson.dumps({key: value for key, value in shown.items() if key not in ("kind", "apiVersion")})
