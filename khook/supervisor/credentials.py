"""Credentials for the API server, from a kubeconfig or from the pod's service account.

$KUBECONFIG wins, then the service account where there is one, then ~/.kube/config: controller-runtime's order. The
official client reads the files (merging, relative paths, inline data); what it would do silently or through other
programs is refused with the path to the line: no verification, auth providers, passwords, proxies. Exec plug-ins are
run by `exec_plugin`. Only this module imports the official client, and only when it is needed: it costs 15 MiB.
"""

import asyncio
import ssl
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from khook.errors import SettingsError
from khook.kube.credentials import Credentials, fits_a_header, tls_context
from khook.supervisor import exec_plugin
from khook.supervisor.exec_plugin import PLUGIN_S, ExecPlugin, cluster_info

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_REFUSED_USER: Final = {
    "auth-provider": "auth providers were removed from Kubernetes; use an exec plug-in or a token",
    "password": "passwords were removed from Kubernetes; use a token or a client certificate",
    "as": "impersonation is not supported",
}
_REFUSED_CLUSTER: Final = {
    "insecure-skip-tls-verify": "the server's certificate is always verified; give its certificate-authority",
    "proxy-url": "proxies are not supported",
}

_WINS_OVER_EXEC: Final = ("token", "tokenFile", "client-certificate", "client-certificate-data")
"""Where one of them stands beside an exec plug-in, kubectl does not run it."""


def load_credentials(
    environ: Mapping[str, str],
    *,
    service_account: Path = SERVICE_ACCOUNT,
    plugin_s: float = PLUGIN_S,
    stop: threading.Event | None = None,
) -> Credentials:
    """Blocks while an exec plug-in runs, until `stop` is set. Raises SettingsError with the path to each mistake."""
    plugin: ExecPlugin | None = None
    if explicit := environ.get("KUBECONFIG", "").strip():
        credentials, plugin = _from_kubeconfig(explicit, environ)
    elif environ.get("KUBERNETES_SERVICE_HOST"):
        credentials = _from_service_account(environ, service_account)
    else:
        home = Path(environ.get("HOME", "~")).expanduser()
        credentials, plugin = _from_kubeconfig(str(home / ".kube" / "config"), environ)
    _check_certificates(credentials, "KUBECONFIG")
    if plugin is not None:
        issued = exec_plugin.run(plugin, timeout_s=plugin_s, stop=stop)
        credentials = replace(
            credentials,
            token=issued.token,
            client_cert_pem=issued.client_cert_pem,
            client_key_pem=issued.client_key_pem,
            expires_time=issued.expires_time,
        )
        _check_certificates(credentials, plugin.where)
    return credentials


async def load_beside_the_loop(environ: Mapping[str, str]) -> Credentials:
    """`load_credentials` in a thread, because a plug-in may take seconds; one that is cancelled ends the plug-in."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(load_credentials, environ, stop=stop)
    finally:
        stop.set()


def _check_certificates(credentials: Credentials, where: str) -> None:
    try:
        tls_context(credentials)
    except (ssl.SSLError, ValueError) as error:
        raise SettingsError([f"{where}: a certificate or key is not valid PEM: {error}"]) from error


def _from_service_account(environ: Mapping[str, str], service_account: Path) -> Credentials:
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from kubernetes.config.incluster_config import InClusterConfigLoader  # noqa: PLC0415

    token_file = service_account / "token"
    found = SimpleNamespace(api_key={})
    try:
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(token_file), cert_filename=str(service_account / "ca.crt"), environ=environ
        )
        loader.load_and_set(found)  # type: ignore[no-untyped-call]
        ca_pem = Path(found.ssl_ca_cert).read_text()
    except (ConfigException, OSError, ValueError) as error:
        raise SettingsError([f"{service_account}: {error}"]) from error
    namespace = service_account / "namespace"
    return Credentials(
        server=found.host,
        ca_pem=ca_pem,
        token_file=str(token_file),
        namespace=namespace.read_text().strip() if namespace.is_file() else "",
    )


def _from_kubeconfig(paths: str, environ: Mapping[str, str]) -> tuple[Credentials, ExecPlugin | None]:
    """What stands in it, and what has to be run for the rest."""
    import yaml  # noqa: PLC0415
    from kubernetes.config import ConfigException  # noqa: PLC0415
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger  # noqa: PLC0415

    if not any(Path(path).expanduser().exists() for path in paths.split(":") if path):
        raise SettingsError([f"KUBECONFIG: {paths}: no such file"])
    try:
        config = KubeConfigMerger(paths).config  # type: ignore[no-untyped-call]
        _name_plainly(config)
        # FileOrData writes inline certificates to files: into a directory of ours, read and gone.
        with tempfile.TemporaryDirectory(prefix="khook-") as directory:
            loader = KubeConfigLoader(  # type: ignore[no-untyped-call]
                config, config_base_path=None, temp_file_path=directory
            )
            cluster, user, context = _chosen(config, loader.current_context)
            _refuse(paths, cluster, user)
            exec_config = _taken_exec_config(user)
            found = SimpleNamespace(api_key={}, host="", ssl_ca_cert=None, cert_file=None, key_file=None)
            loader.load_and_set(found)  # type: ignore[no-untyped-call]
            credentials = _credentials(found, cluster=cluster, user=user, context=context)
        if exec_config is None:
            return credentials, None
        file = Path(user.path or paths)
        plugin = exec_plugin.described(
            exec_config,
            where=f"KUBECONFIG: {file}: {user.name}/exec",
            folder=file.absolute().parent,
            environ=environ,
            cluster=cluster_info(credentials, cluster.value.get("extensions")),
        )
        return credentials, plugin
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SettingsError([f"KUBECONFIG: {paths}: not YAML{f', line {mark.line + 1}' if mark else ''}"]) from None
    except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError([f"KUBECONFIG: {paths}: {error}"]) from error


def _name_plainly(config: Any) -> None:
    """The official client names an item by its whole content, secrets included, and shows that in its errors."""
    for section in ("clusters", "contexts", "users"):
        for item in config.value[section]:
            item.name = f"{section}[{item.value.get('name')}]"


def _chosen(config: Any, current: Mapping[str, Any]) -> tuple[Any, Any, Mapping[str, Any]]:
    """The cluster's and the user's node, and the context's content."""
    context = current["context"]
    cluster = config["clusters"].get_with_name(context["cluster"])["cluster"]
    user = config["users"].get_with_name(context["user"], safe=True) if context.get("user") else None
    return cluster, None if user is None else user["user"], context


def _refuse(paths: str, cluster: Any, user: Any) -> None:
    problems = [
        f"KUBECONFIG: {paths}: {node.name}/{key}: {why}"
        for node, refused in ((cluster, _REFUSED_CLUSTER), (user, _REFUSED_USER))
        if node is not None
        for key, why in refused.items()
        if node.safe_get(key)
    ]
    if problems:
        raise SettingsError(problems)


def _taken_exec_config(user: Any) -> Any:
    """The plug-in to run, None where there is none; taken out, for the official client would run it its own way."""
    if user is None or user.value.get("exec") is None:
        return None
    exec_config = user.value.pop("exec")
    return None if any(user.safe_get(key) for key in _WINS_OVER_EXEC) else exec_config


def _credentials(found: SimpleNamespace, *, cluster: Any, user: Any, context: Mapping[str, Any]) -> Credentials:
    token_file = "" if user is None or user.safe_get("token") else user.safe_get("tokenFile") or ""
    if token_file:
        token_file = str(Path(user.path or ".").parent / token_file)
    if not found.host.startswith(("http://", "https://")):
        raise ValueError(f"{cluster.name}/server: {found.host!r} is no http or https URL")
    token = "" if token_file else found.api_key.get("BearerToken", "").removeprefix("Bearer ").strip()
    if not fits_a_header(token):
        raise ValueError(f"{user.name}/token holds characters that no header may have")
    return Credentials(
        server=found.host,
        ca_pem=_read(found.ssl_ca_cert, f"{cluster.name}/certificate-authority"),
        token=token,
        token_file=token_file,
        client_cert_pem=_read(found.cert_file, "client-certificate"),
        client_key_pem=_read(found.key_file, "client-key"),
        tls_server_name=cluster.safe_get("tls-server-name") or "",
        namespace=context.get("namespace") or "",
    )


def _read(path: str | None, name: str) -> str:
    """A file that is named must say something: no authority would mean the system's."""
    if path is None:
        return ""
    content = Path(path).read_text()
    if not content.strip():
        raise ValueError(f"{name} is empty")
    return content
