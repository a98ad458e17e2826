"""kagent as `khook check` sees it: protocol, health, key, and whether the agents that Hooks name are there.

Nothing that is asked starts work. Only a kagent (`a2a`) can say which agents it has: it serves a card for each
(`/.well-known/agent-card.json`); an `execute` server has nothing to ask but its health.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

from khook.agents.auto import A2A, EXECUTE, Undecided
from khook.agents.exchange import Answer, Exchange, NoAnswer, json_object
from khook.agents.outcome import AgentProtocol
from khook.agents.tls import agent_tls
from khook.cli.findings import Finding, Result, ok, unknown, warning, wrong
from khook.messages import AgentAccess
from khook.seams import Clock, Transports
from khook.settings import DEFAULT_BASE_URL, Settings
from khook.supervisor.agent_credentials import agent_config
from khook.worker.kagent import connect

WHAT: Final = "kagent"
AGENTS_MOST: Final = 100
"""One request each."""


async def check_kagent(
    settings: Settings,
    access: AgentAccess,
    *,
    agents: Mapping[str, str],
    wanted: Mapping[str, str],
    transports: Transports,
    clock: Clock,
) -> list[Finding]:
    """`agents`: those that Hooks in the cluster name, with such a Hook; `wanted`: those of the files."""
    protocols = connect(access, agents=agent_config(settings), transports=transports, clock=clock)
    exchange = Exchange(
        base_url=access.base_url,
        api_key=access.api_key,
        transport=transports.exact(tls=agent_tls(access.base_url, settings.kagent_ca_file)),
        clock=clock,
        read_timeout_s=settings.kagent_timeout_s,
    )
    try:
        protocol = await protocols.choose()
        if isinstance(protocol, Undecided):
            mend = "set KAGENT_BASE_URL" if access.base_url == DEFAULT_BASE_URL else ""
            return [wrong(WHAT, f"{access.base_url}: {protocol.error}", mend)]
        health = await _health(exchange, access, protocol, settings)
        key = await _key(exchange, access, protocol, settings)
        findings = [health, key]
        if not agents and not wanted:
            return findings
        if protocol.name != A2A:
            return [*findings, unknown("agents", "an execute server does not say which agents it has")]
        if key.result is Result.WRONG:
            return [*findings, unknown("agents", "not asked: kagent would not answer without its key")]
        for agent, hook in list((dict(wanted) | dict(agents)).items())[:AGENTS_MOST]:
            findings.append(await _agent(exchange, settings, agent, hook, is_wanted=agent in wanted))
        return findings
    finally:
        await protocols.aclose()
        await exchange.aclose()


async def _health(exchange: Exchange, access: AgentAccess, protocol: AgentProtocol, settings: Settings) -> Finding:
    found = "found out" if settings.kagent_protocol == "auto" else "as KAGENT_PROTOCOL says"
    where = f"{access.base_url} speaks {protocol.name} ({found})"
    version = await exchange.ask("GET", "/version") if protocol.name == A2A else None
    if isinstance(version, Answer) and (named := json_object(version.body).get("kagent_version")):
        where += f", kagent {named}"
    answer = await exchange.ask("GET", "/health")
    if isinstance(answer, NoAnswer):
        return wrong(WHAT, f"{where}; /health: {answer.failure.name.lower().replace('_', ' ')}{answer.hint}")
    if answer.status // 100 == 2:
        return ok(WHAT, f"{where}; healthy")
    if answer.status in (401, 403, 404):
        return ok(WHAT, f"{where}; /health says nothing (HTTP {answer.status})")
    return wrong(WHAT, f"{where}; /health: HTTP {answer.status}")


async def _key(exchange: Exchange, access: AgentAccess, protocol: AgentProtocol, settings: Settings) -> Finding:
    what = "kagent key"
    if protocol.name == EXECUTE and not access.api_key:
        return wrong(what, "missing, and execute needs one: no agent is called", access.key_hint)
    path = f"/api/sessions?{urlencode({'user_id': settings.kagent_user_id})}" if protocol.name == A2A else "/health"
    answer = await exchange.ask("GET", path, headers={"X-User-Id": settings.kagent_user_id})
    if isinstance(answer, NoAnswer):
        return unknown(what, f"no answer: {answer.failure.name.lower().replace('_', ' ')}")
    if answer.status in (401, 403):
        if access.api_key:
            return wrong(what, f"refused (HTTP {answer.status})", access.key_hint)
        return wrong(what, "missing, and kagent wants one", access.key_hint)
    if not access.api_key:
        return ok(what, "none, and kagent wants none")
    if protocol.name == EXECUTE:
        return ok(what, "given; only a call tells whether an agent takes it")
    return ok(what, "given and not refused")


async def _agent(exchange: Exchange, settings: Settings, agent: str, hook: str, *, is_wanted: bool) -> Finding:
    what = f"agent {agent}"
    namespace, _, name = agent.partition("/")
    path = f"/api/a2a/{quote(namespace, safe='')}/{quote(name, safe='')}/.well-known/agent-card.json"
    answer = await exchange.ask("GET", path, headers={"X-User-Id": settings.kagent_user_id})
    if isinstance(answer, NoAnswer):
        return unknown(what, f"no answer: {answer.failure.name.lower().replace('_', ' ')}")
    if answer.status == 200:
        return ok(what, f"is there; hook {hook} names it")
    if answer.status == 404 and b"not found" in answer.body and agent.encode() in answer.body:
        says = f"kagent does not know it; hook {hook} names it"
        mend = f"kubectl get agents.kagent.dev -n {namespace}"
        return wrong(what, says, mend) if is_wanted else warning(what, says, mend)
    return unknown(what, f"kagent does not say (HTTP {answer.status})")
