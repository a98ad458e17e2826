"""How busy each wanted namespace is, and so how much it weighs for the pool.

An exponentially weighted mean of the watch lines that the workers count. It is folded whenever somebody looks, over
exactly the time since the last look, so that ticks may come early, late or not at all: a steady rate is found as it
is, whatever they did. Refuses to know who owns a namespace: it weighs the same wherever it lives. Pure: `now_at` is
an argument.
"""

from collections.abc import Iterable, Mapping
from math import expm1
from typing import Final

TIME_CONSTANT_S: Final = 300.0
"""After so long a new rate counts for 63 %, after three times as long for 95 %. Longer than a rollout or a crash
storm, which would be over before a namespace had moved for it; shorter than the hours in which load really shifts."""

BASE_WEIGHT: Final = 1.0
"""A quiet namespace's two watches weigh as much as one line a second. Measured: its tick and its part of the heartbeat
take 7 µs a second, reopening its watches every few minutes about as much again; a line takes 13 to 19 µs. Without it
silent namespaces would weigh nothing, and all could come to lie in one place."""


def weight(lines_per_second: float) -> float:
    """What a namespace with this rate counts for in the pool; always above 0."""
    return BASE_WEIGHT + lines_per_second


class Loads:
    """Rates of the wanted namespaces, lines a second; one that is new starts from 0."""

    def __init__(self, *, now_at: float) -> None:
        self._rates: dict[str, float] = {}
        self._counted: dict[str, int] = {}
        self._folded_at = now_at

    def wanted(self, namespaces: Iterable[str]) -> None:
        """These and no others are kept, from now on."""
        self._rates = {name: self._rates.get(name, 0.0) for name in namespaces}
        self._counted = {name: lines for name, lines in self._counted.items() if name in self._rates}

    def counted(self, lines: Mapping[str, int]) -> None:
        """A worker's lines since its last report. Those of a namespace that nobody wants any more are dropped."""
        for name, count in lines.items():
            if name in self._rates:
                self._counted[name] = self._counted.get(name, 0) + count

    def rates(self, now_at: float) -> Mapping[str, float]:
        """Lines a second of every wanted namespace, in their order."""
        elapsed_s = now_at - self._folded_at
        if elapsed_s > 0:
            share = -expm1(-elapsed_s / TIME_CONSTANT_S)
            counted = self._counted  # taken as spread evenly over the time
            self._rates = {
                name: rate + (counted.get(name, 0) / elapsed_s - rate) * share for name, rate in self._rates.items()
            }
            self._counted = {}
            self._folded_at = now_at
        return self._rates

    def weights(self, now_at: float) -> dict[str, float]:
        """The wish for the pool."""
        return {name: weight(rate) for name, rate in self.rates(now_at).items()}
