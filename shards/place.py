"""One slot of a pool and whatever fills it: the process's life from launch to burial, and the way to it.

Decides nothing: when to launch, whom to signal and what a death means is the policy's and the pool's.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from shards import wire
from shards.launch import Channel, ChannelClosed, Launcher, LaunchFailed, Process
from shards.policy import Phase, PoolLimits, SlotPolicy
from shards.user import SlotView

LAST_WORDS_S: Final = 1.0
"""How long a dead process's channel is read for what it still said."""

Read = Callable[["Place", Channel], Awaitable[None]]
"""Hears a process out; returns when its channel has ended."""


class Place:
    def __init__(self, slot: str, limits: PoolLimits) -> None:
        self.slot = slot
        self.policy = SlotPolicy(limits)
        self.process: Process | None = None
        self.life: asyncio.Task[None] | None = None
        """The task that fills the slot now, or filled it last."""
        self.launches = 0
        self.lag_s = 0.0
        self.last_death = ""

    def view(self, keys: Sequence[str], load: float) -> SlotView:
        return SlotView(
            state=self.policy.phase,
            on_probation=self.policy.on_probation,
            pid=self.process.pid if self.process is not None else None,
            restarts=max(0, self.launches - 1),
            keys=tuple(keys),
            load=load,
            lag_s=self.lag_s,
            last_death=self.last_death,
        )

    def send(self, message: wire.FromPool) -> bool:
        """False: nobody is there. Raises ChannelFull."""
        if self.process is None:
            return False
        try:
            self.process.channel.send(wire.encode(message))
        except ChannelClosed:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.signal(number)

    async def fill(self, launcher: Launcher, read: Read) -> str:
        """One process, from its launch until it is gone for certain. Returns how it ended."""
        try:
            process = await launcher.launch(self.slot)
        except LaunchFailed as error:
            return f"not started: {error}"
        self.process = process
        if self.policy.phase is Phase.DOOMED:  # sentenced while it was being born
            process.signal(signal.SIGKILL)
        reading = asyncio.ensure_future(read(self, process.channel))
        try:
            how = await process.exited()
            await asyncio.wait([reading], timeout=LAST_WORDS_S)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            process.channel.close()
        return how
