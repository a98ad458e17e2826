"""The embedded kagent in a process of its own (`python -m bench.agents`, a `bench.children.Child`).

Configuration `{"key", "answer_s", "run_s"}`; answers `{"url"}`. Then `{"do": "count"}` says how far it is, cheaply
enough to be asked twenty times a second, and `{"do": "record"}` what each agent was asked, and when the request was
there: `[namespace, agent, pod, time]`, the time in seconds of this machine's clock.
"""

from typing import Final

import uvloop

from bench.children import Answers, Message, answer_lines, belong_to_parent
from khook.sandbox.http import serve
from khook.sandbox.kagent import ANY_AGENT, Behaviour, Fault, FaultKind, Kagent, Speaks, Step
from khook.sandbox.kagent_routes import KagentService
from khook.seams import SystemClock

SAID: Final = "The limit of 256Mi is too low for its heap of 300Mi."


async def configure(config: Message) -> tuple[Message, Answers]:
    behaviour = Behaviour(run_s=config["run_s"], said=SAID)
    kagent = Kagent(api_key=config["key"], speaks=Speaks.A2A, behaviour=behaviour)
    kagent.set_faults(ANY_AGENT, [Fault(kind=FaultKind.SLOW, seconds=config["answer_s"], on=Step.SEND)])
    served = await serve(KagentService(kagent, clock=SystemClock()))

    async def answers(message: Message) -> Message:
        if message["do"] == "count":
            return {"runs": len(kagent.runs), "polls": kagent.requests[Step.POLL]}
        asked = [
            (run.context["namespace"], run.agent, run.context["resourceName"], run.time.timestamp())
            for run in kagent.runs
        ]
        return {"asked": asked}

    return {"url": served.url}, answers


if __name__ == "__main__":
    belong_to_parent()
    uvloop.run(answer_lines(configure))
