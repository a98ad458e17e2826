"""What a forked worker runs: the module that the forkserver imports ahead, and the function it is handed to.

First the slot is bound to the metrics, before anything counts; settings and credentials come over the channel.
"""

import random
import socket

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
