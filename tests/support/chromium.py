"""A headless Chromium, spoken to by its DevTools protocol: what a reader's browser makes of a page.

https://chromedevtools.github.io/devtools-protocol/: one WebSocket, JSON, a number to each command. Nothing but what
the tests of the status page and its screenshot need.
"""

import asyncio
import base64
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START_WITHIN_S: Final = 60.0
ANSWER_WITHIN_S: Final = 60.0
"""No test is judged by its speed: this may be a busy machine."""

Scheme = Literal["light", "dark"]


def find() -> str | None:
    """KHOOK_CHROMIUM, else the first of the usual names on the PATH."""
    return os.environ.get("KHOOK_CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page. `complaints`: what its console has as an error or a warning, uncaught exceptions and refused loads."""

    def __init__(self, socket: "aiohttp.ClientWebSocketResponse") -> None:
        self._socket = socket
        self._session = ""
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.complaints: list[str] = []

    async def listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            if (waiting := self._answers.pop(said.get("id", 0), None)) is not None:
                waiting.set_result(said)
            else:
                self._heard(said.get("method", ""), said.get("params", {}))

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(str(details.get("exception", {}).get("description", details["text"])))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(" ".join(str(one.get("value", one)) for one in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(params["entry"]["text"]))

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        body: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        await self._socket.send_json(body | ({"sessionId": self._session} if self._session else {}))
        async with asyncio.timeout(ANSWER_WITHIN_S):
            said = await answer
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    async def attach(self) -> None:
        target = await self.command("Target.createTarget", url="about:blank")
        attached = await self.command("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")

    async def open(self, url: str, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> None:
        """`width` and `height` in CSS pixels; below 500 as a phone has them."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.command("Emulation.setEmulatedMedia", features=features)
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise's when it is there."""
        done = await self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        done = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(done["data"])


@asynccontextmanager
async def tab(binary: str) -> AsyncIterator[Tab]:
    """A browser of its own with one tab; both are gone afterwards."""
    async with AsyncExitStack() as stack:
        profile = Path(tempfile.mkdtemp(prefix="khook-chromium-"))
        stack.callback(shutil.rmtree, profile, ignore_errors=True)
        browser = await asyncio.create_subprocess_exec(
            binary,
            *("--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking"),
            *(("--no-sandbox",) if os.geteuid() == 0 else ()),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        stack.push_async_callback(_ended, browser)
        url = await asyncio.wait_for(_address(browser), START_WITHIN_S)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        socket = await stack.enter_async_context(session.ws_connect(url, max_msg_size=0))
        opened = Tab(socket)
        listening = asyncio.create_task(opened.listen())
        stack.callback(listening.cancel)
        await opened.attach()
        yield opened


async def _address(browser: asyncio.subprocess.Process) -> str:
    assert browser.stderr is not None
    said = []
    async for line in browser.stderr:
        said.append(line.decode(errors="replace"))
        if found := re.search(r"DevTools listening on (ws://\S+)", said[-1]):
            return found[1]
    raise AssertionError(f"Chromium did not start:\n{''.join(said)}")


async def _ended(browser: asyncio.subprocess.Process) -> None:
    """With all its children: they are a process group."""
    with suppress(ProcessLookupError):
        os.killpg(browser.pid, signal.SIGKILL)
    assert browser.stderr is not None
    await browser.stderr.read()
    await browser.wait()
