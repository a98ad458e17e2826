"""A whole LIST, page by page, into a sink.

Consistent (no resourceVersion: never older than what we have seen), and never held whole: each page is projected to
small structs before the next one is asked for. An expired continue token (410) restarts the list once, then asks for
everything at once. An item that does not decode is skipped and counted; it costs no other item.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from khook.errors import Gone, KubeError, Throttled, Unavailable
from khook.kube.answers import BAD_JSON
from khook.kube.client import PAGE_LIMIT_BYTES, KubeClient
from khook.kube.resources import ListMeta, Page, Resource

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# Five million objects: a server whose continue tokens never end must not keep us for ever.
PAGES_MOST: Final = 10_000

Skipped = Callable[[bytes], None]
"""Told of each item that was skipped."""

Patience = Callable[[KubeError], Awaitable[None]]
"""Waits after an error in the middle of a list, before the same page is asked for again."""


class ListSink(Protocol[T_contra]):
    """Where a LIST goes. It may start again before it ended: then what was listed so far does not count."""

    def list_started(self) -> None: ...

    def listed(self, objects: Sequence[T_contra]) -> None:
        """One page."""
        ...

    def list_ended(self) -> None:
        """What is known but was not listed since `list_started` is gone."""
        ...


class _RawPage(msgspec.Struct, frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


_raw_pages: Final = msgspec.json.Decoder(_RawPage)


async def list_into(
    sink: ListSink[T],
    *,
    client: KubeClient,
    resource: Resource[T],
    namespace: str | None,
    skipped: Skipped,
    patience: Patience | None = None,
) -> str:
    """The resourceVersion to watch from. Raises a KubeError; `Gone` only when even the list without pages was."""
    for page_size in (resource.page_size, resource.page_size, None):
        sink.list_started()
        reader = _Reader(client, resource, namespace, page_size, skipped)
        try:
            while not reader.ended:
                sink.listed(await reader.next_page(patience))
        except Gone as error:
            gone = error
            continue
        sink.list_ended()
        return reader.version
    raise gone


class _Reader(Generic[T]):
    """One go through the pages. `version` is the first page's: all pages show the same moment."""

    def __init__(
        self, client: KubeClient, resource: Resource[T], namespace: str | None, page_size: int | None, skipped: Skipped
    ) -> None:
        self.ended = False
        self.version = ""
        self._client = client
        self._resource = resource
        self._path = resource.path(namespace)
        self._params = {"fieldSelector": resource.field_selector} if resource.field_selector else {}
        if page_size is not None:
            self._params["limit"] = str(page_size)
        self._skipped = skipped
        self._pages = 0

    async def next_page(self, patience: Patience | None) -> Sequence[T]:
        while True:
            try:
                body = await self._client.get(
                    self._path, params=self._params, accept=self._resource.list_accept, limit_bytes=PAGE_LIMIT_BYTES
                )
            except (Throttled, Unavailable) as error:
                if patience is None or "continue" not in self._params:
                    raise
                await patience(error)
            else:
                return self._take(_decode(self._resource, body, self._skipped))

    def _take(self, page: Page[T]) -> Sequence[T]:
        self._pages += 1
        self.version = self.version or page.metadata.resource_version
        if not self.version:
            raise Unavailable(f"a LIST of {self._resource.name} names no resourceVersion")
        if self._pages > PAGES_MOST:
            raise Unavailable(f"a LIST of {self._resource.name} has more than {PAGES_MOST} pages")
        self.ended = not page.metadata.continue_
        self._params["continue"] = page.metadata.continue_
        return page.items or ()


def _decode(resource: Resource[T], body: bytes, skipped: Skipped) -> Page[T]:
    try:
        return resource.pages.decode(body)
    except BAD_JSON:
        pass
    try:
        raw = _raw_pages.decode(body)
    except BAD_JSON as error:
        raise Unavailable(f"a page of {resource.name} is not JSON: {error}") from error
    items: list[T] = []
    for item in raw.items or ():
        try:
            items.append(resource.objects.decode(item))
        except BAD_JSON:
            skipped(bytes(item))
    return Page(metadata=raw.metadata, items=items)
