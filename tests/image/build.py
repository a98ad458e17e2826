"""Carries a Dockerfile's stages out, each in a copy of the base's root file system.

Knows what the instructions mean, as far as ours uses them, and leaves isolation to `image.room`. Every step starts
from what the one before left; nothing is cached but the base.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from image.base import base_archive, lend, take_back
from image.context import Context
from image.dockerfile import Dockerfile, NotUnderstood, Stage, Step, argument
from image.room import build_step

STEP_WITHIN_S: Final = 600.0
BASE_PATH: Final = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
SHOWN_CHARS: Final = 4_000
"""The end of what a step that failed has printed."""


class StepFailed(Exception):
    """A step ended with an error; the text has its line and the end of its output."""


@dataclass(slots=True)
class Built:
    """A stage as far as it has come; the last one is the image."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        return self.arguments | self.env

    def inside(self, path: str) -> Path:
        return self.root / os.path.normpath(os.path.join(self.workdir, path)).lstrip("/")  # noqa: PTH118 - of the image


class Builder:
    """Builds in `scratch`; `say` hears each step before it is carried out."""

    def __init__(
        self, context: Context, scratch: Path, arguments: Mapping[str, str], *, cache: Path, say: Callable[[str], None]
    ) -> None:
        self._context = context
        self._scratch = scratch
        self._given = arguments
        self._cache = cache
        self._say = say
        self._done: dict[str, Built] = {}

    def build(self, dockerfile: Dockerfile) -> Built:
        """Raises NoBase, NotUnderstood, StepFailed."""
        for stage in dockerfile.stages:
            self._done[stage.name] = self._stage(stage)
        return self._done[dockerfile.final.name]

    def _stage(self, stage: Stage) -> Built:
        self._say(f"FROM {stage.base} (its stand-in)")
        built = Built(self._scratch / stage.name)
        built.root.mkdir()
        subprocess.run(["tar", "-C", built.root, "-xf", base_archive(stage.base, self._cache)], check=True)
        lent = lend(built.root, os.environ)
        for step in stage.steps:
            self._carry_out(step, built, lent)
        take_back(built.root)
        return built

    def _carry_out(self, step: Step, built: Built, lent: Mapping[str, str]) -> None:
        match step.keyword:
            case "ARG":
                built.arguments |= argument(step, self._given)
            case "ENV":
                built.env |= step.pairs(built.variables)
            case "LABEL":
                built.labels |= step.pairs(built.variables)
            case "WORKDIR":
                (built.workdir,) = step.words(built.variables)
                built.inside(".").mkdir(parents=True, exist_ok=True)
            case "USER":
                (built.user,) = step.words(built.variables)
            case "COPY":
                self._say(f"COPY {step.text}")
                self._copy(step, built)
            case "RUN":
                self._say(f"RUN {step.text[:100]}")
                self._run(step, built, lent)
            case "ENTRYPOINT":
                built.entrypoint = step.exec_form()
            case "CMD":
                built.command = step.exec_form()
            case "EXPOSE":
                pass  # tells people, changes nothing
            case other:
                raise NotUnderstood(f"line {step.line}: {other}")

    def _run(self, step: Step, built: Built, lent: Mapping[str, str]) -> None:
        if built.user != "0:0":
            raise NotUnderstood(f"line {step.line}: RUN after USER")
        command = ["/bin/sh", "-c", 'cd "$0" && exec /bin/sh -c "$1"', built.workdir, step.text]
        env = {**lent, "HOME": "/root", **built.variables}
        try:
            build_step(built.root, command, env=env, within_s=STEP_WITHIN_S)
        except subprocess.CalledProcessError as error:
            raise StepFailed(f"line {step.line}: exit {error.returncode}\n{error.stdout[-SHOWN_CHARS:]}") from None

    def _copy(self, step: Step, built: Built) -> None:
        words = step.words(built.variables)
        flags = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        match flags:
            case []:
                self._copy_from_context(step, built, sources, target)
            case [flag] if flag.startswith("--from="):
                self._copy_from_stage(self._done[flag.removeprefix("--from=")], built, sources, target)
            case _:
                raise NotUnderstood(f"line {step.line}: COPY {step.text}")

    def _copy_from_context(self, step: Step, built: Built, sources: list[str], target: str) -> None:
        """A folder's contents go to the target; a file goes into it, if it ends in a slash."""
        for source in sources:
            is_folder = (self._context.root / source).is_dir()
            files = list(self._context.files(source))
            if not files:
                raise StepFailed(f"line {step.line}: the build may not see {source}, or it does not exist")
            for file in files:
                if is_folder:
                    to = built.inside(target) / file.relative_to(source)
                else:
                    to = built.inside(target) / file.name if target.endswith("/") else built.inside(target)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context.root / file, to)

    def _copy_from_stage(self, source: Built, built: Built, paths: list[str], target: str) -> None:
        for path in paths:
            shutil.copytree(source.inside(path), built.inside(target), symlinks=True, dirs_exist_ok=True)
