"""What `khook explain` is asked about: Pods and Events in a file, or a pod in the cluster.

An Event may be core/v1 or events.k8s.io/v1; a file may hold the pod beside its Events, or a List of them. All of it
must be about one pod.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from khook.api.v1alpha2 import API_VERSION, KIND
from khook.cli.documents import STDIN, BadDocument, Document, read
from khook.core.signal import EventLine, PodLine

_POD: Final = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9.-]{0,252})")
_FROM_EVENTS_V1: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
"""events.k8s.io/v1 as core/v1 shows it (pkg/apis/events/v1/conversion.go)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One pod. `line` and `events` are what a file says of it; both empty: the cluster is asked."""

    namespace: str
    name: str
    line: PodLine | None = None
    events: tuple[EventLine, ...] = ()


def question(target: str, *, default_namespace: str) -> Question:
    """From the command's argument: a file, `-`, or `namespace/pod`. Raises BadDocument."""
    named = _POD.fullmatch(target)
    if named is not None and not Path(target).exists():
        return Question(namespace=named[1], name=named[2])
    return _of_documents(read(target), target, default_namespace)


def hooks_in(name: str, *, namespace: str) -> list[dict[str, Any]]:
    """The Hooks of a file that are for this namespace; one that names none is. Raises BadDocument."""
    hooks = [document for document in read(name) if is_hook(document)]
    if not hooks:
        raise BadDocument(f"{name}: no Hook in it")
    found = []
    for document in hooks:
        metadata = document.content.get("metadata")
        metadata = dict(metadata) if isinstance(metadata, dict) else {}
        metadata.setdefault("namespace", namespace)
        if metadata["namespace"] == namespace:
            found.append(document.content | {"metadata": metadata})
    return found


def is_hook(document: Document) -> bool:
    return document.kind == KIND and document.content.get("apiVersion") == API_VERSION


def _of_documents(documents: Iterable[Document], target: str, default_namespace: str) -> Question:
    line: PodLine | None = None
    events: list[EventLine] = []
    about: set[tuple[str, str]] = set()
    for document in documents:
        match document.kind:
            case "Pod":
                line = _converted(document, document.content, PodLine)
                about.add((line.metadata.namespace or default_namespace, line.metadata.name))
            case "Event":
                event = _converted(document, _as_core_v1(document.content), EventLine)
                events.append(event)
                where = event.involved_object.namespace or event.metadata.namespace or default_namespace
                about.add((where, event.involved_object.name))
            case _:
                continue
    shown = "stdin" if target == STDIN else target
    if not about:
        raise BadDocument(f"{shown}: neither a Pod nor an Event in it (a live pod is written namespace/name)")
    if len(about) > 1:
        pods = ", ".join(sorted("/".join(one) for one in about)[:5])
        raise BadDocument(f"{shown}: one pod at a time, and it is about several: {pods}")
    ((namespace, name),) = about
    return Question(namespace=namespace, name=name, line=_placed(line, namespace), events=tuple(events))


def _placed(line: PodLine | None, namespace: str) -> PodLine | None:
    if line is None or line.metadata.namespace:
        return line
    return msgspec.structs.replace(line, metadata=msgspec.structs.replace(line.metadata, namespace=namespace))


def _as_core_v1(content: dict[str, Any]) -> dict[str, Any]:
    found = {_FROM_EVENTS_V1.get(name, name): value for name, value in content.items()}
    metadata = found.get("metadata")
    found["metadata"] = {"name": ""} | (metadata if isinstance(metadata, dict) else {})
    return found


def _converted(document: Document, content: Any, kind: type[Any]) -> Any:
    try:
        found = msgspec.convert(content, kind)
        for path in _without_zone(found):
            raise BadDocument(f"{document.place(path)}: {path}: a time needs its zone, such as 2024-01-15T10:30:00Z")
        return found
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at ")
        path = path.strip("`").removeprefix("$").lstrip(".")
        raise BadDocument(f"{document.place(path)}: {path + ': ' if path else ''}{words}") from None


def _without_zone(value: Any, path: str = "") -> Iterator[str]:
    """Where a time stands that the API server would refuse."""
    match value:
        case datetime(tzinfo=None):
            yield path
        case list():
            for index, one in enumerate(value):
                yield from _without_zone(one, f"{path}[{index}]")
        case msgspec.Struct():
            for field in msgspec.structs.fields(value):
                inner = getattr(value, field.name)
                yield from _without_zone(inner, f"{path}.{field.encode_name}" if path else field.encode_name)
        case _:
            pass
