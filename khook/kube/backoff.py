"""How long to wait after a failure: doubling, with full jitter, forgotten after a time of health.

Full jitter (any time between zero and the ceiling) keeps a thousand watches from coming back together; see "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015. The numbers are client-go's reflector's (0.8 s, 30 s, 2 min).
"""

import random
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class BackOffLimits:
    first_s: float = 0.8
    most_s: float = 30.0
    healthy_s: float = 120.0
    """Health for this long makes the next failure the first one."""


DEFAULT_LIMITS: Final = BackOffLimits()

# 0.8 s doubled this often is past any ceiling; it keeps the power small.
_DOUBLINGS_MOST: Final = 16


class BackOff:
    """`failures` in a row."""

    def __init__(self, *, randomness: random.Random, limits: BackOffLimits = DEFAULT_LIMITS) -> None:
        self.failures = 0
        self._randomness = randomness
        self._limits = limits

    def failed(self, *, healthy_for_s: float) -> float:
        """Seconds to wait now, after a failure that ended `healthy_for_s` of health."""
        if healthy_for_s >= self._limits.healthy_s:
            self.failures = 0
        ceiling_s = min(self._limits.most_s, self._limits.first_s * 2 ** min(self.failures, _DOUBLINGS_MOST))
        self.failures += 1
        return self._randomness.uniform(0.0, ceiling_s)
