"""What is wrong with the fields of a document, seen by its schema: unknown ones, ones of a wrong type, ones said twice.

Pure: it takes plain JSON and OpenAPI schemas with their components, and gives the server's own sentences. Sources:
apimachinery `pkg/runtime/serializer/json` (strict decoding), Go's `encoding/json` (types).
"""

import json
from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/"
# A quantity may be written as a number (`cpu: 2`); the schemas call it a string.
_QUANTITIES: Final = frozenset({"limits", "requests", "overhead", "capacity", "sizeLimit", "divisor"})
_GO_TYPES: Final = {"string": "string", "boolean": "bool", "integer": "int64", "number": "float64"}


def resolved(schema: Json, components: Json) -> tuple[str, Json]:
    """(name without its group, schema) behind a reference; the name is empty where there is none."""
    for one in (schema, *schema.get("allOf", ())):
        if str(one.get("$ref", "")).startswith(_REFERENCE):
            name = str(one["$ref"]).removeprefix(_REFERENCE)
            return name.rpartition(".")[2], components[name]
    return "", schema


def unknown_fields(value: Any, schema: Json, components: Json, path: str = "") -> Iterator[str]:
    """The paths of fields that the schema has no place for, in document order."""
    _, schema = resolved(schema, components)
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from unknown_fields(one, schema.get("items") or {}, components, f"{path}[{index}]")
    if not isinstance(value, dict) or not schema or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    properties: Json = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, one in value.items():
        here = f"{path}.{key}" if path else key
        known = properties.get(key, extra if isinstance(extra, dict) else None)
        if known is not None:
            yield from unknown_fields(one, known, components, here)
        elif extra is not True:
            yield here


def wrong_type(value: Any, schema: Json, components: Json, *, owner: str, path: str = "") -> str | None:
    """The first value that Go could not have decoded into the `owner` struct, as its decoder says it."""
    name, schema = resolved(schema, components)
    if value is None or not schema or "oneOf" in schema:
        return None
    wanted = schema.get("type", "")
    match wanted, value:
        case ("object", dict()):
            return _first_wrong_field(value, schema, components, owner=name or owner, path=path)
        case ("array", list()):
            items = schema.get("items") or {}
            return next(filter(None, (wrong_type(v, items, components, owner=owner, path=path) for v in value)), None)
        case ("boolean", bool()) | ("string", str()) | ("", _):
            return None
        case ("integer" | "number", int() | float()) if not isinstance(value, bool):
            if wanted == "number" or float(value).is_integer():
                return None
            return _sentence(f"number {value}", owner, path, "int64")
        case ("string", int() | float()) if not isinstance(value, bool) and _QUANTITIES & set(path.split(".")):
            return None
    return _sentence(_json_type(value), owner, path, _go_type(schema, components, name))


def _first_wrong_field(value: Json, schema: Json, components: Json, *, owner: str, path: str) -> str | None:
    properties: Json = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, one in value.items():
        known = properties.get(key)
        here = f"{path}.{key}" if path else key
        if known is None and isinstance(extra, dict):
            known, here = extra, path
        found = None if known is None else wrong_type(one, known, components, owner=owner, path=here)
        if found is not None:
            return found
    return None


def _sentence(got: str, owner: str, path: str, wanted: str) -> str:
    return f"json: cannot unmarshal {got} into Go struct field {owner}.{path} of type {wanted}"


def _go_type(schema: Json, components: Json, name: str) -> str:
    match schema.get("type"):
        case "array":
            inner_name, inner = resolved(schema.get("items") or {}, components)
            return f"[]{_go_type(inner, components, inner_name)}"
        case "object" if not name:
            inner_name, inner = resolved(schema.get("additionalProperties") or {}, components)
            return f"map[string]{_go_type(inner, components, inner_name)}"
        case "object":
            return f"v1.{name}"
        case other:
            return _GO_TYPES.get(str(other), "interface {}")


def _json_type(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


class _Object(dict[str, Any]):
    """A JSON object that remembers which of its names came twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]


def duplicate_fields(text: bytes) -> list[str]:
    """The paths of names that stand twice in one object; nothing for what is no JSON."""
    try:
        return list(_twice(json.loads(text, object_pairs_hook=_Object), ""))
    except (ValueError, RecursionError):
        return []


def _twice(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _twice(one, f"{path}[{index}]")
    if isinstance(value, _Object):
        for key, one in value.items():
            here = f"{path}.{key}" if path else key
            if key in value.twice:
                yield here
            yield from _twice(one, here)
