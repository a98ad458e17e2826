"""The API server's clock, as far as its `Date` headers show it.

A header of second D, in an answer to a request sent at s and answered at r by our clock, says: the server's clock
minus ours lies in [D - r, D + 1 s - s] (the header has whole seconds). Each answer gives the offset in that range
that is nearest to zero, so that clocks which agree are left alone; the median of the latest answers is the offset,
so that one lying proxy moves nothing.
"""

import statistics
from collections import deque
from datetime import datetime, timedelta
from typing import Final

from khook.kube.answers import http_date

# An odd number: the median is an answer. Five of fifteen may lie, whichever way, and the offset stays among the rest.
SAMPLES: Final = 15

_ZERO: Final = timedelta(0)
_RESOLUTION: Final = timedelta(seconds=1)


class ServerTime:
    """Fed with every answer; `offset` is what to add to our clock."""

    def __init__(self) -> None:
        self._samples: deque[timedelta] = deque(maxlen=SAMPLES)
        self.offset = _ZERO

    def observe(self, date: str | None, *, sent_time: datetime, answered_time: datetime) -> None:
        """`date` is the header as it came; None and nonsense teach nothing."""
        server_time = None if date is None else http_date(date)
        if server_time is None:
            return
        least = server_time - answered_time
        most = server_time + _RESOLUTION - sent_time
        self._samples.append(min(max(_ZERO, least), max(least, most)))
        self.offset = statistics.median_low(self._samples)
