"""`python -m image`: build by the Dockerfile, without a container engine, start the result, say what was seen.

Exit codes: 0 all good, 1 the image is broken, 2 it cannot be tried on this machine.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Final

from image.base import NoBase
from image.build import Builder, StepFailed
from image.checks import CHECKS
from image.context import Context
from image.dockerfile import NotUnderstood, load
from image.room import obstacle
from image.trial import Broken, Trial, like_a_pod

ROOT: Final = Path(__file__).parents[2]
CANNOT_BE_TRIED: Final = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m image", description=__doc__)
    parser.add_argument("--cache", type=Path, default=ROOT / ".image", help="holds the base between runs")
    parser.add_argument("--keep", action="store_true", help="leave the built root file system, and say where")
    asked = parser.parse_args()
    if problem := obstacle():
        print(f"image-check: not here: {problem}. With docker, podman or buildah: make docker-build", file=sys.stderr)
        return CANNOT_BE_TRIED
    asked.cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="build-", dir=asked.cache))
    try:
        return _try(scratch, asked.cache.absolute())
    except NoBase as error:
        print(f"image-check: {error}", file=sys.stderr)
        return CANNOT_BE_TRIED
    except (NotUnderstood, StepFailed) as error:
        print(f"image-check: Dockerfile: {error}", file=sys.stderr)
        return 1
    finally:
        if asked.keep:
            print(f"kept: {scratch}")
        else:
            shutil.rmtree(scratch)


def _try(scratch: Path, cache: Path) -> int:
    started_at = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_at:6.1f} s  {line}", flush=True)

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    arguments = {**os.environ, "VERSION": version}  # PYTHON_IMAGE, SOURCE_DATE_EPOCH: as --build-arg gives them
    builder = Builder(Context.of(ROOT), scratch, arguments, cache=cache, say=say)
    built = builder.build(load(ROOT / "Dockerfile", arguments))
    like_a_pod(built.root)
    trial = Trial(built, version, scratch)
    broken = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            say(f"ok: {name}: {check(trial)}")
        except Broken as error:
            broken += 1
            say(f"BROKEN: {name}: {error}")
    say(f"{len(CHECKS) - broken} passed, {broken} failed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
