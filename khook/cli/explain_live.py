"""What only the running khook knows: which namespaces have an owner, which agents' breakers are open, whether it has a
key for kagent. It stands in `/status.json`; a khook that says less of it is not asked for more.
"""

from dataclasses import dataclass
from typing import Final

from khook.address import Address
from khook.cli.shards_live import ask
from khook.errors import KhookError
from khook.supervisor.status_document import Status

UNREACHABLE: Final = "not known (khook's status page is not reachable)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    status: Status

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
        access = self.status.agent_access
        return access is not None and access.needed and not access.key

    @property
    def key_command(self) -> str | None:
        access = self.status.agent_access
        return None if access is None else access.command

    def breaker(self, agent: str, namespace: str) -> str | None:
        """Words about when it is tried again, where the namespace's worker has its breaker open."""
        slot = next((s.slot for s in self.status.slots for one in s.namespaces if one.namespace == namespace), None)
        for one in self.status.agents:
            for breaker in one.breakers if one.agent == agent else ():
                if breaker.slot == slot:
                    wait_s = breaker.retry_in_seconds
                    return "" if wait_s is None else f", and tried again in {max(0.0, wait_s):.0f} s"
        return None


def look(address: Address) -> Live | str:
    """What it tells, or why it could not be asked."""
    try:
        return Live(status=ask(address)[1])
    except KhookError as error:
        return f"{UNREACHABLE}: {error}"
