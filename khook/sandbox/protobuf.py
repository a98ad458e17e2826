"""Objects as kubectl's typed clients send them: Kubernetes' protobuf, turned into the JSON that says the same.

`kubectl create namespace|secret|…` and `auth can-i` send nothing else, however loudly a server asks for JSON. Only the
messages and fields that these commands fill are known (`protobuf_messages`); a body that holds any other is refused,
never half understood. Sources: the protobuf encoding guide; for the envelope, apimachinery
`pkg/runtime/serializer/protobuf`.
"""

import base64
from collections.abc import Iterator
from typing import Any, Final

from khook.sandbox.protobuf_messages import MESSAGES

Json = dict[str, Any]

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
# A varint has at most ten bytes of seven bits; more is no number.
_VARINT_BITS: Final = 70
_NEGATIVE: Final = 1 << 63


class NotUnderstood(ValueError):
    """It may be right, but it says something that is not known here."""


class Malformed(ValueError):
    """It is not protobuf, or not in Kubernetes' envelope."""


def decoded(body: bytes) -> Json:
    """The object with its apiVersion and kind. Raises Malformed, NotUnderstood."""
    if not body.startswith(_MAGIC):
        raise Malformed("provided data does not appear to be a protobuf message, expected prefix")
    try:
        envelope = dict(_fields(body[len(_MAGIC) :]))
        head = {number: value.decode() for number, value in _fields(envelope.get(1, b""))}
        api_version, kind = head.get(1, ""), head.get(2, "")
        if kind not in MESSAGES:
            raise NotUnderstood(kind)
        return {"apiVersion": api_version, "kind": kind} | _message(kind, envelope.get(2, b""))
    except (AttributeError, TypeError, UnicodeDecodeError) as error:  # a number where bytes belong, or the reverse
        raise Malformed(str(error)) from error


def _message(name: str, data: bytes) -> Json:
    known, result = MESSAGES[name], Json()
    for number, raw in _fields(data):
        field = known.get(number)
        if field is None:
            raise NotUnderstood(f"field {number} of {name}")
        if field.is_map:
            entry = dict(_fields(raw))
            result.setdefault(field.name, {})[entry.get(1, b"").decode()] = _value(field.type, entry.get(2, b""))
        elif field.repeated:
            result.setdefault(field.name, []).append(_value(field.type, raw))
        elif field.type != "skipped":
            value = _value(field.type, raw)
            if field.zero_counts or value not in ("", 0, False):
                result[field.name] = value
    return result


def _value(of: str, raw: Any) -> Any:
    match of:
        case "string":
            return raw.decode()
        case "bytes":
            return base64.b64encode(raw).decode()
        case "int":
            return raw - 2 * _NEGATIVE if raw >= _NEGATIVE else raw
        case "bool":
            return bool(raw)
        case message:
            return _message(message, raw)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value): an int for a varint, bytes for what has a length. Raises Malformed, NotUnderstood."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value, at = _varint(data, at)
        match key & 7:
            case 0:
                yield key >> 3, value
            case 2 if at + value <= len(data):
                yield key >> 3, data[at : at + value]
                at += value
            case _:
                raise Malformed("unexpected end or wire type")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
    raise Malformed("unexpected end of a number")
