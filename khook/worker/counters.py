"""What a worker counts, as the names that its rooms use; `khook.worker.process` binds them to metrics."""

from typing import Protocol

from khook.core.signal import EventType


class CallCounters(Protocol):
    def called(self, protocol: str, outcome: str, seconds: float) -> None:
        """One attempt was answered, or failed."""
        ...

    def failed(self, reason: str) -> None:
        """One call ended in failure, for good: `reason` out of a closed set."""
        ...


class EventCounters(Protocol):
    def judged(self, event_type: EventType, verdict: str) -> None:
        """One signal met one entry (or none): `verdict` out of a closed set."""
        ...


class SuppressedCounters(Protocol):
    def suppressed(self, reason: str) -> None:
        """One call was held back: `reason` out of a closed set."""
        ...

    def failed(self, reason: str) -> None:
        """One call that was held back will not be made any more."""
        ...
