"""The schemas of built-in kinds, read off the models of the official Python client: fields, types, what must be there.

Two megabytes of OpenAPI need not lie here a second time, and a new client brings new fields. The client is imported at
the first question and not before: most embedded servers live and die without one. What the models do not say is left
out: number formats, quantities (plain strings there), defaults.
"""

import re
import types
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, Union, get_args, get_origin

from khook.sandbox.kinds import EVENTS, EVENTS_V1, Kind
from khook.sandbox.merge_keys import RULES, Rules

Json = dict[str, Any]

OBJECT_META: Final = "v1.ObjectMeta"
_REFERENCE: Final = "#/components/schemas/"
_MODEL_NAME: Final = re.compile(r"([A-Z][a-z]+)?V1([A-Z]\w*)")
_EVENT_MODELS: Final = {EVENTS: "CoreV1Event", EVENTS_V1: "EventsV1Event"}
_PLAIN: Final[dict[Any, Json]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "format": "byte"},
    datetime: {"type": "string", "format": "date-time"},
}


def root(kind: Kind) -> str:
    """The name of a built-in kind's schema."""
    return _schema_name(_EVENT_MODELS.get(kind, f"V1{kind.kind}"))


@lru_cache(maxsize=32)
def schemas(kind: Kind) -> Json:
    """The schema of a built-in kind and all that it refers to, by name."""
    found = _reachable(_EVENT_MODELS.get(kind, f"V1{kind.kind}"))
    _mark_merged(found, root(kind), RULES.get(kind.storage_key, {}))
    return found


@lru_cache(maxsize=1)
def object_meta() -> Json:
    """What every custom resource needs beside its own schema."""
    return _reachable("V1ObjectMeta")


def referred(schema: Json) -> str | None:
    """The name that a schema refers to, directly or with words of its own beside it."""
    for one in (schema, *schema.get("allOf", ())):
        if "$ref" in one:
            return str(one["$ref"]).removeprefix(_REFERENCE)
    return None


def _reachable(name: str) -> Json:
    models = import_module("kubernetes.client.models")
    found: Json = {}
    waiting = [name]
    while waiting:
        model_name = waiting.pop()
        if _schema_name(model_name) not in found:
            found[_schema_name(model_name)] = _model(getattr(models, model_name), waiting)
    return found


def _model(model: Any, waiting: list[str]) -> Json:
    properties, required = {}, []
    for name, info in model.model_fields.items():
        shown = info.serialization_alias or info.alias or name
        said = {"description": info.description} if info.description else {}
        schema = _schema(info.annotation, waiting)
        properties[shown] = said | ({"allOf": [schema]} if "$ref" in schema else schema)
        if info.is_required():
            required.append(shown)
    result: Json = {"type": "object", "properties": properties}
    if required:
        result["required"] = required
    if words := (model.__doc__ or "").partition("Attributes:")[0].strip():
        result["description"] = " ".join(words.split())
    return result


def _schema(annotation: Any, waiting: list[str]) -> Json:
    """`Annotated` and `| None` are looked through; what is not understood may be anything."""
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return _union([_schema(one, waiting) for one in arguments])
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], waiting)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], waiting)}
    if origin is not None:
        return _schema(arguments[0], waiting)
    if hasattr(annotation, "model_fields"):
        waiting.append(annotation.__name__)
        return {"$ref": _REFERENCE + _schema_name(annotation.__name__)}
    return dict(_PLAIN.get(annotation, {}))


def _union(options: list[Json]) -> Json:
    if len(options) == 1:
        return options[0]
    if {"type": "integer"} in options:
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    return options[0]


def _schema_name(model_name: str) -> str:
    """`V1PodSpec` is `v1.PodSpec`, `CoreV1Event` is `core.v1.Event`: kubectl shows what follows the last dot."""
    found = _MODEL_NAME.fullmatch(model_name)
    if found is None:
        return model_name
    owner, name = found.groups()
    return f"{owner.lower()}.v1.{name}" if owner else f"v1.{name}"


def _mark_merged(found: Json, name: str, rules: Rules) -> None:
    """Publish which lists a strategic merge patch merges, and how."""
    for field_name, rule in rules.items():
        field = found[name]["properties"][field_name]
        strategies = ["merge"] * (rule.key is not None) + ["retainKeys"] * rule.retain
        if strategies:
            field["x-kubernetes-patch-strategy"] = ",".join(strategies)
        if rule.key:
            field["x-kubernetes-patch-merge-key"] = rule.key
        inner = referred(field.get("items", field))
        if inner is not None and rule.inside:
            _mark_merged(found, inner, rule.inside)
