"""The embedded API server in a process of its own (`python -m bench.api_server`, a `bench.children.Child`).

Configuration `{"token"}`; answers `{"url"}`.
"""

import random

import uvloop

from bench.children import Answers, Message, answer_lines, belong_to_parent
from khook.sandbox.api_server import ApiServer
from khook.sandbox.http import serve
from khook.sandbox.store import Store
from khook.seams import SystemClock


async def configure(config: Message) -> tuple[Message, Answers]:
    clock = SystemClock()
    api = ApiServer(Store(randomness=random.SystemRandom(), now=clock.now()), clock=clock)
    api.tokens = frozenset({config["token"]})
    served = await serve(api)

    async def answers(_message: Message) -> Message:
        return {"open_watches": len(api.open_watches)}

    return {"url": served.url}, answers


if __name__ == "__main__":
    belong_to_parent()
    uvloop.run(answer_lines(configure))
