"""What a run comes to: from times, CPU seconds and bytes to figures, pure.

A figure that was taken more than once is a `Spread`: its median, and the least and the most beside it. Where several
processes share few processors, who was busy matters as much as what khook did: `bounded_by` says what kept a burst
from going faster, and it is often not khook.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.incidents import Key
from bench.proc import Memory

SATURATED: Final = 0.85
"""A process of one thread that is busy for this share of the time has hardly any left; so has a machine."""
LATE_S: Final = 0.05
"""A generator that is this late does not apply the load that it was asked for."""

KHOOK: Final = "khook"
API_SERVER: Final = "API server"
AGENTS: Final = "agents"
GENERATOR: Final = "generator"
BEHIND_S: Final = 3.0
"""After its last signal a khook that keeps up needs two seconds for what waits for a text, and little more."""
CROWDED: Final = 0.25
"""When others hold this share of the machine, latencies are theirs as much as khook's."""

OTHERS: Final = "others"
"""Whatever else runs on this machine, and what the hypervisor took."""


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that was measured. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of one group of incidents: from just before the last write about each to its request at the agent."""

    count: int
    p50_s: float
    p99_s: float
    most_s: float


def latency(seconds: Sequence[float]) -> Latency | None:
    if not seconds:
        return None
    return Latency(
        count=len(seconds), p50_s=percentile(seconds, 50), p99_s=percentile(seconds, 99), most_s=max(seconds)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One phase of one round."""

    incidents: int
    lost: Sequence[Key]
    repeated: Sequence[Key]
    by_event: Latency | None
    by_status: Latency | None
    written_in_s: float
    """From the first write to the last."""
    asked_in_s: float
    """From the first write to the last incident's request at its agent."""
    khook_cpu_s: float
    """Until each run was followed to its end and written down."""
    busy: Mapping[str, float]
    """Processors kept busy until all agents were asked, by group of processes."""
    khook_busy: Mapping[str, float]
    """The same for each process of khook."""
    late_p99_s: float
    """The generator behind its schedule; 0 for a burst, which has none."""

    @property
    def a_second(self) -> float:
        return self.incidents / self.asked_in_s if self.asked_in_s else 0.0

    @property
    def cpu_an_incident_ms(self) -> float:
        return self.khook_cpu_s / self.incidents * 1000

    @property
    def honest(self) -> bool:
        return not self.lost and not self.repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A khook of so many workers, from its start to its end, on a cluster of its own."""

    workers: int
    ready_s: float
    steady: Phase
    burst: Phase
    idle_memory: Mapping[str, Memory] = field(default_factory=dict)
    """By process, before the load."""
    loaded_memory: Mapping[str, Memory] = field(default_factory=dict)
    """By process, after it."""

    @property
    def honest(self) -> bool:
        return self.steady.honest and self.burst.honest


@dataclass(frozen=True, slots=True)
class Spread:
    least: float
    median: float
    most: float
    times: int

    @staticmethod
    def of(values: Sequence[float]) -> "Spread | None":
        """None where there are no values."""
        return Spread(min(values), median(values), max(values), len(values)) if values else None


def bounded_by(phase: Phase, *, cores: int, embedded: bool = True) -> str:
    """What kept a burst from going faster, in words. The embedded API server has one thread, a real one has many."""
    one_thread = (API_SERVER, AGENTS, GENERATOR) if embedded else (AGENTS, GENERATOR)
    others = phase.busy.get(OTHERS, 0.0)
    limits = [
        f"{name} at {_percent(busy)} of a processor"
        for name, busy in [*phase.khook_busy.items(), *((one, phase.busy[one]) for one in one_thread)]
        if busy >= SATURATED
    ]
    if sum(phase.busy.values()) >= SATURATED * cores:
        shares = ", ".join(f"{name} {_percent(busy)}" for name, busy in phase.busy.items())
        limits.append(f"the machine: {cores} processors shared by {shares}")
    elif others >= SATURATED:
        limits.append(f"others on this machine, at {_percent(others)} of a processor")
    return "; ".join(limits) or "no processor: waits for answers and turns"


def doubts(one: Round, *, cores: int) -> list[str]:
    """Why a round's figures say less about khook than they seem to."""
    said = []
    if one.steady.late_p99_s > LATE_S:
        said.append(f"the generator was {one.steady.late_p99_s * 1000:.0f} ms late (p99): the load was not applied")
    behind_s = one.steady.asked_in_s - one.steady.written_in_s
    if behind_s > BEHIND_S:
        said.append(f"the steady phase was no steady state: agents were asked {behind_s:.1f} s after the last signal")
    for name, phase in (("steady phase", one.steady), ("burst", one.burst)):
        others = phase.busy.get(OTHERS, 0.0)
        if others > CROWDED * cores:
            said.append(f"in the {name} others on this machine kept {others:.1f} of {cores} processors busy")
    return said


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
