"""What was found, beside what was promised: one row for each promise. Pure: it neither measures nor prints.

A row without samples has not reached its goal: what was not measured is not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One promise of one figure."""

    figure: str
    what: str
    goal: str
    samples: tuple[float, ...]
    unit: str
    """"s" for seconds, "" for a count."""
    reached: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "figure": self.figure,
            "what": self.what,
            "goal": self.goal,
            "unit": self.unit,
            "n": len(self.samples),
            "p50": at_share(self.samples, 50),
            "p99": at_share(self.samples, 99),
            "max": max(self.samples, default=None),
            "reached": self.reached,
        }


def at_share(samples: Sequence[float], percent: float) -> float | None:
    """The nearest rank; None of nothing."""
    return percentile(samples, percent) if samples else None


def timed(
    figure: str,
    what: str,
    samples_s: Iterable[float],
    *,
    p50_s: float | None = None,
    p99_s: float | None = None,
    most_s: float | None = None,
) -> Row:
    """Durations against the limits that are given."""
    samples = tuple(samples_s)
    limits = (("p50", 50, p50_s), ("p99", 99, p99_s), ("max", 100, most_s))
    asked = [(name, share, limit_s) for name, share, limit_s in limits if limit_s is not None]
    found = [(at_share(samples, share), limit_s) for _, share, limit_s in asked]
    return Row(
        figure=figure,
        what=what,
        goal=", ".join(f"{name} ≤ {limit_s:g} s" for name, _, limit_s in asked),
        samples=samples,
        unit="s",
        reached=all(value is not None and value <= limit_s for value, limit_s in found),
    )


def counted(figure: str, what: str, counts: Iterable[int], *, most: int = 0, least: int = 0) -> Row:
    """Counts, one for each time it was tried; every one of them has to lie in these bounds."""
    samples = tuple(counts)
    goal = f"{most}" if most == least else f"≤ {most}" if not least else f"{least} to {most}"
    reached = bool(samples) and all(least <= count <= most for count in samples)
    return Row(figure=figure, what=what, goal=goal, samples=samples, unit="", reached=reached)


def limited(figure: str, what: str, found: float, *, most: float) -> Row:
    """One number that may not be above a limit."""
    return Row(figure=figure, what=what, goal=f"≤ {most:g}", samples=(found,), unit="", reached=found <= most)
