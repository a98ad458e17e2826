"""The first thing a forkserver imports: ties its life to the supervisor's, then imports what every worker needs.

Importing this module does nothing unless `VARIABLE` stands in the environment, which `shards.forkserver` sees to
only while it boots a server. Then, in this order: die with the supervisor, ignore the signals meant for it, import
with the garbage collector off, freeze. What it notes (`PID`, `LOADED`, `FAILED`) is inherited by each fork, and is
how a worker proves that all this happened: multiprocessing swallows an ImportError in a preload.
"""

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from typing import Final

VARIABLE: Final = "SHARDS_PRELOAD"
EXIT_ORPHAN: Final = 71
_PR_SET_PDEATHSIG: Final = 1

PID = 0
"""The process that carried the preload out; 0 if none did."""
LOADED: list[str] = []
FAILED: dict[str, str] = {}


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL for this process when its parent ends, however that ends; at once if it has ended already."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        os._exit(EXIT_ORPHAN)


def problem(names: list[str]) -> str:
    """Why this process was not forked from a server that preloaded `names`; empty if it was."""
    if os.getppid() != PID:
        return "the forkserver did not import shards.preload"
    missing = [f"{name} ({FAILED.get(name, 'not asked for')})" for name in names if name not in LOADED]
    return f"not preloaded: {', '.join(missing)}" if missing else ""


def _preload(asked: str) -> None:
    global PID  # noqa: PLW0603 - what a fork inherits can only be a module's state
    wanted = json.loads(asked)
    die_with_parent(wanted["parent_pid"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the whole group, and is the supervisor's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.disable()
    sys.path[:] = wanted["path"]  # CPython before 3.13 leaves the server without the supervisor's own entries
    for name in wanted["modules"]:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - whatever an import raises, the server must live to let it be told
            FAILED[name] = f"{type(error).__name__}: {error}"
        else:
            LOADED.append(name)
    gc.freeze()
    PID = os.getpid()


if VARIABLE in os.environ:
    _preload(os.environ.pop(VARIABLE))
