"""What the API server says when it says no: `metav1.Status` bodies, word for word where a client could look.

Each function builds one `ApiError`. The shapes and texts were taken from kube-apiserver 1.36.3
(apimachinery `pkg/api/errors`, apiserver `pkg/storage/errors` and `endpoints/handlers`); the contract suite
compares them with the real server. `group_resource` is `hooks.kagent.dev`, or `pods` for the core group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from khook.sandbox.kinds import Kind

Json = dict[str, Any]

CONTINUE_EXPIRED: Final = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
_OPTIONS: Final = {
    "POST": "CreateOptions",
    "PUT": "UpdateOptions",
    "PATCH": "PatchOptions",
    "DELETE": "DeleteOptions",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One line of a 422: the field, the machine-readable reason and the sentence."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """An answer that is a failure Status; `retry_after_s` becomes the Retry-After header."""

    def __init__(self, status: Json, *, retry_after_s: int | None = None) -> None:
        super().__init__(status["message"])
        self.status = status
        self.code = int(status["code"])
        self.retry_after_s = retry_after_s


def failure(code: int, message: str, *, reason: str = "", details: Json | None = None) -> Json:
    """A failure Status; `details` is left out when None, empty when {}."""
    status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    if reason:
        status["reason"] = reason
    if details is not None:
        status["details"] = details
    status["code"] = code
    return status


def _about(kind: Kind, name: str, *, by_kind: bool = False) -> Json:
    details: Json = {"name": name} if name else {}
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.kind if by_kind else kind.plural
    return details


def _qualified(kind: Kind) -> str:
    return f"{kind.kind}.{kind.group}" if kind.group else kind.kind


def bad_request(message: str) -> ApiError:
    return ApiError(failure(400, message, reason="BadRequest"))


def internal(message: str) -> ApiError:
    """A 500 without a reason: an error that the server did not expect (a malformed resourceVersion is one)."""
    return ApiError(failure(500, message))


def unauthorized() -> ApiError:
    return ApiError(failure(401, "Unauthorized", reason="Unauthorized"))


def forbidden(kind: Kind, *, user: str, verb: str, name: str, subresource: str, namespace: str | None) -> ApiError:
    subject = f'{kind.group_resource} "{name}"' if name else kind.group_resource
    resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource}" in API group "{kind.group}" {where}'
    )
    return ApiError(failure(403, message, reason="Forbidden", details=_about(kind, name)))


def not_found(kind: Kind, name: str) -> ApiError:
    message = f'{kind.group_resource} "{name}" not found'
    return ApiError(failure(404, message, reason="NotFound", details=_about(kind, name)))


def no_such_resource() -> ApiError:
    return ApiError(failure(404, "the server could not find the requested resource", reason="NotFound", details={}))


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(failure(405, message, reason="MethodNotAllowed", details={}))


def not_acceptable(message: str) -> ApiError:
    return ApiError(failure(406, message, reason="NotAcceptable"))


def already_exists(kind: Kind, name: str) -> ApiError:
    message = f'{kind.group_resource} "{name}" already exists'
    return ApiError(failure(409, message, reason="AlreadyExists", details=_about(kind, name)))


def conflict(kind: Kind, name: str, *, why: str, by_kind: bool = False) -> ApiError:
    subject = _qualified(kind) if by_kind else kind.group_resource
    message = f'Operation cannot be fulfilled on {subject} "{name}": {why}'
    return ApiError(failure(409, message, reason="Conflict", details=_about(kind, name, by_kind=by_kind)))


def modified(kind: Kind, name: str) -> ApiError:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(kind, name, why=why)


def uid_precondition(kind: Kind, name: str, *, asked: str, stored: str) -> ApiError:
    """What a DELETE with `preconditions.uid` of another object gets."""
    why = (
        f"the UID in the precondition ({asked}) does not match the UID in record ({stored}). "
        "The object might have been deleted and then recreated"
    )
    return conflict(kind, name, why=why, by_kind=True)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(failure(415, message, reason="UnsupportedMediaType"))


def invalid(kind: Kind, name: str, causes: Sequence[Cause], *, by_resource: bool = False) -> ApiError:
    """422 with its causes; the storage layer names the resource, validation names the kind."""
    subject = kind.group_resource if by_resource else _qualified(kind)
    lines = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    details = _about(kind, name, by_kind=not by_resource)
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(failure(422, f'{subject} "{name}" is invalid: {text}', reason="Invalid", details=details))


def bad_option(method: str, field: str, value: str, supported: str) -> ApiError:
    """422 of a parameter, which belongs to the options of the method; value and what is supported come quoted."""
    kind = Kind(group="meta.k8s.io", version="v1", kind=_OPTIONS[method], plural="")
    sentence = f"Unsupported value: {value}: supported values: {supported}"
    return invalid(kind, "", [Cause(field, "FieldValueNotSupported", sentence)])


def bad_patch(patch: str, why: str) -> ApiError:
    """422 of a patch whose outcome the kind cannot hold; the server names no object there."""
    sentence = f"Invalid value: {orjson.dumps(patch).decode()}: {why}"
    details = {"causes": [{"reason": "FieldValueInvalid", "message": sentence, "field": "patch"}]}
    return ApiError(failure(422, f' "" is invalid: patch: {sentence}', reason="Invalid", details=details))


def failed_json_patch() -> ApiError:
    message = "the server rejected our request due to an error in our request"
    return ApiError(failure(422, message, reason="Invalid", details={}))


def continue_expired(fresh_token: str) -> ApiError:
    """410 of a LIST's `continue`; its metadata offers a token for an inconsistent rest."""
    status = failure(410, CONTINUE_EXPIRED, reason="Expired")
    status["metadata"] = {"continue": fresh_token}
    return ApiError(status)


def list_expired() -> ApiError:
    return ApiError(failure(410, "The resourceVersion for the provided list is too old.", reason="Expired"))


def version_from_the_future(asked: int, current: int) -> ApiError:
    """504 of a LIST that asks for a version that does not exist yet."""
    details: Json = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(failure(504, message, reason="Timeout", details=details), retry_after_s=1)
