"""Credentials: out of a kubeconfig or a service account, and every mistake named with its path."""

import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from support.kubeconfig import kubeconfig
from support.tls import CERTIFICATE, KEY

from khook.errors import SettingsError
from khook.kube.credentials import Credentials
from khook.supervisor.credentials import load_credentials

SECRET = "s3cr3t-t0ken"


def test_a_plain_http_server_with_a_token_works(tmp_path: Path) -> None:
    environ = kubeconfig(tmp_path / "config", user={"token": SECRET})
    assert load_credentials(environ) == Credentials(server="http://127.0.0.1:8001", token=SECRET, namespace="ops")


def test_a_token_that_fits_into_no_header_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds characters that no header may have") as refused:
        load_credentials(kubeconfig(tmp_path / "config", user={"token": f"{SECRET}\nx"}))
    assert SECRET not in str(refused.value)


def test_without_kubeconfig_the_one_in_the_home_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config")
    assert load_credentials({"HOME": str(tmp_path)}).server == "http://127.0.0.1:8001"


def test_a_token_file_stays_a_file_to_read_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    credentials = load_credentials(kubeconfig(tmp_path / "config", user={"tokenFile": "token"}))
    assert (credentials.token_file, credentials.token) == (str(tmp_path / "token"), "")


def test_certificates_are_read_whole_and_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    environ = kubeconfig(
        tmp_path / "config",
        server="https://127.0.0.1:6443",
        user={"client-certificate-data": encoded(CERTIFICATE), "client-key-data": encoded(KEY)},
        **{"certificate-authority-data": encoded(CERTIFICATE), "tls-server-name": "kubernetes"},
    )
    expected = Credentials(
        server="https://127.0.0.1:6443",
        ca_pem=CERTIFICATE,
        client_cert_pem=CERTIFICATE,
        client_key_pem=KEY,
        tls_server_name="kubernetes",
        namespace="ops",
    )
    assert expected == load_credentials(environ)
    assert expected == load_credentials(environ), "and again"
    assert list(scratch.iterdir()) == []


def test_a_pod_uses_its_service_account_and_keeps_the_token_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "namespace").write_text("kagent")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    expected = Credentials(
        server="https://[fd00::1]:443", ca_pem=CERTIFICATE, token_file=str(tmp_path / "token"), namespace="kagent"
    )
    assert expected == load_credentials(environ, service_account=tmp_path)


def test_kubeconfig_wins_over_the_service_account(tmp_path: Path) -> None:
    environ = kubeconfig(tmp_path / "config") | {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert load_credentials(environ, service_account=tmp_path / "none").server == "http://127.0.0.1:8001"


@pytest.mark.parametrize(
    ("user", "cluster", "path"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "/user/auth-provider: "),
        ({"username": "u", "password": SECRET}, {}, "/user/password: "),
        ({"as": "admin"}, {}, "/user/as: "),
        ({}, {"insecure-skip-tls-verify": True}, "/cluster/insecure-skip-tls-verify: "),
        ({}, {"proxy-url": "http://proxy"}, "/cluster/proxy-url: "),
        ({}, {"server": "ftp://x"}, "/cluster/server: "),
        ({}, {"server": None}, "server"),
        ({}, {"server": "https://x", "certificate-authority": "/no/such/ca"}, "/no/such/ca"),
        ({}, {"server": "https://x", "certificate-authority-data": "bm8gUEVN"}, "not valid PEM"),
        ({}, {"server": "https://x", "certificate-authority-data": "%"}, "/cluster/certificate-authority is empty"),
        ({"token": SECRET, "client-certificate": "/no/such"}, {"server": "https://x"}, "/no/such"),
    ],
)
def test_each_mistake_is_named_with_its_path(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], path: str
) -> None:
    environ = kubeconfig(tmp_path / "config", user=user, **cluster)
    with pytest.raises(SettingsError) as caught:
        load_credentials(environ)
    (problem,) = caught.value.problems
    assert problem.startswith("KUBECONFIG: ")
    assert path in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "users: [{token: s3cr3t-t0ken",
        "a: b",
        "current-context: x\ncontexts: []\nclusters: []\nusers: []\n",
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(SettingsError, match="config") as caught:
        load_credentials({"KUBECONFIG": str(tmp_path / "config")})
    assert SECRET not in str(caught.value)


def test_an_item_that_lacks_something_is_named_without_its_secrets(tmp_path: Path) -> None:
    environ = kubeconfig(tmp_path / "config", user={"token": SECRET})
    file = tmp_path / "config"
    file.write_text(file.read_text().replace("  user:\n    token", "  other:\n    token"))
    with pytest.raises(SettingsError, match=r"Expected key user in users\[u\]") as caught:
        load_credentials(environ)
    assert SECRET not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_credentials({"KUBECONFIG": str(tmp_path / "none")})


def test_a_pod_without_a_token_is_told_which_directory(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=str(tmp_path)):
        load_credentials(
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, service_account=tmp_path
        )


def encoded(pem: str) -> str:
    return b64encode(pem.encode()).decode()
