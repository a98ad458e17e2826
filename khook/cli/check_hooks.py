"""Hooks as `khook check` sees them: what the models refuse, and what works but is seldom meant.

Hooks in files are checked as the controller reads them, each problem with the line of its field. Hooks in the cluster
belong to their namespaces' teams: what is wrong with one is a warning here, and stands in its own status.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from khook.api import names
from khook.api.v1alpha2 import API_VERSION, KIND
from khook.cli.documents import BadDocument, Document, read
from khook.cli.explain_hook import configured
from khook.cli.explain_input import is_hook
from khook.cli.findings import Finding, ok, warning, wrong
from khook.core.condition import find_condition
from khook.core.match import Entry
from khook.core.signal import EventType
from khook.core.template import Field, shown_fields
from khook.settings import Settings

_PASSING: Final = frozenset({EventType.POD_PENDING, EventType.PROBE_FAILED})
_EVENT_TEXT: Final = (Field.EVENT_MESSAGE, Field.MESSAGE, Field.REASON)
_KNOWN_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
SHOWN_MOST: Final = 20
"""Of the cluster's Hooks, so many lines: more is a matter for `kubectl get hooks -A`."""


def check_files(files: Iterable[str], settings: Settings) -> tuple[list[Finding], list[dict[str, Any]]]:
    """What is found, and the Hooks that are in them."""
    findings: list[Finding] = []
    hooks: list[dict[str, Any]] = []
    for name in files:
        try:
            documents = read(name)
        except BadDocument as error:
            findings.append(wrong("file", str(error)))
            continue
        found = [document for document in documents if _claims_to_be_one(document)]
        if not found:
            findings.append(warning("file", f"{documents[0].file if documents else name}: no Hook in it"))
        for document in found:
            findings += _of_document(document, settings)
            hooks.append(_placed(document))
    return findings, hooks


def check_live(hooks: Sequence[Mapping[str, Any]], settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    for hook in hooks:
        name = f"hook {_name(hook)}"
        read_as = configured(dict(hook), settings)
        findings += [warning(name, f"{problem.path}: {problem.reason}") for problem in read_as.problems]
        findings += [warning(name, words) for entry in read_as.entries for _, words in _seldom_meant(entry)]
        ready = find_condition(hook.get("status"))
        if ready is not None and ready.get("status") != "True" and not read_as.problems:
            findings.append(warning(name, f"not Ready, {ready.get('reason')}: {ready.get('message')}"))
    left_out = len(findings) - SHOWN_MOST
    if left_out > 0:
        findings = [*findings[:SHOWN_MOST], warning("hooks", f"{left_out} more lines like these are left out")]
    return [ok("hooks", f"{len(hooks)} in the watched namespaces"), *findings]


def agents_of(hooks: Iterable[Mapping[str, Any]], settings: Settings) -> dict[str, str]:
    """The agents that entries which work name, each with the first Hook that does."""
    found: dict[str, str] = {}
    for hook in hooks:
        for entry in configured(dict(hook), settings).entries:
            found.setdefault(entry.agent, _name(hook))
    return found


def _claims_to_be_one(document: Document) -> bool:
    return document.kind in (KIND, "") or is_hook(document)


def _of_document(document: Document, settings: Settings) -> Iterator[Finding]:
    head = list(_head_problems(document))
    for path, reason in head:
        yield wrong("file", f"{document.place(path)}: {path + ': ' if path else ''}{reason}")
    if not isinstance(document.content, dict):
        return
    hook = _placed(document)
    name = _name(hook)
    read_as = configured(hook, settings)
    for problem in read_as.problems:
        yield wrong(f"hook {name}", f"{document.place(problem.path)}: {problem.path}: {problem.reason}")
    for entry in read_as.entries:
        for field, words in _seldom_meant(entry):
            path = f"spec.eventConfigurations[{entry.index}].{field}"
            yield warning(f"hook {name}", f"{document.place(path)}: {words}")
    if not head and not read_as.problems:
        count = len(read_as.entries)
        yield ok(f"hook {name}", f"{document.place()}: {count} {'entry works' if count == 1 else 'entries work'}")


def _head_problems(document: Document) -> Iterator[tuple[str, str]]:
    content = document.content
    if not isinstance(content, dict):
        yield "", "a Hook is a map with apiVersion, kind, metadata and spec"
        return
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if content.get(field) != wanted:
            yield field, f"must be {wanted}"
    for field in sorted(map(str, content.keys() - _KNOWN_FIELDS)):
        yield field, "unknown field"
    metadata = content.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(metadata.get("name"), str):
        yield "metadata", "metadata.name is required"
    for field, check in (("name", names.agent), ("namespace", names.namespace)):
        value = metadata.get(field)
        if isinstance(value, str):
            try:
                check(value)
            except ValueError as error:
                yield f"metadata.{field}", str(error)


def _seldom_meant(entry: Entry) -> Iterator[tuple[str, str]]:
    """(field, words) of what works and is a trap."""
    where = f"entry {entry.index} ({entry.event_type.value})"
    if entry.event_type in _PASSING and not entry.hold_for:
        yield (
            "holdFor",
            f"{where}: without holdFor the agent is asked about trouble that passes by itself, such as a node that "
            "is being made or a pod that warms up; 2m is a good beginning",
        )
    shown = shown_fields(entry.template.body)
    used = [f"{{{{.{field.value}}}}}" for field in _EVENT_TEXT if field in shown]
    if used:
        yield (
            "prompt",
            f"{where}: the prompt mixes {' and '.join(used)}, which whoever runs the pods writes, into your "
            "instructions; the facts after them hold it, fenced (docs/security.md)",
        )


def _placed(document: Document) -> dict[str, Any]:
    """With the namespace that kubectl would give it where it names none."""
    content = document.content if isinstance(document.content, dict) else {}
    metadata = content.get("metadata")
    metadata = dict(metadata) if isinstance(metadata, dict) else {}
    if not isinstance(metadata.get("namespace"), str):
        metadata["namespace"] = "default"
    return content | {"metadata": metadata}


def _name(hook: Mapping[str, Any]) -> str:
    metadata = hook.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    return f"{metadata.get('namespace', '?')}/{metadata.get('name', '?')}"
