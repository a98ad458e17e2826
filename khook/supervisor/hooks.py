"""Which namespaces hold a Hook, and when one changed: all that the supervisor knows of Hooks.

The sink of the watch on Hooks as `PartialObjectMetadata`. A namespace with at least one Hook is wished for; a new
generation, a new Hook and a deleted one are told to the namespace's owner, who reads them itself. Status writes
move the resourceVersion but not the generation, so they are nobody's news.
"""

import asyncio
from collections.abc import Callable, Sequence

from khook.kube.resources import HookMetadata
from khook.kube.watch import Change


class HookIndex:
    """`changed(namespace)` follows each edit; `namespaces` is what the pool shall own."""

    def __init__(self, *, wanted: Callable[[frozenset[str]], None], changed: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._changed = changed
        self._generations: dict[str, dict[str, int]] = {}
        self._listing: dict[str, dict[str, int]] = {}
        self.synced = asyncio.Event()
        """Set by the first complete LIST."""

    @property
    def namespaces(self) -> frozenset[str]:
        return frozenset(self._generations)

    def list_started(self) -> None:
        self._listing = {}

    def listed(self, objects: Sequence[HookMetadata]) -> None:
        for hook in objects:
            meta = hook.metadata
            self._listing.setdefault(meta.namespace, {})[meta.uid] = meta.generation

    def list_ended(self) -> None:
        before, self._generations = self._generations, self._listing
        self._listing = {}
        self.synced.set()
        if before.keys() != self._generations.keys():
            self._wanted(self.namespaces)
        for namespace, hooks in self._generations.items():
            if namespace in before and before[namespace] != hooks:
                self._changed(namespace)

    def line(self, change: Change, obj: HookMetadata) -> None:
        meta = obj.metadata
        if change is Change.DELETED:
            self._deleted(meta.namespace, meta.uid)
            return
        known = self._generations.get(meta.namespace)
        if known is None:
            self._generations[meta.namespace] = {meta.uid: meta.generation}
            self._wanted(self.namespaces)
            self._changed(meta.namespace)  # its last Hook may have gone a moment ago, and its owner not know it yet
        elif known.get(meta.uid) != meta.generation:
            known[meta.uid] = meta.generation
            self._changed(meta.namespace)

    def _deleted(self, namespace: str, uid: str) -> None:
        known = self._generations.get(namespace)
        if known is None or known.pop(uid, None) is None:
            return
        if known:
            self._changed(namespace)
        else:
            del self._generations[namespace]
            self._wanted(self.namespaces)
