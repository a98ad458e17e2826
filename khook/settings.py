"""Every setting, read from environment variables once, at start.

`load` says everything that is wrong at once, one line a problem, so that nobody mends a deployment one variable a
rollout. A variable set to the empty string counts as unset (Helm and shells cannot tell the two apart). A value
whose feature this version lacks is refused, never ignored. Unknown `KHOOK_*` names are typing mistakes and refused;
unknown `KAGENT_*` names belong to others (Kubernetes injects `KAGENT_PORT` for a Service called kagent).

The class is passed to nobody but the processes' own wiring: a part takes the three numbers it needs. Its docstrings
are the README's table of settings (`make docs`): what stands behind `Unset:` there is shown as the default.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from khook import address
from khook.address import Address
from khook.api import duration, names
from khook.errors import SettingsError
from khook.sizing import MAX_WORKERS, Because, Reader, WorkerCount, auto_workers, read_file

ALIASES: Final = {
    "KAGENT_API_URL": "KAGENT_BASE_URL",
    "KAGENT_API_BASE_URL": "KAGENT_BASE_URL",
    "KAGENT_API_TIMEOUT": "KAGENT_TIMEOUT",
}
"""The names of the Go controller: its deployments go on working."""

DEFAULT_BASE_URL: Final = "https://api.kagent.dev"
"""Where kagent is when neither a variable nor the secret says it."""

MAX_URL_CHARS: Final = 2048
"""Far beyond any real address, and what reads a file in part never takes its beginning for the whole."""

_SERVICE_LINK: Final = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What the kubelet injects for each Service of the namespace: a Service called `khook` is no typing mistake."""


@dataclass(frozen=True, slots=True)
class Rule(BeforeValidator):
    """How a variable's text is read, and in words what it may be."""

    allowed: str = field(default="", kw_only=True)


def _parsed_by(parse: Callable[[str], Any], *, allowed: str = "") -> Rule:
    """Parses a variable's text; defaults come as they are."""
    return Rule(lambda value: parse(value) if isinstance(value, str) else value, allowed=allowed)


def _one_of(*allowed: str) -> Rule:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"{text!r} is not allowed: choose {_alternatives(allowed)}")
        return text.lower()

    return _parsed_by(parse, allowed=", ".join(f"`{one}`" for one in allowed))


def _whole_number(text: str, *, low: int, high: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise ValueError(f"{text!r} is not allowed: a whole number from {low} to {high}")
    return int(text)


def _whole(low: int, high: int) -> Rule:
    return _parsed_by(partial(_whole_number, low=low, high=high), allowed=f"{low} to {high}")


def _lasting(low: str, high: str) -> Rule:
    return _parsed_by(lambda text: duration.between(text, low=low, high=high), allowed=f"{low} to {high}")


def _lasting_s(low: str, high: str) -> Rule:
    def parse(text: str) -> float:
        return duration.between(text, low=low, high=high).total_seconds()

    return _parsed_by(parse, allowed=f"{low} to {high}")


def _only(name: str, works: str, *, parse: Callable[[str], Any], later: str) -> Rule:
    """A setting of which this version can do just one value; `later` names the values of its full form."""

    def parse_only(text: str) -> Any:
        value = parse(text)
        if value != parse(works):
            raise ValueError(f"{text!r} is not supported in this version ({later}); set {name}={works}")
        return value

    return _parsed_by(parse_only, allowed=f"`{works}`")


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not allowed: true or false") from None


def _decimal(low: float, high: float) -> Rule:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,4})?", text) or not low <= float(text) <= high:
            raise ValueError(f"{text!r} is not allowed: a number from {low:g} to {high:g}, such as 1.25")
        return float(text)

    return _parsed_by(parse, allowed=f"{low:g} to {high:g}")


def _namespaces(text: str) -> tuple[str, ...]:
    """A comma list without repetitions, in the order written."""
    return tuple(dict.fromkeys(names.namespace(part.strip()) for part in text.split(",") if part.strip()))


def _namespaces_or_all(text: str) -> tuple[str, ...]:
    return ("*",) if text == "*" else _namespaces(text)


def valid_base_url(text: str) -> str:
    """The address without a trailing slash. Raises ValueError, which never repeats the text: it may hold a password."""
    if len(text) > MAX_URL_CHARS:
        raise ValueError(f"is longer than {MAX_URL_CHARS} characters")
    if not text.isprintable() or " " in text:
        raise ValueError("holds a space or a control character")
    try:
        url = urlsplit(text)
        port_is_valid = url.port is None or url.port > 0
    except ValueError:
        port_is_valid, url = False, urlsplit("http://invalid")
    if not port_is_valid:
        raise ValueError("its host or port is not valid: write it as https://kagent.example.com:8083")
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError("must be an address that starts with http:// or https://")
    if "@" in text:  # also behind a slash: a password with a slash in it looks like a host and its path
        raise ValueError("must not hold a user or password; the key goes into KAGENT_API_KEY")
    if "?" in text or "#" in text:
        raise ValueError("must not hold a query or a fragment")
    return text.rstrip("/")


def valid_api_key(text: str) -> SecretStr:
    """Goes into a header, so one line of visible ASCII. Raises ValueError, which never repeats the text."""
    if not re.fullmatch(r"[\x21-\x7e]{1,8192}", text):
        raise ValueError("holds a space, a line break or a character outside ASCII; it is sent in an HTTP header")
    return SecretStr(text)


def _directory(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError(f"{text!r} is not allowed: the absolute path of a directory")
    return text


def _user_id(text: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,256}", text):
        raise ValueError("holds a space, a line break or a character outside ASCII; it is sent in an HTTP header")
    return text


def _cluster_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._/:-]{0,126}[A-Za-z0-9])?", text):
        raise ValueError(f"{text!r} is not allowed: 1 to 128 letters, digits and . _ / : - between them")
    return text


def _workers(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if value == "auto":
        return auto_workers((info.context or {}).get("read", read_file))
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= MAX_WORKERS:
        raise ValueError(f"{value!r} is not allowed: auto, or a whole number from 1 to {MAX_WORKERS}")
    return WorkerCount(count=int(value), because=Because.SET)


Port = Annotated[int, _whole(0, 65535)]
Lines = Annotated[tuple[str, ...], _parsed_by(_namespaces, allowed="a comma list")]


class Settings(BaseModel):
    """What this process was told. Made by `load` only."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    # Where kagent is, what we say, where we listen.

    kagent_base_url: Annotated[str | None, _parsed_by(valid_base_url, allowed="http or https")] = Field(
        None, alias="KAGENT_BASE_URL"
    )
    """Where kagent is; a path may follow the host. Unset: the secret's `base-url`, else `https://api.kagent.dev`."""

    kagent_api_key: Annotated[SecretStr | None, _parsed_by(valid_api_key, allowed="visible ASCII")] = Field(
        None, alias="KAGENT_API_KEY"
    )
    """Sent as `Authorization: Bearer`, and shown nowhere. The `execute` protocol needs one. Unset: the secret's
    `api-key`, if it has one."""

    kagent_credentials_dir: Annotated[str | None, _parsed_by(_directory, allowed="an absolute path")] = Field(
        None, alias="KAGENT_CREDENTIALS_DIR"
    )
    """Where the secret `kagent-credentials` is mounted, with the files `api-key` and `base-url`, either of which may
    come late. A variable that is set wins over its file. Unset: none."""

    log_level: Annotated[str, _one_of("debug", "info", "warn", "error")] = Field("info", alias="LOG_LEVEL")
    """The least grave lines that are still written."""

    metrics_port: Port = Field(8080, alias="METRICS_PORT")
    """Where `/metrics` is. 0: any free port, which the log names."""

    health_port: Port = Field(8081, alias="HEALTH_PORT")
    """Where `/healthz` and `/readyz` are. 0: any free port, which the log names."""

    leader_election: Annotated[bool, _parsed_by(_boolean, allowed="`true`, `false`")] = Field(
        True, alias="LEADER_ELECTION"
    )
    """`false`: this is the only replica, and it leads without a Lease."""

    # The pool.

    workers: Annotated[WorkerCount, Rule(_workers, allowed=f"`auto`, 1 to {MAX_WORKERS}")] = Field(
        "auto",  # type: ignore[assignment]
        alias="KHOOK_WORKERS",
    )
    """Worker processes. `auto` is the container's CPU quota rounded up, else 2, as far as its memory limit allows
    (64 MiB each beside 160 MiB); the log says which bound decided."""

    virtual_nodes: Annotated[int, _whole(1, 4096)] = Field(256, alias="KHOOK_VIRTUAL_NODES")
    """Points that each worker has on the hash ring."""

    max_load_factor: Annotated[float, _decimal(1.05, 10)] = Field(1.25, alias="KHOOK_MAX_LOAD_FACTOR")
    """How many times the mean load a worker may carry. Nearer to 1, every change of a rate moves namespaces."""

    drain_s: Annotated[float, _lasting_s("0s", "10m")] = Field(20.0, alias="KHOOK_DRAIN")
    """How long calls under way may take to finish after SIGTERM."""

    heartbeat_timeout_s: Annotated[float, _lasting_s("3s", "5m")] = Field(10.0, alias="KHOOK_HEARTBEAT_TIMEOUT")
    """A worker that is silent for so long is stuck, and replaced. It beats once a second."""

    # What is watched.

    watch_scope: Annotated[
        str,
        _only(
            "KHOOK_WATCH_SCOPE", "namespace", parse=str.lower, later="each namespace that holds a Hook has its watches"
        ),
    ] = Field("namespace", alias="KHOOK_WATCH_SCOPE")
    """Each namespace that holds a Hook has its own watches; this version knows no other scope."""

    watch_namespaces: Lines = Field((), alias="KHOOK_WATCH_NAMESPACES")
    """The namespaces to look at. With a list no cluster-wide request is ever made, so Roles are enough. Unset: all."""

    # Incidents.

    cooldown: Annotated[timedelta, _lasting("1m", "24h")] = Field(timedelta(minutes=10), alias="KHOOK_COOLDOWN")
    """How long an incident that was called is not called again; an entry's own `cooldown` wins."""

    resolve_after: Annotated[timedelta, _lasting("1s", "24h")] = Field(
        timedelta(minutes=2), alias="KHOOK_RESOLVE_AFTER"
    )
    """Silence after which an incident whose pods are well is resolved."""

    max_signal_age: Annotated[timedelta, _lasting("1m", "24h")] = Field(
        timedelta(minutes=15), alias="KHOOK_MAX_SIGNAL_AGE"
    )
    """What happened longer ago when khook first sees it is history."""

    stuck_pending: Annotated[timedelta, _lasting("1s", "24h")] = Field(
        timedelta(seconds=60), alias="KHOOK_STUCK_PENDING"
    )
    """How long a pod may be Pending without a reason before it is stuck."""

    # Calls.

    kagent_protocol: Annotated[str, _one_of("auto", "a2a", "execute")] = Field("auto", alias="KAGENT_PROTOCOL")
    """How kagent is spoken to; `auto` asks it for its version, which tells."""

    kagent_user_id: Annotated[str, _parsed_by(_user_id, allowed="visible ASCII")] = Field(
        "admin@kagent.dev", alias="KAGENT_USER_ID"
    )
    """Whose kagent's sessions and runs are (`a2a`)."""

    kagent_ca_file: str | None = Field(None, alias="KAGENT_CA_FILE")
    """PEM file of the authorities that may vouch for kagent. Unset: the system's."""

    kagent_timeout_s: Annotated[float, _lasting_s("100ms", "30m")] = Field(30.0, alias="KAGENT_TIMEOUT")
    """How long one attempt waits for kagent's answer."""

    retry_attempts: Annotated[int, _whole(1, 10)] = Field(3, alias="KAGENT_RETRY_ATTEMPTS")
    """Attempts of one delivery of a call."""

    retry_backoff_s: Annotated[float, _lasting_s("1ms", "5m")] = Field(2.0, alias="KAGENT_RETRY_BACKOFF")
    """The wait before the second attempt; doubled before each further one."""

    redeliver_for: Annotated[timedelta, _lasting("0s", "24h")] = Field(
        timedelta(minutes=15), alias="KHOOK_REDELIVER_FOR"
    )
    """How long a call that an outage kept from its agent is delivered again; `0s`: not at all."""

    run_deadline_s: Annotated[float, _lasting_s("1s", "24h")] = Field(600.0, alias="KHOOK_RUN_DEADLINE")
    """How long an agent's run is followed (`a2a`)."""

    calls_per_worker: Annotated[int, _whole(1, 4096)] = Field(64, alias="KHOOK_CALLS_PER_WORKER")
    """Requests of one worker that wait for their answer at one time."""

    calls_per_agent: Annotated[int, _whole(1, 4096)] = Field(8, alias="KHOOK_CALLS_PER_AGENT")
    """Of these, for one agent: one that hangs must not slow another. Not more than `KHOOK_CALLS_PER_WORKER`."""

    calls_per_hook_hour: Annotated[int, _whole(0, 1_000_000)] = Field(300, alias="KHOOK_CALLS_PER_HOOK_HOUR")
    """Calls of one Hook: a bucket of this size, which refills evenly in an hour; 0 is no limit."""

    agent_namespace: Annotated[str, _parsed_by(names.namespace, allowed="a namespace")] = Field(
        "kagent", alias="KHOOK_AGENT_NAMESPACE"
    )
    """Where a bare `agentId` lives."""

    allowed_agent_namespaces: Annotated[
        tuple[str, ...], _parsed_by(_namespaces_or_all, allowed="a comma list, `*`")
    ] = Field((), alias="KHOOK_ALLOWED_AGENT_NAMESPACES")
    """Namespaces whose agents any Hook may call, besides `KHOOK_AGENT_NAMESPACE` and the Hook's own; `*` is all.
    Unset: none."""

    # The rest.

    cluster_name: Annotated[str | None, _parsed_by(_cluster_name, allowed="letters, digits, `._/:-`")] = Field(
        None, alias="KHOOK_CLUSTER_NAME"
    )
    """What agents are told that this cluster is called. Unset: none."""

    status_address: Annotated[Address, _parsed_by(address.parse, allowed="`host:port`, `[::1]:port`")] = Field(
        Address("127.0.0.1", 8082), alias="KHOOK_STATUS_ADDRESS"
    )
    """Where the status page (`/`) and `/status.json` are. They show tenants' incidents: by default nobody outside the
    pod is served. Port 0: any free one, which the log names."""

    pod_namespace: Annotated[str | None, _parsed_by(names.namespace, allowed="a namespace")] = Field(
        None, alias="POD_NAMESPACE"
    )
    """Where the Lease of the leader election lies. Unset: the service account's, else the kubeconfig's."""

    pod_name: str | None = Field(None, alias="POD_NAME")
    """Who the Lease says that leads, and who writes the Kubernetes Events. Unset: the host name."""

    log_format: Annotated[str, _one_of("json", "text")] = Field("json", alias="LOG_FORMAT")
    """One JSON object a line, or text for people."""

    multiproc_dir: str | None = Field(None, alias="PROMETHEUS_MULTIPROC_DIR")
    """Where the processes' metrics meet; emptied of metrics at start. Unset: a fresh directory."""

    @field_validator("health_port")
    @classmethod
    def _ports_differ(cls, port: int, info: ValidationInfo) -> int:
        if port and port == info.data.get("metrics_port"):
            raise ValueError(f"{port} is METRICS_PORT too: choose two different ports")
        return port

    @field_validator("status_address")
    @classmethod
    def _status_port_is_its_own(cls, where: Address, info: ValidationInfo) -> Address:
        for name in ("METRICS_PORT", "HEALTH_PORT"):
            if where.port and where.port == info.data.get(name.lower()):
                raise ValueError(f"{where.port} is {name} too: choose another port")
        return where

    @field_validator("calls_per_agent")
    @classmethod
    def _agent_within_worker(cls, calls: int, info: ValidationInfo) -> int:
        if calls > (bound := info.data.get("calls_per_worker", calls)):
            raise ValueError(f"{calls} is more than KHOOK_CALLS_PER_WORKER ({bound}): lower it or raise that")
        return calls


NAMES: Final = tuple(str(field.alias) for field in Settings.model_fields.values())
"""Every variable that `load` reads, aliases aside."""

_DEFAULTS: Final = {str(one.alias): one.default for one in Settings.model_fields.values()}
"""Given along with what is set, because pydantic checks no default once another field is wrong."""


def load(environ: Mapping[str, str], *, read: Reader = read_file) -> Settings:
    """The settings that `environ` gives; `read` reads the cgroup's files. Raises SettingsError with every problem."""
    given, problems = _given(environ)
    problems += _unknown(environ)
    try:
        settings = Settings.model_validate(_DEFAULTS | given, context={"read": read})
    except ValidationError as error:
        raise SettingsError(sorted([*problems, *_lines(error)])) from None
    if problems:
        raise SettingsError(sorted(problems))
    return settings


def one(name: str, environ: Mapping[str, str]) -> Any:
    """A single setting, for a command that needs no other. Raises SettingsError."""
    field = next(field for field in Settings.model_fields.values() if field.alias == name)
    text = environ.get(name, "").strip()
    if not text:
        return field.default
    kind: Any = Annotated[field.annotation, *field.metadata]
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise SettingsError([f"{name}{line}" for line in _lines(error)]) from None


def _given(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The variables that are set, aliases resolved; and where two names for one setting disagree."""
    given = {name: value for name in NAMES if (value := environ.get(name, "").strip())}
    said_by = {name: name for name in given}
    problems = []
    for alias, name in ALIASES.items():
        value = environ.get(alias, "").strip()
        if not value:
            continue
        if given.setdefault(name, value) != value:
            problems.append(f"{alias}: disagrees with {said_by[name]}, which is the same setting: set one of the two")
        said_by.setdefault(name, alias)
    return given, problems


def _unknown(environ: Mapping[str, str]) -> list[str]:
    problems = []
    for name in environ:
        if not name.startswith("KHOOK_") or name in NAMES or _SERVICE_LINK.fullmatch(name):
            continue
        nearest = get_close_matches(name, [known for known in NAMES if known.startswith("KHOOK_")], n=1, cutoff=0.6)
        hint = f"did you mean {nearest[0]}?" if nearest else "no setting resembles it"
        problems.append(f"{name}: not a setting of khook; {hint}")
    return problems


def _lines(error: ValidationError) -> Iterable[str]:
    for one in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in one["loc"])
        yield f"{name}: {one.get('ctx', {}).get('error', one['msg'])}"


def _alternatives(allowed: tuple[str, ...]) -> str:
    return f"{', '.join(allowed[:-1])} or {allowed[-1]}"
