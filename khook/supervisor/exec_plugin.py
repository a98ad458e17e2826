"""Exec plug-ins of a kubeconfig: programs that print credentials (client.authentication.k8s.io, KEP-541).

kubectl's rules, from client-go's `plugin/pkg/client/auth/exec` and `tools/clientcmd`: which versions there are, what a
plug-in is told, what it must answer. The official Python client's own provider would wait and read without end, hand
on our stdin, and log a failure instead of raising it.

A plug-in has no terminal, a time limit and an output limit. One that exceeds them, or is no longer wanted, is killed
with all that it started. Nothing of its stdout is ever shown, and of its stderr nothing that looks like a token.
"""

import base64
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Annotated, Any, Final

import msgspec
import orjson

from khook import log
from khook.errors import SettingsError
from khook.kube.answers import BAD_JSON
from khook.kube.credentials import Credentials, fits_a_header
from khook.seams import Clock, SystemClock

VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
PLUGIN_S: Final = 60.0
"""Cloud plug-ins take one to ten seconds; one that waits for a person would wait for ever."""
MAX_OUTPUT_BYTES: Final = 256 * 1024
"""A token of some KiB, or a certificate with its chain and a key, several times over."""
STDERR_TAIL_BYTES: Final = 4096
MAX_COMPLAINT_CHARS: Final = 300
"""Of what it says on stderr: its last words tell enough."""
STOP_LOOK_S: Final = 0.2
"""How late a plug-in that is no longer wanted is noticed."""
CHUNK_BYTES: Final = 64 * 1024
NOT_FOR_PLUGINS: Final = frozenset({"KAGENT_API_KEY"})
CLUSTER_CONFIG: Final = "client.authentication.k8s.io/exec"
"""The extension of a cluster that `provideClusterInfo` hands on as its `config`."""

_TOKEN_LIKE: Final = re.compile(r"(?i)\bbearer\s+\S+|[\w+=~-]{40,}", re.ASCII)
"""Longer than a UUID or a host name's labels use to be; parts of a JWT are hardly shorter."""
_WITHHELD: Final = "[withheld]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """One plug-in as the kubeconfig describes it; `where` is the path to it, for messages."""

    where: str
    api_version: str
    argv: tuple[str, ...] = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a plug-in gave: a token, or a certificate with its key, or both."""

    token: str = field(repr=False)
    client_cert_pem: str = field(repr=False)
    client_key_pem: str = field(repr=False)
    expires_time: datetime | None


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _Config(msgspec.Struct, rename="camel"):
    """`users[].user.exec`."""

    command: str
    api_version: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Answer(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    status: _Status | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


# What the kubeconfig says.


def described(
    exec_config: Any, *, where: str, folder: Path, environ: Mapping[str, str], cluster: Mapping[str, Any]
) -> ExecPlugin:
    """The plug-in of `users[].user.exec`; `folder` is its kubeconfig's, `cluster` what it may be told.

    Raises SettingsError.
    """
    try:
        config = msgspec.convert(exec_config, type=_Config)
    except msgspec.ValidationError as error:
        raise SettingsError([f"{where}: {error}"]) from None
    if problem := _refused(config):
        raise SettingsError([f"{where}: {problem}"])
    spec: dict[str, Any] = {"interactive": False}
    if config.provide_cluster_info:
        spec["cluster"] = cluster
    told = {"apiVersion": config.api_version, "kind": "ExecCredential", "spec": spec}
    own = {name: value for name, value in environ.items() if name not in NOT_FOR_PLUGINS}
    return ExecPlugin(
        where=where,
        api_version=config.api_version,
        argv=(_program(config, where=where, folder=folder, environ=environ), *(config.args or ())),
        environ=own
        | {variable.name: variable.value for variable in config.env or ()}
        | {"KUBERNETES_EXEC_INFO": orjson.dumps(told, default=str, option=orjson.OPT_NON_STR_KEYS).decode()},
    )


def cluster_info(credentials: Credentials, extensions: Any) -> dict[str, Any]:
    """A kubeconfig's cluster as a plug-in is told it: the authority always as data."""
    info = {"server": credentials.server}
    if credentials.tls_server_name:
        info["tls-server-name"] = credentials.tls_server_name
    if credentials.ca_pem:
        info["certificate-authority-data"] = base64.b64encode(credentials.ca_pem.encode()).decode()
    for item in extensions or ():
        if item["name"] == CLUSTER_CONFIG:
            info["config"] = item["extension"]
    return info


def _refused(config: _Config) -> str:
    mode = config.interactive_mode
    if not config.command:
        return "command is empty"
    if config.api_version not in VERSIONS:
        return f"apiVersion: {config.api_version!r} is not supported; {' and '.join(VERSIONS)} are"
    if mode is None and config.api_version == VERSIONS[0]:
        return "interactiveMode is missing; in version v1 it must be given"
    if mode not in (None, "Never", "IfAvailable", "Always"):
        return f"interactiveMode: {mode!r} is none of Never, IfAvailable, Always"
    if mode == "Always":
        return "interactiveMode: Always asks for a terminal, and khook has none to give"
    return ""


def _program(config: _Config, *, where: str, folder: Path, environ: Mapping[str, str]) -> str:
    """A bare name is looked for in PATH, anything else is a path from the kubeconfig's folder."""
    if os.sep in config.command:
        command = str(folder / config.command)
        found = shutil.which(command)
    else:
        command = config.command
        found = shutil.which(command, path=environ.get("PATH", os.defpath))
    if found is None or not Path(found).is_absolute():
        hint = f"; {_presentable(config.install_hint)}" if config.install_hint else ""
        raise SettingsError([f"{where}: command {command!r} not found, or not executable{hint}"])
    return found


# What it does.


class _Failed(Exception):
    """Why there are no credentials; safe to show."""


def run(
    plugin: ExecPlugin, *, timeout_s: float = PLUGIN_S, stop: threading.Event | None = None, clock: Clock | None = None
) -> Issued:
    """Blocks until the plug-in has answered, `timeout_s` are over or `stop` is set. SettingsError says what failed."""
    patience = _Patience(timeout_s, stop=stop or threading.Event(), clock=clock or SystemClock())
    try:
        output = _output(plugin, patience)
        return _issued(output, plugin.api_version)
    except _Failed as error:
        raise SettingsError([f"{plugin.where}: {error}"]) from None


class _Patience:
    """How long a plug-in is waited for."""

    def __init__(self, timeout_s: float, *, stop: threading.Event, clock: Clock) -> None:
        self._timeout_s = timeout_s
        self._stop = stop
        self._clock = clock
        self._deadline_at = clock.monotonic() + timeout_s

    def look_s(self) -> float:
        """Until the next look; raises when it is at its end."""
        left_s = self._deadline_at - self._clock.monotonic()
        if left_s <= 0:
            raise _Failed(f"the plug-in gave no answer in {self._timeout_s:g} s")
        if self._stop.is_set():
            raise _Failed("the plug-in was stopped: its answer is not needed any more")
        return min(left_s, STOP_LOOK_S)


def _output(plugin: ExecPlugin, patience: _Patience) -> bytes:
    """What it printed, if it ended well."""
    try:
        process = subprocess.Popen(  # noqa: S603 - a kubeconfig names a program to run
            plugin.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=plugin.environ,
            start_new_session=True,  # a group to kill, and no terminal to ask a person on
        )
    except (OSError, ValueError) as error:  # ValueError: a zero byte, or = in the name of a variable
        raise _Failed(f"{plugin.argv[0]} cannot be run: {getattr(error, 'strerror', None) or error}") from None
    with process:
        try:
            stdout, stderr = _listen(process, patience)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
            raise
        code = process.wait()
    if code == 0:
        return stdout
    how = f"ended with {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
    words = _presentable(stderr.decode(errors="replace"))
    raise _Failed(f"the plug-in {how}{f': {words}' if words else ''}")


def _listen(process: "subprocess.Popen[bytes]", patience: _Patience) -> tuple[bytes, bytes]:
    """Its stdout and the end of its stderr, once it has ended: a child that it left behind may hold them open."""
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    ended = False
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        pidfd = os.pidfd_open(process.pid)
        stack.callback(os.close, pidfd)
        for stream in (process.stdout, process.stderr, pidfd):
            selector.register(stream, selectors.EVENT_READ)
        while True:
            look_s = patience.look_s()
            ready = {key.fileobj for key, _ in selector.select(0 if ended else look_s)}
            if ended and not ready:
                return bytes(stdout), bytes(stderr)
            if pidfd in ready:
                ended = True
                selector.unregister(pidfd)
            if process.stdout in ready:
                _read(process.stdout, stdout, selector)
                if len(stdout) > MAX_OUTPUT_BYTES:
                    raise _Failed(f"the plug-in printed more than {MAX_OUTPUT_BYTES} bytes")
            if process.stderr in ready:
                _read(process.stderr, stderr, selector)
                del stderr[:-STDERR_TAIL_BYTES]


def _read(stream: IO[bytes], into: bytearray, selector: selectors.BaseSelector) -> None:
    chunk = os.read(stream.fileno(), CHUNK_BYTES)
    into += chunk
    if not chunk:
        selector.unregister(stream)


def _issued(output: bytes, api_version: str) -> Issued:
    """The credentials in what a plug-in printed; client-go's checks."""
    try:
        answer = _answer.decode(output)
    except BAD_JSON as error:
        raise _Failed(f"the plug-in's answer of {len(output)} bytes is no ExecCredential: {_why(error)}") from None
    if (answer.api_version, answer.kind) != (api_version, "ExecCredential"):
        raise _Failed(f"the plug-in's answer is not of the kind ExecCredential and the apiVersion {api_version}")
    status = answer.status or _Status()
    token, certificate, key = status.token or "", status.client_certificate_data or "", status.client_key_data or ""
    log.register_token(token)
    if bool(certificate) != bool(key):
        raise _Failed("the plug-in gave only one of clientCertificateData and clientKeyData")
    if not (token or certificate):
        raise _Failed("the plug-in gave neither a token nor a client certificate")
    if not fits_a_header(token):
        raise _Failed("the plug-in's token holds characters that no header may have")
    return Issued(
        token=token,
        client_cert_pem=certificate,
        client_key_pem=key,
        expires_time=_utc(status.expiration_timestamp),
    )


def _why(error: Exception) -> str:
    """msgspec names fields and types, never values; what others raise might quote."""
    return str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__


def _utc(time: datetime | None) -> datetime | None:
    try:
        return None if time is None else time.astimezone(UTC)
    except OverflowError:
        raise _Failed("the plug-in's expirationTimestamp is out of range") from None


def _presentable(text: str) -> str:
    """The end of what a program said, in one line that steers no terminal and holds no token."""
    text = "".join(one if one.isprintable() else " " for one in text)
    text = _TOKEN_LIKE.sub(_WITHHELD, log.redacted(" ".join(text.split())))
    return text if len(text) <= MAX_COMPLAINT_CHARS else "…" + text[-MAX_COMPLAINT_CHARS:]
