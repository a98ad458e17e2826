"""What the embedded agent server saw and accepted: the only record that tests and the demo believe.

A `Run` for each piece of work that an agent took on, whatever it answered; an `Attempt` for each request that asked
for one; a count of all other requests by their step.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from khook.sandbox.kagent_faults import Step

# A soak's record: far beyond any test, far below what hurts. A record that forgot would hide a lost call.
MAX_RECORDED: Final = 500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One piece of work that an agent took on."""

    agent: str
    """As the path named it."""
    call_id: str
    """`execute`: the Idempotency-Key; `a2a`: the session."""
    prompt: str
    context: Mapping[str, str]
    """`a2a` sends no context: its event, resource and namespace from the session's name and the message's metadata."""
    time: datetime
    protocol: str = "execute"
    task_id: str = ""
    message_id: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "agent": self.agent,
            "callId": self.call_id,
            "prompt": self.prompt,
            "context": dict(self.context),
            "time": self.time.isoformat(),
            "protocol": self.protocol,
            "taskId": self.task_id,
            "messageId": self.message_id,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "Run":
        return Run(
            agent=data["agent"],
            call_id=data["callId"],
            prompt=data["prompt"],
            context=data["context"],
            time=datetime.fromisoformat(data["time"]),
            protocol=data["protocol"],
            task_id=data["taskId"],
            message_id=data["messageId"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request for work as it came in: `end` is the HTTP status, or what the wire did instead of one."""

    agent: str
    call_id: str
    end: str
    time: datetime

    def to_json(self) -> dict[str, str]:
        return {"agent": self.agent, "callId": self.call_id, "end": self.end, "time": self.time.isoformat()}


class RecordFull(RuntimeError):
    """The record would have to forget: raise the limit, or start a new server."""


class Record:
    def __init__(self) -> None:
        self.runs: list[Run] = []
        self.attempts: list[Attempt] = []
        self.requests: Counter[Step] = Counter()
        self.replayed = 0
        """Requests whose key had been answered before."""
        self.differing = 0
        """Of these, the ones whose body was not the first one's."""

    def attempted(self, attempt: Attempt) -> None:
        if len(self.attempts) >= MAX_RECORDED:
            raise RecordFull(f"{MAX_RECORDED} requests recorded")
        self.attempts.append(attempt)

    def to_json(self) -> dict[str, Any]:
        """All of it, for a test in another process."""
        return {
            "runs": [run.to_json() for run in self.runs],
            "attempts": [attempt.to_json() for attempt in self.attempts],
            "requests": {step.value: count for step, count in self.requests.items()},
            "replayed": self.replayed,
            "differing": self.differing,
        }
