"""What a worker does before it serves: as little as can be, for its namespaces are unwatched meanwhile."""

import json
import subprocess
import sys

PROGRAM = """
import asyncio, json, sys
import httpx, uvloop
import khook.worker.entry
from khook.kube.transports import NetworkTransports

imported = set(sys.modules)

async def connect() -> None:
    transports = NetworkTransports()
    for transport in (transports.exact(tls=None), transports.streaming(tls=None)):
        async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
            try:
                await client.get("http://localhost:1/")
            except httpx.HTTPError:
                pass

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(connect())
print(json.dumps(sorted(set(sys.modules) - imported)))
"""


def test_a_worker_imports_nothing_that_its_forkserver_has_not() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == []
