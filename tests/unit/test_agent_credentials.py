"""kagent's key and address: late, changed, gone bad, switched by the kubelet; in no message and no log line."""

import asyncio
import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from support.secret_volume import SecretVolume

from khook import log, messages, settings
from khook.agents.execute import ExecuteProtocol
from khook.agents.outcome import AgentRequest, Context, OutcomeKind, OutcomeReason, Progress
from khook.errors import SettingsError
from khook.messages import AgentAccess
from khook.sandbox.virtual_time import VirtualClock, run
from khook.settings import DEFAULT_BASE_URL
from khook.supervisor.agent_credentials import (
    MAX_FILE_BYTES,
    NOWHERE,
    AgentCredentials,
    SecretFiles,
    merge,
    read_secret,
)

CREATE = "kubectl create secret generic kagent-credentials -n kagent-system --from-literal=api-key=..."
IN_OPS = CREATE.replace("kagent-system", "ops")
BAD_KEYS = ["hunter2 hunter2", "hunter2\nhunter2", "hunter2-ü", "hunter2" * MAX_FILE_BYTES]


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator["Lines"]:
    """The log, without the redaction of secrets: nothing may depend on it."""
    monkeypatch.setattr(log._SECRETS, "blot", lambda text: text)
    handlers = logging.getLogger().handlers[:]
    stream = io.StringIO()
    log.configure("debug", "json", stream=stream, strict=True)
    yield Lines(stream)
    logging.getLogger().handlers = handlers
    structlog.reset_defaults()


class Lines:
    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.text.splitlines()) if line["event"] == event]


@pytest.fixture
def volume(tmp_path: Path) -> SecretVolume:
    return SecretVolume(tmp_path)


def load(**environ: str) -> settings.Settings:
    return settings.load(environ, read=lambda _: None)


def credentials(volume: SecretVolume, **environ: str) -> AgentCredentials:
    chosen = load(KAGENT_CREDENTIALS_DIR=str(volume.path), **environ)
    return AgentCredentials(chosen, clock=VirtualClock(), log=log.get("supervisor"))


def used(agents: AgentCredentials) -> tuple[str, str]:
    return agents.access.base_url, agents.access.api_key


# --- which of them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "files", "base_url", "api_key"),
    [
        ({}, SecretFiles(), "https://api.kagent.dev", ""),
        ({}, SecretFiles(base_url="http://file/", api_key="file-key"), "http://file", "file-key"),
        ({}, SecretFiles(base_url="http://file"), "http://file", ""),
        ({"KAGENT_API_KEY": "env-key"}, SecretFiles(base_url="http://file", api_key="no"), "http://file", "env-key"),
        ({"KAGENT_BASE_URL": "http://env"}, SecretFiles(base_url="no", api_key="file-key"), "http://env", "file-key"),
        ({"KAGENT_API_URL": "http://env"}, SecretFiles(base_url="http://file"), "http://env", ""),
        ({"KAGENT_BASE_URL": DEFAULT_BASE_URL}, SecretFiles(base_url="http://file"), DEFAULT_BASE_URL, ""),
    ],
)  # fmt: skip
def test_a_variable_that_is_set_wins_over_its_file(
    environ: dict[str, str], files: SecretFiles, base_url: str, api_key: str
) -> None:
    access = merge(load(**environ), files)
    assert (access.base_url, access.api_key) == (base_url, api_key)


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_bad_file_is_named_and_not_repeated(key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        merge(load(), SecretFiles(api_key=key, base_url="http://hunter2:x@host"))
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["base-url in the secret kagent-credentials", "api-key in the secret kagent-credentials"]
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_the_files_hold_is_in_no_repr_and_no_message(key: str, url: str) -> None:
    files = SecretFiles(api_key="hunter2" + key, base_url="hunter2" + url)
    said = repr(files)
    try:
        said += repr(merge(load(KAGENT_BASE_URL="http://env"), files))
    except SettingsError as error:
        said += str(error) + repr(error.problems)
    assert "hunter2" not in said


def test_a_workers_configuration_does_not_show_the_key() -> None:
    access = AgentAccess(base_url="http://a", api_key="hunter2", key_hint="h")
    assert "hunter2" not in repr(access)
    assert messages.decode_to_worker(messages.encode(access)) == access


@pytest.mark.parametrize(
    ("environ", "files", "command"),
    [
        ({}, SecretFiles(), "export KAGENT_API_KEY=..., then start khook again"),
        ({"KAGENT_CREDENTIALS_DIR": "/x"}, SecretFiles(), CREATE),
        ({"KAGENT_CREDENTIALS_DIR": "/x", "POD_NAMESPACE": "ops"}, SecretFiles(), IN_OPS),
        (
            {"KAGENT_CREDENTIALS_DIR": "/x"},
            SecretFiles(base_url="http://file"),
            "kubectl patch secret kagent-credentials -n kagent-system -p '{\"stringData\":{\"api-key\":\"...\"}}'",
        ),
    ],
)  # fmt: skip
def test_the_command_mends_what_is_missing_as_it_is_installed(
    environ: dict[str, str], files: SecretFiles, command: str
) -> None:
    assert merge(load(**environ), files).key_hint == command


# --- files that come, change and go -----------------------------------------------------------------------------


def test_a_secret_that_comes_late_changes_and_is_deleted_is_followed(volume: SecretVolume) -> None:
    async def story() -> None:
        agents = credentials(volume)
        assert used(agents) == ("https://api.kagent.dev", "")
        assert not agents.refresh()
        volume.write(api_key="first-key\n", base_url="http://kagent:8083/\n")
        assert agents.refresh()
        assert used(agents) == ("http://kagent:8083", "first-key")
        assert not agents.refresh()
        volume.write(api_key="second-key", base_url="http://kagent:8083")
        assert agents.refresh()
        assert used(agents) == ("http://kagent:8083", "second-key")
        volume.write()
        assert agents.refresh()
        assert used(agents) == ("https://api.kagent.dev", "")

    run(story())


def test_files_without_a_kubelet_and_empty_ones_are_read_too(tmp_path: Path) -> None:
    assert read_secret(tmp_path / "not-there") == SecretFiles()
    (tmp_path / "api-key").write_text("plain-key\r\n")
    (tmp_path / "base-url").write_text("\n")
    assert read_secret(tmp_path) == SecretFiles(api_key="plain-key")


@pytest.mark.parametrize("bad", [{"api_key": "hunter2 x"}, {"api_key": "next-key", "base_url": "ftp://hunter2"}])
def test_a_secret_that_went_bad_is_said_once_and_the_one_before_stays(
    volume: SecretVolume, lines: Lines, bad: dict[str, str]
) -> None:
    async def story() -> None:
        volume.write(api_key="good-key", base_url="http://good")
        agents = credentials(volume)
        volume.write(**bad)
        assert not agents.refresh()
        assert not agents.refresh()
        assert used(agents) == ("http://good", "good-key")
        (line,) = lines.of("agent credentials not used")
        assert agents.body(needed=True) == {"key": True, "problems": line["problems"]}
        volume.write(api_key="mended-key", base_url="http://good")
        assert agents.refresh()
        assert agents.body(needed=True) == {"key": True}
        assert not {"hunter2", "good-key", "next-key", "mended-key"} & set(lines.text.replace('"', " ").split())
        assert "hunter2" not in lines.text

    run(story())


def test_a_key_is_sent_nowhere_while_the_address_it_came_with_cannot_be_read(volume: SecretVolume) -> None:
    async def story() -> None:
        volume.write(api_key="good-key", base_url="kagent:8083")
        agents = credentials(volume)
        assert used(agents) == (NOWHERE, "")
        assert agents.access.key_hint.startswith("kubectl patch secret")
        volume.write(api_key="good-key", base_url="http://kagent:8083")
        assert agents.refresh()
        assert used(agents) == ("http://kagent:8083", "good-key")

    run(story())


def test_a_directory_that_cannot_be_read_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    async def story() -> None:
        file = tmp_path / "file"
        file.write_text("")
        chosen = load(KAGENT_CREDENTIALS_DIR=str(file))
        agents = AgentCredentials(chosen, clock=VirtualClock(), log=log.get("supervisor"))
        assert used(agents) == (NOWHERE, "")
        assert agents.body(needed=False)["problems"] == [
            f"KAGENT_CREDENTIALS_DIR: {file} cannot be read: Not a directory"
        ]

    run(story())


def test_an_address_that_needs_a_trust_that_is_missing_is_not_taken(volume: SecretVolume, tmp_path: Path) -> None:
    async def story() -> None:
        agents = credentials(volume, KAGENT_BASE_URL="", KAGENT_CA_FILE=str(tmp_path / "no-ca"))
        volume.write(base_url="http://plain")
        assert agents.refresh()
        volume.write(base_url="https://kagent")
        assert not agents.refresh()
        assert used(agents) == ("http://plain", "")

    run(story())


def test_both_files_are_of_one_version_although_the_kubelet_switches_between_them(volume: SecretVolume) -> None:
    volume.write(api_key="old-key", base_url="http://old")
    slow = volume.path / (volume.path / "..data").readlink() / "api-key"
    slow.unlink()
    os.mkfifo(slow)

    def switch_in_mid_read() -> None:
        with slow.open("w") as stream:  # returns once the reader has opened it
            volume.stage({"api-key": "new-key", "base-url": "http://new"})
            volume.switch()
            stream.write("old-key")

    kubelet = threading.Thread(target=switch_in_mid_read)
    kubelet.start()
    try:
        assert read_secret(volume.path) == SecretFiles(api_key="new-key", base_url="http://new")
    finally:
        kubelet.join(10)


# --- while it is missing ----------------------------------------------------------------------------------------


def test_a_needed_key_is_asked_for_once_a_minute_with_the_command(volume: SecretVolume, lines: Lines) -> None:
    async def story() -> None:
        agents = credentials(volume)
        agents.remind(needed=False)
        assert lines.of("no API key yet") == []
        for _ in range(61):
            agents.remind(needed=True)
            await asyncio.sleep(2)
        assert [line["how"] for line in lines.of("no API key yet")] == [CREATE] * 3
        assert agents.body(needed=True) == {"key": False, "needed": True, "command": CREATE}
        volume.write(api_key="late-key")
        agents.refresh()
        await asyncio.sleep(60)
        agents.remind(needed=True)
        assert len(lines.of("no API key yet")) == 3
        assert agents.body(needed=True) == {"key": True}

    run(story())


def test_execute_sends_nothing_without_a_key_and_says_what_gives_one() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"result": "ok"})

    request = AgentRequest(
        call_id="c-1",
        agent="kagent/agent",
        agent_id="agent",
        prompt="p",
        context=Context(
            event_name="oom-kill",
            event_time=datetime(2024, 1, 15, tzinfo=UTC),
            resource_name="web-1",
            namespace="shop",
            event_message="m",
        ),
        hook="shop/h",
    )

    async def story() -> None:
        protocol = ExecuteProtocol(
            base_url="http://a",
            api_key="",
            transport=httpx.MockTransport(answer),
            clock=VirtualClock(),
            key_hint=CREATE,
        )
        outcome = await protocol.call(request, Progress())
        assert (outcome.kind, outcome.reason) == (OutcomeKind.UNAUTHORIZED, OutcomeReason.BAD_KEY)
        assert outcome.error == f"no API key yet: {CREATE}"
        assert seen == []
        protocol.replace_key("late-key")
        assert (await protocol.call(request, Progress())).kind is OutcomeKind.COMPLETED
        assert [one.headers["authorization"] for one in seen] == ["Bearer late-key"]

    run(story())
