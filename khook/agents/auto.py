"""Which protocol an address speaks: set by the user, or found out from kagent's `GET /version`.

A 2xx with a `kagent_version` is a kagent and speaks `a2a`; a 404, or a 2xx without one, speaks `execute`. Anything
else (refused, timeout, 401, 403, 429, 5xx, half an answer) decides nothing: whoever wants to call now parks. What is
known is kept; `doubt` asks once more, after an `execute` server said that it has no such agent. However many calls
ask at once, one request goes out.

A call keeps the protocol that it was claimed with, hence `named`.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from khook.agents.exchange import Answer, Exchange, NoAnswer, json_object, retry_after_s
from khook.agents.outcome import AgentProtocol

AUTO: Final = "auto"
A2A: Final = "a2a"
EXECUTE: Final = "execute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Nobody could say which protocol it is: park, and ask again later."""

    error: str
    """In our own words, at most 256 characters."""
    retry_after_s: float | None = None
    unauthorized: bool = False
    """The key was refused: it is no outage."""


class Protocols:
    """`choose` a protocol for a call. `fixed` is the user's choice, or `auto`; `aclose` closes all of them."""

    def __init__(self, protocols: Iterable[AgentProtocol], *, fixed: str, version: Exchange) -> None:
        self._protocols = {protocol.name: protocol for protocol in protocols}
        self._version = version
        self._auto = fixed == AUTO
        self._known = None if self._auto else self._protocols[fixed]
        self._asking: asyncio.Task[AgentProtocol | Undecided] | None = None

    @property
    def known(self) -> AgentProtocol | None:
        return self._known

    def named(self, name: str) -> AgentProtocol | None:
        """The protocol that a claim was written with; None for a name that this version does not know."""
        return self._protocols.get(name)

    async def choose(self) -> AgentProtocol | Undecided:
        return self._known if self._known is not None else await self._ask()

    async def doubt(self, protocol: AgentProtocol) -> AgentProtocol | Undecided:
        """It said that there is no such agent: is it still this protocol? The same one again: believe it.

        Only `execute` is doubted (kagent answers it with a plain 404), and only where the user chose `auto`.
        What is known stays known where nobody can say.
        """
        return await self._ask() if self._auto and protocol.name == EXECUTE else protocol

    def replace_key(self, api_key: str) -> None:
        self._version.replace_key(api_key)
        for protocol in self._protocols.values():
            protocol.replace_key(api_key)

    async def aclose(self) -> None:
        if self._asking is not None:
            await asyncio.wait([self._asking])
        for protocol in self._protocols.values():
            await protocol.aclose()
        await self._version.aclose()

    async def _ask(self) -> AgentProtocol | Undecided:
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_version(), name="kagent version")
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)  # one caller that goes must not take the answer from the others

    def _asked(self, _task: "asyncio.Task[AgentProtocol | Undecided]") -> None:
        self._asking = None

    async def _ask_version(self) -> AgentProtocol | Undecided:
        answer = await self._version.ask("GET", "/version")
        if isinstance(answer, NoAnswer):
            words = answer.failure.name.lower().replace("_", " ")
            return Undecided(error=f"kagent's version could not be asked: {words}{answer.hint}")
        name = _spoken(answer)
        if name is None:
            return Undecided(
                error=f"kagent's version could not be asked: HTTP {answer.status}",
                retry_after_s=retry_after_s(answer, self._version.clock.now()),
                unauthorized=answer.status in (401, 403),
            )
        self._known = self._protocols[name]
        return self._known


def _spoken(answer: Answer) -> str | None:
    if answer.status == 404:
        return EXECUTE
    if answer.status // 100 != 2 or not answer.whole:
        return None
    return A2A if json_object(answer.body).get("kagent_version") else EXECUTE
