"""What `khook demo` learns from the status of the Hooks about their calls: who waits, and what agents answered.

The status is what a user sees with `kubectl`, so a call counts as parked when it was seen so there, and only then.
Whether it was delivered later the agents' record says, not khook: a call's id is its session's.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from khook.sandbox.kagent import Run

OVER: Final = frozenset({"Completed", "Failed"})


@dataclass(slots=True)
class Calls:
    """The state that the Hooks looked at so far add up to."""

    parked: dict[str, str] = field(default_factory=dict)
    """Call id → which agent waits to be asked about what, in the order in which they were seen."""
    answers: dict[str, str] = field(default_factory=dict)
    """Call id → the beginning of what the agent said."""
    under_way: int = 0
    """Calls that have not ended, at the last look."""

    def read(self, hooks: Sequence[Mapping[str, Any]]) -> None:
        rows = [(hook["metadata"]["namespace"], row) for hook, row in rows_of(hooks) if "call" in row]
        self.under_way = sum(row["call"]["state"] not in OVER for _, row in rows)
        for namespace, row in rows:
            call = row["call"]
            if call.get("reason") == "Parked":
                about = f"{namespace}/{row['resourceName']} ({row['eventType']})"
                self.parked.setdefault(call["id"], f"the call of {row['agent']} about {about}")
            if call.get("result"):
                self.answers.setdefault(call["id"], call["result"])

    def delivered(self, runs: Sequence[Run]) -> int:
        """How many of the parked calls an agent has after all."""
        return len(self.parked.keys() & {run.call_id for run in runs})


def rows_of(hooks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each incident with its Hook."""
    for hook in hooks:
        for row in hook.get("status", {}).get("activeEvents", []):
            yield hook, row
