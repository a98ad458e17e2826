"""What happened to the objects of one storage, by revision: the part of etcd and of the watch cache that watches read.

A `Change` is one commit. A `Table` holds the present objects and the changes that are still remembered, so it can
show any version whose later changes it has (consistent LIST pages). A `Watch` is one client's cursor: changes are
pushed to it and it turns them into lines, by its selector. Nothing here knows of HTTP, time or asyncio; `notify` is
called when a watch has something to say. Sources: apiserver `pkg/storage/etcd3/watcher.go` and
`pkg/storage/cacher/watch_cache.go`.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from khook.sandbox.api_errors import failure
from khook.sandbox.builtin import from_storage
from khook.sandbox.kinds import PODS, Kind
from khook.sandbox.selectors import Matcher

Json = dict[str, Any]
Rendered = Callable[[Json], bytes]

# About what one apiserver watch cache holds at its largest for a busy kind is 100 Ki; a test world needs far less,
# and each change keeps two objects alive.
HISTORY_LIMIT: Final = 20_000
INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


@dataclass(slots=True, kw_only=True)
class Change:
    revision: int
    namespace: str
    name: str
    old: Json | None
    new: Json | None
    """None: deleted."""
    last: Json
    """What a DELETED line shows: the last state with the revision of the deletion; else the new state."""
    _lines: dict[tuple[str, bool, str], bytes] = field(default_factory=dict)

    def line(self, kind: Kind, *, partial: bool, as_type: str) -> bytes:
        """The watch line, encoded once for all watches that want it so."""
        key = (kind.api_version, partial, as_type)
        if key not in self._lines:
            self._lines[key] = watch_line(as_type, encoded(kind, self.last, partial=partial))
        return self._lines[key]


class Table:
    """The objects of one storage and their remembered past."""

    def __init__(self, *, revision: int) -> None:
        self.objects: dict[str, dict[str, Json]] = {}
        self.log: list[Change] = []
        self.floor = revision
        """The oldest version that can still be shown or resumed from."""

    def get(self, namespace: str, name: str) -> Json | None:
        return self.objects.get(namespace, {}).get(name)

    def commit(self, change: Change) -> None:
        here = self.objects.setdefault(change.namespace, {})
        if change.new is None:
            here.pop(change.name, None)
        else:
            here[change.name] = change.new
        self.log.append(change)
        if len(self.log) > HISTORY_LIMIT:
            self.forget_before(self.log[HISTORY_LIMIT // 2].revision)

    def forget_before(self, revision: int) -> None:
        """Drop the changes before `revision`; the version just before it can still be resumed from."""
        index = bisect_right(self.log, revision - 1, key=_revision)
        del self.log[:index]
        self.floor = max(self.floor, revision - 1)

    def after(self, revision: int) -> list[Change]:
        return self.log[bisect_right(self.log, revision, key=_revision) :]

    def at(self, revision: int, namespace: str | None) -> Iterator[tuple[str, Json]]:
        """(key, object) of a version, in key order; key is `namespace/name`, or `name` within one namespace."""
        past: dict[tuple[str, str], Json | None] = {}
        for change in reversed(self.after(revision)):
            past[(change.namespace, change.name)] = change.old
        spaces = self.objects if namespace is None else {namespace: self.objects.get(namespace, {})}
        found = {
            (space, name): item
            for space, items in spaces.items()
            for name, item in items.items()
            if (space, name) not in past
        }
        found |= {
            key: item for key, item in past.items() if item is not None and (namespace is None or key[0] == namespace)
        }
        for (space, name), item in sorted(found.items(), key=lambda pair: f"{pair[0][0]}/{pair[0][1]}"):
            yield (f"{space}/{name}" if namespace is None and space else name), item


def _revision(change: Change) -> int:
    return change.revision


@dataclass(slots=True, kw_only=True, eq=False)
class Watch:
    """One watch: `drain` gives the lines that have come, `ended` says that no more will."""

    kind: Kind
    namespace: str | None
    matches: Matcher | None
    partial: bool
    rendered: Rendered | None = None
    """How this client wants objects shown; None for the usual forms, whose lines all watches share."""
    start: int
    """Only what is newer is shown; also the version a first bookmark must have passed."""
    lines: deque[bytes] = field(default_factory=deque)
    pending: deque[Change] = field(default_factory=deque)
    ended: bool = False
    failed_code: int = 0
    """The code of the ERROR line it ended with, 0 for none."""
    notify: Callable[[], None] | None = None

    def push(self, change: Change) -> None:
        if self.ended or change.revision <= self.start:
            return
        self.pending.append(change)
        if self.notify is not None:
            self.notify()

    def drain(self) -> list[bytes]:
        result = list(self.lines)
        self.lines.clear()
        while self.pending:
            change = self.pending.popleft()
            as_type = _seen_as(change, self.matches)
            if as_type is None:
                continue
            if self.rendered is None:
                result.append(change.line(self.kind, partial=self.partial, as_type=as_type))
            else:
                result.append(watch_line(as_type, self.rendered(change.last)))
        return result

    def show(self, item: Json) -> None:
        """An object that was there at the start."""
        shown = self.rendered(item) if self.rendered else encoded(self.kind, item, partial=self.partial)
        self.lines.append(watch_line("ADDED", shown))

    def end(self) -> None:
        """A clean end, after what has come so far."""
        self.ended = True
        if self.notify is not None:
            self.notify()

    def fail(self, status: Json) -> None:
        """One ERROR line, then a clean end."""
        self.lines.append(watch_line("ERROR", orjson.dumps(status)))
        self.failed_code = int(status["code"])
        self.ended = True

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Json = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        if self.partial:
            return watch_line("BOOKMARK", orjson.dumps(_partial_head() | {"metadata": metadata}))
        item: Json = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": metadata}
        if self.kind == PODS:
            item |= {"spec": {"containers": None}, "status": {}}
        if self.rendered is not None:
            return watch_line("BOOKMARK", self.rendered(item))
        return watch_line("BOOKMARK", orjson.dumps(item))


def _seen_as(change: Change, matches: Matcher | None) -> str | None:
    """A selector makes objects come and go: what the client saw before and sees now decides the type."""
    before = change.old is not None and (matches is None or matches(change.old))
    now = change.new is not None and (matches is None or matches(change.new))
    if now:
        return "MODIFIED" if before else "ADDED"
    return "DELETED" if before else None


def too_old(start: int, floor: int, *, cached: bool) -> Json:
    """The 410 of a watch, in the words of the watch cache or of etcd."""
    if cached:
        return failure(410, f"too old resource version: {start} ({floor})", reason="Expired")
    return failure(410, "The resourceVersion for the provided watch is too old.", reason="Expired")


def without_previous(kind: Kind, change: Change) -> Json:
    """The 500 of an etcd watch that starts one before the compacted revision, when a change lies on it."""
    key = f"/registry/{kind.plural}/{change.namespace}/{change.name}"
    verb = "DELETE" if change.new is None else "PUT"
    text = f'etcd event received with PrevKv=nil (key="{key}", modRevision={change.revision}, type={verb})'
    details: Json = {"causes": [{"message": text}]}
    return failure(500, f"Internal error occurred: {text}", reason="InternalError", details=details)


def encoded(kind: Kind, item: Json, *, partial: bool = False) -> bytes:
    """One object as the endpoint shows it; custom resources have sorted keys, as Go's unstructured JSON has."""
    if partial:
        return orjson.dumps(_partial_head() | {"metadata": item["metadata"]})
    return orjson.dumps(from_storage(kind, item), option=orjson.OPT_SORT_KEYS if kind.custom else None)


def _partial_head() -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def watch_line(as_type: str, encoded_object: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (as_type.encode(), encoded_object)
