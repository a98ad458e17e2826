"""`khook check`: the whole installation in one table, and files with Hooks before they are applied.

It only looks. What cannot be looked at because something before it failed is left out; the failure stands there. Exit
0 where nothing is wrong (warnings are no reason to fail), else 78.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from khook import log
from khook import settings as khook_settings
from khook.cli.check_cluster import check_crd, check_permissions, check_server
from khook.cli.check_hooks import agents_of, check_files, check_live
from khook.cli.check_kagent import check_kagent
from khook.cli.explain_call import agent_access
from khook.cli.findings import Finding, all_well, document, ok, show_findings, unknown, wrong
from khook.cli.reach import Cluster, reached
from khook.errors import EXIT_OK, EXIT_SETTINGS, KhookError, KubeError, SettingsError
from khook.kube.credentials import Credentials
from khook.kube.hooks import HookObject
from khook.kube.transports import NetworkTransports
from khook.seams import SystemClock, Transports
from khook.settings import Settings
from khook.supervisor.credentials import load_beside_the_loop

_SERVER: Final = "API server"


def run(files: Sequence[str], *, offline: bool, as_json: bool, environ: Mapping[str, str] | None = None) -> int:
    environ = os.environ if environ is None else environ
    log.configure(level="error", format="text")
    findings = asyncio.run(found(files, offline=offline, environ=environ))
    if as_json:
        print(orjson.dumps(document(findings), option=orjson.OPT_INDENT_2).decode())
    else:
        show_findings(Console(), findings)
    return EXIT_OK if all_well(findings) else EXIT_SETTINGS


async def found(
    files: Sequence[str],
    *,
    offline: bool,
    environ: Mapping[str, str],
    credentials: Credentials | None = None,
    transports: Transports | None = None,
) -> list[Finding]:
    """`credentials` and `transports` take the place of the environment's and the network's."""
    transports = transports or NetworkTransports()
    findings, chosen = _settings(environ)
    hooks_findings, hooks = check_files(files, chosen or khook_settings.load({}))
    if offline:
        return [*findings, *hooks_findings, unknown("cluster", "not asked (--offline)")]
    if files and credentials is None and _no_cluster(environ):
        return [*findings, *hooks_findings, unknown("cluster", "not asked: no kubeconfig is found here")]
    live: Sequence[HookObject] = ()
    try:
        credentials = credentials or await load_beside_the_loop(environ)
        async with reached(environ, credentials=credentials, transports=transports) as cluster:
            seen, live = await _cluster(cluster, credentials.server, chosen)
            findings += seen
    except SettingsError as error:
        findings += [wrong(_SERVER, problem) for problem in error.problems]
    except KhookError as error:
        findings.append(wrong(_SERVER, str(error), "kubectl version asks the same server"))
    if chosen is not None:
        findings += await _kagent(chosen, live, hooks, transports)
    return [*findings, *hooks_findings]


def _settings(environ: Mapping[str, str]) -> tuple[list[Finding], Settings | None]:
    try:
        chosen = khook_settings.load(environ)
    except SettingsError as error:
        return [wrong("settings", problem) for problem in error.problems], None
    given = sum(1 for name in khook_settings.NAMES if environ.get(name, "").strip())
    return [ok("settings", f"{given} set, the others at their defaults")], chosen


def _no_cluster(environ: Mapping[str, str]) -> bool:
    """Nobody said where one is: not $KUBECONFIG, not a service account, not ~/.kube/config."""
    if environ.get("KUBECONFIG", "").strip() or environ.get("KUBERNETES_SERVICE_HOST"):
        return False
    return not (Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config").exists()


async def _cluster(
    cluster: Cluster, server: str, chosen: Settings | None
) -> tuple[list[Finding], Sequence[HookObject]]:
    findings = [await check_server(cluster, server)]
    if chosen is None:
        return [*findings, await check_crd(cluster)], ()
    findings += await check_permissions(cluster, chosen)
    findings.append(await check_crd(cluster))
    hooks: list[HookObject] = []
    try:
        for namespace in chosen.watch_namespaces or (None,):
            hooks += await cluster.hooks(namespace)
    except KubeError as error:
        return [*findings, unknown("hooks", f"cannot be listed: {error}")], ()
    return [*findings, *check_live(hooks, chosen)], hooks


async def _kagent(
    chosen: Settings, live: Sequence[HookObject], hooks: Sequence[dict[str, Any]], transports: Transports
) -> list[Finding]:
    try:
        access = agent_access(chosen)
        return await check_kagent(
            chosen,
            access,
            agents=agents_of(live, chosen),
            wanted=agents_of(hooks, chosen),
            transports=transports,
            clock=SystemClock(),
        )
    except SettingsError as error:
        return [wrong("kagent", problem) for problem in error.problems]
    except KhookError as error:
        return [wrong("kagent", str(error))]
