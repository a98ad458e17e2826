"""kube-apiserver and etcd as one pure state machine: objects, versions, LIST pages, watches, compaction.

One revision counter runs over all resources, as etcd's does. Every method that writes takes `now`; chance (uids,
generated names) comes from the `random.Random` given. Errors are `ApiError`s whose Status is what the real server
answers. Objects handed out are the stored ones: read, never change them. What it leaves out: managedFields,
admission, finalizers, RBAC (the service has its own switch), server-side apply.
The contract suite holds it to kube-apiserver 1.36.3.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from khook.sandbox import api_errors, schema
from khook.sandbox.api_errors import ApiError, Cause
from khook.sandbox.builtin import check, from_storage, normalized, to_storage
from khook.sandbox.history import Change, Rendered, Table, Watch, too_old, without_previous
from khook.sandbox.installed import Installed, accepted
from khook.sandbox.kinds import CRDS, EVENTS, NAMESPACES, PODS, Kind
from khook.sandbox.metadata import check_name, new_metadata, rfc3339, updated_metadata
from khook.sandbox.patches import Patching, merge_patched
from khook.sandbox.selectors import Matcher

Json = dict[str, Any]

# kube-apiserver --event-ttl
EVENT_TTL: Final = timedelta(hours=1)
FIRST_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")


class Store:
    """The cluster's state. `revision` is the newest resourceVersion there is."""

    def __init__(self, *, randomness: random.Random, now: datetime) -> None:
        self.revision = 1
        self.compacted = 0
        self._randomness = randomness
        self._tables: dict[str, Table] = {}
        self._watches: dict[tuple[str, str | None], dict[int, Watch]] = {}
        self._installed = Installed()
        self._event_ends: dict[tuple[str, str], datetime] = {}
        self._rehearsing = False
        for name in FIRST_NAMESPACES:
            self.create(NAMESPACES, None, {"metadata": {"name": name}}, now=now)

    def kind(self, group: str, version: str, plural: str) -> Kind:
        """The endpoint. Raises ApiError 404 when nothing is installed there."""
        return self._installed.kind(group, version, plural)

    def serves(self, group: str, version: str) -> bool:
        return self._installed.serves(group, version)

    def kinds(self) -> list[Kind]:
        return self._installed.all()

    # -- reads

    def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        """The stored object. Raises ApiError 404."""
        found = self._table(kind).get(namespace or "", name)
        if found is None:
            raise api_errors.not_found(kind, name)
        return found

    def items_at(self, kind: Kind, namespace: str | None, revision: int) -> Iterable[tuple[str, Json]]:
        """(key, object) in key order, as they were at `revision`. Raises ApiError 410 when it is forgotten."""
        table = self._table(kind)
        if revision < max(self.compacted, table.floor):
            raise api_errors.list_expired()
        return table.at(revision, namespace)

    def watch(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        start: int | None,
        matches: Matcher | None = None,
        partial: bool = False,
        rendered: Rendered | None = None,
        bookmarks: bool = False,
    ) -> Watch:
        """Changes after `start`; None is the present state as ADDED lines first. Close it with `unwatch`."""
        table = self._table(kind)
        after = self.revision if start is None else start
        watch = Watch(kind=kind, namespace=namespace, matches=matches, partial=partial, rendered=rendered, start=after)
        if start is None:
            for _, item in table.at(self.revision, namespace):
                if matches is None or matches(item):
                    watch.show(item)
            if bookmarks:
                watch.lines.append(watch.bookmark(self.revision, initial_end=True))
        else:
            self._replay(watch, table)
        if not watch.ended:
            self._watches.setdefault((kind.storage_key, namespace), {})[id(watch)] = watch
        return watch

    def _replay(self, watch: Watch, table: Table) -> None:
        kind = watch.kind
        if watch.start < table.floor:
            watch.fail(too_old(watch.start, table.floor, cached=kind.cached))
            return
        changes = [change for change in table.after(watch.start) if watch.namespace in (None, change.namespace)]
        if not kind.cached and changes and changes[0].revision == self.compacted and changes[0].old is not None:
            watch.fail(without_previous(kind, changes[0]))
            return
        watch.pending.extend(changes)

    def unwatch(self, watch: Watch) -> None:
        watch.ended = True
        self._watches.get((watch.kind.storage_key, watch.namespace), {}).pop(id(watch), None)

    # -- writes

    def create(self, kind: Kind, namespace: str | None, body: Json, *, now: datetime) -> Json:
        """Raises ApiError 404 (namespace), 409 AlreadyExists, 422, 400, 500 (a resourceVersion is set)."""
        body = to_storage(kind, body)
        metadata = body.get("metadata") or {}
        if metadata.get("resourceVersion"):
            raise api_errors.internal("resourceVersion should not be set on objects to be created")
        self._check_body(kind, namespace, body)
        item = {**body, "metadata": new_metadata(kind, namespace, metadata, randomness=self._randomness, now=now)}
        name = item["metadata"]["name"]
        if namespace is not None and self._table(NAMESPACES).get("", namespace) is None:
            raise api_errors.not_found(NAMESPACES, namespace)
        check_name(kind, name)
        if kind.status_subresource and kind is not CRDS:
            item.pop("status", None)
        item = self._admitted(kind, item, old=None)
        if self._table(kind).get(namespace or "", name) is not None:
            raise api_errors.already_exists(kind, name)
        return self._commit(kind, namespace, name, None, item, now=now)

    def replace(
        self, kind: Kind, namespace: str | None, name: str, body: Json, *, subresource: str = "", now: datetime
    ) -> tuple[Json, bool]:
        """PUT. (object, created). Raises ApiError 404, 409, 422, 400."""
        body = to_storage(kind, body)
        self._check_body(kind, namespace, body, name=name)
        old = self._table(kind).get(namespace or "", name)
        metadata = body.get("metadata") or {}
        if old is None:
            if not kind.create_on_update or subresource:
                raise api_errors.not_found(kind, name)
            fresh = {key: value for key, value in metadata.items() if key != "resourceVersion"}
            return self.create(kind, namespace, from_storage(kind, body | {"metadata": fresh}), now=now), True
        if metadata.get("uid") not in (None, "", old["metadata"]["uid"]):
            raise api_errors.conflict(kind, name, why=_uid_precondition(kind, namespace, name, metadata["uid"], old))
        if metadata.get("resourceVersion") in (None, "", "0") and not kind.unconditional_update:
            cause = Cause(
                "metadata.resourceVersion", "FieldValueInvalid", "Invalid value: 0: must be specified for an update"
            )
            raise api_errors.invalid(kind, name, [cause], by_resource=True)
        return self._update(kind, namespace, old, body, subresource=subresource, now=now), False

    def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        how: Patching = merge_patched,
        now: datetime,
    ) -> Json:
        """`how` applies it. An identical result changes no version. Raises ApiError 404, 409, 422, and `how`'s own."""
        old = self.get(kind, namespace, name)
        candidate = how(from_storage(kind, old), patch)
        body = to_storage(kind, candidate)
        self._check_body(kind, namespace, body, name=name)
        self._check_version(kind, old, body)
        kept_quietly = kind.custom and subresource == "status"
        uid = (body.get("metadata") or {}).get("uid")
        if uid != old["metadata"]["uid"] and not kept_quietly:
            cause = Cause("metadata.uid", "FieldValueInvalid", f'Invalid value: "{uid}": field is immutable')
            raise api_errors.invalid(kind, name, [cause, cause])
        return self._update(kind, namespace, old, body, subresource=subresource, now=now)

    def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        now: datetime,
    ) -> Json:
        """The object as it was last; a scheduled pod only gets its deletionTimestamp unless `grace_s` is 0."""
        old = self.get(kind, namespace, name)
        stored = old["metadata"]["uid"]
        if uid is not None and uid != stored:
            raise api_errors.uid_precondition(kind, name, asked=uid, stored=stored)
        if kind == PODS:
            grace = (old.get("spec") or {}).get("terminationGracePeriodSeconds", 30) if grace_s is None else grace_s
            if not (old.get("spec") or {}).get("nodeName"):
                grace = 0
            marks = {"deletionTimestamp": rfc3339(now + timedelta(seconds=grace)), "deletionGracePeriodSeconds": grace}
            marked = old | {"metadata": old["metadata"] | marks}
            if grace:
                if "deletionTimestamp" in old["metadata"]:
                    return old
                return self._commit(kind, namespace, name, old, marked, now=now)
            return self._remove(kind, namespace, name, old, marked)
        if kind == NAMESPACES:
            self._empty(name)
        if kind == CRDS and not self._rehearsing:
            self._uninstall(old)
        return self._remove(kind, namespace, name, old, old)

    @contextmanager
    def rehearsal(self) -> Iterator[None]:
        """What is written inside is answered as ever, and nothing of it is kept or seen by anybody (`dryRun`)."""
        self._rehearsing = True
        try:
            yield
        finally:
            self._rehearsing = False

    # -- the passing of time

    def compact(self, revision: int | None = None) -> None:
        """etcd's compaction: older versions of what has no watch cache (Events), and older LISTs, are gone.

        Cached kinds still resume from their watch cache; `restart_caches` forgets that too.
        """
        self.compacted = max(self.compacted, self.revision if revision is None else revision)
        for kind in self.kinds():
            if not kind.cached:
                self._table(kind).forget_before(self.compacted)

    def restart_caches(self) -> None:
        """As after a restart of kube-apiserver: watches of cached kinds resume only from the present on."""
        for kind in self.kinds():
            if kind.cached:
                self._table(kind).forget_before(self.revision + 1)

    def expire_events(self, now: datetime) -> None:
        """Delete the Events that were last written an hour ago; call it now and then."""
        while self._event_ends:
            (namespace, name), end = next(iter(self._event_ends.items()))
            if end > now:
                return
            del self._event_ends[(namespace, name)]
            old = self._table(EVENTS).get(namespace, name)
            if old is not None:
                self._remove(EVENTS, namespace, name, old, old)

    # -- inside

    def _table(self, kind: Kind) -> Table:
        table = self._tables.get(kind.storage_key)
        if table is None:
            table = self._tables[kind.storage_key] = Table(revision=self.revision if kind.custom else 0)
        return table

    def _check_body(self, kind: Kind, namespace: str | None, body: Json, *, name: str | None = None) -> None:
        metadata = body.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise api_errors.bad_request("metadata must be an object")
        if kind.custom:
            for key, wanted in (("kind", kind.kind), ("apiVersion", kind.api_version)):
                given = body.get(key)
                if not given:
                    raise api_errors.bad_request(f"Object '{key.capitalize()}' is missing")
                if given != wanted:
                    cause = Cause(key, "FieldValueInvalid", f'Invalid value: "{given}": must be {wanted}')
                    shown = replace(kind, kind=body["kind"])
                    raise api_errors.invalid(shown, metadata.get("name", ""), [cause])
        if metadata.get("namespace") not in (None, "", namespace):
            raise api_errors.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        if name is not None and metadata.get("name") != name:
            given = metadata.get("name") or ""
            raise api_errors.bad_request(
                f"the name of the object ({given}) does not match the name on the URL ({name})"
                if given
                else "name must be provided"
            )

    def _check_version(self, kind: Kind, old: Json, body: Json) -> None:
        asked = (body.get("metadata") or {}).get("resourceVersion")
        if asked in (None, "", "0", old["metadata"]["resourceVersion"]):
            return
        if not str(asked).isdigit():
            raise api_errors.internal(f'strconv.ParseUint: parsing "{asked}": invalid syntax')
        raise api_errors.modified(kind, old["metadata"]["name"])

    def _update(
        self, kind: Kind, namespace: str | None, old: Json, body: Json, *, subresource: str, now: datetime
    ) -> Json:
        self._check_version(kind, old, body)
        name = old["metadata"]["name"]
        if subresource == "status":
            item = old | {"status": body.get("status")}
            metadata = old["metadata"] if kind.custom else updated_metadata(old["metadata"], body["metadata"])
        else:
            item = body | ({"status": old.get("status")} if kind.status_subresource and kind is not CRDS else {})
            metadata = updated_metadata(old["metadata"], body["metadata"])
        item = {key: value for key, value in (item | {"metadata": metadata}).items() if value is not None}
        item = self._admitted(kind, item, old=old)
        if kind.generation and _desired(item) != _desired(old):
            item["metadata"] = item["metadata"] | {"generation": old["metadata"].get("generation", 0) + 1}
        if item == old:
            return old
        return self._commit(kind, namespace, name, old, item, now=now)

    def _admitted(self, kind: Kind, item: Json, *, old: Json | None) -> Json:
        """Defaulted, pruned and valid, or an ApiError. What was invalid before and is unchanged is tolerated."""
        if kind.schema is None:
            check(kind, item, creating=old is None)
            head = {"kind": kind.kind, "apiVersion": kind.api_version}
            item = {key: value for key, value in item.items() if key not in head}
            return normalized(kind, item, creating=old is None)
        item = schema.defaulted_and_pruned(item, kind.schema)
        causes = schema.violations(item, kind.schema)
        if causes and old is not None:
            known = schema.violations(old, kind.schema)
            causes = [cause for cause in causes if cause not in known]
        if causes:
            raise api_errors.invalid(kind, item["metadata"]["name"], causes)
        return item

    def _commit(
        self, kind: Kind, namespace: str | None, name: str, old: Json | None, new: Json, *, now: datetime
    ) -> Json:
        if kind == CRDS:
            new = accepted(new, now=now)
        if self._rehearsing:
            return new
        if kind == CRDS and (old is None or old["spec"] != new["spec"]):
            self._install(new)
        self.revision += 1
        new = new | {"metadata": new["metadata"] | {"resourceVersion": str(self.revision)}}
        if kind.storage_key == EVENTS.storage_key:
            self._event_ends.pop((namespace or "", name), None)
            self._event_ends[(namespace or "", name)] = now + EVENT_TTL
        self._publish(
            kind, Change(revision=self.revision, namespace=namespace or "", name=name, old=old, new=new, last=new)
        )
        return new

    def _remove(self, kind: Kind, namespace: str | None, name: str, old: Json, last: Json) -> Json:
        if self._rehearsing:
            return last
        self.revision += 1
        last = last | {"metadata": last["metadata"] | {"resourceVersion": str(self.revision)}}
        self._publish(
            kind, Change(revision=self.revision, namespace=namespace or "", name=name, old=old, new=None, last=last)
        )
        return last

    def _publish(self, kind: Kind, change: Change) -> None:
        self._table(kind).commit(change)
        scopes = (change.namespace, None) if kind.namespaced else (None,)
        for scope in scopes:
            for watch in list(self._watches.get((kind.storage_key, scope), {}).values()):
                watch.push(change)

    def _empty(self, namespace: str) -> None:
        for kind in self.kinds():
            for name, item in list(self._table(kind).objects.get(namespace, {}).items()) if kind.namespaced else []:
                self._remove(kind, namespace, name, item, item)

    def _install(self, crd: Json) -> None:
        """What was stored is read through the new schema from now on, and watches of the old storage end."""
        for kind in self._installed.install(crd):
            assert kind.schema is not None
            for items in self._table(kind).objects.values():
                items.update({name: schema.defaulted_and_pruned(item, kind.schema) for name, item in items.items()})
            self._end_watches(kind)

    def _uninstall(self, crd: Json) -> None:
        for kind in self._installed.uninstall(crd):
            for namespace, items in list(self._table(kind).objects.items()):
                for name, item in list(items.items()):
                    self._remove(kind, namespace or None, name, item, item)
            self._end_watches(kind)

    def _end_watches(self, kind: Kind) -> None:
        for (storage_key, _), watches in self._watches.items():
            for watch in watches.values() if storage_key == kind.storage_key else ():
                watch.end()


def _desired(item: Json) -> Json:
    return {key: value for key, value in item.items() if key not in ("metadata", "status")}


def _uid_precondition(kind: Kind, namespace: str | None, name: str, asked: str, old: Json) -> str:
    key = "/".join(filter(None, ("/registry", kind.plural, namespace, name)))
    return (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {asked}, UID in object meta: {old['metadata']['uid']}"
    )


__all__ = ["ApiError", "Store"]
