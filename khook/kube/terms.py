"""The words and numbers of a watch: what its users pass in, and what it says about itself.

Every number of the watch stands in `Pace` with its reason; every end, relist and skip has a name that logs, metrics
and tests share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from khook.kube.backoff import DEFAULT_LIMITS, BackOffLimits
from khook.kube.resources import Change

T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Tests shorten these."""

    silence_s: float = 80.0
    """Bookmarks come about once a minute: a watch that gets them and is silent for this long is opened anew, in time
    to be proven live again before anybody calls it deaf (90 s). A quiet cluster whose etcd notifies of progress
    every 10 min, its default, sends none: then this is what keeps the watch live."""
    deaf_s: float = 90.0
    """A watch that nothing proved live for this long is deaf."""
    server_timeout_s: tuple[int, int] = (240, 480)
    """`timeoutSeconds`, drawn anew for each watch so that they do not all end together; whole seconds."""
    late_s: float = 15.0
    """How much later than its `timeoutSeconds` a watch may end; it has no other end when it gets no bookmarks."""
    open_s: float = 30.0
    """The answer to opening a watch comes at once."""
    forbidden_s: float = 30.0
    """Somebody has to grant something."""
    short_s: float = 1.0
    """A watch that ends sooner and brought nothing counts as a failure."""
    gone_again_s: float = 5.0
    """A version that was listed less than this ago and is compacted already counts as a failure too."""
    throttled_spread_s: float = 1.0
    """Added at random to a Retry-After, which is the same for everybody."""
    back_off: BackOffLimits = DEFAULT_LIMITS


DEFAULT_PACE: Final = Pace()


class WatchEnd(StrEnum):
    """Why a watch ended or could not be opened: the label `cause` of `kagent_hook_watch_ends_total`."""

    TIMEOUT = "timeout"
    """Cleanly, as its `timeoutSeconds` says."""
    SHORT = "short"
    """Cleanly, but at once and with nothing."""
    GONE = "gone"
    """Its version is compacted (410)."""
    SILENCE = "silence"
    """Nothing was heard for too long."""
    ASKED = "asked"
    """Somebody asked for a list."""
    THROTTLED = "throttled"
    """429."""
    UNAUTHORIZED = "unauthorized"
    """401."""
    FORBIDDEN = "forbidden"
    """403."""
    UNAVAILABLE = "unavailable"
    """Refused, reset, TLS, DNS, no answer, 5xx."""
    MISSING = "missing"
    """The API server does not know the resource (404): its CRD is not installed, or not served yet."""
    REFUSED = "refused"
    """Any other answer: the request is wrong here."""


class Relist(StrEnum):
    """Why a LIST was made: the label `cause` of `kagent_hook_relists_total`."""

    START = "start"
    """The first."""
    GONE = "gone"
    """The watch's version was compacted (410)."""
    ASKED = "asked"
    """Somebody asked for it."""
    ERROR = "error"
    """The stream said ERROR, and not 410: asked again from there it may say so for ever."""


class Skip(StrEnum):
    """Why a line or a listed item was skipped."""

    OVERLONG = "overlong"
    """Longer than any object of its kind may be."""
    MALFORMED = "malformed"
    """Not what the API says that it is."""


class Sink(Protocol[T_contra]):
    """Where lists and lines go. Called on the event loop and must not block: this is the hot path."""

    def list_started(self) -> None:
        """A list begins; one that had begun and not ended does not count."""
        ...

    def listed(self, objects: Sequence[T_contra]) -> None:
        """One page."""
        ...

    def list_ended(self) -> None:
        """What is known but was not listed is gone."""
        ...

    def line(self, change: Change, obj: T_contra) -> None: ...


class WatchCounters(Protocol):
    def ended(self, resource: str, cause: str) -> None: ...

    def relisted(self, resource: str, cause: str) -> None: ...

    def skipped(self, resource: str, cause: str) -> None: ...


class Log(Protocol):
    """As much of structlog as this room needs."""

    def debug(self, event: str, **values: object) -> object: ...

    def warning(self, event: str, **values: object) -> object: ...


@dataclass(slots=True, kw_only=True)
class Health:
    """What is known of a watch right now; only the watch writes it. Whether it is live: `Watch.live`."""

    live_at: float
    """When it was last proven live; an open watch without bookmarks is proven by its connection."""
    opened: bool = False
    forbidden: bool = False
    last_error: str = ""
    """Our word for it, never a server's text; empty while a watch is open."""
    synced: bool = False
    """A whole LIST has been taken."""
    lines: int = 0
    """Lines about objects that its watches have brought so far; items of a LIST do not count."""
