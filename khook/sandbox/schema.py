"""A structural schema at work: default, prune and validate a custom resource as apiextensions-apiserver does.

Covers what a CRD of ours can say: type, required, enum, lengths, items, ranges, pattern, format date-time,
nullable, default, additionalProperties, x-kubernetes-preserve-unknown-fields, x-kubernetes-int-or-string, and
oneOf, anyOf, allOf, not as pure validation. No CEL. `apiVersion`, `kind` and `metadata` of the root are the
server's own business. Sentences are those of kube-openapi's validator (kube-apiserver 1.36.3).
"""

import json
import re
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

from khook.sandbox.api_errors import Cause

Json = dict[str, Any]

ROOT_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata"})
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_PYTHON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


def defaulted_and_pruned(item: Json, schema: Json) -> Json:
    """The object as it is stored: unknown fields and nulls that may not be dropped, defaults filled in."""
    kept = {key: value for key, value in item.items() if key in ROOT_FIELDS}
    rest = {key: value for key, value in item.items() if key not in ROOT_FIELDS}
    result: Json = kept | _stored(rest, schema)
    return result


def _stored(value: Any, schema: Json) -> Any:
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [_stored(one, items) for one in value]
    if not isinstance(value, dict):
        return value
    properties: Json = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    keep_unknown = bool(schema.get("x-kubernetes-preserve-unknown-fields")) or extra is True
    result: Json = {}
    for key, one in value.items():
        known = properties.get(key, extra if isinstance(extra, dict) else None)
        if known is None:
            if keep_unknown:
                result[key] = one
        elif one is not None or known.get("nullable"):
            result[key] = _stored(one, known)
    for key, known in properties.items():
        if key not in result and "default" in known:
            result[key] = deepcopy(known["default"])
    return result


def violations(item: Json, schema: Json) -> list[Cause]:
    """Everything that is wrong with an object, in document order; empty when it is valid."""
    rest = {key: value for key, value in item.items() if key not in ROOT_FIELDS}
    wanted = {**schema, "required": [key for key in schema.get("required") or [] if key not in ROOT_FIELDS]}
    return _check(rest, wanted, "")


def _check(value: Any, schema: Json, path: str) -> list[Cause]:
    wrong_type = _type_violation(value, schema, path)
    if wrong_type is not None:
        return [wrong_type]
    if value is None:
        return []
    causes = _alternatives(value, schema, path)
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(json.dumps(one) for one in schema["enum"])
        causes.append(
            Cause(
                path, "FieldValueNotSupported", f"Unsupported value: {json.dumps(value)}: supported values: {supported}"
            )
        )
    match value:
        case bool():
            pass
        case str():
            causes += _string(value, schema, path)
        case int() | float():
            causes += _number(value, schema, path)
        case list():
            causes += _array(value, schema, path)
        case dict():
            causes += _object(value, schema, path)
    return causes


def _type_violation(value: Any, schema: Json, path: str) -> Cause | None:
    wanted = schema.get("type", "")
    if value is None:
        if schema.get("nullable") or not wanted:
            return None
    elif schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, int | str) and not isinstance(value, bool):
            return None
        wanted = "integer,string"
    elif not wanted:
        return None
    elif isinstance(value, bool):
        if wanted == "boolean":
            return None
    elif isinstance(value, _PYTHON_TYPES[wanted]):
        if schema.get("format") != "date-time" or _DATE_TIME.fullmatch(str(value)):
            return None
        return _wrong_type(path, str(value), "date-time")
    return _wrong_type(path, _type_name(value), wanted)


def _wrong_type(path: str, got: str, wanted: str) -> Cause:
    quoted = json.dumps(got)
    message = f"Invalid value: {quoted}: {path} in body must be of type {wanted}: {quoted}"
    return Cause(path, "FieldValueTypeInvalid", message)


def _type_name(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _alternatives(value: Any, schema: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for one in schema.get("allOf") or []:
        causes += _check(value, one, path)
    if options := schema.get("oneOf"):
        results = [_check(value, option, path) for option in options]
        valid = sum(not result for result in results)
        if valid != 1:
            found = f"Found {valid} valid alternatives" if valid else "Found none valid"
            sentence = f'"{path}" must validate one and only one schema (oneOf). {found}'
            causes.append(Cause("<nil>", "FieldValueInvalid", f'Invalid value: "": {sentence}'))
            causes += results[0] if not valid else []
    if options := schema.get("anyOf"):
        results = [_check(value, option, path) for option in options]
        if all(results):
            sentence = f'"{path}" must validate at least one schema (anyOf)'
            causes.append(Cause("<nil>", "FieldValueInvalid", f'Invalid value: "": {sentence}'))
            causes += results[0]
    if "not" in schema and not _check(value, schema["not"], path):
        sentence = f'"{path}" must not validate the schema (not)'
        causes.append(Cause("<nil>", "FieldValueInvalid", f'Invalid value: "": {sentence}'))
    return causes


def _string(value: str, schema: Json, path: str) -> list[Cause]:
    causes = []
    if len(value) > schema.get("maxLength", len(value)):
        causes.append(Cause(path, "FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes"))
    if len(value) < schema.get("minLength", 0):
        causes.append(_invalid(value, path, f"should be at least {schema['minLength']} chars long"))
    if "pattern" in schema and not _compiled(schema["pattern"]).search(value):
        causes.append(_invalid(value, path, f"should match '{schema['pattern']}'"))
    return causes


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """RE2's `$` is the end of the text, not also before a last newline."""
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern))


def _number(value: float, schema: Json, path: str) -> list[Cause]:
    causes = []
    if "minimum" in schema and value < schema["minimum"]:
        causes.append(_invalid(value, path, f"should be greater than or equal to {schema['minimum']}"))
    if "maximum" in schema and value > schema["maximum"]:
        causes.append(_invalid(value, path, f"should be less than or equal to {schema['maximum']}"))
    return causes


def _array(value: list[Any], schema: Json, path: str) -> list[Cause]:
    causes = []
    items = schema.get("items") or {}
    for index, one in enumerate(value):
        causes += _check(one, items, f"{path}[{index}]")
    if len(value) < schema.get("minItems", 0):
        causes.append(_invalid(len(value), path, f"should have at least {schema['minItems']} items"))
    if len(value) > schema.get("maxItems", len(value)):
        message = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        causes.append(Cause(path, "FieldValueTooMany", message))
    return causes


def _object(value: Json, schema: Json, path: str) -> list[Cause]:
    prefix = f"{path}." if path else ""
    causes = [
        Cause(f"{prefix}{key}", "FieldValueRequired", "Required value")
        for key in schema.get("required") or []
        if key not in value
    ]
    properties: Json = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    for key, one in value.items():
        known = properties.get(key, extra if isinstance(extra, dict) else None)
        if known is not None:
            causes += _check(one, known, f"{prefix}{key}")
    return causes


def _invalid(value: Any, path: str, what: str) -> Cause:
    return Cause(path, "FieldValueInvalid", f"Invalid value: {json.dumps(value)}: {path} in body {what}")
