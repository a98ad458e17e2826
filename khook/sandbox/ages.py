"""How kubectl shows how long ago something was: `45s`, `2m5s`, `3h12m`, `6d2h`, `4y`.

The shorter the time, the finer the unit. Source: apimachinery `pkg/util/duration` (HumanDuration); time is cut off,
never rounded up.
"""

from datetime import datetime, timedelta
from typing import Final

UNKNOWN: Final = "<unknown>"
INVALID: Final = "<invalid>"
# Clocks of two machines differ a little: what lies less than 2 s ahead is now.
AHEAD_S: Final = 2

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 24 * _HOUR_S
_YEAR_S: Final = 365 * _DAY_S
_STEPS: Final = (
    # shorter than, in this unit, with the rest in this one
    (2 * _MINUTE_S, (1, "s"), None),
    (10 * _MINUTE_S, (_MINUTE_S, "m"), (1, "s")),
    (3 * _HOUR_S, (_MINUTE_S, "m"), None),
    (8 * _HOUR_S, (_HOUR_S, "h"), (_MINUTE_S, "m")),
    (2 * _DAY_S, (_HOUR_S, "h"), None),
    (8 * _DAY_S, (_DAY_S, "d"), (_HOUR_S, "h")),
    (2 * _YEAR_S, (_DAY_S, "d"), None),
    (8 * _YEAR_S, (_YEAR_S, "y"), (_DAY_S, "d")),
)


def human(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    if seconds <= -AHEAD_S:
        return INVALID
    seconds = max(seconds, 0)
    for below_s, (unit_s, letter), finer in _STEPS:
        if seconds < below_s:
            whole, rest_s = divmod(seconds, unit_s)
            rest = rest_s // finer[0] if finer else 0
            return f"{whole}{letter}" + (f"{rest}{finer[1]}" if finer and rest else "")
    return f"{seconds // _YEAR_S}y"


def parsed(time: str | None) -> datetime | None:
    """A metav1.Time or MicroTime; None for nothing and for what is no time."""
    try:
        return datetime.fromisoformat(time) if time else None
    except ValueError:
        return None


def since(time: str | None, now: datetime) -> str:
    """How long ago; `<unknown>` for no time."""
    at = parsed(time)
    return UNKNOWN if at is None else human(now - at)
