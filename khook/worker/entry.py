"""What a forked worker runs: the module that the forkserver imports ahead, and the function it is handed to.

First the slot is bound to the metrics, before anything counts; settings and credentials come over the channel.

The imports that nothing here uses are what httpx asks for only when it makes its first transport and its first
connection: left to that, each worker imports them anew, for 40 ms in which nobody watches its namespaces.
"""

import encodings.idna  # noqa: F401
import random
import socket

import anyio._backends._asyncio  # noqa: F401
import certifi  # noqa: F401
import httpcore  # noqa: F401

from khook import log, metrics
from khook.kube.transports import NetworkTransports
from khook.seams import SystemClock
from khook.worker.process import Seams
from khook.worker.process import serve as serve_worker
from shards.forkserver import serve
from shards.launch import Seat


def work(slot: str, channel: socket.socket) -> None:
    """`shards.forkserver.Entry`."""
    metrics.bind_slot(slot)
    serve(slot, channel, _life)


async def _life(seat: Seat) -> None:
    seams = Seams(
        clock=SystemClock(),
        randomness=random.SystemRandom(),
        transports=NetworkTransports(),
        configure_log=log.configure,
    )
    await serve_worker(seat, seams=seams)
