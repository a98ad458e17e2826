"""The embedded agent server's routes: HTTP exchanges in, the state machine's replies out.

`POST /v1/agents/{id}/execute` and `GET /health` are an execute server's; its `GET /version` is 404, which is how a
client learns what it speaks. A kagent has `/version` and its own routes under `/api`. `GET /sandbox/record` and
`POST /sandbox/faults` let a test in another process read the record and set faults. Waiting is `asyncio.sleep`, so
that virtual time holds here too.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Final

import orjson

from khook.sandbox.exchange import HangUp, Refuse, Request, Response
from khook.sandbox.kagent import Fault, Kagent, Reply, Speaks, Wire
from khook.seams import Clock

# Longer than any client waits, and still an end: a server's own shutdown must not wait for ever.
HANG_S: Final = 3_600.0

_PREFIX: Final = "/v1/agents/"
_SUFFIX: Final = "/execute"


class KagentService:
    """A `Kagent` as a `khook.sandbox.exchange.Service`.

    `weights` draws a fault for each request: a fault's probability is its weight, what is missing to 1 is health.
    """

    def __init__(
        self,
        kagent: Kagent,
        *,
        clock: Clock,
        randomness: random.Random | None = None,
        weights: Mapping[Fault, float] | None = None,
    ) -> None:
        self.kagent = kagent
        self._clock = clock
        self._randomness = randomness
        self._weights = dict(weights or {})
        if self._weights and randomness is None:
            raise ValueError("drawn faults need randomness")

    async def handle(self, request: Request) -> Response:
        executes, is_kagent = self.kagent.speaks is not Speaks.A2A, self.kagent.speaks is not Speaks.EXECUTE
        match request.method, request.path:
            case "GET", "/sandbox/record":
                return _json(200, self.kagent.record())
            case "POST", "/sandbox/faults":
                return self._set_faults(request.body)
            case "POST", path if executes and path.startswith(_PREFIX) and path.endswith(_SUFFIX):
                return await self._execute(request, agent=path[len(_PREFIX) : -len(_SUFFIX)])
            case _ if is_kagent:
                return await _carried_out(self.kagent.a2a(request, now=self._clock.now(), drawn=self._draw(request)))
            case "GET", "/health":
                return _json(200, {"status": "OK"})
            case _:
                return _json(404, {"error": "not found"})

    async def _execute(self, request: Request, *, agent: str) -> Response:
        reply = self.kagent.execute(
            agent=agent,
            authorization=request.headers.get("authorization", ""),
            call_id=request.headers.get("idempotency-key", ""),
            body=request.body,
            now=self._clock.now(),
            drawn=self._draw(request),
        )
        return await _carried_out(reply)

    def _draw(self, request: Request) -> Fault | None:
        if self._randomness is None or not self._weights or request.method != "POST":
            return None
        at = self._randomness.random()
        for fault, weight in self._weights.items():
            if at < weight:
                return fault
            at -= weight
        return None

    def _set_faults(self, body: bytes) -> Response:
        """`{"agent": "name" or "*", "faults": […]}`, see `Fault.from_json`; an empty list heals."""
        try:
            wish = orjson.loads(body)
            faults = [Fault.from_json(fault) for fault in wish["faults"]]
            self.kagent.set_faults(str(wish["agent"]), faults)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            return _json(400, {"error": f"not a list of faults: {error!r}"})
        return _json(200, {"faults": len(faults)})


async def _carried_out(reply: Reply) -> Response:
    match reply.wire:
        case Wire.REFUSE:
            raise Refuse
        case Wire.HANG_UP:
            raise HangUp
        case Wire.HANG:
            await asyncio.sleep(HANG_S)
            raise HangUp
        case Wire.ANSWER:
            await asyncio.sleep(reply.delay_s)
            return Response(status=reply.status, headers=dict(reply.headers), body=reply.body)


def _json(status: int, body: object) -> Response:
    return Response(status=status, headers={"content-type": "application/json"}, body=orjson.dumps(body))
