"""The row of a custom resource: its name and what the CRD's `additionalPrinterColumns` point at.

A path that leads nowhere is an empty cell, never an error. Source: apiextensions-apiserver
`pkg/registry/customresource/tableconvertor`.
"""

from datetime import datetime
from typing import Any, Final

import orjson

from khook.sandbox import json_path
from khook.sandbox.ages import INVALID, human, parsed

Json = dict[str, Any]

# What `kubectl get` shows of a kind whose CRD says nothing.
AGE: Final[tuple[Json, ...]] = ({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},)


def custom_row(item: Json, columns: tuple[Json, ...], now: datetime) -> list[Any]:
    """The name, then a cell for each column."""
    return [item["metadata"].get("name", ""), *(_cell(item, column, now) for column in columns)]


def _cell(item: Json, column: Json, now: datetime) -> Any:
    try:
        found = json_path.values(item, json_path.path(column["jsonPath"]))
    except json_path.BadPath:
        return None
    if not found:
        return None
    value = found[0]
    match column["type"]:
        case "string":
            return _text(value)
        case "date":
            return _date(value, now)
        case "boolean":
            return value if isinstance(value, bool) else None
        case "integer":
            return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case _:
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case dict() | list():
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
        case _:
            return str(value)


def _date(value: Any, now: datetime) -> str | None:
    if not isinstance(value, str):
        return None
    at = parsed(value)
    return INVALID if at is None or at.tzinfo is None else human(now - at)
