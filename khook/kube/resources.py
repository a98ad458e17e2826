"""What can be listed and watched, and as which structs it arrives.

A `Resource` is everything that differs between pods, Events and Hooks for the code that reads them: the path, the
struct its JSON is projected to, whether its watch gets bookmarks, the selector, the page size. Decoders are made
once, here. Sources: the API's watch.Event, ListMeta, Status and PartialObjectMetadata (apimachinery meta/v1).
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec

from khook.core.signal import EventLine, OwnerReference, PodLine

T = TypeVar("T")

HOOK_GROUP: Final = "kagent.dev"
HOOK_VERSION: Final = "v1alpha2"
HOOK_KIND: Final = "Hook"
HOOK_API: Final = f"{HOOK_GROUP}/{HOOK_VERSION}"

JSON: Final = "application/json"

# What client-go's pager takes; a page of ordinary pods is some 5 MB of JSON.
PAGE_SIZE: Final = 500

# A Hook's status may weigh 512 KiB: 50 of the heaviest stay below the limit of one page's bytes.
HOOK_PAGE_SIZE: Final = 50

# Lifecycle chatter that never is a signal, dropped by the API server instead of by us. Only `=` and `!=`, all
# joined by "and": field selectors know no more.
EVENT_FIELD_SELECTOR: Final = (
    "involvedObject.kind=Pod,reason!=Scheduled,reason!=Pulled,reason!=Pulling,reason!=Created,reason!=Started"
)


class Change(StrEnum):
    """The line types that carry an object of the resource."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class Line(msgspec.Struct, Generic[T], frozen=True):
    """A watch line about an object. BOOKMARK and ERROR do not decode as one: they are rare and take another way."""

    type: Change
    object: T


class RareLine(msgspec.Struct, frozen=True):
    """Any watch line, its object unread."""

    type: str
    object: msgspec.Raw = msgspec.Raw(b"null")


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a LIST; Go writes an empty list as null."""

    metadata: ListMeta = ListMeta()
    items: list[T] | None = None


class ObjectVersion(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class Bookmark(msgspec.Struct, frozen=True):
    metadata: ObjectVersion = ObjectVersion()


class HookMeta(msgspec.Struct, frozen=True, rename="camel", gc=False):
    name: str
    namespace: str
    uid: str
    resource_version: str = ""
    generation: int = 0


class OwnedMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    resource_version: str = ""
    owner_references: list[OwnerReference] | None = None


class OwnedObject(msgspec.Struct, frozen=True):
    """Anything that may have an owner, as PartialObjectMetadata."""

    metadata: OwnedMeta


class HookMetadata(msgspec.Struct, frozen=True):
    """A Hook as PartialObjectMetadata."""

    metadata: HookMeta


class Resource(Generic[T]):
    """One kind of object to list and watch."""

    def __init__(
        self,
        name: str,
        *,
        api: str,
        plural: str,
        kind: type[T],
        version_of: Callable[[T], str],
        bookmarks: bool,
        page_size: int = PAGE_SIZE,
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> None:
        self.name: Final = name
        """The metric label `resource`."""
        self.version_of: Final = version_of
        self.bookmarks: Final = bookmarks
        """The API server keeps a watch cache for it, and so sends a bookmark about once a minute."""
        self.page_size: Final = page_size
        self.field_selector: Final = field_selector
        self.list_accept: Final = _partial("PartialObjectMetadataList") if metadata_only else JSON
        self.accept: Final = _partial("PartialObjectMetadata") if metadata_only else JSON
        """Of one object, alone or on a watch line."""
        self.lines: Final[msgspec.json.Decoder[Line[T]]] = msgspec.json.Decoder(Line[kind])  # type: ignore[valid-type]
        self.pages: Final[msgspec.json.Decoder[Page[T]]] = msgspec.json.Decoder(Page[kind])  # type: ignore[valid-type]
        self.objects: Final = msgspec.json.Decoder(kind)
        self._api = api
        self._plural = plural

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The collection in a namespace or in all (None), or the object `name` in it."""
        scope = "" if namespace is None else f"/namespaces/{quote(namespace, safe='')}"
        place = "" if name is None else f"/{quote(name, safe='')}"
        return f"{self._api}{scope}/{self._plural}{place}"


def _partial(kind: str) -> str:
    return f"application/json;as={kind};g=meta.k8s.io;v=v1"


def _version_of_dict(obj: dict[str, Any]) -> str:
    return str(obj.get("metadata", {}).get("resourceVersion", ""))


_HOOKS_API: Final = f"/apis/{HOOK_API}"

PODS: Final = Resource(
    "pods",
    api="/api/v1",
    plural="pods",
    kind=PodLine,
    version_of=lambda pod: pod.metadata.resource_version,
    bookmarks=True,
)

EVENTS: Final = Resource(
    "events",
    api="/api/v1",
    plural="events",
    kind=EventLine,
    version_of=lambda event: event.metadata.resource_version,
    bookmarks=False,
    field_selector=EVENT_FIELD_SELECTOR,
)

HOOKS: Final[Resource[dict[str, Any]]] = Resource(
    "hooks",
    api=_HOOKS_API,
    plural="hooks",
    kind=dict[str, Any],
    version_of=_version_of_dict,
    bookmarks=True,
    page_size=HOOK_PAGE_SIZE,
)
"""Whole Hooks, as dictionaries: `khook.api` validates them."""

HOOKS_METADATA: Final = Resource(
    "hooks_metadata",
    api=_HOOKS_API,
    plural="hooks",
    kind=HookMetadata,
    version_of=lambda hook: hook.metadata.resource_version,
    bookmarks=True,
    metadata_only=True,
)
"""Hooks without spec and status: namespace, uid and generation are all that the supervisor needs."""

REPLICA_SETS: Final = Resource(
    "replicasets",
    api="/apis/apps/v1",
    plural="replicasets",
    kind=OwnedObject,
    version_of=lambda owned: owned.metadata.resource_version,
    bookmarks=True,
    metadata_only=True,
)

JOBS: Final = Resource(
    "jobs",
    api="/apis/batch/v1",
    plural="jobs",
    kind=OwnedObject,
    version_of=lambda owned: owned.metadata.resource_version,
    bookmarks=True,
    metadata_only=True,
)
