"""What a real kagent 0.10 controller with its real agent runtime was asked and answered, as recorded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import orjson

FOLDER = Path(__file__).parent.parent / "corpus" / "kagent-0.10"


@dataclass(frozen=True)
class Recorded:
    method: str
    path: str
    query: dict[str, str]
    asked: Any
    status: int
    content_type: str
    body: bytes
    """As it came, but for the spaces in JSON."""

    @property
    def answer(self) -> Any:
        return orjson.loads(self.body)

    def response(self) -> httpx.Response:
        return httpx.Response(
            self.status, headers={"content-type": self.content_type}, stream=httpx.ByteStream(self.body)
        )


def recorded(name: str) -> Recorded:
    data = json.loads((FOLDER / f"{name}.json").read_text())
    url = urlsplit(data["request"]["url"])
    body = data["body"]
    return Recorded(
        method=data["request"]["method"],
        path=url.path,
        query=dict(parse_qsl(url.query)),
        asked=data["request"]["body"],
        status=data["status"],
        content_type=data["headers"]["content-type"],
        body=body.encode() if isinstance(body, str) else orjson.dumps(body),
    )


def shape(value: Any, *, without: frozenset[str] = frozenset()) -> Any:
    """Keys and types alone; a list is the shapes that occur in it, in their order. `without`: keys not looked at."""
    if isinstance(value, dict):
        return {key: shape(one, without=without) for key, one in sorted(value.items()) if key not in without}
    if isinstance(value, list):
        return [shape(one, without=without) for one in value]
    return type(value).__name__
