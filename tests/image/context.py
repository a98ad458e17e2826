"""What of the working tree a build may see: `.dockerignore`, as a container engine reads it.

The last pattern that matches a path or a folder above it decides; `!` lets it in again. Patterns start at the root,
`*` ends at a slash and `**` does not. Source: https://docs.docker.com/build/concepts/context/#dockerignore-files.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Context:
    """A folder and the rules that say what of it counts: (pattern, whether it lets in)."""

    root: Path
    rules: tuple[tuple[re.Pattern[str], bool], ...]

    @staticmethod
    def of(root: Path) -> "Context":
        lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
        patterns = (line.strip() for line in lines if line.strip() and not line.startswith("#"))
        return Context(
            root, tuple((_expression(pattern.removeprefix("!")), pattern.startswith("!")) for pattern in patterns)
        )

    def holds(self, path: str) -> bool:
        """Whether this file (relative, with slashes) reaches the build."""
        chain = [path, *(str(parent) for parent in PurePosixPath(path).parents if parent.name)]
        held = True
        for expression, lets_in in self.rules:
            if any(expression.fullmatch(one) for one in chain):
                held = lets_in
        return held

    def files(self, source: str) -> Iterator[PurePosixPath]:
        """The files at or under `source`, relative to the root."""
        start = self.root / source
        for found in [start] if start.is_file() else sorted(start.rglob("*")):
            relative = found.relative_to(self.root).as_posix()
            if found.is_file() and self.holds(relative):
                yield PurePosixPath(relative)


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/?|\*|\?)", pattern.strip("/"))
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))
