"""What a client sent, as JSON: read from the content types that are understood, or refused in the server's words.

Sources: apiserver `pkg/endpoints/handlers/{create,update}.go`, `pkg/endpoints/handlers/negotiation`.
"""

from typing import Any, Final

import orjson

from khook.sandbox import api_errors, protobuf
from khook.sandbox.exchange import Request

Json = dict[str, Any]

ACCEPTED: Final = ("application/json", protobuf.CONTENT_TYPE)


def read(request: Request, wanted: str) -> Json:
    """The object; `wanted` is the kind that belongs here. Raises ApiError 400, 415."""
    unrecognized = f"the object provided is unrecognized (must be of type {wanted})"
    try:
        if request.headers.get("content-type", "") == protobuf.CONTENT_TYPE:
            return protobuf.decoded(request.body)
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise api_errors.bad_request(f"{unrecognized}: couldn't get version/kind; json parse error: {error}") from None
    except protobuf.Malformed as error:
        raise api_errors.bad_request(f"{unrecognized}: {error}") from None
    except protobuf.NotUnderstood:
        raise api_errors.unsupported_media_type(ACCEPTED[:1]) from None
    if not isinstance(body, dict):
        raise api_errors.bad_request(unrecognized)
    return body
