"""Who may send next: fair turns between agents, namespaces and Hooks under two bounds.

A send holds a place from its start to its answer. A worker has `worker_limit` places, of which one agent holds at most
`agent_limit`. Agents take turns; within an agent its namespaces, within a namespace its Hooks, within a Hook its calls
in the order they asked. So 10,000 calls of one tenant delay another tenant's one call to the same agent by a round: by
one call of each namespace that waits there.

The agents' bound alone does not keep a hung agent's neighbours going: eight that hang at once would hold 8 x 8 = 64
places. Nothing tells a hung agent from a busy one until its time is up, and a place taken cannot be called back. Hence
the reserve, half of the places: they are for agents that hold none. Agents that hang hold eight each of the first
half or one each of the second, so at least 4 + 32 of them must hang at once before a healthy one has to wait; from
their first time-outs on, their breakers let one probe through each and no more. In the same spirit an agent that
holds no place goes before those that hold some.

Every step costs O(1), whatever waits.
"""

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a ticket waits."""

    agent: str
    namespace: str
    hook: str


_Calls = OrderedDict[Ticket, None]
_Hooks = OrderedDict[str, _Calls[Ticket]]
_Namespaces = OrderedDict[str, _Hooks[Ticket]]
_Agents = OrderedDict[str, _Namespaces[Ticket]]
"""Each in the order of turns. OrderedDict, for it takes from its front and moves to its end in O(1); a dict scans
over what has been taken from its front before."""


class Turns(Generic[Ticket]):
    """The places of one worker. One agent alone never holds more than those that are not reserved: 32 of 64."""

    def __init__(self, worker_limit: int, agent_limit: int) -> None:
        if not 1 <= agent_limit <= worker_limit:
            raise ValueError(f"an agent's places ({agent_limit}) are some of the worker's ({worker_limit})")
        self._agent_limit = agent_limit
        self._free = worker_limit
        self._reserve = worker_limit // 2
        self._ways: dict[Ticket, _Way] = {}
        self._started: dict[Ticket, str] = {}
        self._held: Counter[str] = Counter()
        self._idle: _Agents[Ticket] = OrderedDict()
        """Agents that hold no place, in the order of their turns."""
        self._busy: _Agents[Ticket] = OrderedDict()
        """Agents that hold some and may have more."""
        self._full: _Agents[Ticket] = OrderedDict()
        """Agents that hold all they may."""

    @property
    def waiting(self) -> int:
        return len(self._ways)

    @property
    def started(self) -> int:
        """Places taken."""
        return len(self._started)

    def ask(self, ticket: Ticket, *, agent: str, namespace: str, hook: str) -> None:
        """Wait for a place. Raises ValueError for a ticket that waits or holds one already."""
        if ticket in self._ways or ticket in self._started:
            raise ValueError(f"{ticket!r} has asked already")
        self._ways[ticket] = _Way(agent, namespace, hook)
        namespaces = self._ring(agent).setdefault(agent, OrderedDict())
        namespaces.setdefault(namespace, OrderedDict()).setdefault(hook, OrderedDict())[ticket] = None

    def take(self) -> list[Ticket]:
        """Those whose turn it is: each holds a place from now on. Ask after every `ask`, `done` and `withdraw`."""
        taken: list[Ticket] = []
        while (ring := self._next_ring()) is not None:
            taken.append(self._start_next(ring))
        return taken

    def done(self, ticket: Ticket) -> None:
        """Its place is free. Raises KeyError for a ticket that holds none."""
        agent = self._started.pop(ticket)
        before = self._ring(agent)
        self._free += 1
        self._held[agent] -= 1
        if not self._held[agent]:
            del self._held[agent]
        after = self._ring(agent)
        if after is not before and agent in before:
            after[agent] = before.pop(agent)

    def withdraw(self, ticket: Ticket) -> bool:
        """It waits no longer. False where it did not wait: it holds a place, and is to be `done`, or is unknown."""
        way = self._ways.get(ticket)
        if way is None:
            return False
        self._leave(ticket, way, self._ring(way.agent))
        return True

    def _ring(self, agent: str) -> _Agents[Ticket]:
        held = self._held[agent]
        if held >= self._agent_limit:
            return self._full
        return self._busy if held else self._idle

    def _next_ring(self) -> _Agents[Ticket] | None:
        if self._idle and self._free:
            return self._idle
        if self._busy and self._free > self._reserve:
            return self._busy
        return None

    def _start_next(self, ring: _Agents[Ticket]) -> Ticket:
        agent, namespaces = next(iter(ring.items()))
        namespace, hooks = next(iter(namespaces.items()))
        hook, calls = next(iter(hooks.items()))
        ticket = next(iter(calls))
        namespaces.move_to_end(namespace)
        hooks.move_to_end(hook)
        self._leave(ticket, self._ways[ticket], ring)
        self._free -= 1
        self._held[agent] += 1
        self._started[ticket] = agent
        if ring.pop(agent, None) is not None:
            self._ring(agent)[agent] = namespaces
        return ticket

    def _leave(self, ticket: Ticket, way: _Way, ring: _Agents[Ticket]) -> None:
        del self._ways[ticket]
        namespaces = ring[way.agent]
        hooks = namespaces[way.namespace]
        del hooks[way.hook][ticket]
        if not hooks[way.hook]:
            del hooks[way.hook]
        if not hooks:
            del namespaces[way.namespace]
        if not namespaces:
            del ring[way.agent]
