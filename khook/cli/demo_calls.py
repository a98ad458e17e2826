"""What `khook demo` learns from the status of the Hooks about their calls: who waits, and what agents answered.

The status is what a user sees with `kubectl`, so a call counts as parked when it was seen so there, and only then.
Whether it was delivered later the agents' record says, not khook: a call's id is its session's. How many pods a group
has is in the status as long as its call is open, so it is kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Final

from khook.core.owner import POD_KIND
from khook.sandbox.kagent import Run

OVER: Final = frozenset({"Completed", "Failed"})
# As `khook.core.prompt` writes the pods of a group.
_PODS_FAILED: Final = re.compile(r"^(\d+) pods failed:$", re.MULTILINE)
_POD: Final = "- "


@dataclass(slots=True)
class Calls:
    """The state that the Hooks looked at so far add up to."""

    parked: dict[str, str] = field(default_factory=dict)
    """Call id → which agent waits to be asked about what, in the order in which they were seen."""
    answers: dict[str, str] = field(default_factory=dict)
    """Call id → the beginning of what the agent said."""
    pods: dict[str, int] = field(default_factory=dict)
    """Call id → how many pods it is about, of a call about a group."""
    abouts: dict[str, str] = field(default_factory=dict)
    """Call id → what it is about: `namespace/pod`, or a group's owner with the number of its pods."""
    under_way: int = 0
    """Calls that have not ended, at the last look."""

    def read(self, hooks: Sequence[Mapping[str, Any]]) -> None:
        rows = [(hook["metadata"]["namespace"], row) for hook, row in rows_of(hooks) if "call" in row]
        self.under_way = sum(row["call"]["state"] not in OVER for _, row in rows)
        for namespace, row in rows:
            call = row["call"]
            if failed := row.get("facts", {}).get("podCount"):
                self.pods[call["id"]] = failed
            self.abouts[call["id"]] = f"{namespace}/{self.resource(row)}"
            if call.get("reason") == "Parked":
                about = f"{self.abouts[call['id']]} ({row['eventType']})"
                self.parked.setdefault(call["id"], f"the call of {row['agent']} about {about}")
            if call.get("result"):
                self.answers.setdefault(call["id"], call["result"])

    def resource(self, row: Mapping[str, Any]) -> str:
        """What an incident is about, as a person says it."""
        name: str = row["resourceName"]
        if row.get("resourceKind", POD_KIND) == POD_KIND:
            return name
        failed = self.pods.get(row.get("call", {}).get("id", ""))
        return f"{row['resourceKind']} {name}" + (f" · {failed} pods" if failed else "")

    def delivered(self, runs: Sequence[Run]) -> int:
        """How many of the parked calls an agent has after all."""
        return len(self.parked.keys() & {run.call_id for run in runs})


def rows_of(hooks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each incident with its Hook."""
    for hook in hooks:
        for row in hook.get("status", {}).get("activeEvents", []):
            yield hook, row


def pods_named(prompt: str) -> tuple[list[str], int]:
    """(the pods that the facts of a prompt name, how many failed); none and 0 where it is not about a group."""
    failed = _PODS_FAILED.search(prompt)
    if failed is None:
        return [], 0
    lines = takewhile(lambda line: line.startswith(_POD), prompt[failed.end() + 1 :].splitlines())
    return [line.removeprefix(_POD).partition(":")[0] for line in lines], int(failed[1])
