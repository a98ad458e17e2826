"""Where kagent is and with which key: the variables, else the mounted secret, which may come late and change.

`KAGENT_CREDENTIALS_DIR` is the secret as an optional volume with the files `api-key` and `base-url`; either may be
missing. A variable that is set wins over its file. The kubelet replaces all files at once by moving the link `..data`
(pkg/volume/util/atomic_writer.go), so both are read from one version: a key is never sent to the address of another.

A secret that cannot be used is said and changes nothing: what was in use stays in use. One that is deleted counts as
none, as it would at the next start. What the files hold is in no message, repr or log line.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from khook.agents.tls import agent_tls
from khook.errors import SettingsError
from khook.log import Log, register_secret
from khook.messages import AgentAccess, AgentConfig
from khook.seams import Clock
from khook.settings import DEFAULT_BASE_URL, Settings, valid_api_key, valid_base_url

KEY_FILE: Final = "api-key"
URL_FILE: Final = "base-url"
SECRET: Final = "kagent-credentials"  # noqa: S105 - its name
INSTALLED_IN: Final = "kagent-system"
"""The namespace of the charts, where POD_NAMESPACE does not say otherwise."""

REMIND_S: Final = 60.0
"""How often the log says that a key is missing."""
MAX_FILE_BYTES: Final = 16_384
"""More than any valid content, which the rules of the settings then refuse."""
READ_TRIES: Final = 3

NOWHERE: Final = "http://no-usable-base-url.invalid"
"""Reaches nobody (RFC 6761): events must not go to the default address when the secret names another, unreadably."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretFiles:
    """What the two files hold, unchecked; None: no such file, or an empty one."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = field(default=None, repr=False)


def read_secret(directory: Path) -> SecretFiles:
    """Both files of one version of the secret. Raises OSError."""
    for _ in range(READ_TRIES):
        version = _version(directory)
        files = SecretFiles(api_key=_text(version / KEY_FILE), base_url=_text(version / URL_FILE))
        if _version(directory) == version:
            return files
    raise BlockingIOError("it changes while it is read")


def _version(directory: Path) -> Path:
    try:
        return directory / (directory / "..data").readlink()
    except OSError:
        return directory  # not a volume of the kubelet's


def _text(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    return raw.decode("utf-8", "surrogateescape").strip() or None


def merge(settings: Settings, files: SecretFiles) -> AgentAccess:
    """What to use. Raises SettingsError that names each file which cannot be used, never what it holds."""
    problems: list[str] = []
    base_url, api_key = settings.kagent_base_url, settings.kagent_api_key
    if base_url is None:
        base_url = _checked(URL_FILE, files.base_url, by=valid_base_url, problems=problems)
    if api_key is None:
        api_key = _checked(KEY_FILE, files.api_key, by=valid_api_key, problems=problems)
    if problems:
        raise SettingsError(problems)
    return AgentAccess(
        base_url=base_url or DEFAULT_BASE_URL,
        api_key="" if api_key is None else api_key.get_secret_value(),
        key_hint=mending_command(settings, files),
    )


def _checked(name: str, text: str | None, *, by: Callable[[str], T], problems: list[str]) -> T | None:
    try:
        return None if text is None else by(text)
    except ValueError as error:
        problems.append(f"{name} in the secret {SECRET}: {error}")
        return None


def agent_config(settings: Settings) -> AgentConfig:
    """How calls are made."""
    return AgentConfig(
        ca_file=settings.kagent_ca_file,
        protocol=settings.kagent_protocol,
        user_id=settings.kagent_user_id,
        timeout_s=settings.kagent_timeout_s,
        retry_attempts=settings.retry_attempts,
        retry_backoff_s=settings.retry_backoff_s,
        calls_per_worker=settings.calls_per_worker,
        calls_per_agent=settings.calls_per_agent,
        redeliver_for_s=settings.redeliver_for.total_seconds(),
        run_deadline_s=settings.run_deadline_s,
    )


def mending_command(settings: Settings, files: SecretFiles) -> str:
    """What a person types to give a key that is missing."""
    if settings.kagent_credentials_dir is None:
        return "export KAGENT_API_KEY=..., then start khook again"
    namespace = settings.pod_namespace or INSTALLED_IN
    if files == SecretFiles():
        return f"kubectl create secret generic {SECRET} -n {namespace} --from-literal={KEY_FILE}=..."
    data = f'{{"stringData":{{"{KEY_FILE}":"..."}}}}'  # it exists: `create` would be refused
    return f"kubectl patch secret {SECRET} -n {namespace} -p '{data}'"


class AgentCredentials:
    """`access` is what to use now; `refresh` looks at the files again."""

    def __init__(self, settings: Settings, *, clock: Clock, log: Log) -> None:
        self._settings = settings
        self._clock = clock
        self._log = log
        self._command = mending_command(settings, SecretFiles())
        self._problems: tuple[str, ...] = ()
        self._reminded_at = float("-inf")
        self.access = AgentAccess(base_url=settings.kagent_base_url or NOWHERE, api_key="", key_hint=self._command)
        if not self.refresh():
            self.access = msgspec.structs.replace(self.access, key_hint=self._command)

    def refresh(self) -> bool:
        """Read the secret; True when `access` is another than before."""
        try:
            access = self._read()
        except SettingsError as error:
            self._not_usable(tuple(error.problems))
            return False
        self._problems = ()
        if access == self.access:
            return False
        register_secret(access.api_key)
        self.access = access
        self._log.info("agent access taken", address=access.base_url, state="a key" if access.api_key else "no key")
        return True

    def remind(self, *, needed: bool) -> None:
        """Say that a needed key is missing, once a minute at most."""
        now_at = self._clock.monotonic()
        if self.access.api_key or not needed or now_at < self._reminded_at + REMIND_S:
            return
        self._reminded_at = now_at
        self._log.error("no API key yet", how=self._command)

    def body(self, *, needed: bool) -> dict[str, object]:
        """For `/readyz`: `needed` says whether a call has to have a key."""
        body: dict[str, object] = {"key": bool(self.access.api_key)}
        if not self.access.api_key:
            body |= {"needed": needed, "command": self._command}
        return body | ({"problems": list(self._problems)} if self._problems else {})

    def _read(self) -> AgentAccess:
        directory = self._settings.kagent_credentials_dir
        try:
            files = SecretFiles() if directory is None else read_secret(Path(directory))
        except OSError as error:
            raise SettingsError(
                [f"KAGENT_CREDENTIALS_DIR: {directory} cannot be read: {error.strerror or error}"]
            ) from error
        self._command = mending_command(self._settings, files)
        access = merge(self._settings, files)
        if access.base_url != self.access.base_url:
            agent_tls(access.base_url, self._settings.kagent_ca_file)  # here, or each worker would die of it
        return access

    def _not_usable(self, problems: tuple[str, ...]) -> None:
        if problems != self._problems:
            self._log.error("agent credentials not used", problems=list(problems))
        self._problems = problems
