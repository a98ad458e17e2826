"""`khook run`: the controller, in a cluster or with a kubeconfig.

The order at start matters and is measured: the metrics directory before anything counts, the forkserver in the
main thread before the event loop, the loop last. A signal handler only asks to stop; a second signal exits at once.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import FrameType

from khook import log, metrics, settings
from khook.agents.tls import agent_tls
from khook.errors import SettingsError
from khook.kube.credentials import Credentials
from khook.kube.transports import NetworkTransports
from khook.seams import Exit, SystemClock
from khook.supervisor.credentials import load_beside_the_loop, load_credentials
from khook.supervisor.process import Supervisor
from khook.supervisor.server import Servers
from khook.worker import entry
from shards.forkserver import ForkserverLauncher
from shards.launch import Launcher

SECOND_SIGNAL_EXIT = 1
EXIT_SIGNALLED = 128
"""And the signal's number, as shells count."""


def run(environ: Mapping[str, str] | None = None, *, exit_now: Exit = os._exit) -> None:
    """Run until SIGTERM or SIGINT. Raises a KhookError with its exit code, SettingsError first of all.

    `exit_now` ends the process where it is, at a second signal.
    """
    environ = os.environ if environ is None else environ
    chosen = settings.load(environ)
    log.configure(level=chosen.log_level, format=chosen.log_format)
    if chosen.kagent_api_key is not None:
        log.register_secret(chosen.kagent_api_key.get_secret_value())
    _check_temporary_files()
    directory = metrics.prepare_directory(chosen.multiproc_dir)
    metrics.bind_slot("supervisor")
    if chosen.kagent_ca_file is not None:
        agent_tls("https://", chosen.kagent_ca_file)  # a bad file is a bad setting, not a dead worker
    launcher = ForkserverLauncher(entry.work, preload_modules=(entry.__name__,))
    launcher.ensure_running()
    try:
        # Before the loop: an exec plug-in may take its time, and nobody waits for us yet.
        with _stopped_by_signals() as stop:
            credentials = load_credentials(environ, stop=stop)
        asyncio.run(_supervise(chosen, launcher, credentials, environ, exit_now=exit_now))
    finally:
        if chosen.multiproc_dir is None:
            shutil.rmtree(directory, ignore_errors=True)


def _check_temporary_files() -> None:
    """The forkserver's sockets and the API server's authority go there; a read-only root file system has no place."""
    try:
        tempfile.gettempdir()
    except OSError:
        raise SettingsError(["TMPDIR: no folder for temporary files can be written to; mount one at /tmp"]) from None


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """A first SIGTERM or SIGINT sets it, and ends this process once what was stopped by it is over.

    An exception out of a handler instead would lose the plug-in that is just being started.
    """
    stop = threading.Event()
    got: list[int] = []

    def signalled(number: int, _: FrameType | None) -> None:
        got.append(number)
        stop.set()

    before = {number: signal.signal(number, signalled) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if got:
            sys.exit(EXIT_SIGNALLED + got[0])


async def _supervise(
    chosen: settings.Settings,
    launcher: Launcher,
    credentials: Credentials,
    environ: Mapping[str, str],
    *,
    exit_now: Exit,
) -> None:
    instance = chosen.pod_name or socket.gethostname()
    supervisor = Supervisor(
        settings=chosen,
        credentials=credentials,
        load_credentials=partial(load_beside_the_loop, environ),
        launcher=launcher,
        clock=SystemClock(),
        randomness=random.SystemRandom(),
        transports=NetworkTransports(),
        instance=instance,
    )
    stop_on_signals(supervisor.stop, exit_now=exit_now)
    servers = Servers(exposition=metrics.exposition, ready=supervisor.ready, status=supervisor.status)
    try:
        listening = await servers.start(
            metrics_port=chosen.metrics_port, health_port=chosen.health_port, status_address=chosen.status_address
        )
        log.get("supervisor").info(
            "khook started",
            workers=chosen.workers.count,
            because=chosen.workers.because.value,
            metrics_port=listening.metrics_port,
            health_port=listening.health_port,
            status_address=str(listening.status_address),
        )
        await supervisor.run()
    finally:
        await servers.close()


def stop_on_signals(stop: Callable[[], None], *, exit_now: Exit) -> None:
    """The running loop's SIGTERM and SIGINT: the first asks to stop, any further one does not wait for that."""
    asked: list[signal.Signals] = []

    def signalled(number: signal.Signals) -> None:
        if asked:
            exit_now(SECOND_SIGNAL_EXIT)
        asked.append(number)
        stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
