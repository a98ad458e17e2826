"""The CRD, generated from the models; `python -m khook.api.crd` prints it as YAML.

apiextensions/v1 for Kubernetes 1.20 and later: a structural schema without CEL, `$ref`, `null` or defaults, because
those versions refuse them or would rewrite every stored Hook. Unknown fields are pruned by the API server (and
refused by kubectl); the models refuse them.
Source: kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions (structural schemas).
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from khook.api.status import HookStatus
from khook.api.v1alpha2 import GROUP, KIND, PLURAL, VERSION, HookSpec

_KEPT: Final = (
    "type", "description", "format", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "required",
)  # fmt: skip
"""Keywords that structural schemas and JSON Schema have in common; `title`, `default` and the like are left out."""

_READY: Final = '.status.conditions[?(@.type=="Ready")]'
_ENTRY: Final = ".spec.eventConfigurations[*]"
_EVENT: Final = ".status.activeEvents[*]"
"""A printer column shows the first match alone, whatever the path (apiextensions tableconvertor)."""

_COLUMNS: Final = (
    # (name, type, JSON path, priority: 0 always, 1 with -o wide, description)
    ("Ready", "string", f"{_READY}.status", 0, "Whether the Hook works"),
    ("Reason", "string", f"{_READY}.reason", 0, "Why, in one word"),
    ("Suspended", "boolean", ".spec.suspend", 0, "Whether calls are stopped"),
    ("Last-Updated", "date", ".status.lastUpdated", 0, "When its status last changed"),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Age of the Hook"),
    ("First-Type", "string", f"{_ENTRY}.eventType", 1, "Event type of its first entry"),
    ("First-Incident", "string", f"{_EVENT}.resourceName", 1, "Resource of its first incident"),
    ("First-Call", "string", f"{_EVENT}.call.state", 1, "State of that incident's call"),
    ("Message", "string", f"{_READY}.message", 1, "Why, for people"),
)


def crd() -> dict[str, Any]:
    """The CustomResourceDefinition as one JSON object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower()},
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _hook_schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in _COLUMNS],
                }
            ],
        },
    }


def _hook_schema() -> dict[str, Any]:
    spec, status = _structural(HookSpec.model_json_schema()), _structural(HookStatus.model_json_schema())
    entry = spec["properties"]["eventConfigurations"]["items"]
    entry["oneOf"] = [{"required": ["agentId"]}, {"required": ["agentRef"]}]
    return {
        "type": "object",
        "description": "A Hook asks a kagent agent to look into pods that restart, hang, run out of memory "
        "or fail their probes.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this kind's schema."},
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }


def _structural(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema of pydantic's, with references in place and nothing that a CRD may not have."""
    return _convert(schema, definitions=schema.get("$defs", {}))


def _convert(schema: dict[str, Any], *, definitions: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:  # X | None: absent stands for None
        (only,) = (one for one in schema["anyOf"] if one != {"type": "null"})
        return _convert(only | {key: value for key, value in schema.items() if key != "anyOf"}, definitions=definitions)
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _convert(target | own, definitions=definitions)
    result: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "items" in schema:
        result["items"] = _convert(schema["items"], definitions=definitions)
    if "properties" in schema:
        result["properties"] = {
            name: _convert(one, definitions=definitions) for name, one in schema["properties"].items()
        }
    elif isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(schema["additionalProperties"], definitions=definitions)
    return result


def _column(name: str, kind: str, path: str, priority: int, description: str) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def as_yaml(document: dict[str, Any]) -> str:
    """Block YAML with JSON scalars: enough for a CRD, and no YAML library at run time."""
    head = "# Generated from khook/api by `make crd`. Do not edit.\n---\n"
    return head + "\n".join(_lines(document, indent="")) + "\n"


def _lines(value: dict[str, Any] | list[Any], *, indent: str) -> Iterator[str]:
    pairs = [(f"{key}:", one) for key, one in value.items()] if isinstance(value, dict) else [("-", v) for v in value]
    for mark, one in pairs:
        if not isinstance(one, dict | list) or not one:
            yield f"{indent}{mark} {json.dumps(one)}"
            continue
        deeper = list(_lines(one, indent=f"{indent}  "))
        if mark == "-":
            yield f"{indent}- {deeper[0].lstrip()}"
            yield from deeper[1:]
        else:
            yield f"{indent}{mark}"
            yield from deeper


if __name__ == "__main__":
    sys.stdout.write(as_yaml(crd()))
