"""What supervisor and workers tell each other, as payloads that `shards` carries without reading.

Every message is a msgspec struct in JSON, never a pickled object. Supervisor → worker: `WorkerConfig` at hello,
`HooksChanged` when a generation moved, `FreshCredentials` before the old ones expire and after a 401, `AgentAccess`
when kagent's key or address changed, `TellSummary` when somebody reads the status page. Worker → supervisor:
`WorkerReport` with each heartbeat, `NeedCredentials` when the API server refused the ones it has, `WorkerSummary`
when it was asked to tell.
"""

from typing import Final

import msgspec

from khook.summary import WorkerSummary


class AgentAccess(msgspec.Struct, frozen=True, tag="agent-access"):
    """Where kagent is and with which key: said at hello, and again whenever it changes."""

    base_url: str
    api_key: str
    """Empty: there is none yet."""
    key_hint: str
    """What a person does to give one."""

    def __repr__(self) -> str:
        return f"AgentAccess(base_url={self.base_url!r}, key={bool(self.api_key)})"


class AgentConfig(msgspec.Struct, frozen=True):
    """How calls are made: every number from the settings."""

    ca_file: str | None
    protocol: str
    """`auto`, `a2a` or `execute`."""
    user_id: str
    timeout_s: float
    retry_attempts: int
    retry_backoff_s: float
    calls_per_worker: int
    calls_per_agent: int
    redeliver_for_s: float
    """0: not at all."""
    run_deadline_s: float


class IncidentConfig(msgspec.Struct, frozen=True):
    """How incidents are judged; seconds."""

    cooldown_s: float
    resolve_after_s: float
    max_signal_age_s: float
    stuck_pending_s: float
    calls_per_hook_hour: int
    """0: no limit."""
    agent_namespace: str
    allowed_agent_namespaces: tuple[str, ...]


class WorkerConfig(msgspec.Struct, frozen=True, tag="config"):
    """All that a worker needs to know; `credentials` is `khook.kube.credentials`' own encoding."""

    credentials: bytes
    access: AgentAccess
    agents: AgentConfig
    incidents: IncidentConfig
    cluster_name: str
    """What agents are told; empty: nothing."""
    instance: str
    """POD_NAME: the reportingInstance of the Kubernetes Events we write."""
    log_level: str
    log_format: str

    def __repr__(self) -> str:
        return f"WorkerConfig(instance={self.instance!r})"


class HooksChanged(msgspec.Struct, frozen=True, tag="hooks-changed"):
    """A Hook of this namespace was added, edited or deleted: read them again."""

    namespace: str


class FreshCredentials(msgspec.Struct, frozen=True, tag="credentials"):
    credentials: bytes

    def __repr__(self) -> str:
        return "FreshCredentials()"


class TellSummary(msgspec.Struct, frozen=True, tag="tell-summary"):
    """Somebody reads the status page: answer with a `WorkerSummary`. Unread, it costs a worker nothing."""


class NeedCredentials(msgspec.Struct, frozen=True, tag="need-credentials"):
    """The API server answered 401 to the ones I have."""


class NamespaceReport(msgspec.Struct, frozen=True):
    """A namespace that is not fully live right now."""

    namespace: str
    deaf_s: float
    """Since the watch that is silent for longest was last proven live, or since the namespace was started."""
    live: bool
    """Both watches have been live at least once."""
    forbidden: bool
    reason: str
    """Short, ours: never a server's text about an object."""


class WorkerReport(msgspec.Struct, frozen=True, tag="report"):
    """One heartbeat's news. A started namespace that is not listed here is live."""

    not_live: tuple[NamespaceReport, ...]
    needs_key: bool = False
    """A call could not be made because there is no API key."""
    lines: dict[str, int] = msgspec.field(default_factory=dict)
    """Watch lines since the last heartbeat, of the namespaces that had any."""


ToWorker = HooksChanged | FreshCredentials | AgentAccess | TellSummary
FromWorker = NeedCredentials | WorkerSummary
"""What a worker sends at a time of its own, beside the reports."""

_encoder: Final = msgspec.json.Encoder()
_to_worker: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)
_config: Final = msgspec.json.Decoder(WorkerConfig)
_from_worker: Final[msgspec.json.Decoder[FromWorker]] = msgspec.json.Decoder(FromWorker)
_report: Final = msgspec.json.Decoder(WorkerReport)


def encode(message: msgspec.Struct) -> bytes:
    return _encoder.encode(message)


def decode_to_worker(payload: bytes) -> ToWorker:
    return _to_worker.decode(payload)


def decode_config(payload: bytes) -> WorkerConfig:
    return _config.decode(payload)


def decode_from_worker(payload: bytes) -> FromWorker:
    return _from_worker.decode(payload)


def decode_report(payload: bytes) -> WorkerReport:
    return _report.decode(payload)
