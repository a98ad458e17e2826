"""The worker's connection to kagent: which protocol, with which key, at which address, right now.

Every exchange is a task of its own that is never cancelled (that would cost its connection); whoever stops waiting
for its answer just leaves it. After a change of address, the old connections are closed when the last exchange on
them has ended.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from khook.agents.a2a import A2aProtocol
from khook.agents.auto import Protocols, Undecided
from khook.agents.exchange import Exchange
from khook.agents.execute import ExecuteProtocol
from khook.agents.outcome import AgentProtocol
from khook.agents.tls import agent_tls
from khook.messages import AgentAccess, AgentConfig
from khook.seams import Clock, Transports

T = TypeVar("T")


class Kagent:
    def __init__(self, *, access: AgentAccess, connect: Callable[[AgentAccess], Protocols]) -> None:
        self._access = access
        self._connect = connect
        self._protocols = connect(access)
        self._exchanges: set[asyncio.Task[Any]] = set()
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def has_key(self) -> bool:
        return bool(self._access.api_key)

    async def choose(self) -> AgentProtocol | Undecided:
        """The protocol for a new claim; see `Protocols.choose`."""
        return await self._protocols.choose()

    def named(self, name: str) -> AgentProtocol | None:
        """The protocol of an earlier claim; None for one that this version does not know."""
        return self._protocols.named(name)

    async def doubt(self, protocol: AgentProtocol) -> AgentProtocol | Undecided:
        return await self._protocols.doubt(protocol)

    def current(self, protocol: AgentProtocol) -> AgentProtocol:
        """The same protocol at the address of now: whoever waited may hold one whose connections are closed."""
        return self._protocols.named(protocol.name) or protocol

    def begin(self, exchange: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start an exchange; wait for it with `asyncio.shield`."""
        task = asyncio.create_task(exchange)
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)
        return task

    async def ask(self, exchange: Coroutine[Any, Any, T]) -> T:
        return await asyncio.shield(self.begin(exchange))

    def access_changed(self, access: AgentAccess) -> bool:
        """From the next exchange on, this key and this address. True: the address is another one."""
        before, self._access = self._access, access
        if access == msgspec.structs.replace(before, api_key=access.api_key):
            self._protocols.replace_key(access.api_key)
            return False
        retired, self._protocols = self._protocols, self._connect(access)
        closing = asyncio.create_task(_close_after(retired, set(self._exchanges)))
        self._retired.add(closing)
        closing.add_done_callback(self._retired.discard)
        return access.base_url != before.base_url


def connect(access: AgentAccess, *, agents: AgentConfig, transports: Transports, clock: Clock) -> Protocols:
    """Both protocols at one address, each with connections of its own. Raises SettingsError for a bad CA file."""
    tls = agent_tls(access.base_url, agents.ca_file)
    a2a = A2aProtocol(
        base_url=access.base_url,
        api_key=access.api_key,
        user_id=agents.user_id,
        transport=transports.exact(tls=tls),
        clock=clock,
        read_timeout_s=agents.timeout_s,
    )
    execute = ExecuteProtocol(
        base_url=access.base_url,
        api_key=access.api_key,
        transport=transports.exact(tls=tls),
        clock=clock,
        read_timeout_s=agents.timeout_s,
        key_hint=access.key_hint,
    )
    version = Exchange(
        base_url=access.base_url,
        api_key=access.api_key,
        transport=transports.exact(tls=tls),
        clock=clock,
        read_timeout_s=agents.timeout_s,
    )
    return Protocols((a2a, execute), fixed=agents.protocol, version=version)


async def _close_after(protocols: Protocols, exchanges: set[asyncio.Task[Any]]) -> None:
    if exchanges:
        await asyncio.wait(exchanges)
    await protocols.aclose()
