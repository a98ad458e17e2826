"""The part of an object that the server keeps for itself: names, uids, versions, times.

Source: apiserver `pkg/registry/rest/{create,update,meta}.go`, apimachinery `pkg/api/validation/objectmeta.go`.
"""

import random
import re
from datetime import UTC, datetime
from typing import Any, Final

from khook.sandbox.api_errors import Cause, invalid
from khook.sandbox.kinds import Kind
from khook.seams import fresh_uuid

Json = dict[str, Any]

# apiserver pkg/storage/names: no vowels and no easily confused characters
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5
_SUBDOMAIN_TEXT: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_SUBDOMAIN: Final = re.compile(_SUBDOMAIN_TEXT)
_CLIENT_FIELDS: Final = ("labels", "annotations", "ownerReferences", "finalizers")


def rfc3339(time: datetime) -> str:
    """metav1.Time: whole seconds, UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_metadata(kind: Kind, namespace: str | None, given: Json, *, randomness: random.Random, now: datetime) -> Json:
    """In the order in which Go writes it. Raises ApiError 422 without a name."""
    name, prefix = given.get("name") or "", given.get("generateName") or ""
    if not name and not prefix:
        cause = Cause("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")
        raise invalid(kind, "", [cause])
    result: Json = {"name": name or prefix + "".join(randomness.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))}
    if prefix:
        result["generateName"] = prefix
    if namespace is not None:
        result["namespace"] = namespace
    result |= {"uid": fresh_uuid(randomness), "resourceVersion": ""}
    if kind.generation:
        result["generation"] = 1
    result["creationTimestamp"] = rfc3339(now)
    return result | {key: given[key] for key in _CLIENT_FIELDS if given.get(key)}


def updated_metadata(old: Json, given: Json) -> Json:
    """What a client may change of an object's metadata, changed; the rest as it was."""
    kept = {key: value for key, value in old.items() if key not in _CLIENT_FIELDS}
    return kept | {key: given[key] for key in _CLIENT_FIELDS if given.get(key)}


def check_name(kind: Kind, name: str) -> None:
    """Raises ApiError 422 for a name that is no RFC 1123 subdomain."""
    if _SUBDOMAIN.fullmatch(name):
        return
    sentence = (
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '
        "'-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for "
        f"validation is '{_SUBDOMAIN_TEXT}')"
    )
    raise invalid(kind, name, [Cause("metadata.name", "FieldValueInvalid", sentence)])
