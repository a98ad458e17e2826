"""The credentials in use, and how they are renewed.

A token file is read again at least every minute (the kubelet rotates it long before it expires). After a 401 the
file is read at once, and where there is none, or it still says the same, whoever gave us the credentials is asked:
once for all requests that failed together, because a generation number tells which credentials were refused.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from khook import log
from khook.kube.credentials import Credentials, fits_a_header
from khook.seams import Clock

FreshCredentials = Callable[[], Awaitable[Credentials | None]]

# The kubelet rotates a bound token at 80 % of its hour; client-go reads the file again every minute as well.
TOKEN_FILE_S: Final = 60.0

# A wrong token gives a 401 to every watch of a worker; the source of credentials is asked no more often than this.
ASK_AGAIN_S: Final = 5.0

# A few files are read in no time. What takes longer, as an exec plug-in may, is not waited for by the requests: they
# back off, and what is loaded comes by `replace`.
ANSWER_S: Final = 10.0


class Identity:
    """`generation` changes whenever credentials or token do."""

    def __init__(self, *, credentials: Credentials, clock: Clock, fresh: FreshCredentials | None) -> None:
        self.credentials = credentials
        self.generation = 0
        self._clock = clock
        self._fresh = fresh
        self._token = ""
        self._use(credentials.token)
        self._read_at: float | None = None
        self._asked_at: float | None = None
        self._renewing = asyncio.Lock()

    def token(self) -> str:
        """The bearer token for the next request; empty where certificates are all there is."""
        if self.credentials.token_file and self._older(self._read_at, TOKEN_FILE_S):
            self._read_token_file()
        return self._token

    def replace(self, credentials: Credentials) -> None:
        if credentials == self.credentials:
            return
        self.credentials = credentials
        self.generation += 1
        self._use(credentials.token)
        self._read_at = None

    async def renew(self, *, refused: int) -> bool:
        """Other credentials than those of generation `refused`? False: there are none (yet)."""
        async with self._renewing:
            if self.generation == refused and self.credentials.token_file:
                self._read_token_file()
            if self.generation == refused and self._fresh is not None and self._older(self._asked_at, ASK_AGAIN_S):
                self._asked_at = self._clock.monotonic()
                await self._ask(self._fresh)
            return self.generation != refused

    async def _ask(self, fresh: FreshCredentials) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                credentials = await fresh()
        except TimeoutError:
            return
        if credentials is not None:
            self.replace(credentials)

    def _older(self, at: float | None, age_s: float) -> bool:
        return at is None or self._clock.monotonic() - at >= age_s

    def _read_token_file(self) -> None:
        """The old token stays where the file cannot be read: it may still be good, and a 401 will tell."""
        self._read_at = self._clock.monotonic()
        try:
            token = Path(self.credentials.token_file).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return
        if fits_a_header(token) and token not in ("", self._token):
            self._use(token)
            self.generation += 1

    def _use(self, token: str) -> None:
        """Known to the log before any request can quote it."""
        log.register_token(token)
        self._token = token
