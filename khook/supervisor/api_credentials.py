"""Who we are to the API server now: loaded again before that expires and after a 401, for supervisor and workers alike.

Loading may mean that somebody's program asks somebody's identity provider. So there is one load at a time, which all
who ask meanwhile share, and a pause after it that grows while loads lead nowhere. Until there are newer ones, the old
credentials stay in use: what could not be loaded is said and tried again, and harms nobody before they expire.

Knows nothing of where credentials come from, nor of who uses them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

from khook.errors import KhookError, SettingsError
from khook.kube.credentials import Credentials
from khook.log import Log, register_token
from khook.seams import Clock

RENEW_AT_SHARE: Final = 0.8
"""Of their life is over when they are renewed; the kubelet's share for a service account's token."""
LEAST_LEAD: Final = timedelta(minutes=2)
"""Before their end at the latest: for a slow plug-in, a provider that is away for a moment, and clocks that differ."""
MOST_LEAD_SHARE: Final = 0.5
"""Credentials that live for a minute are not renewed as soon as they are there."""
FIRST_PAUSE_S: Final = 5.0
"""Between two loads at least, whatever asks for one: as often as each client asks after a 401."""
MOST_PAUSE_S: Final = 30.0
"""As a watch backs off: a person who mended a kubeconfig does not wait for longer."""
CALM_S: Final = 60.0
"""Credentials that are refused sooner than this after a load were refused although they were fresh."""
LOOK_AGAIN_S: Final = 30.0
"""A wait for the wall clock is cut into such pieces: it may be set, and the machine may have slept."""

MOVED: Final = "KUBECONFIG: it names {} now, and khook works on {}: start it again, or switch back"
"""A person who looks at another cluster changes the current context, and does not mean us."""


def renewal_time(expires_time: datetime, *, taken_time: datetime) -> datetime:
    """When to renew what was taken at `taken_time`; that time itself where it had expired by then."""
    life = max(expires_time - taken_time, timedelta(0))
    lead = min(max(life * (1 - RENEW_AT_SHARE), LEAST_LEAD), life * MOST_LEAD_SHARE)
    return taken_time + life - lead


class ApiCredentials:
    """`credentials` are those to use now; `taken` is told of any others. `run` keeps them fresh."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        load: Callable[[], Awaitable[Credentials]],
        taken: Callable[[Credentials], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self.credentials = credentials
        self._load = load
        self._taken = taken
        self._clock = clock
        self._log = log
        self._loading: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._closed = False
        self._pause_s = FIRST_PAUSE_S
        self._loaded_at = clock.monotonic()
        self._not_before_at = self._loaded_at
        self._renewal_time = self._due_time()

    async def fresh(self) -> Credentials:
        """After a 401: newer ones where there are any, else those in use. Takes as long as a load, or no time."""
        if self._clock.monotonic() >= self._not_before_at:
            await self._shared_load(refused=True)
        return self.credentials

    async def run(self) -> None:
        """Until it is cancelled; then nothing is loaded any more, and a load under way is given up."""
        try:
            while True:
                await self._due()
                await self._shared_load(refused=False)
        finally:
            self._closed = True
            if self._loading is not None:
                self._loading.cancel()
                await asyncio.wait([self._loading])

    async def _due(self) -> None:
        """Wait until it is time to renew; for ever where nothing expires."""
        while (wait_s := self._wait_s()) is None or wait_s > 0:
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._moved.wait()

    def _wait_s(self) -> float | None:
        if self._renewal_time is None:
            return None
        until_due_s = (self._renewal_time - self._clock.now()).total_seconds()
        until_paced_s = self._not_before_at - self._clock.monotonic()
        return min(max(until_due_s, until_paced_s), LOOK_AGAIN_S)

    async def _shared_load(self, *, refused: bool) -> None:
        """One who gives up waiting does not take the load from the others."""
        if self._closed:
            return
        if self._loading is None:
            self._loading = asyncio.create_task(self._load_once(refused=refused))
        loading = self._loading
        await asyncio.wait([loading])
        if not loading.cancelled():
            loading.result()

    async def _load_once(self, *, refused: bool) -> None:
        try:
            credentials = await self._load()
            if credentials.server != self.credentials.server:
                raise SettingsError([MOVED.format(credentials.server, self.credentials.server)])
        except KhookError as error:
            self._pace(led_nowhere=True)
            self._log.error("credentials not loaded", reason=str(error), retry_in_s=self._pause_s)
        else:
            expired = credentials.expires_time is not None and credentials.expires_time <= self._clock.now()
            too_soon = refused and self._clock.monotonic() < self._loaded_at + CALM_S
            self._pace(led_nowhere=expired or too_soon)
            self._use(credentials)
        finally:
            self._loading = None
            self._moved.set()

    def _pace(self, *, led_nowhere: bool) -> None:
        self._pause_s = min(self._pause_s * 2, MOST_PAUSE_S) if led_nowhere else FIRST_PAUSE_S
        self._loaded_at = self._clock.monotonic()
        self._not_before_at = self._loaded_at + self._pause_s

    def _use(self, credentials: Credentials) -> None:
        register_token(credentials.token)  # before anybody can quote it
        changed = credentials != self.credentials
        self.credentials = credentials
        self._renewal_time = self._due_time()
        if changed:
            self._log.info("credentials taken", expires_time=_shown(credentials.expires_time))
            self._taken(credentials)

    def _due_time(self) -> datetime | None:
        expires_time = self.credentials.expires_time
        return None if expires_time is None else renewal_time(expires_time, taken_time=self._clock.now())


def _shown(time: datetime | None) -> str:
    return "unknown" if time is None else time.isoformat(timespec="seconds")
