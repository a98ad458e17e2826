"""Logs: registered keys only, no secret anywhere, every line bounded and one line."""

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from khook import log
from khook.log import MAX_LINE_CHARS, Key, UnknownKey

SECRET = 'k-"secret"\\-1'
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_SECRETS", log._Secrets())
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


def configured(level: str = "info", form: str = "json", *, strict: bool = False) -> io.StringIO:
    stream = io.StringIO()
    log.configure(level, form, stream=stream, strict=strict)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_its_logger_first_things_first() -> None:
    made_before = log.get("kagent-api")
    stream = configured()
    made_before.bind(slot="w0").info("agent called", call_id="c-1", seconds=0.5)
    (line,) = lines(stream)
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert line["timestamp"].endswith("Z")
    assert {name: line[name] for name in line if name != "timestamp"} == {
        "level": "info",
        "logger": "kagent-api",
        "event": "agent called",
        "slot": "w0",
        "call_id": "c-1",
        "seconds": 0.5,
    }


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warn", 2), ("error", 1)])
def test_each_level_shows_what_is_at_least_as_grave(level: str, shown: int) -> None:
    stream = configured(level)
    logger = log.get("x")
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("happened")
    assert len(lines(stream)) == shown


def test_an_unregistered_key_is_dropped_and_named_in_production() -> None:
    stream = configured()
    log.get("x").info("happened", prompt="what the event said", count=1)
    (line,) = lines(stream)
    assert line["dropped_keys"] == ["prompt"]
    assert line["count"] == 1
    assert "what the event said" not in stream.getvalue()


def test_an_unregistered_key_is_an_error_where_we_are_strict() -> None:
    configured(strict=True)
    with pytest.raises(UnknownKey, match="prompt"):
        log.get("x").info("happened", prompt="p")


def test_every_log_call_of_the_product_uses_registered_keys() -> None:
    unknown = [
        f"{path.relative_to(ROOT)}:{call.lineno} {keyword.arg}"
        for room in ("khook", "shards")
        for path in sorted((ROOT / room).rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and _is_log_call(call)
        for keyword in call.keywords
        if keyword.arg not in {None, "exc_info", *(key.value for key in Key)}
    ]
    assert unknown == [], "register in khook.log.Key"


def _is_log_call(call: ast.Call) -> bool:
    """`something.log.info(…)`, `self._log.bind(…)` and the like."""
    match call.func:
        case ast.Attribute(
            attr="debug" | "info" | "warning" | "error" | "exception" | "bind",
            value=ast.Name(id=name) | ast.Attribute(attr=name),
        ):
            return name.lstrip("_") in {"log", "logger", "library"}
    return False


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_registered_secret_is_shown_nowhere(form: str) -> None:
    stream = configured(form=form)
    log.register_secret("old-secret-0")
    log.register_secret(SECRET)
    logger = log.get("x")
    logger.info(f"event {SECRET}", detail=SECRET, problems=["a", {"b": f"x{SECRET}x"}], reason="r" * 1020 + SECRET)
    logger.info("again", detail=f"Bearer {SECRET} old-secret-0", error=ValueError(SECRET), digest=SECRET.encode())
    try:
        raise RuntimeError(f"answer was {SECRET}")
    except RuntimeError:
        logger.exception("failed")
    written = stream.getvalue()
    for form_of_it in (SECRET, json.dumps(SECRET)[1:-1], repr(SECRET)[1:-1], "old-secret-0"):
        assert form_of_it not in written
    assert written.count("[redacted]") >= 7
    assert "RuntimeError" in written


def test_the_last_tokens_of_a_row_are_hidden_and_other_secrets_are_kept_for_ever() -> None:
    secrets = log._Secrets()
    secrets.add("the-api-key")
    for number in range(1000, 1000 + 2 * log.TOKENS_KEPT):
        secrets.add_token(f"token-{number}")
    newest = f"token-{999 + 2 * log.TOKENS_KEPT}"
    assert secrets.blot(f"the-api-key {newest} token-1000") == "[redacted] [redacted] token-1000"


@given(st.text("019\"\\'é-", min_size=6, max_size=40), st.text("ab ", max_size=20), st.text("ab ", max_size=20))
def test_any_secret_in_any_text_is_blotted_out(secret: str, before: str, after: str) -> None:
    secrets = log._Secrets()
    secrets.add(secret)
    for written in (secret, json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]):
        assert secrets.blot(before + written + after) == f"{before}[redacted]{after}"


def test_a_short_secret_does_not_tear_holes_into_lines() -> None:
    stream = configured()
    log.register_secret("e")
    log.get("x").info("event")
    assert lines(stream)[0]["event"] == "event"


def test_every_line_is_bounded() -> None:
    stream = configured()
    logger = log.get("x")
    logger.info("long", detail="ä" * 100_000)
    logger.info("many", problems=[["y" * 5000] * 50] * 50)
    short, cut = lines(stream)
    assert len(short["detail"]) <= log.MAX_VALUE_CHARS + 1
    assert cut["event"] == "many"
    assert cut["truncated"] is True
    assert all(len(line) <= MAX_LINE_CHARS for line in stream.getvalue().splitlines())


ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=8,
)


@given(ANYTHING, ANY_TEXT)
def test_logging_never_fails_whatever_a_value_is(value: object, message: str) -> None:
    stream = configured()
    try:
        raise ValueError(message)
    except ValueError:
        log.get("x").exception("failed", detail=value, error=2**80)
    (line,) = lines(stream)
    assert line["event"] == "failed"
    assert "ValueError" in line["exception"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_value_cannot_forge_a_line(form: str) -> None:
    stream = configured(form=form)
    log.get("x").info("happened", detail='a\n{"event":"forged"}\r\x1b[31m\u202e')
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[31m\u202e" not in stream.getvalue()


def test_what_libraries_warn_of_comes_in_our_form_and_once() -> None:
    configured()
    stream = configured("error")
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", "boom")
    logging.getLogger("httpx").info("GET https://kagent/")
    (line,) = lines(stream)
    assert (line["logger"], line["library"]) == ("library", "asyncio")
    assert line["detail"] == "Task exception was never retrieved: boom"
