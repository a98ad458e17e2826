"""When each namespace's watches were opened, as the API server sees it: the outside view of who listens.

Stands in front of the embedded API server and changes nothing. A namespace is watched when both its Pods and its
Events are; what khook says about itself in its log or its metrics does not count here.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Final

from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Request, Response

_WATCHED: Final = re.compile(r"/namespaces/([^/]+)/(pods|events)$")
_RESOURCES: Final = ("pods", "events")


class WatchRecord:
    """A `Service` (khook.sandbox.exchange)."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._opened_at: dict[tuple[str, str], float] = {}
        self._opened = asyncio.Event()
        self.openings: Counter[str] = Counter()
        """By namespace, since the beginning."""

    async def handle(self, request: Request) -> Response:
        response = await self._api.handle(request)
        found = _WATCHED.search(request.path) if request.query.get("watch") == "true" else None
        if found is not None and response.status == 200:
            namespace, resource = found.groups()
            self._opened_at[namespace, resource] = time.monotonic()
            self.openings[namespace] += 1
            self._opened.set()
        return response

    async def watched_s(self, namespaces: Iterable[str], *, since_at: float, within_s: float) -> float:
        """Wait until every watch of these was opened after `since_at` and is open; seconds to the last of them.

        Raises TimeoutError with how many were missing.
        """
        wanted = {(namespace, resource) for namespace in namespaces for resource in _RESOURCES}
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + within_s):
                while self._missing(wanted, since_at):
                    self._opened.clear()
                    await self._opened.wait()
        except TimeoutError:
            missing = self._missing(wanted, since_at)
            raise TimeoutError(f"{len(missing)} of {len(wanted)} watches not open after {within_s:g} s") from None
        return max((self._opened_at[one] for one in wanted), default=since_at) - since_at

    def _missing(self, wanted: set[tuple[str, str]], since_at: float) -> set[tuple[str, str]]:
        late = {one for one in wanted if self._opened_at.get(one, since_at) <= since_at}
        if late:
            return late
        return wanted - {(call.namespace or "", call.resource) for call in self._api.open_watches}
