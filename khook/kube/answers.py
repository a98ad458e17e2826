"""What an answer of the API server means, by one table.

A status code becomes the error class that says what to do next (`khook.errors`). The same table reads a Status
object in a watch's ERROR line. Retry-After comes as seconds or as a date (RFC 9110 10.2.3), or in the Status'
details. Nothing here looks at text: messages are for people.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

import msgspec

from khook.errors import Conflict, Forbidden, Gone, Invalid, KubeError, NotFound, Throttled, Unauthorized, Unavailable

# kube-apiserver asks for 1 s, and for 10 s at most when overloaded. A proxy may ask for hours: a watch that obeyed
# would be deaf, so we come back as soon as our own back-off would at the latest.
RETRY_AFTER_MOST_S: Final = 30.0

# A 429 without Retry-After.
RETRY_AFTER_DEFAULT_S: Final = 1.0

MESSAGE_LIMIT: Final = 512

ERRORS: Final[dict[int, type[KubeError]]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    410: Gone,
    422: Invalid,
}
"""429, and 503 with Retry-After, are `Throttled`. Any other 4xx can never succeed as it is: `Invalid`. A redirect is
not followed and a 5xx comes and goes: `Unavailable`."""

BAD_JSON: Final = (ValueError, RecursionError)
"""What msgspec and orjson raise for bytes that are not the JSON they should be: DecodeError, invalid UTF-8 (both
ValueErrors), nesting without end."""


class StatusDetails(msgspec.Struct, frozen=True, rename="camel"):
    retry_after_seconds: int | None = None


class Status(msgspec.Struct, frozen=True):
    """A meta/v1 Status: the body of an error, the object of an ERROR line."""

    message: str | None = None
    reason: str | None = None
    code: int = 0
    details: StatusDetails | None = None


_status: Final = msgspec.json.Decoder(Status)


def error_for(code: int, *, message: str, retry_after_s: float | None) -> KubeError:
    """The decision that an HTTP status asks for. `retry_after_s`: None where the server named none."""
    text = message[:MESSAGE_LIMIT]
    if code == 429 or (code == 503 and retry_after_s is not None):
        wait_s = RETRY_AFTER_DEFAULT_S if retry_after_s is None else min(max(retry_after_s, 0.0), RETRY_AFTER_MOST_S)
        return Throttled(text, status=code, retry_after_s=wait_s)
    kind = ERRORS.get(code, Invalid if 400 <= code < 500 else Unavailable)
    return kind(text, status=code)


def error_for_answer(code: int, *, body: bytes, retry_after: str | None, now: datetime) -> KubeError:
    """The error of an HTTP answer; a 404 may be text/plain."""
    status = read_status(body)
    message = (status and status.message) or body.decode("utf-8", "replace")
    return error_for(code, message=message, retry_after_s=_retry_after_s(retry_after, status, now))


def error_for_line(status: Status) -> KubeError:
    """The error of a watch's ERROR line: HTTP said 200, the Status says what happened."""
    message = status.message or status.reason or "the watch ended with an error"
    return error_for(status.code, message=message, retry_after_s=_retry_after_s(None, status, None))


def read_status(body: bytes) -> Status | None:
    try:
        return _status.decode(body)
    except BAD_JSON:
        return None


def _retry_after_s(header: str | None, status: Status | None, now: datetime | None) -> float | None:
    if header is not None and (seconds := _header_s(header.strip(), now)) is not None:
        return seconds
    if status is not None and status.details is not None and status.details.retry_after_seconds is not None:
        return float(status.details.retry_after_seconds)
    return None


def _header_s(header: str, now: datetime | None) -> float | None:
    if header.isascii() and header.isdigit():
        return float(header[:9])
    time = http_date(header)
    return None if time is None or now is None else max(0.0, (time - now).total_seconds())


@lru_cache(maxsize=16)
def http_date(text: str) -> datetime | None:
    """An HTTP date as an aware UTC time; None when it is none. All answers of one second carry the same."""
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
