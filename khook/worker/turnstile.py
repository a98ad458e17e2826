"""Lets sends through by `khook.core.turns`: the fair order, as something to wait for.

A place belongs to a send, not to whoever waits for its answer: a call that is given up in mid-send keeps its place
until its request has ended, so that a hung agent never holds more connections than it may.
"""

import asyncio
from collections import Counter

from khook.core.turns import Turns
from khook.worker.job import Job

Ticket = int


class Turnstile:
    """`enter` and `leave` go in pairs."""

    def __init__(self, *, per_worker: int, per_agent: int) -> None:
        self._turns: Turns[Ticket] = Turns(per_worker, per_agent)
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._crowds: Counter[str] = Counter()
        self._last: Ticket = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def crowd(self, agent: str) -> int:
        """How many wait for this agent."""
        return self._crowds[agent]

    async def enter(self, job: Job, *, agent: str) -> Ticket:
        """Wait for this call's turn; the ticket is handed back to `leave`."""
        self._last += 1
        ticket = self._last
        turn = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._turns.ask(ticket, agent=agent, namespace=job.table.ref.namespace, hook=job.table.ref.uid)
        self._crowds[agent] += 1
        self._let_through()
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.pop(ticket, None)
            if not self._turns.withdraw(ticket):
                self.leave(ticket)
            raise
        finally:
            self._crowds[agent] -= 1
            if not self._crowds[agent]:
                del self._crowds[agent]
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._turns.done(ticket)
        self._let_through()

    def _let_through(self) -> None:
        for ticket in self._turns.take():
            turn = self._waiting.pop(ticket, None)
            if turn is not None and not turn.done():
                turn.set_result(None)
