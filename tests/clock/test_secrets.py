"""Keys and tokens are nowhere to be seen, whoever repeats them: agents, the API server, pods, a mistyped address.

Both servers tell back in every answer what they were sent, pods print it, and requests fail in drawn ways. What is
searched is everything that khook shows: log, every write to the API server (status of Hooks, Kubernetes Events),
metrics, `/readyz`, the status page and its JSON.
"""

import base64
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.objects import crash_looping, entry
from support.secret_volume import SecretVolume
from support.world import AGENTS, API, World, play

from khook import log, metrics
from khook import settings as khook_settings
from khook.errors import SettingsError
from khook.kube.credentials import Credentials
from khook.sandbox.api_routes import ApiCall
from khook.sandbox.exchange import Request, Response, Service
from khook.sandbox.kagent import ANY_AGENT, Behaviour, Fault, FaultKind, Speaks
from khook.supervisor.status_document import encode
from khook.supervisor.status_page import render

SAID = "looking into it"
PROBE = "Readiness probe failed: HTTP probe failed with statuscode: 503"

secrets = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=40).map("s3".__add__)
faults = st.sampled_from(
    [
        FaultKind.UNAUTHORIZED,
        FaultKind.NOT_FOUND,
        FaultKind.BUSY,
        FaultKind.ERROR,
        FaultKind.ERROR_RPC,
        FaultKind.INTERNAL,
        FaultKind.BAD_GATEWAY,
        FaultKind.UNAVAILABLE,
        FaultKind.CUT_OFF,
        FaultKind.DROP,
        FaultKind.FAILED,
        FaultKind.INPUT_REQUIRED,
        FaultKind.MESSAGE,
    ]
)


class Echo:
    """Tells back the caller's Authorization: in every error, and where what is served speaks for itself."""

    def __init__(self, behind: Service, *, says: str = "") -> None:
        self._behind = behind
        self._says = says
        self.told: set[str] = set()
        self.written: list[str] = []
        """What khook wrote to the API server."""

    async def handle(self, request: Request) -> Response:
        if b"kagent-hook-controller" in request.body or request.path.endswith("/hooks/h/status"):
            self.written.append(request.body.decode())
        response = await self._behind.handle(request)
        authorization = request.headers.get("authorization", "")
        if not authorization or not isinstance(response.body, bytes):
            return response
        self.told.add(authorization.removeprefix("Bearer "))
        body = response.body
        if self._says:
            body = body.replace(self._says.encode(), _as_json(f"{self._says} with {authorization}"))
        if response.status >= 400:
            body = body.replace(b'or":"', b'or":"' + _as_json(authorization)).replace(
                b'"message":"', b'"message":"' + _as_json(authorization)
            )
            if not body.startswith(b"{"):
                body += authorization.encode()
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return replace(response, body=body, headers=headers | {"x-echo": authorization})


def _as_json(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def refusal(status: int) -> Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "no "}
    return Response(status=status, headers={"content-type": "application/json"}, body=orjson.dumps(body))


def is_khooks(call: ApiCall) -> bool:
    return call.verb == "watch" or (call.verb, call.resource) == ("patch", "hooks/status")


def leaks(secret: str, shown: str) -> bool:
    forms = {
        secret,
        _as_json(secret).decode(),
        repr(secret)[1:-1],
        quote(secret, safe=""),
        base64.b64encode(secret.encode()).decode(),
    }
    return any(form in shown for form in forms)


@settings(max_examples=25)
@given(
    planted=st.lists(secrets, min_size=3, max_size=3, unique=True),
    speaks=st.sampled_from([Speaks.A2A, Speaks.EXECUTE]),
    agent_faults=st.lists(faults, max_size=2),
    api_faults=st.lists(st.sampled_from([401, 403, 409, 422, 429, 500, 503]), max_size=2),
)
@example(
    planted=['s3"quoted\\key"', "s3plain-second-key", "s3plain-token"],
    speaks=Speaks.A2A,
    agent_faults=[],
    api_faults=[],
)
def test_no_key_and_no_token_is_shown_anywhere(
    planted: list[str], speaks: Speaks, agent_faults: list[FaultKind], api_faults: list[int]
) -> None:
    first, second, token = planted
    unseen = f"{token[:5]}\u200b{token[5:]}"  # and so seen, where the character in it is taken out
    logged = io.StringIO()

    async def story(world: World, volume: SecretVolume) -> None:
        log.configure("debug", "json", stream=logged, strict=True)
        agents, api = Echo(world.services[AGENTS], says=SAID), Echo(world.services[API])
        world.services |= {AGENTS: agents, API: api}
        world.agents.change_key(first)
        world.agents.set_faults(ANY_AGENT, [Fault(kind=kind, times=1) for kind in agent_faults])
        world.credentials = Credentials(server=API, token=token)
        world.api.tokens = frozenset({token})
        world.http.headers["authorization"] = f"Bearer {token}"
        await world.begin(entry("probe-failed"), entry("pod-restart"))
        for status in api_faults:
            world.api.fail_next(is_khooks, refusal(status), times=2)

        await world.says("Unhealthy", f"{PROBE} {first} {token} {unseen}", of=await world.well())
        crashing = await world.well("web-2")
        await world.cluster.pod_status(crashing, crash_looping(now=world.now(), reason=first))
        await world.after(40)
        volume.write(api_key=second, base_url=f"http://user:{second}@agents")
        await world.after(5)
        world.agents.change_key(second)
        volume.write(api_key=second, base_url=AGENTS)
        await world.after(5)
        await world.says("Unhealthy", f"{PROBE} {second}", of=await world.well("web-3"))
        await world.after(100)

        assert agents.told == {first, second}
        assert token in api.told
        shown = {
            "log": logged.getvalue(),
            "written": "\n".join(api.written),
            "metrics": metrics.exposition().decode(),
            "readyz": str(world.supervisor.ready()),
            "status": encode(await world.supervisor.status()).decode(),
            "page": render(await world.supervisor.status()).decode(),
        }
        assert f"{SAID} with Bearer [redacted]" in shown["written"]
        assert f"{PROBE} [redacted] [redacted] [redacted]" in shown["written"]
        assert "AgentCalled" in shown["written"]
        assert "not used" in shown["log"]
        assert [(where, secret) for where, text in shown.items() for secret in planted if leaks(secret, text)] == []

    with tempfile.TemporaryDirectory() as folder:
        volume = SecretVolume(Path(folder))
        volume.write(api_key=first, base_url=AGENTS)
        environ = {"KAGENT_API_KEY": "", "KAGENT_BASE_URL": "", "KAGENT_CREDENTIALS_DIR": folder}
        play(lambda world: story(world, volume), environ=environ, speaks=speaks, behaviour=Behaviour(said=SAID))


@given(secret=secrets)
def test_an_address_that_holds_a_key_is_refused_without_repeating_it(secret: str) -> None:
    for address in (f"http://user:{secret}@kagent", f"https://{secret}@kagent:8083/x"):
        with pytest.raises(SettingsError) as refused:
            khook_settings.load({"KAGENT_BASE_URL": address})
        assert "KAGENT_BASE_URL: " in str(refused.value)
        assert not leaks(secret, str(refused.value))
        assert not leaks(secret, repr(refused.value))
