"""Starts the built image as a kubelet does, and looks on.

A trial is the built root file system, sealed (`image.room`): read-only, as the image's user, its ENTRYPOINT as PID 1.
Its API server is one that refuses connections, which is all that a start needs.
"""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from image.build import Built
from image.room import TMP_SIZE, Container

SERVICE_ACCOUNT: Final = "run/secrets/kubernetes.io/serviceaccount"
ENDS_WITHIN_S: Final = 30.0
STARTS_WITHIN_S: Final = 60.0
LOOK_EVERY_S: Final = 0.01
POD: Final = {
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "KUBERNETES_SERVICE_PORT": "9",  # discard: nobody listens
    "POD_NAMESPACE": "kagent-system",
    "KAGENT_API_KEY": "a-key-for-the-check",
    "KAGENT_BASE_URL": "http://127.0.0.1:9",
    "METRICS_PORT": "0",
    "HEALTH_PORT": "0",
    "KHOOK_STATUS_ADDRESS": "127.0.0.1:0",
}
"""Free ports, since the room shares the machine's network; the log names them."""
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Broken(Exception):
    """The image does not do what it must; the text says what was seen."""


@dataclass(slots=True)
class Trial:
    """The built image and where output goes; makes containers of it."""

    built: Built
    version: str
    scratch: Path

    @contextlib.contextmanager
    def started(
        self,
        *arguments: str,
        env: Mapping[str, str] = NOTHING,
        entrypoint: tuple[str, ...] | None = None,
        tmp_size: str = TMP_SIZE,
    ) -> Iterator[Container]:
        """The image with these arguments in the place of its CMD; gone afterwards."""
        built = self.built
        command = [*(built.entrypoint if entrypoint is None else entrypoint), *(arguments or built.command)]
        container = Container.start(
            built.root, command, user=built.user, env=built.env | dict(env), output=self._output, tmp_size=tmp_size
        )
        try:
            yield container
        finally:
            container.kill()

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] = NOTHING,
        entrypoint: tuple[str, ...] | None = None,
        tmp_size: str = TMP_SIZE,
    ) -> tuple[int, str]:
        """Exit code and output of a container that ends by itself."""
        with self.started(*arguments, env=env, entrypoint=entrypoint, tmp_size=tmp_size) as container:
            code = container.wait(ENDS_WITHIN_S)
        return code, self.said()

    def said(self) -> str:
        """What the last container has printed so far."""
        return self._output.read_text(encoding="utf-8")

    def until_logged(self, event: str, container: Container) -> dict[str, Any]:
        """The log line of this event, as soon as it is there."""
        give_up_at = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < give_up_at and container.process.poll() is None:
            for line in self.said().splitlines():
                if line.startswith("{") and (told := _parsed(line)).get("event") == event:
                    return told
            time.sleep(LOOK_EVERY_S)
        raise Broken(f"no {event!r} in the log:\n{self.said()[-2000:]}")

    @property
    def _output(self) -> Path:
        return self.scratch / "output"


def like_a_pod(root: Path) -> None:
    """What the kubelet mounts; any authority's certificate will do."""
    mounted = root / SERVICE_ACCOUNT
    mounted.mkdir(parents=True)
    (mounted / "token").write_text("a-token", encoding="utf-8")
    shutil.copy(root / "etc/ssl/certs/ca-certificates.crt", mounted / "ca.crt")


def _parsed(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except json.JSONDecodeError:
        return {}  # half a line, so far
