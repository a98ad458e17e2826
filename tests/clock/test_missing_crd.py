"""khook on a cluster that does not know Hooks, yet or any more: it says so, asks again, and works once it does."""

import pytest
from support.objects import entry, hook
from support.world import World, play

from khook.api.crd import crd

HOOKS_CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hooks.kagent.dev"
SAYS = "the cluster does not know Hooks: install kagent-hook-crds first"


@pytest.mark.parametrize("environ", [{}, {"KHOOK_WATCH_NAMESPACES": "shop"}])
def test_khook_waits_for_the_crd_and_says_what_to_install(
    environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(world: World) -> None:
        await world.cluster.request("DELETE", HOOKS_CRD)
        world.launch()
        await world.after(300)
        ready, body = world.supervisor.ready()
        assert (ready, body["reasons"]) == (False, [SAYS])
        await world.cluster.crd(crd())
        await world.cluster.namespace("shop")
        await world.cluster.hook(hook("h", entry("pod-restart"), namespace="shop"))
        await world.after(40)
        assert world.is_ready()
        await world.says("BackOff", "Back-off restarting failed container app", of=await world.well())
        await world.called(1)

    play(story, environ=environ)
    assert capsys.readouterr().err.count(SAYS) == 1


def test_a_crd_that_is_deleted_under_khook_makes_it_unready_until_it_is_back() -> None:
    async def story(world: World) -> None:
        await world.begin(entry("pod-restart"))
        await world.cluster.request("DELETE", HOOKS_CRD)
        await world.after(60)
        ready, body = world.supervisor.ready()
        assert (ready, body["reasons"]) == (False, [SAYS])
        await world.cluster.crd(crd())
        await world.after(40)
        assert world.is_ready()

    play(story)
