"""Time points as text: RFC 3339 in UTC with a `Z`, as Kubernetes writes them.

Two forms on purpose: `rfc3339` loses nothing, because staleness is decided by comparing times that went through a
status; `rfc3339_seconds` is what people and agents read (metav1.Time).
"""

from datetime import UTC, datetime


def rfc3339(time: datetime) -> str:
    """`2024-01-15T10:30:00Z`, with six decimals where there are any."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def rfc3339_seconds(time: datetime) -> str:
    """`2024-01-15T10:30:00Z`, cut to the second."""
    return rfc3339(time.replace(microsecond=0))
