"""Kubernetes objects in files, as a person wrote them: YAML or JSON, several documents in one, and where each line is.

Scalars mean what they mean to kubectl: a time stays a text (YAML 1.1 would make a date of it), and a key that stands
twice in a map is a mistake. A document remembers its nodes, so that a problem's path becomes the line of its field.
What cannot be read is one sentence with file and line, never a traceback.
"""

import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

STDIN: Final = "-"
MAX_BYTES: Final = 4 * 1024 * 1024
"""Hundreds of Hooks or Events; a Hook has at most 1.5 MiB."""

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


class BadDocument(ValueError):
    """A file that cannot be read: `FILE:LINE: what is wrong`."""


class _Loader(yaml.SafeLoader):
    """YAML as kubectl reads it. Not libyaml's loader, ten times as fast: deep nesting ends that one's process."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML names it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} stands here twice", problem_mark=key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file. `content` is whatever stands there."""

    file: str
    content: Any
    node: yaml.Node

    @property
    def kind(self) -> str:
        kind = self.content.get("kind") if isinstance(self.content, dict) else None
        return kind if isinstance(kind, str) else ""

    def line(self, path: str = "") -> int:
        """The line of the field at this path, or of the nearest around it that is there; counted from 1."""
        node, rest, mark = self.node, f".{path}" if path else "", self.node.start_mark
        while rest:
            step = _step(node, rest)
            if step is None:
                break
            mark, node, rest = step
        return int(mark.line) + 1

    def place(self, path: str = "") -> str:
        return f"{self.file}:{self.line(path)}"


def read(name: str) -> list[Document]:
    """The documents of a file, `-` for stdin; empty ones are left out. Raises BadDocument."""
    shown = "stdin" if name == STDIN else name
    try:
        with sys.stdin.buffer if name == STDIN else Path(name).open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadDocument(f"{shown}: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise BadDocument(f"{shown}: more than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        return list(parse(raw.decode("utf-8-sig"), name=shown))
    except UnicodeDecodeError:
        raise BadDocument(f"{shown}: not UTF-8 text") from None


def parse(text: str, *, name: str) -> Iterator[Document]:
    """Raises BadDocument."""
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            content = loader.construct_document(node)
            if node is not None and content is not None:
                yield from _members(Document(file=name, content=content, node=node))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise BadDocument(f"{name}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise BadDocument(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, ValueError, TypeError) as error:
        raise BadDocument(f"{name}: not YAML that can be read: {type(error).__name__}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _members(document: Document) -> Iterator[Document]:
    """A List is its items."""
    items = document.content.get("items") if isinstance(document.content, dict) else None
    if not document.kind.endswith("List") or not isinstance(items, list):
        yield document
        return
    nodes = _value_of(document.node, "items")
    for item, node in zip(items, nodes.value if nodes is not None else (), strict=True):
        yield Document(file=document.file, content=item, node=node)


def _value_of(node: yaml.Node, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for key, value in pairs if key.value == name), None)


def _step(node: yaml.Node, rest: str) -> tuple[yaml.Mark, yaml.Node, str] | None:
    """One step down a path such as `.spec.list[2].labels.app.kubernetes.io/name`: a key may itself hold dots."""
    if rest.startswith("[") and isinstance(node, yaml.SequenceNode):
        number, _, after = rest[1:].partition("]")
        if number.isdecimal() and int(number) < len(node.value):
            child = node.value[int(number)]
            return child.start_mark, child, after
    if rest.startswith(".") and isinstance(node, yaml.MappingNode):
        for key, value in sorted(node.value, key=lambda pair: -len(str(pair[0].value))):
            after = rest[1 + len(str(key.value)) :]
            if rest[1:].startswith(str(key.value)) and (not after or after[0] in ".["):
                return key.start_mark, value, after
    return None
