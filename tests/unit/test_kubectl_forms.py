"""What the embedded API server makes for kubectl, as pure functions; the contract suite holds it to a real server."""

import asyncio
import random
from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khook.sandbox import json_path, protobuf
from khook.sandbox.ages import human, since
from khook.sandbox.api_errors import ApiError
from khook.sandbox.api_server import ApiServer
from khook.sandbox.exchange import Request
from khook.sandbox.field_checks import duplicate_fields
from khook.sandbox.kinds import BUILT_IN, CRDS, Kind
from khook.sandbox.printers import printer
from khook.sandbox.store import Store
from khook.sandbox.token_paths import server_url, unwrapped
from khook.seams import SystemClock

Json = dict[str, Any]

NOW = datetime(2024, 1, 15, 12, 0, 0, tzinfo=UTC)


# -- ages


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 720, "3h12m"),
        (8 * 3600, "8h"),
        (2 * 86_400 - 1, "47h"),
        (2 * 86_400, "2d"),
        (6 * 86_400 + 7200, "6d2h"),
        (8 * 86_400, "8d"),
        (729 * 86_400, "729d"),
        (730 * 86_400, "2y"),
        (740 * 86_400, "2y10d"),
        (9 * 365 * 86_400, "9y"),
    ],
)
def test_the_shorter_ago_the_finer_the_unit(seconds: int, shown: str) -> None:
    assert human(timedelta(seconds=seconds)) == shown


def test_no_time_is_unknown() -> None:
    assert [since(time, NOW) for time in (None, "", "yesterday", "2024-01-15T11:59:00Z")] == [
        *["<unknown>"] * 3,
        "60s",
    ]


# -- paths of printer columns


@pytest.mark.parametrize("text", ["a.b", ".a[", ".a[x]", ".a[?(@.b)]", "{.a}", "..a", ".a[0:2]"])
def test_what_is_no_path_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(json_path.BadPath):
        json_path.path(text)


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        steps = json_path.path(text)
    except json_path.BadPath:
        return
    assert isinstance(json_path.values({"a": [{"b": 1}]}, steps), list)


# -- protobuf


def varint(number: int) -> bytes:
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*result, number])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def wrapped(kind: str, message: bytes, api_version: str = "v1") -> bytes:
    head = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, head) + field(2, message)


def test_a_message_is_the_json_that_says_the_same() -> None:
    pair = field(1, b"key") + field(2, b"\x00\xff")
    metadata = field(1, b"s") + field(3, b"") + field(8, b"") + field(11, field(1, b"a") + field(2, b"b"))
    body = wrapped("Secret", field(1, metadata) + field(2, pair) + field(3, b"Opaque") + field(5, 0))
    assert protobuf.decoded(body) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"a": "b"}},
        "data": {"key": "AP8="},
        "type": "Opaque",
        "immutable": False,
    }


def test_a_zero_stays_where_it_means_something() -> None:
    spec = field(1, 0) + field(5, 0) + field(9, (1 << 64) - 1)
    found = protobuf.decoded(wrapped("Deployment", field(2, spec), "apps/v1"))
    assert found["spec"] == {"replicas": 0, "progressDeadlineSeconds": -1}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{}", protobuf.Malformed),
        (b"k8s\x00\xff", protobuf.Malformed),
        (wrapped("Namespace", b"\x0a\x7f"), protobuf.Malformed),
        (wrapped("Namespace", field(1, 7)), protobuf.Malformed),
        (wrapped("Namespace", field(1, field(1, b"\xff"))), protobuf.Malformed),
        (wrapped("Node", b""), protobuf.NotUnderstood),
        (wrapped("Namespace", field(99, b"")), protobuf.NotUnderstood),
    ],
)
def test_what_is_not_known_is_refused_and_never_half_understood(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        protobuf.decoded(body)


@given(st.binary(max_size=60), st.sampled_from(["Namespace", "Secret", "Job", "SelfSubjectAccessReview", "skipped"]))
def test_no_bytes_are_a_traceback(message: bytes, kind: str) -> None:
    for body in (message, b"k8s\x00" + message, wrapped(kind, message)):
        try:
            protobuf.decoded(body)
        except (protobuf.Malformed, protobuf.NotUnderstood):
            continue


# -- rows, fields, tokens

HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=6,
)


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.plural)
def test_an_object_that_says_nothing_has_a_row(kind: Kind) -> None:
    printed = printer(kind)
    items: list[Json] = [{"metadata": {}}, {"metadata": {"name": "x"}, "spec": {}, "status": {}}]
    for item in items:
        assert len(printed.row(item, NOW)) == len(printed.columns)


@given(HOSTILE)
def test_a_custom_column_takes_whatever_stands_there(value: Any) -> None:
    columns = tuple(
        {"name": of, "type": of, "jsonPath": ".spec.x"} for of in ("string", "date", "boolean", "integer", "number")
    )
    kind = Kind(group="a.io", version="v1", kind="A", plural="as", printer_columns=columns, schema={})
    row = printer(kind).row({"metadata": {"name": "n"}, "spec": {"x": value}}, NOW)
    assert (row[0], len(row)) == ("n", 6)


def test_names_that_stand_twice_are_found_at_their_place() -> None:
    assert duplicate_fields(b'{"a": 1, "b": [{"c": 1, "c": 2}], "a": {"d": 1, "d": 1}}') == ["a", "a.d", "b[0].c"]
    assert duplicate_fields(b"{") == duplicate_fields(b"[" * 100_000) == []


def test_a_token_in_the_path_is_a_token_in_the_header() -> None:
    url = server_url("http://127.0.0.1:1", "s3cret")
    path = url.removeprefix("http://127.0.0.1:1") + "/api/v1"
    request = Request(method="GET", path=path, query={}, headers={}, body=b"")
    found = unwrapped(request)
    assert (found.path, found.headers["authorization"]) == ("/api/v1", "Bearer s3cret")
    own = unwrapped(Request(method="GET", path=path, query={}, headers={"authorization": "Bearer x"}, body=b""))
    assert own.headers["authorization"] == "Bearer x"


# -- bodies that nobody asked to have checked

NONSENSE: tuple[Any, ...] = ([], "x", 1, {"a": 1}, [1], ["x"], [{}], None)
PLACES = (
    *("spec", "status", "data", "stringData", "involvedObject", "source", "series", "message", "type"),
    *("metadata.labels", "spec.template", "spec.containers", "spec.selector", "spec.template.spec", "spec.names"),
)
FULL: Json = {
    "metadata": {},
    "involvedObject": {"namespace": "default"},
    "spec": {
        "group": "a.io",
        "scope": "Namespaced",
        "names": {"plural": "as", "kind": "A"},
        "versions": [{"name": "v1", "served": True, "storage": True}],
        "containers": [{"name": "c", "image": "i"}],
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c"}]}},
        "jobTemplate": {"spec": {"template": {"spec": {"containers": [{}]}}}},
    },
}


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: f"{kind.plural}.{kind.group}")
def test_no_body_is_a_traceback_and_whatever_is_kept_can_be_shown(kind: Kind) -> None:
    clock = SystemClock()
    api = ApiServer(Store(randomness=random.Random(1), now=clock.now()), clock=clock)
    where = "/namespaces/default" if kind.namespaced else ""
    path = f"/{'apis' if kind.group else 'api'}/{kind.api_version}{where}/{kind.plural}"
    table = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}

    async def answers() -> Iterator[int]:
        codes = []
        for number, (place, nonsense) in enumerate(product(PLACES, NONSENSE)):
            body = deepcopy(FULL)
            body["metadata"]["name"] = f"n{number}"
            *parents, last = place.split(".")
            holder = body
            for parent in parents:
                holder = holder[parent]
            holder[last] = nonsense
            posted = Request(method="POST", path=path, query={}, headers={}, body=orjson.dumps(body))
            codes.append((await api.handle(posted)).status)
        listed = Request(method="GET", path=path, query={}, headers=table, body=b"")
        codes.append((await api.handle(listed)).status)
        return iter(codes)

    *posted, listed = asyncio.run(answers())
    assert set(posted) <= {201, 400, 422}
    assert listed == 200


def test_a_definition_without_names_is_invalid() -> None:
    clock = SystemClock()
    with pytest.raises(ApiError, match=r"spec\.names\.kind: Required value") as caught:
        Store(randomness=random.Random(1), now=clock.now()).create(
            CRDS, None, {"metadata": {"name": "as.a.io"}, "spec": {"group": "a.io"}}, now=clock.now()
        )
    assert caught.value.code == 422
