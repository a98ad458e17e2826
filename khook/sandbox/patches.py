"""JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902: add, remove, replace, test) on plain JSON, by content type.

All return a new document and leave the old one as it was. The third kind of patch, the strategic one, knows
Kubernetes' own lists and stands in `strategic`.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from khook.sandbox.api_errors import bad_request, failed_json_patch, internal
from khook.sandbox.kinds import Kind
from khook.sandbox.merge_keys import RULES
from khook.sandbox.strategic import BadPatch, BadRetainKeys, strategic_merged

Json = dict[str, Any]
Patching = Callable[[Json, Any], Any]
"""(document, patch) to the new document. Raises ApiError."""

JSON_PATCH: Final = "application/json-patch+json"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""Known by name and refused: server-side apply needs managedFields, which nothing here keeps."""


def accepted(kind: Kind) -> tuple[str, ...]:
    """The content types of a PATCH, as the real server lists them."""
    return (JSON_PATCH, MERGE, APPLY) if kind.custom else (JSON_PATCH, MERGE, STRATEGIC, APPLY)


def patching(kind: Kind, content_type: str) -> Patching | None:
    """How a patch of this content type is applied; None where it is not supported."""
    if content_type == STRATEGIC and not kind.custom:
        return _strategic(kind)
    return {JSON_PATCH: json_patched, MERGE: merge_patched}.get(content_type)


def _strategic(kind: Kind) -> Patching:
    def patched(target: Json, patch: Any) -> Json:
        if not isinstance(patch, dict):
            raise bad_request("json: cannot unmarshal the patch into Go value of type map[string]interface {}")
        try:
            return strategic_merged(target, patch, RULES.get(kind.storage_key, {}))
        except BadRetainKeys as error:
            raise bad_request(str(error)) from None
        except BadPatch as error:
            raise internal(str(error)) from None

    return patched


def merge_patched(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, an object goes in deeper, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patched(result.get(key), value)
    return result


def json_patched(target: Json, operations: Any) -> Json:
    """RFC 6902. Raises ApiError 422 when a `test` fails or a path is missing, 400 when it is no patch."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    result = deepcopy(target)
    for operation in operations:
        _apply(result, operation)
    return result


def _apply(document: Json, operation: Json) -> None:
    *parents, last = [
        step.replace("~1", "/").replace("~0", "~") for step in str(operation.get("path", "")).split("/")[1:]
    ] or [""]
    try:
        holder: Any = document
        for step in parents:
            holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        _change(holder, last, operation)
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise failed_json_patch() from error


def _change(holder: Any, key: str, operation: Json) -> None:
    at: Any = key
    if isinstance(holder, list):
        at = len(holder) if key == "-" else int(key)
    match operation["op"]:
        case "add" if isinstance(holder, list):
            holder.insert(at, deepcopy(operation["value"]))
        case "add":
            holder[at] = deepcopy(operation["value"])
        case "replace":
            holder[at]  # a missing target is an error
            holder[at] = deepcopy(operation["value"])
        case "remove":
            del holder[at]
        case "test":
            if holder[at] != operation.get("value"):
                raise failed_json_patch()
        case other:
            raise bad_request(f"Unexpected kind: {other}")
