"""How many sends may be without an answer at once: so many of a worker, of these so many to one agent.

A place belongs to a send, not to whoever waits for its answer: a call that is given up in mid-send keeps its place
until its request has ended, so that a hung agent never holds more connections than it may.
"""

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class _Agent:
    places: asyncio.Semaphore
    users: int = 0
    """Who holds a place or waits for one: an agent without any is forgotten."""


class Places:
    """`take` and `leave` go in pairs."""

    def __init__(self, *, per_worker: int, per_agent: int) -> None:
        self._per_agent = per_agent
        self._worker = asyncio.Semaphore(per_worker)
        self._agents: dict[str, _Agent] = {}

    @property
    def agents(self) -> int:
        """How many agents have a send or wait for one."""
        return len(self._agents)

    async def take(self, agent: str) -> None:
        """Wait for the agent's place first: a crowd before one agent keeps no place from the others."""
        one = self._agents.setdefault(agent, _Agent(asyncio.Semaphore(self._per_agent)))
        one.users += 1
        try:
            await one.places.acquire()
            try:
                await self._worker.acquire()
            except BaseException:
                one.places.release()
                raise
        except BaseException:
            self._left(agent, one)
            raise

    def leave(self, agent: str) -> None:
        one = self._agents[agent]
        self._worker.release()
        one.places.release()
        self._left(agent, one)

    def _left(self, agent: str, one: _Agent) -> None:
        one.users -= 1
        if not one.users:
            del self._agents[agent]
