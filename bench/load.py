"""The load generator: a process of its own that writes to the API server (`python -m bench.load`, a `Child`).

Configuration `{"url", "token", "ca_file", "namespaces"}`. `{"do": "install"}` makes namespaces and Hooks, `{"do":
"prepare", "phase", "count"}` the pods of a phase; then `{"do": "steady", "phase", "rate"}` tells of them at a fixed
rate, or `{"do": "burst", "phase"}` as fast as the connections allow. Both answer with the time just before the last
write about each incident, and how late the generator was by its own schedule: a load that was not applied is not a
figure about khook.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import aiohttp
import orjson
import uvloop

from bench.children import Answers, BenchFailed, Message, answer_lines, belong_to_parent
from bench.incidents import Incident, installed, namespaces, plan, prepared, slowest_first, told
from khook.api.crd import crd
from khook.sandbox.story import Write

CONNECTIONS: Final = 16
"""Many kubelets write; more connections than this only queue up in front of a machine of a few cores."""
ANSWER_WITHIN_S: Final = 60.0
SERVED_WITHIN_S: Final = 20.0
CONTENT_TYPES: Final = {"POST": "application/json", "PATCH": "application/merge-patch+json"}

T = TypeVar("T")
Told = tuple[str, str, str, float, bool]
"""Namespace, agent, pod, time, and whether pod status alone tells of it."""


class Generator:
    def __init__(self, http: aiohttp.ClientSession, *, in_namespaces: int) -> None:
        self._http = http
        self._in_namespaces = in_namespaces
        self._phases: dict[str, list[Incident]] = {}
        self._uids: dict[str, str] = {}
        """By the pod's name, which no two namespaces share."""

    async def answer(self, message: Message) -> Message:
        match message:
            case {"do": "install"}:
                return await self._install()
            case {"do": "prepare", "phase": str(phase), "count": int(count)}:
                return await self._prepare(phase, count)
            case {"do": "steady", "phase": str(phase), "rate": float(rate)}:
                return await self._steady(self._phases[phase], rate)
            case {"do": "burst", "phase": str(phase)}:
                return await self._burst(self._phases[phase])
            case _:
                raise BenchFailed(f"the load generator does not know {message}")

    async def _install(self) -> Message:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await self._write(Write(verb="POST", path=path, body=crd()))
        await self._served()

        async def install(number: int, name: str) -> None:
            for write in installed(name, number):
                await self._write(write)

        names = namespaces(self._in_namespaces)
        await _side_by_side(enumerate(names), lambda one: install(*one))
        return {"installed": len(names)}

    async def _served(self) -> None:
        """A CRD is served a moment after it was taken."""
        async with asyncio.timeout(SERVED_WITHIN_S):
            while True:
                async with self._http.get("/apis/kagent.dev/v1alpha2/hooks") as answer:
                    if answer.status == 200:
                        return
                await asyncio.sleep(0.05)

    async def _prepare(self, phase: str, count: int) -> Message:
        incidents = self._phases[phase] = plan(phase, count, in_namespaces=self._in_namespaces)
        await _side_by_side(incidents, self._make_pod)
        return {"prepared": len(incidents)}

    async def _make_pod(self, incident: Incident) -> None:
        created, *rest = prepared(incident, datetime.now(UTC))
        self._uids[incident.pod] = (await self._write(created))["metadata"]["uid"]
        for write in rest:
            await self._write(write)

    async def _steady(self, incidents: Sequence[Incident], rate: float) -> Message:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        late_s: list[float] = []
        done: list[Told] = []

        async def tell(incident: Incident) -> None:
            done.append(await self._tell(incident))

        async with asyncio.TaskGroup() as group:
            for number, incident in enumerate(incidents):
                due_at = started_at + number / rate
                await asyncio.sleep(max(0.0, due_at - loop.time()))
                late_s.append(loop.time() - due_at)
                group.create_task(tell(incident))
        return {"told": done, "late_s": late_s}

    async def _burst(self, incidents: Sequence[Incident]) -> Message:
        done: list[Told] = []

        async def tell(incident: Incident) -> None:
            done.append(await self._tell(incident))

        await _side_by_side(slowest_first(incidents), tell)
        return {"told": done, "late_s": []}

    async def _tell(self, incident: Incident) -> Told:
        writes = told(incident, datetime.now(UTC), uid=self._uids[incident.pod])
        for write in writes[:-1]:
            await self._write(write)
        last_time = time.time()
        await self._write(writes[-1])
        return (*incident.key, last_time, incident.by_status)

    async def _write(self, write: Write) -> dict[str, Any]:
        headers = {"content-type": CONTENT_TYPES[write.verb]}
        async with self._http.request(write.verb, write.path, data=orjson.dumps(write.body), headers=headers) as answer:
            body = await answer.read()
            if answer.status >= 300:
                raise BenchFailed(f"the API server refused {write.verb} {write.path}: {answer.status} {body[:300]!r}")
        written: dict[str, Any] = orjson.loads(body)
        return written


async def _side_by_side(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """All of them, one after the other on each of the connections."""
    left = iter(items)

    async def one_connection() -> None:
        for item in left:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(one_connection())


def session(config: Message) -> aiohttp.ClientSession:
    """Lives as long as this process."""
    tls = ssl.create_default_context(cafile=config["ca_file"]) if config["ca_file"] else True
    return aiohttp.ClientSession(
        config["url"],
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls),
        headers={"authorization": f"Bearer {config['token']}"},
        timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S),
        trust_env=False,
    )


async def configure(config: Message) -> tuple[Message, Answers]:
    generator = Generator(session(config), in_namespaces=config["namespaces"])

    async def answers(message: Message) -> Message:
        try:
            return await generator.answer(message)
        except (ExceptionGroup, aiohttp.ClientError, TimeoutError) as error:
            raise BenchFailed(f"the load could not be written: {_first(error)}") from None

    return {"up": True}, answers


def _first(error: Exception) -> str:
    """Sixteen connections mostly fail of the same."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, BenchFailed) else repr(error)


if __name__ == "__main__":
    belong_to_parent()
    uvloop.run(answer_lines(configure))
