"""The Table that `kubectl get` shows: which columns a kind has, and a row for each object.

A Table is a way to show objects, made when a client asks for it and never kept; ages are as of `now`, our own time.
Columns of priority 1 are those of `-o wide`. Sources: `pkg/printers/internalversion`, apiserver
`pkg/registry/rest/table.go` (kinds without a printer), KEP-555.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from khook.sandbox.ages import since
from khook.sandbox.builtin import from_storage
from khook.sandbox.forms import Form, Include
from khook.sandbox.kinds import (
    CONFIG_MAPS,
    CRDS,
    CRON_JOBS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    Kind,
)
from khook.sandbox.printed_custom import AGE, custom_row
from khook.sandbox.printed_events import event_row
from khook.sandbox.printed_pods import pod_row
from khook.sandbox.printed_workloads import cron_job_row, deployment_row, job_row, replica_set_row

Json = dict[str, Any]
Row = Callable[[Json, datetime], list[Any]]


@dataclass(frozen=True, slots=True)
class Printer:
    columns: tuple[Json, ...]
    row: Row


def _columns(names: str, wide: str = "", **types: str) -> tuple[Json, ...]:
    """Comma-separated names; a type other than string by the name with underscores."""
    listed = [(name, 0) for name in names.split(",")] + [(name, 1) for name in wide.split(",") if name]
    return tuple(
        {
            "name": name,
            "type": types.get(name.replace(" ", "_"), "string"),
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": priority,
        }
        for name, priority in listed
    )


def _name(item: Json) -> str:
    return str(item["metadata"].get("name", ""))


def _age(item: Json, now: datetime) -> str:
    return since(item["metadata"].get("creationTimestamp"), now)


def _size(item: Json, *fields: str) -> int:
    return sum(len(item.get(field) or {}) for field in fields)


_TEMPLATE: Final = "Containers,Images,Selector"
_PRINTERS: Final[dict[str, Printer]] = {
    PODS.storage_key: Printer(
        _columns("Name,Ready,Status,Restarts,Age", "IP,Node,Nominated Node,Readiness Gates"), pod_row
    ),
    EVENTS.storage_key: Printer(
        tuple(
            column | {"priority": int(column["name"] in ("Subobject", "Source", "First Seen", "Count", "Name"))}
            for column in _columns("Last Seen,Type,Reason,Object,Subobject,Source,Message,First Seen,Count,Name")
        ),
        event_row,
    ),
    NAMESPACES.storage_key: Printer(
        _columns("Name,Status,Age"),
        lambda item, now: [_name(item), (item.get("status") or {}).get("phase", ""), _age(item, now)],
    ),
    LEASES.storage_key: Printer(
        _columns("Name,Holder,Age"),
        lambda item, now: [_name(item), (item.get("spec") or {}).get("holderIdentity", ""), _age(item, now)],
    ),
    SECRETS.storage_key: Printer(
        _columns("Name,Type,Data,Age"),
        lambda item, now: [_name(item), item.get("type", ""), _size(item, "data"), _age(item, now)],
    ),
    CONFIG_MAPS.storage_key: Printer(
        _columns("Name,Data,Age"), lambda item, now: [_name(item), _size(item, "data", "binaryData"), _age(item, now)]
    ),
    SERVICE_ACCOUNTS.storage_key: Printer(_columns("Name,Age"), lambda item, now: [_name(item), _age(item, now)]),
    DEPLOYMENTS.storage_key: Printer(_columns("Name,Ready,Up-to-date,Available,Age", _TEMPLATE), deployment_row),
    REPLICA_SETS.storage_key: Printer(
        _columns("Name,Desired,Current,Ready,Age", _TEMPLATE, Desired="integer", Current="integer", Ready="integer"),
        replica_set_row,
    ),
    JOBS.storage_key: Printer(_columns("Name,Status,Completions,Duration,Age", _TEMPLATE), job_row),
    CRON_JOBS.storage_key: Printer(
        _columns(
            "Name,Schedule,Timezone,Suspend,Active,Last Schedule,Age", _TEMPLATE, Suspend="boolean", Active="integer"
        ),
        cron_job_row,
    ),
    CRDS.storage_key: Printer(
        _columns("Name,Created At", Created_At="date"),
        lambda item, now: [_name(item), item["metadata"].get("creationTimestamp")],
    ),
}


def printer(kind: Kind) -> Printer:
    if not kind.custom:
        return _PRINTERS[kind.storage_key]
    asked = kind.printer_columns or AGE
    plain = {"format": "", "description": "", "priority": 0}
    shown = ({key: value for key, value in one.items() if key != "jsonPath"} for one in asked)
    columns = (*_columns("Name"), *(plain | one for one in shown))
    return Printer(columns, lambda item, now: custom_row(item, asked, now))


def table(
    kind: Kind, items: Iterable[Json], *, metadata: Json, form: Form, now: datetime, headers: bool = True
) -> bytes:
    """The Table, encoded; without `headers` the columns are null, as in all but the first line of a watch."""
    printed = printer(kind)
    return orjson.dumps(
        {
            "kind": "Table",
            "apiVersion": form.group_version,
            "metadata": metadata,
            "columnDefinitions": printed.columns if headers else None,
            "rows": [{"cells": _cells(printed, item, now), "object": _object(kind, item, form)} for item in items],
        }
    )


def _cells(printed: Printer, item: Json, now: datetime) -> list[Any]:
    """An object whose fields are of wrong types still has a name; types are not looked at for everybody."""
    try:
        return printed.row(item, now)
    except (AttributeError, TypeError):
        return [_name(item) if column["name"] == "Name" else None for column in printed.columns]


def _object(kind: Kind, item: Json, form: Form) -> Json | None:
    match form.include:
        case Include.OBJECT:
            return from_storage(kind, item)
        case Include.METADATA:
            head = {"kind": "PartialObjectMetadata", "apiVersion": form.group_version}
            return head | {"metadata": item["metadata"]}
        case Include.NONE:
            return None
