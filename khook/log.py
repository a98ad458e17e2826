"""Logs: one JSON object a line on stderr, or text for people; constant event names, values under registered keys.

`Key` is the registry: what is not in it is not logged, because a key nobody thought about is how event text, prompts
and tokens get into logs. In tests an unregistered key is an error, in production it is dropped and its name shown.
Values that were registered as secret are blotted out wherever they turn up, in tracebacks too, and by `redacted` from
what others wrote and a status will show; every value, and the line, has a bound. Names of loggers: the room that
speaks (`worker`, `pool`, `leader`), and `kagent-api` for every request to an agent.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from enum import StrEnum
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, Processor

MAX_VALUE_CHARS: Final = 1024
"""Longer values are somebody's text, and their beginning tells enough."""
MAX_TRACEBACK_CHARS: Final = 8192
"""A traceback's end says where it happened, so its beginning is cut."""
MAX_ITEMS: Final = 20
MAX_DEPTH: Final = 4
MAX_INTEGER: Final = 2**53
"""What every reader of JSON holds exactly; a larger one is written as text."""
MAX_LINE_CHARS: Final = 16_384
"""What container runtimes keep in one piece (containerd's and CRI-O's 16 KiB)."""
TOKENS_KEPT: Final = 8
"""A service account's token is renewed every hour, for months; the ones before the last few are not accepted."""
MIN_SECRET_CHARS: Final = 6
"""Blotting out a shorter string would tear holes into every line and hide nothing."""

Log = FilteringBoundLogger
"""What `get` gives; the type that parts ask for."""

_BLOT: Final = "[redacted]"
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class Key(StrEnum):
    """Every key that a log line may have. Its docstrings are the table in docs/operations.md (`make docs`)."""

    # Put there by this module.
    EVENT = "event"
    """What happened, in constant words: what to search for."""
    LEVEL = "level"
    """`debug`, `info`, `warning`, `error`; an error needs a person."""
    LOGGER = "logger"
    """The part that speaks; `kagent-api` for requests to agents."""
    TIMESTAMP = "timestamp"
    """When it was written, in UTC."""
    EXCEPTION = "exception"
    """A traceback: a defect of khook."""
    DROPPED_KEYS = "dropped_keys"
    """Keys that are not in this table, and whose values were not written."""
    TRUNCATED = "truncated"
    """`true`: the line was too long, and its other values are left out."""

    # Who and what.
    AGENT = "agent"
    """The agent, as `namespace/name`."""
    CALL_ID = "call_id"
    """The call: `status.activeEvents[].call.id` of its Hook, and kagent's session or the `Idempotency-Key`."""
    EVENT_TYPE = "event_type"
    """The incident's type, as in `eventConfigurations[].eventType`."""
    HOOK = "hook"
    """The Hook, as `namespace/name`."""
    KEY = "key"
    """What a slot owns: a namespace."""
    LEADER = "leader"
    """Who leads: the holder that the Lease names."""
    NAMESPACE = "namespace"
    """The namespace."""
    PID = "pid"
    """Process id of a worker."""
    PROTOCOL = "protocol"
    """How kagent was spoken to: `a2a`, `execute`."""
    RESOURCE = "resource"
    """What is read from the API server: `pods`, `events`, `hooks`; of an owner its kind."""
    SLOT = "slot"
    """The worker's place in the pool, `w0` and so on; the same after a restart."""

    # What was decided, and why.
    BECAUSE = "because"
    """What decided the number of workers."""
    CAUSE = "cause"
    """Why a watch ended, or a line was skipped: the metrics' label `cause`."""
    ERROR = "error"
    """What went wrong."""
    EXPIRES_TIME = "expires_time"
    """When credentials for the API server expire."""
    HOW = "how"
    """How a process ended (`exit 0`, `SIGKILL`), or the command that mends what the line complains of."""
    NEXT = "next"
    """The state that a slot is in now: the label `state` of `kagent_hook_slots`."""
    OUTCOME = "outcome"
    """What came of a request to kagent: the label `outcome` of `kagent_hook_api_calls_total`."""
    PROBLEM = "problem"
    """Why a worker could not take over a namespace."""
    PROBLEMS = "problems"
    """Why the mounted secret is not used."""
    REASON = "reason"
    """Why, more closely: of a request to kagent a CamelCase word, of the election what the API server said."""
    SIGNAL = "signal"
    """The signal that a worker was sent."""
    STATE = "state"
    """Whether there is a key for kagent."""
    STATUS = "status"
    """HTTP status that the API server answered."""
    WHY = "why"
    """Why a worker was killed, or the Lease was lost."""

    # How much and how long.
    ATTEMPT = "attempt"
    """Which send of this call it was, from 1."""
    COUNT = "count"
    """How many."""
    DEATHS = "deaths"
    """How often a slot's worker died before the slot counted as broken."""
    DRAIN_S = "drain_s"
    """Seconds that calls under way have to finish."""
    EPOCH = "epoch"
    """Number of a grant or of a leadership: a higher one is later."""
    HOOKS = "hooks"
    """How many Hooks' statuses could not be written at the end."""
    LATE_S = "late_s"
    """Seconds that the supervisor itself was held up."""
    RETRY_IN_S = "retry_in_s"
    """Seconds until it is tried again."""
    SECONDS = "seconds"
    """How long a request to kagent took."""
    SIZE_BYTES = "size_bytes"
    """Length of a skipped line."""
    WITHIN_S = "within_s"
    """Seconds after which another replica may lead all the same."""
    WORKERS = "workers"
    """Number of worker processes."""

    # Where.
    ADDRESS = "address"
    """kagent's address in use."""
    DIGEST = "digest"
    """Hash of a skipped line, so that the same one is known again; its text is not logged."""
    HEALTH_PORT = "health_port"
    """Port of `/healthz` and `/readyz`."""
    METRICS_PORT = "metrics_port"
    """Port of `/metrics`."""
    STATUS_ADDRESS = "status_address"
    """Where the status page and `/status.json` are."""

    # Of a library's own log.
    LIBRARY = "library"
    """A library's own logger."""
    DETAIL = "detail"
    """What a library logged."""


_KEYS: Final = frozenset(key.value for key in Key)
_NAME: Final = "logger_name"
"""`logger` as structlog lets us carry it: its own functions have an argument of that name."""


class UnknownKey(Exception):
    """A log call used a key that is not in `Key`; raised where `configure` was told to be strict."""


class _Secrets:
    """What must never be shown: the values themselves and how JSON writes them."""

    def __init__(self) -> None:
        self._values: dict[str, None] = {}
        self._tokens: dict[str, None] = {}
        """The newest last."""
        self._texts: tuple[str, ...] = ()

    def add(self, value: str) -> None:
        if len(value) >= MIN_SECRET_CHARS:
            self._values[value] = None
            self._write_down()

    def add_token(self, value: str) -> None:
        if len(value) >= MIN_SECRET_CHARS:
            self._tokens.pop(value, None)
            self._tokens[value] = None
            if len(self._tokens) > TOKENS_KEPT:
                del self._tokens[next(iter(self._tokens))]
            self._write_down()

    def _write_down(self) -> None:
        texts: set[str] = set()
        for value in (*self._values, *self._tokens):
            texts |= {value, orjson.dumps(value).decode()[1:-1], repr(value)[1:-1]}
        self._texts = tuple(sorted(texts, key=lambda text: (-len(text), text)))

    def blot(self, text: str) -> str:
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, _BLOT)
        return text


_SECRETS: Final = _Secrets()


def register_secret(value: str) -> None:
    """From now on `value` is shown nowhere in a log line of this process, old values included."""
    _SECRETS.add(value)


def register_token(value: str) -> None:
    """As `register_secret`, for one of a row of tokens that each take over from the last."""
    _SECRETS.add_token(value)


def redacted(text: str) -> str:
    """`text` without any registered secret: for what others wrote and a Hook's status will show."""
    return _SECRETS.blot(text)


def get(name: str) -> FilteringBoundLogger:
    """A logger; may be made before `configure`, which still decides how it writes."""
    logger: FilteringBoundLogger = structlog.get_logger(**{_NAME: name})
    return logger


def configure(level: str, format: str, *, stream: TextIO | None = None, strict: bool = False) -> None:  # noqa: A002 - as the setting is called
    """How this process logs from now on. `strict`: an unregistered key raises UnknownKey instead of being dropped."""
    out = sys.stderr if stream is None else stream
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name_logger,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key=Key.TIMESTAMP.value),
            structlog.processors.format_exc_info,
            _refuse_unknown_keys if strict else _drop_unknown_keys,
            _bound_values,
            *_renderers(format, out),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _adopt_libraries()


def _renderers(format: str, out: TextIO) -> list[Processor]:  # noqa: A002
    if format == "json":
        return [_in_order, structlog.processors.JSONRenderer(serializer=_json), _blot_line]
    console = structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, timestamp_key=Key.TIMESTAMP.value
    )
    return [console, _blot_line]


def _name_logger(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event[Key.LOGGER.value] = event.pop(_NAME, "khook")
    return event


def _drop_unknown_keys(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    unknown = sorted(event.keys() - _KEYS)
    for name in unknown:
        del event[name]
    if unknown:
        event[Key.DROPPED_KEYS.value] = unknown
    return event


def _refuse_unknown_keys(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if unknown := sorted(event.keys() - _KEYS):
        raise UnknownKey(f"{', '.join(unknown)}: register in khook.log.Key")
    return event


def _bound_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Secrets are blotted out before a value is cut: half a secret would be found by nobody."""
    return {name: _traceback(value) if name == Key.EXCEPTION else _bounded(value) for name, value in event.items()}


def _bounded(value: object, *, depth: int = 0) -> Any:
    match value:
        case None | bool() | float():
            return value
        case int() if abs(value) <= MAX_INTEGER:
            return value
        case str():
            text = _printable(_SECRETS.blot(str(value)))
            return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"
        case Mapping() if depth < MAX_DEPTH:
            items = list(value.items())[:MAX_ITEMS]
            return {_bounded(str(name)): _bounded(one, depth=depth + 1) for name, one in items}
        case list() | tuple() if depth < MAX_DEPTH:
            return [_bounded(one, depth=depth + 1) for one in value[:MAX_ITEMS]]
        case _:
            return _bounded(str(value))


def _traceback(value: object) -> str:
    text = "\n".join(_printable(line) for line in _SECRETS.blot(str(value)).split("\n"))
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS:]


def _printable(text: str) -> str:
    """Without what would forge a line, steer a terminal or be no Unicode text (lone surrogates)."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


_FIRST: Final = (Key.TIMESTAMP.value, Key.LEVEL.value, Key.LOGGER.value, Key.EVENT.value)


def _in_order(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    first = {name: event[name] for name in _FIRST if name in event}
    return first | {name: value for name, value in event.items() if name not in first}


def _json(event: MutableMapping[str, Any], **_: Any) -> str:
    """One line; where it would be too long, the values go and the event stays."""
    line = orjson.dumps(event, option=orjson.OPT_NON_STR_KEYS).decode()
    if len(line) <= MAX_LINE_CHARS:
        return line
    short = {name: event[name] for name in _FIRST if name in event} | {Key.TRUNCATED.value: True}
    return orjson.dumps(short).decode()


def _blot_line(_: Any, __: str, line: Any) -> str:
    """Once more, for what only rendering put together."""
    return _SECRETS.blot(str(line))


class _Adopted(logging.Handler):
    """What libraries log (asyncio's "Task exception was never retrieved") in our form."""

    def emit(self, record: logging.LogRecord) -> None:
        write = _library.error if record.levelno >= logging.ERROR else _library.warning
        write("a library logged", library=record.name, detail=record.getMessage(), exc_info=record.exc_info)


_library: Final = get("library")


def _adopt_libraries() -> None:
    """From warnings up, whatever our own level: at debug level HTTP libraries write headers."""
    root = logging.getLogger()
    root.handlers = [one for one in root.handlers if not isinstance(one, _Adopted)]
    root.addHandler(_Adopted(level=logging.WARNING))
