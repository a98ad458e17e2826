"""`host:port`, read as it is written and written as it was read."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from khook.address import Address, parse


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8082", "127.0.0.1", 8082),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:8082", "::1", 8082),
        ("[::]:0", "::", 0),
        ("khook-0.khook.kagent-system.svc:80", "khook-0.khook.kagent-system.svc", 80),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    assert parse(text) == Address(host, port)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["8082", ":8082", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "::1:8082",
     "[::1]", "[::g]:1", "[127.0.0.1]:1", "[fe80::1%eth0]:1", "a b:1", "http://a:1", "a:1/", "a:١", "-a:1", "a:1\n"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 127\.0\.0\.1:8082 or \[::1\]:8082"):
        parse(text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_plain_refusal(text: str) -> None:
    refusal = ""
    try:
        assert parse(str(parse(text))) == parse(text)
    except ValueError as error:
        refusal = str(error)
    assert refusal == "" or "host:port" in refusal
