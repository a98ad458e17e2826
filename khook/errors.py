"""The tree of errors. Each class *is* a decision; adapters translate library errors into it at the edge.

    KhookError
    ├── SettingsError            stop: exit 78, every problem listed
    ├── PoolGaveUp               stop: exit 70
    ├── LeaseLost                stop: exit 75
    └── KubeError                what the API server's answer means for the caller
        ├── Gone                 relist (410, or an expired continue token)
        ├── Unauthorized         get fresh credentials at once, then back off (401)
        ├── Forbidden            say so, try again every 30 s (403)
        ├── NotFound             drop what was about to be written (404)
        ├── Conflict             read again, then write again (409)
        ├── Invalid              show it, never loop on it (400, 422)
        ├── Throttled            wait `retry_after_s`, do not relist (429, 503 with Retry-After)
        └── Unavailable          back off and try again (refused, reset, TLS, DNS, timeout, 5xx)

What an agent answers is not an error but an `Outcome` (`khook.agents`): delivery decides on it by a table.
"""

from typing import Final

EXIT_OK: Final = 0
EXIT_UNEXPECTED: Final = 1
EXIT_POOL_GAVE_UP: Final = 70
EXIT_LEASE_LOST: Final = 75
EXIT_SETTINGS: Final = 78


class KhookError(Exception):
    """Anything khook itself raises on purpose; `exit_code` is what a command ends with."""

    exit_code: int = EXIT_UNEXPECTED


class SettingsError(KhookError):
    """Bad settings: `problems` has one line for each, `NAME: what is wrong and what is allowed`."""

    exit_code = EXIT_SETTINGS

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class PoolGaveUp(KhookError):
    """No slot can be kept running."""

    exit_code = EXIT_POOL_GAVE_UP


class LeaseLost(KhookError):
    """Another replica leads now."""

    exit_code = EXIT_LEASE_LOST


class KubeError(KhookError):
    """The API server said no, or nothing. `status` is the HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Gone(KubeError):
    """410: the version or continue token is compacted. Relist."""


class Unauthorized(KubeError):
    """401: the credentials are refused. Get fresh ones at once, then back off."""


class Forbidden(KubeError):
    """403: RBAC. Report it and try again every 30 s."""


class NotFound(KubeError):
    """404: the object, or its kind, is not there."""


class Conflict(KubeError):
    """409: somebody wrote in between, or the object exists. Read again before writing."""


class Invalid(KubeError):
    """400, 422: the request can never succeed as it is."""


class Throttled(KubeError):
    """429, or 503 with Retry-After: wait `retry_after_s` and ask again."""

    def __init__(self, message: str, *, status: int, retry_after_s: float) -> None:
        super().__init__(message, status=status)
        self.retry_after_s = retry_after_s


class Unavailable(KubeError):
    """No answer, or a 5xx: back off and try again. A write may or may not have happened."""
