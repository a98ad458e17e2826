"""Durations as people write them in a Hook or a setting: `10m`, `1.5s`, `1h30m`, `250ms`, `0`.

The part of Go's `time.ParseDuration` that makes sense for us: no sign, no micro- or nanoseconds. `PATTERN` is the
same rule for the CRD's schema, so that the API server and the models refuse the same strings.
"""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

PATTERN: Final = r"^(0|([0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h)){1,4})$"
"""Bounded repetitions: a string from a tenant never costs more than a glance, nor overflows a timedelta."""

_WHOLE: Final = re.compile(PATTERN[:-1] + r"\Z")
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_US: Final = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000}
_LONGEST_US: Final = int(timedelta(days=3650) / timedelta(microseconds=1))


def parse(text: str) -> timedelta:
    """The duration that `text` names. Raises ValueError, saying what is allowed."""
    if not _WHOLE.match(text):
        raise ValueError("not a duration: write it as 10m, 1.5s, 1h30m or 250ms")
    microseconds = sum(int(Decimal(number) * _UNIT_US[unit]) for number, unit in _PART.findall(text))
    if microseconds > _LONGEST_US:
        raise ValueError("too long for a duration")
    return timedelta(microseconds=microseconds)


def between(text: str, *, low: str, high: str) -> timedelta:
    """`parse`, and the bounds it must keep. Raises ValueError."""
    value = parse(text)
    if not parse(low) <= value <= parse(high):
        raise ValueError(f"{text} is out of bounds: allowed is {low} to {high}")
    return value
