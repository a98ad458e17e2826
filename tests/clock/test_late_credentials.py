"""The key comes late, changes, or its address does: picked up without a restart, and said until then."""

from pathlib import Path
from typing import Any

from support.objects import entry
from support.secret_volume import SecretVolume
from support.world import AGENTS, KEY, World, play

PROBE = ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")
CREATE = "kubectl create secret generic kagent-credentials -n kagent-system --from-literal=api-key=..."


def environ(volume: SecretVolume, **more: str) -> dict[str, str]:
    return {"KAGENT_API_KEY": "", "KAGENT_CREDENTIALS_DIR": str(volume.path)} | more


def agent_access(world: World) -> Any:
    return world.supervisor.ready()[1]["agentAccess"]


def test_a_call_without_a_key_is_parked_and_delivered_when_the_key_comes(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path)

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.says(*PROBE, of=web)
        await world.after(10)
        assert world.agents.attempts == []
        call = await world.call()
        assert (call["state"], call["reason"]) == ("Pending", "Parked")
        condition = await world.ready_condition()
        assert (condition["status"], condition["reason"]) == ("False", "KagentAPIError")
        assert CREATE in condition["message"]
        assert world.is_ready()
        assert agent_access(world) == {"key": False, "needed": True, "command": CREATE}

        volume.write(api_key=KEY)
        written = world.now()
        (run,) = await world.called(1)
        assert run.call_id == call["id"]
        assert (run.time - written).total_seconds() < 5
        assert agent_access(world) == {"key": True}
        assert (await world.ready_condition())["status"] == "True"
        assert world.restarts() == 0

    play(story, environ=environ(volume))


def test_a_key_that_is_replaced_is_used_from_the_next_send_on(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path)
    volume.write(api_key=KEY)

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        for number, key in enumerate((KEY, "the-key-after-it", "the-third-key")):
            world.agents.change_key(key)
            volume.write(api_key=key)
            await world.after(5)
            await world.says(*PROBE, of=await world.well(f"web-{number}"))
            await world.called(number + 1)
        assert [attempt.end for attempt in world.agents.attempts] == ["200"] * 3

    play(story, environ=environ(volume))


def test_an_address_that_changes_is_used_from_the_next_send_on_while_the_call_before_ends(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path)
    volume.write(api_key=KEY, base_url="http://nobody-listens-here")

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        web = await world.well()
        await world.says(*PROBE, of=web)
        await world.after(1)
        volume.write(api_key=KEY, base_url=AGENTS)
        await world.called(1)  # by the same call's next attempt
        assert (await world.call())["attempts"] > 1

    play(story, environ=environ(volume, KAGENT_BASE_URL=""))


def test_a_worker_that_starts_later_is_told_the_key_of_now(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path)

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        volume.write(api_key=KEY)
        await world.after(5)
        slot = world.kill_worker("shop")
        await world.until(lambda: world.restarts() == 1 and world.owner("shop") is not None)
        await world.after(10)
        await world.says(*PROBE, of=await world.well())
        await world.called(1)
        assert slot in world.supervisor.view().slots

    play(story, environ=environ(volume))


def test_under_auto_a_key_is_needed_only_once_a_call_fails_for_it(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path)

    async def story(world: World) -> None:
        await world.begin(entry("probe-failed"))
        assert agent_access(world)["needed"] is False
        await world.says(*PROBE, of=await world.well())
        await world.after(10)
        assert agent_access(world) == {"key": False, "needed": True, "command": CREATE}
        volume.write(api_key=KEY)
        await world.after(5)
        assert agent_access(world) == {"key": True}

    play(story, environ=environ(volume, KAGENT_PROTOCOL="auto"))
