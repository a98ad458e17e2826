"""What only the running khook knows: which namespaces have an owner, which agents' breakers are open, whether it has a
key for kagent. It stands in `/status.json`; a khook that says less of it is not asked for more.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from khook.address import Address
from khook.cli.shards_live import ask
from khook.errors import KhookError
from khook.supervisor.status_document import Status

UNREACHABLE: Final = "not known (khook's status page is not reachable)"


class Breaker(msgspec.Struct, frozen=True, rename="camel"):
    slot: str
    state: str
    retry_in_seconds: float | None = None


class Agent(msgspec.Struct, frozen=True, rename="camel"):
    agent: str
    breakers: tuple[Breaker, ...] = ()


class AgentAccess(msgspec.Struct, frozen=True, rename="camel"):
    key: bool
    needed: bool = False
    command: str | None = None


class _Told(msgspec.Struct, frozen=True, rename="camel"):
    """The part of the document about agents."""

    agents: tuple[Agent, ...] = ()
    agent_access: AgentAccess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    status: Status
    agents: tuple[Agent, ...] = ()
    access: AgentAccess | None = None

    def not_owned(self, namespace: str) -> str | None:
        """Why no worker looks at this namespace now; None where one does."""
        for slot in self.status.slots:
            for one in slot.namespaces:
                if one.namespace == namespace:
                    return f"worker {slot.slot} could not start it: {one.problem}" if one.problem else None
        if any(one.namespace == namespace for one in self.status.waiting):
            return f"no worker has namespace {namespace} yet: it waits for one (khook shards)"
        return f"khook does not know that namespace {namespace} has a Hook: it has not seen it, or may not list it"

    @property
    def key_missing(self) -> bool:
        return self.access is not None and self.access.needed and not self.access.key

    @property
    def key_command(self) -> str | None:
        return None if self.access is None else self.access.command

    def breaker(self, agent: str, namespace: str) -> str | None:
        """Words about when it is tried again, where the namespace's worker has its breaker open."""
        slot = next((s.slot for s in self.status.slots for one in s.namespaces if one.namespace == namespace), None)
        for one in self.agents:
            for breaker in one.breakers if one.agent == agent else ():
                if breaker.slot == slot and breaker.state != "closed":
                    wait_s = breaker.retry_in_seconds
                    return "" if wait_s is None else f", and tried again in {max(0.0, wait_s):.0f} s"
        return None


def look(address: Address) -> Live | str:
    """What it tells, or why it could not be asked."""
    try:
        body, status = ask(address)
        told = msgspec.json.decode(body, type=_Told)
    except KhookError as error:
        return f"{UNREACHABLE}: {error}"
    except msgspec.MsgspecError:
        return UNREACHABLE
    return Live(status=status, agents=told.agents, access=told.agent_access)
