"""The commands of a document, as somebody types them, and the terminal that they are typed into.

There is no kubelet, so two commands of kubectl's are played: `logs` prints the log of the running khook, and `exec`
runs what follows `--` with the container's variables. All else is the real kubectl and the real helm.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.kube_tools import kube_tool
from support.real_apiserver import REPOSITORY

_BLOCK: Final = re.compile(r"^ *```bash\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_KUBECTL: Final = """#!/usr/bin/env bash
set -euo pipefail
case "${{1:-}}" in
  logs) exec cat {log} ;;
  exec)
    while [[ $1 != -- ]]; do shift; done
    shift
    exec env -i {variables} "$@" ;;
esac
exec {kubectl} "$@"
"""


def blocks(document: str) -> list[str]:
    """The shell blocks of a document of this repository."""
    return _BLOCK.findall((REPOSITORY / document).read_text(encoding="utf-8"))


def play_the_kubelet(folder: Path, *, log: Path, container: Mapping[str, str]) -> str:
    """A PATH that begins with a kubectl whose pods are this process. `container`: the variables of its `exec`."""
    tools = folder / "tools"
    tools.mkdir()
    places = (tools, kube_tool("helm").parent, Path(sys.executable).parent)
    path = os.pathsep.join((*map(str, places), os.environ["PATH"]))
    variables = dict(container) | {"PATH": path}
    script = tools / "kubectl"
    script.write_text(
        _KUBECTL.format(
            log=shlex.quote(str(log)),
            variables=" ".join(shlex.quote(f"{name}={value}") for name, value in variables.items()),
            kubectl=shlex.quote(str(kube_tool("kubectl"))),
        )
    )
    script.chmod(0o755)
    return path
