"""The Hook's status: what a worker writes and a person reads; here only to give the CRD its schema.

Nothing is parsed with these models. They ask for little on purpose: a status that the schema refuses is a call that
is never made, so lengths are bounded where they are written, not here, and only the fields that the first Go
controller wrote too are required. Docstrings of attributes are what `kubectl explain` prints.
"""

from typing import Annotated, Literal

from pydantic import Field, WithJsonSchema

from khook.api.model import Strict

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Count = Annotated[int, Field(ge=0), WithJsonSchema({"type": "integer", "format": "int64", "minimum": 0})]
Generation = Annotated[int, Field(ge=0), WithJsonSchema({"type": "integer", "format": "int64", "minimum": 0})]


class Call(Strict):
    """The latest request to the agent about this incident."""

    id: str
    """Identity of the call, written here before it is used: kagent's session, or the Idempotency-Key."""
    state: Literal["Pending", "Calling", "Accepted", "Completed", "Failed"]
    """How far the call is."""
    reason: str | None = None
    """Why the call is in its state, in one CamelCase word."""
    protocol: str | None = None
    """How kagent was spoken to."""
    task_id: str | None = None
    """The agent's run, as kagent names it."""
    attempts: Count | None = None
    """How often the call was sent."""
    claimed_time: Time | None = None
    """When the call was decided."""
    accepted_time: Time | None = None
    """When kagent accepted it: the cooldown counts from here."""
    ended_time: Time | None = None
    """When it was completed or had failed."""
    error: str | None = None
    """What went wrong, in one line."""
    result: str | None = None
    """The beginning of the agent's answer."""


class FailedPod(Strict):
    """One pod of a group."""

    name: str
    """Name of the pod."""
    reason: str | None = None
    """How it failed last, as Kubernetes gives it."""


class Facts(Strict):
    """What the agent is told; kept until the call has ended, so that any worker can carry on with it."""

    container: str | None = None
    """Container that the signal is about."""
    reason: str | None = None
    """Reason as Kubernetes gives it."""
    message: str | None = None
    """Text as Kubernetes gives it, shortened."""
    time: Time | None = None
    """When it happened."""
    pod: str | None = None
    """Pod that it happened to first."""
    count: Count | None = None
    """Signals that the agent is told of."""
    pods: list[FailedPod] | None = None
    """Of a group: the first pods that failed."""
    pod_count: Count | None = None
    """Of a group: how many pods failed."""


class LastSignal(Strict):
    """The newest signal that was judged: what is not newer is old news."""

    pod_uid: str
    """UID of its pod."""
    raw_time: Time
    """When its source says that it happened."""


class ActiveEvent(Strict):
    """An incident: one entry of this Hook and one resource."""

    event_type: str
    """Type of the event."""
    resource_name: str
    """Resource that it is about."""
    first_seen: Time
    """When the incident began."""
    last_seen: Time
    """When its latest signal came."""
    status: Literal["firing", "resolved"]
    """Whether it is still going on."""
    resolved_time: Time | None = None
    """When it was resolved."""
    entry: str | None = None
    """Identity of the entry of this Hook that it belongs to; it outlives edits of the prompt."""
    agent: str | None = None
    """Agent of the entry, as namespace/name."""
    resource_kind: str | None = None
    """Kind of the resource."""
    pod_uid: str | None = None
    """UID of its latest pod."""
    count: Count | None = None
    """Signals so far."""
    last_signal: LastSignal | None = None
    """The newest signal that was judged."""
    pod_signals: list[LastSignal] | None = None
    """Of a group: the newest signal of each other pod, oldest first."""
    facts: Facts | None = None
    """What the agent is told, until the call has ended."""
    call: Call | None = None
    """The latest call to the agent."""


class Condition(Strict):
    """A condition as meta/v1 defines it."""

    type: Annotated[str, Field(max_length=316)]
    """Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observed_generation: Generation | None = None
    """Generation of the Hook that it was set for."""
    last_transition_time: Time
    """When its status last changed."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, in one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, for people."""


class HookStatus(Strict):
    """What the controller says about this Hook; written by nobody else."""

    active_events: list[ActiveEvent] | None = None
    """Incidents that go on or ended a short while ago."""
    last_updated: Time | None = None
    """When the controller last wrote this."""
    conditions: list[Condition] | None = None
    """Ready says whether the Hook works, and why not."""
