"""Exec plug-ins: kubectl's rules, real programs, and every way in which they go wrong, none of which shows a token."""

import asyncio
import base64
import io
import os
import select
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.kubeconfig import V1, V1BETA1, answering, exec_credential, exec_user, kubeconfig, plugin
from support.tls import CERTIFICATE, KEY

from khook import log
from khook.errors import SettingsError
from khook.kube import credentials as kube_credentials
from khook.kube.credentials import Credentials
from khook.supervisor.credentials import load_beside_the_loop, load_credentials
from khook.supervisor.exec_plugin import MAX_COMPLAINT_CHARS, MAX_OUTPUT_BYTES

TOKEN = "s3cr3t-t0ken"
JWT = f"eyJhbGciOiJSUzI1NiJ9.{'eyJpc3MiOiJodHRwczovL2' * 3}.{'c2lnbmF0dXJl' * 8}"
ENDS = datetime(2024, 1, 15, 12, 30, tzinfo=UTC)
OTHER_CERTIFICATE = CERTIFICATE.replace("MIIB", "MIIX")
HTTPS = {"server": "https://127.0.0.1:6443"}


def loaded(
    folder: Path, script: str, *, plugin_s: float = 60.0, cluster: dict[str, Any] | None = None, **fields: Any
) -> Credentials:
    """The credentials out of a kubeconfig whose plug-in is this script."""
    command = plugin(folder / "plugin", script)
    environ = kubeconfig(folder / "config", user=exec_user(command, **fields), **(cluster or {}))
    return load_credentials(environ | {"PATH": os.environ["PATH"]}, plugin_s=plugin_s)


def refusal(folder: Path, script: str, **fields: Any) -> str:
    """The one line that says why there are no credentials, after the path to the plug-in."""
    with pytest.raises(SettingsError) as caught:
        loaded(folder, script, **fields)
    (problem,) = caught.value.problems
    where = f"KUBECONFIG: {folder / 'config'}: users[u]/user/exec: "
    assert problem.startswith(where)
    return problem.removeprefix(where)


# What works.


@pytest.mark.parametrize("version", [V1, V1BETA1])
@pytest.mark.parametrize(
    ("expires", "expires_time"),
    [
        (None, None),
        ("2024-01-15T12:30:00Z", ENDS),
        ("2024-01-15T14:30:00+02:00", ENDS),
        ("2024-01-15T12:30:00.000000000Z", ENDS),
    ],
)
def test_a_token_is_taken_with_its_end(
    tmp_path: Path, version: str, expires: str | None, expires_time: datetime | None
) -> None:
    answer = exec_credential(version=version, token=TOKEN, expires=expires)
    credentials = loaded(tmp_path, answering(answer), apiVersion=version)
    expected = Credentials(server="http://127.0.0.1:8001", token=TOKEN, namespace="ops", expires_time=expires_time)
    assert credentials == expected
    assert kube_credentials.decode(kube_credentials.encode(credentials)) == expected
    assert TOKEN not in repr(credentials)


@pytest.mark.parametrize("token", ["", TOKEN])
def test_a_client_certificate_is_taken_with_and_without_a_token(tmp_path: Path, token: str) -> None:
    answer = exec_credential(token=token, clientCertificateData=CERTIFICATE, clientKeyData=KEY)
    credentials = loaded(tmp_path, answering(answer), cluster=HTTPS)
    assert (credentials.client_cert_pem, credentials.client_key_pem, credentials.token) == (CERTIFICATE, KEY, token)


def test_the_old_version_needs_no_interactive_mode(tmp_path: Path) -> None:
    answer = exec_credential(version=V1BETA1, token=TOKEN)
    assert loaded(tmp_path, answering(answer), apiVersion=V1BETA1, interactiveMode=None).token == TOKEN


def test_a_plug_in_is_told_its_arguments_its_variables_and_no_more_of_us_than_it_needs(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    noting = f'echo "$@" >{told}/arguments; env -0 >{told}/environment; cat >{told}/stdin'
    script = f"{noting}; {answering(exec_credential(token=TOKEN))}"
    variables = [{"name": "REGION", "value": "here"}, {"name": "GIVEN", "value": "by the kubeconfig"}]
    user = exec_user(plugin(tmp_path / "plugin", script), args=["get-token", "--cluster", "c"], env=variables)
    environ = kubeconfig(tmp_path / "config", user=user) | {
        "PATH": os.environ["PATH"],
        "GIVEN": "by us",
        "HOME": "/home/u",
    }
    load_credentials(environ | {"KAGENT_API_KEY": TOKEN})
    seen = dict(line.split("=", 1) for line in (told / "environment").read_text().split("\0") if line)
    assert (told / "arguments").read_text() == "get-token --cluster c\n"
    assert (told / "stdin").read_text() == ""
    assert (seen["REGION"], seen["GIVEN"], seen["HOME"]) == ("here", "by the kubeconfig", "/home/u")
    assert "KAGENT_API_KEY" not in seen
    info = {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}
    assert orjson.loads(seen["KUBERNETES_EXEC_INFO"]) == info


def test_a_plug_in_that_asks_for_the_cluster_is_told_of_it_with_the_authority_as_data(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CERTIFICATE)
    told = tmp_path / "told"
    script = f'printf %s "$KUBERNETES_EXEC_INFO" >{told}; {answering(exec_credential(token=TOKEN))}'
    cluster = HTTPS | {
        "certificate-authority": "ca.pem",
        "tls-server-name": "kubernetes",
        "extensions": [
            {"name": "another", "extension": {"a": 1}},
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "06e3"}},
        ],
    }
    loaded(tmp_path, script, cluster=cluster, provideClusterInfo=True)
    spec = orjson.loads(told.read_text())["spec"]
    authority = spec["cluster"].pop("certificate-authority-data")
    assert base64.b64decode(authority).decode() == CERTIFICATE
    assert spec["cluster"] == HTTPS | {"tls-server-name": "kubernetes", "config": {"audience": "06e3"}}


@pytest.mark.parametrize("command", ["./plugin", "bin/../plugin", "plugin"])
def test_a_path_starts_at_the_kubeconfig_and_a_bare_name_is_found_in_path(tmp_path: Path, command: str) -> None:
    folder = tmp_path / "kube"
    plugin(folder / "plugin", answering(exec_credential(token="by its path")))
    (folder / "bin").mkdir()
    plugin(tmp_path / "in-path" / "plugin", answering(exec_credential(token="by its name")))
    kubeconfig(folder / "config", user=exec_user(command))
    (tmp_path / "first").write_text("apiVersion: v1\nkind: Config\n")
    path = f"{tmp_path / 'in-path'}:{os.environ['PATH']}"
    found = load_credentials({"KUBECONFIG": f"{tmp_path / 'first'}:{folder / 'config'}", "PATH": path})
    assert found.token == ("by its name" if command == "plugin" else "by its path")


@pytest.mark.parametrize(
    "beside",
    [
        {"token": TOKEN},
        {"tokenFile": "token"},
        {"client-certificate": "cert.pem", "client-key": "key.pem"},
    ],
)
def test_what_stands_in_the_kubeconfig_itself_wins_and_the_plug_in_is_not_run(
    tmp_path: Path, beside: dict[str, str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "cert.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(KEY)
    user = exec_user(plugin(tmp_path / "plugin", f"touch {tmp_path}/was-run")) | beside
    credentials = load_credentials(kubeconfig(tmp_path / "config", user=user, **HTTPS))
    assert (credentials.token or credentials.token_file or credentials.client_cert_pem) != ""
    assert not (tmp_path / "was-run").exists()


# What does not.


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"command": None}, "Object missing required field `command`"),
        ({"command": ""}, "command is empty"),
        ({"command": 3}, "Expected `str`, got `int` - at `$.command`"),
        ({"apiVersion": None}, "Object missing required field `apiVersion`"),
        (
            {"apiVersion": "client.authentication.k8s.io/v1alpha1"},
            f"apiVersion: 'client.authentication.k8s.io/v1alpha1' is not supported; {V1} and {V1BETA1} are",
        ),
        ({"interactiveMode": None}, "interactiveMode is missing; in version v1 it must be given"),
        ({"interactiveMode": "Sometimes"}, "interactiveMode: 'Sometimes' is none of Never, IfAvailable, Always"),
        ({"interactiveMode": "Always"}, "interactiveMode: Always asks for a terminal, and khook has none to give"),
        ({"args": ["--port", 8]}, "Expected `str`, got `int` - at `$.args[1]`"),
        ({"env": [{"value": "x"}]}, "Object missing required field `name` - at `$.env[0]`"),
        ({"env": [{"name": "A=B", "value": "x"}]}, "/plugin cannot be run: illegal environment variable name"),
        ({"command": "no-such-plugin"}, "command 'no-such-plugin' not found, or not executable"),
        (
            {"command": "no-such-plugin", "installHint": "Install it:\n  brew install it\x1b[0m"},
            "command 'no-such-plugin' not found, or not executable; Install it: brew install it [0m",
        ),
        ({"command": "./config"}, "/config' not found, or not executable"),
    ],
)
def test_each_mistake_in_the_kubeconfig_is_named(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    assert refusal(tmp_path, answering(exec_credential(token=TOKEN)), **fields).endswith(why)


def test_an_exec_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"users\[u\]/user/exec: Expected `object`, got `str`"):
        load_credentials(kubeconfig(tmp_path / "config", user={"exec": "aws eks get-token"}))


def test_a_file_that_is_no_program_is_named(tmp_path: Path) -> None:
    (tmp_path / "plugin").write_bytes(b"\x7fELF\x00")
    (tmp_path / "plugin").chmod(0o755)
    environ = kubeconfig(tmp_path / "config", user=exec_user("./plugin"))
    with pytest.raises(SettingsError, match="/plugin cannot be run: Exec format error"):
        load_credentials(environ)


PAIR = {"clientCertificateData": CERTIFICATE, "clientKeyData": KEY}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "of 1 bytes is no ExecCredential: Input data was truncated"),
        (f"<html>{TOKEN}</html>", "is no ExecCredential: JSON is malformed: invalid character (byte 0)"),
        ("[" * 100_000, "is no ExecCredential: Expected `object`, got `array`"),
        ('{"status": ' + "[" * 100_000, "Expected `object | null`, got `array` - at `$.status`"),
        ('{"x": ' + "[" * 100_000, "is no ExecCredential: RecursionError"),
        (exec_credential(version=V1BETA1, token=TOKEN), f"not of the kind ExecCredential and the apiVersion {V1}"),
        (exec_credential(token=TOKEN) | {"kind": "Secret"}, f"not of the kind ExecCredential and the apiVersion {V1}"),
        ({"apiVersion": V1, "kind": "ExecCredential"}, "neither a token nor a client certificate"),
        (exec_credential(token=""), "neither a token nor a client certificate"),
        (exec_credential(token=[TOKEN]), "Expected `str | null`, got `array` - at `$.status.token`"),
        (exec_credential(token=f"{TOKEN}\nx"), "token holds characters that no header may have"),
        (exec_credential(clientCertificateData=CERTIFICATE), "only one of clientCertificateData and clientKeyData"),
        (exec_credential(token=TOKEN, clientKeyData=KEY), "only one of clientCertificateData and clientKeyData"),
        (exec_credential(**PAIR | {"clientKeyData": CERTIFICATE}), "a certificate or key is not valid PEM: "),
        (exec_credential(**PAIR | {"clientCertificateData": OTHER_CERTIFICATE}), "is not valid PEM: "),
        (exec_credential(token=TOKEN, expires="tomorrow"), "Invalid RFC3339 encoded datetime - at "),
        (exec_credential(token=TOKEN, expires="2024-01-15T12:30:00"), "Expected `datetime` with a timezone component"),
        (exec_credential(token=TOKEN, expires="0001-01-01T00:00:00+14:00"), "expirationTimestamp is out of range"),
    ],
)
def test_an_answer_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, answer: Any, why: str) -> None:
    said = refusal(tmp_path, answering(answer), cluster=HTTPS)
    assert why in said
    assert TOKEN not in said
    assert len(said) < 200


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "the plug-in ended with 3"),
        (
            "echo 'not logged in:' >&2; echo ' run: cloud login' >&2; exit 1",
            "ended with 1: not logged in: run: cloud login",
        ),
        ("kill -9 $$", "the plug-in was killed by SIGKILL"),
        (r"printf '\033[31mred\007' >&2; exit 1", "ended with 1: [31mred"),
    ],
)
def test_a_plug_in_that_fails_says_why_in_one_line(tmp_path: Path, script: str, why: str) -> None:
    assert refusal(tmp_path, script).endswith(why)


def test_of_a_long_complaint_the_end_is_shown(tmp_path: Path) -> None:
    script = (
        "i=0; while [ $i -lt 9000 ]; do echo 'retrying for a while'; i=$((i+1)); done >&2; echo 'gave up' >&2; exit 1"
    )
    said = refusal(tmp_path, script)
    assert said.endswith("retrying for a while gave up")
    assert len(said) <= MAX_COMPLAINT_CHARS + len("the plug-in ended with 1: …")


@pytest.mark.parametrize("token", [JWT, "k8s-aws-v1." + "aHR0cHM6Ly9zdHMu" * 20, TOKEN])
def test_a_token_that_it_complains_about_is_not_shown(tmp_path: Path, token: str) -> None:
    log.register_token(TOKEN)  # as one that was in use before
    said = refusal(
        tmp_path, f"echo '{token}'; echo 'refused: Authorization: Bearer short1 for {token} (401)' >&2; exit 1"
    )
    assert "refused: Authorization: [withheld] for " in said
    assert said.endswith(" (401)")
    assert all(part not in said for part in (*token.split("."), "short1") if len(part) > 24 or part == TOKEN)


def test_a_token_that_was_given_is_known_to_the_log(tmp_path: Path) -> None:
    given = "given-by-a-plug-in"
    loaded(tmp_path, answering(exec_credential(token=given)))
    assert log.redacted(f"who sent {given}?") == "who sent [redacted]?"


def test_output_without_end_is_ended(tmp_path: Path) -> None:
    assert refusal(tmp_path, "exec yes") == f"the plug-in printed more than {MAX_OUTPUT_BYTES} bytes"


# A plug-in and its children keep a pipe open as long as they live: reading it to its end is waiting for them.


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[io.FileIO]:
    os.mkfifo(tmp_path / "pipe")
    with io.FileIO(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)) as reader:
        yield reader


def hanging(folder: Path) -> str:
    return f"exec 9>{folder}/pipe; echo started >&9; sleep 60 & wait"


def test_a_plug_in_that_hangs_is_killed_with_its_children(tmp_path: Path, pipe: io.FileIO) -> None:
    assert refusal(tmp_path, hanging(tmp_path), plugin_s=0.5) == "the plug-in gave no answer in 0.5 s"
    os.set_blocking(pipe.fileno(), True)
    assert pipe.read() in (b"", b"started\n")


def test_a_child_that_it_leaves_behind_is_neither_waited_for_nor_killed(tmp_path: Path, pipe: io.FileIO) -> None:
    """As a plug-in has one that keeps its cache warm; stdout and stderr are the child's, too."""
    os.mkfifo(tmp_path / "wish")
    with io.FileIO(os.open(tmp_path / "wish", os.O_RDWR), "w") as wish:
        child = f"(exec 9>{tmp_path}/pipe; read word <{tmp_path}/wish; echo $word >&9) &"
        assert loaded(tmp_path, f"{child}\n{answering(exec_credential(token=TOKEN))}").token == TOKEN
        wish.write(b"alive\n")
        select.select([pipe], [], [], 30)
        assert pipe.read() == b"alive\n"


def test_a_load_that_is_cancelled_ends_the_plug_in_and_the_loop_goes_on_meanwhile(
    tmp_path: Path, pipe: io.FileIO
) -> None:
    user = exec_user(plugin(tmp_path / "plugin", hanging(tmp_path)))
    environ = kubeconfig(tmp_path / "config", user=user) | {"PATH": os.environ["PATH"]}

    async def story() -> None:
        held = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(held), pipe)
        async with asyncio.timeout(30):
            loading = asyncio.create_task(load_beside_the_loop(environ))
            assert await held.readline() == b"started\n"
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert await held.read() == b""

    asyncio.run(story())


def test_beside_the_loop_the_same_is_loaded(tmp_path: Path) -> None:
    user = exec_user(plugin(tmp_path / "plugin", answering(exec_credential(token=TOKEN))))
    environ = kubeconfig(tmp_path / "config", user=user) | {"PATH": os.environ["PATH"]}
    assert asyncio.run(load_beside_the_loop(environ)) == load_credentials(environ)
