"""Go's own text/template, as a program: `tests/peers/go_template`, built by `make envtest`."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from support.real_apiserver import REPOSITORY

BINARY: Final = "go-template"
# Some thousand cases take a second; this is for a program that hangs.
ANSWERS_WITHIN_S: Final = 120.0


def find_go_template() -> Path | None:
    """In KUBEBUILDER_ASSETS, which may hold the API server alone, else where `make envtest` puts it."""
    for folder in (os.environ.get("KUBEBUILDER_ASSETS"), REPOSITORY / ".envtest"):
        if folder and os.access(Path(folder) / BINARY, os.X_OK):
            return Path(folder) / BINARY
    return None


def rendered_by_go(binary: Path, cases: Iterable[tuple[str, Mapping[str, str]]]) -> list[str | None]:
    """What Go makes of each template with its values, None where it refuses it; one process for all."""
    asked = "".join(json.dumps({"template": text, "values": dict(values)}) + "\n" for text, values in cases)
    said = subprocess.run([binary], input=asked.encode(), capture_output=True, check=True, timeout=ANSWERS_WITHIN_S)
    answers = map(json.loads, said.stdout.splitlines())
    return [answer.get("output", "") if answer["ok"] else None for answer in answers]
