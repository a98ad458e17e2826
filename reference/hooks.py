"""docs/api-reference.md: the Hook's spec and status, from its models; conditions, calls, Events and columns.

Types and bounds are those of the models' own JSON Schema, from which the CRD is made too, so that the page, `kubectl
explain` and the API server cannot disagree.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from khook.api import duration, names
from khook.api.crd import _COLUMNS
from khook.api.model import Strict
from khook.api.status import ActiveEvent, Call, Condition, Facts, FailedPod, HookStatus, LastSignal
from khook.api.v1alpha2 import (
    API_VERSION,
    KIND,
    AgentRef,
    EventConfiguration,
    HookSpec,
    LabelSelector,
    LabelSelectorRequirement,
)
from khook.core.condition import CONFIGURED, READY, Problem
from khook.core.incident import CallReason, CallState
from khook.kube.audit import CALL_ID_ANNOTATION, REPORTING_COMPONENT, Reason
from reference.tables import code, members, table

_SPEC: Final[tuple[type[Strict], ...]] = (
    HookSpec,
    EventConfiguration,
    AgentRef,
    LabelSelector,
    LabelSelectorRequirement,
)
_STATUS: Final[tuple[type[Strict], ...]] = (HookStatus, ActiveEvent, Call, Facts, FailedPod, LastSignal, Condition)

_HEAD: Final = f"""<!-- Generated from khook/api and khook/core by `make docs`. Do not edit; a test holds it equal. -->

# API reference

`{API_VERSION}`, kind `{KIND}`, namespaced; plural `hooks`. What people write is the [spec](#spec); what
khook answers is the [status](#status), which nobody else writes. `kubectl explain hook.spec` says the same on a
cluster. [examples/](../examples) has Hooks to begin with.

"""

_SPEC_RULES: Final = """The API server refuses what its schema can tell. The rest (bounds of a duration, a template
that cannot be read, an agent in a namespace that is not allowed) is stored, and stands in the `Ready` condition with
its path; the other entries of that Hook go on working. No default is written into a Hook.

"""

_PATTERNS: Final = {
    duration.PATTERN: "a duration: `10m`, `1h30m`",
    names.NAMESPACE_PATTERN: "a DNS label",
    names.AGENT_PATTERN: "a DNS subdomain",
    names.AGENT_ID_PATTERN: "a DNS subdomain, or a DNS label, a slash and one",
}


def api_reference() -> str:
    """The whole document."""
    return _HEAD + "\n".join((*_fields(), *_words()))


def _fields() -> Iterator[str]:
    yield "## Spec\n"
    yield _SPEC_RULES + "\n".join(_section(model) for model in _SPEC)
    yield "## Status\n"
    yield "\n".join(_section(model) for model in _STATUS)


def _words() -> Iterator[str]:
    yield "## Conditions\n"
    yield (
        f"One type is khook's, `{READY}`: `True` with the reason `{CONFIGURED}`, else `False` with the first of these "
        "that applies. The message names all of them, and says where the Hook is suspended, full or over its budget.\n"
    )
    yield table(("reason", "is"), _rows(Problem))
    yield "## Calls\n"
    yield "`status.activeEvents[].call.state`, and the `reason` beside it.\n"
    yield table(("state", "is"), _rows(CallState))
    yield table(("reason", "in which state, and why"), _rows(CallReason))
    yield "## Kubernetes Events\n"
    yield (
        f"On the Hook, by `{REPORTING_COMPONENT}`; `AgentCalled` and `IncidentResolved` are `Normal`, the others "
        "`Warning`. The same said again is counted. One that is about a call has the call's id in the annotation "
        f"`{CALL_ID_ANNOTATION}`, the latest one's where it counts several.\n"
    )
    yield table(("reason", "is"), _rows(Reason))
    yield "## Columns\n"
    yield "Of `kubectl get hooks`; a column shows the first entry or incident alone.\n"
    wide = {0: "always", 1: "with `-o wide`"}
    yield table(("column", "shown", "is"), [(name, wide[prio], said) for name, _, _, prio, said in _COLUMNS])


def _rows(owner: Any) -> list[tuple[str, str]]:
    return [(f"`{value}`", said) for value, said in members(owner)]


def _section(model: type[Strict]) -> str:
    schema = model.model_json_schema()
    required = schema.get("required", ())
    rows = [
        (f"`{name}`", _kind(one), _default(one, is_required=name in required), _bounds(one), one.get("description", ""))
        for name, one in ((name, _plain(one)) for name, one in schema["properties"].items())
    ]
    head = f"### {model.__name__}\n\n{' '.join((model.__doc__ or '').split())}\n\n"
    return head + table(("field", "type", "default", "bounds", "is"), rows)


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """`X | None` is X: absent stands for None."""
    if "anyOf" not in schema:
        return dict(schema)
    (only,) = (one for one in schema["anyOf"] if one != {"type": "null"})
    return {**{key: value for key, value in schema.items() if key != "anyOf"}, **only}


def _kind(schema: Mapping[str, Any]) -> str:
    match schema:
        case {"$ref": str(where)}:
            name = where.rpartition("/")[2]
            return f"[{name}](#{name.lower()})"
        case {"type": "array", "items": inner}:
            return f"list of {_kind(inner)}"
        case {"type": "object", "additionalProperties": inner}:
            return f"map to {_kind(inner)}"
        case {"format": "date-time"}:
            return "time"
        case {"type": kind}:
            return str(kind)
    raise ValueError(f"a schema without a type: {schema}")


def _default(schema: Mapping[str, Any], *, is_required: bool) -> str:
    if is_required:
        return "required"
    default = schema.get("default")
    return "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(schema: Mapping[str, Any]) -> str:
    said = [_PATTERNS[schema["pattern"]]] if "pattern" in schema else []
    if "enum" in schema:
        said.append(code(schema["enum"]))
    for low, high, unit in (
        ("minLength", "maxLength", "characters"),
        ("minItems", "maxItems", "elements"),
        ("minProperties", "maxProperties", "entries"),
    ):
        if high in schema and schema.get("pattern") != duration.PATTERN:
            said.append(
                f"{schema[low]} to {schema[high]} {unit}" if low in schema else f"at most {schema[high]} {unit}"
            )
    if "minimum" in schema:
        said.append(f"at least {schema['minimum']}")
    return "; ".join(said)
