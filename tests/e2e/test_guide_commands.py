"""Each shell command that README.md and docs/troubleshooting.md give, typed into a terminal on the real API server.

What is left out is listed, with why; a command that stands in neither place fails here first. The guide of the first
controller is part of it: docs/troubleshooting.md repeats its commands as they are.
"""

import asyncio
import re
from pathlib import Path
from typing import Final

import pytest
import yaml
from support.charts import Shell
from support.cluster import Cluster, rows
from support.guide import blocks, play_the_kubelet
from support.installation import KEY, Agents, now
from support.installed import AuditedCluster, InPod, play, until
from support.objects import crash_looping, entry, event, hook, pod, running
from support.real_apiserver import REPOSITORY

pytestmark = pytest.mark.envtest

POD: Final = "my-app-pod-123"

NOT_RUN: Final = (
    (r"make (demo|test|bench-smoke|pool-figures|sim)\b", "steps of CI, minutes each"),
    (r"make run\b", "tests/e2e run it throughout"),
    (r"kubectl top\b", "asks a metrics server"),
)
"""(begins like this, why)."""

AS_IT_IS_HERE: Final = (
    (r"git clone \S+ && cd khook", f"git clone --quiet {REPOSITORY} khook && cd khook"),
    (r" --watch$", ""),
    (r"your-hook-name", "my-hook"),
    (r" -- khook explain (\S+) --call$", r" -- khook explain \1 --call --yes"),
)
"""What cannot be typed as it stands: another place to clone from, an end for what has none, a name, an answer."""


SEEDS_SECRET: Final = """
kubectl create secret generic kagent-credentials \\
  --from-literal=api-key=your-kagent-api-key \\
  --from-literal=base-url=https://api.kagent.dev
"""
"""As the first controller's guide gives it: without a namespace, where its other commands look for it too."""


def typed(block: str, *more: tuple[str, str]) -> str:
    """A block without what is not run, with names that exist here."""
    for begins, _ in NOT_RUN:
        block = re.sub(rf"^{begins}.*$", ":", block, flags=re.MULTILINE)
    for old, new in (*AS_IT_IS_HERE, *more):
        block = re.sub(old, new, block, flags=re.MULTILINE)
    return block


def test_every_command_of_the_guides_does_what_it_is_there_for(
    audited: AuditedCluster, shell: Shell, agents: Agents, tmp_path: Path
) -> None:
    readme, troubleshooting = blocks("README.md"), blocks("docs/troubleshooting.md")
    here = f"cd {tmp_path}\n"
    (install,) = (block for block in readme if block.startswith("git clone"))
    secret = ((r"api-key=\S+", f"api-key={KEY}"), (r"base-url=\S+", f"base-url={agents.url}"))
    shell.run(here + typed(install, *secret))

    in_pod = InPod(shell, audited.server, tmp_path)
    in_pod.sync_secret()

    async def story(cluster: Cluster) -> None:
        async with in_pod.running() as khook:
            path = play_the_kubelet(tmp_path, log=khook.log_file, container=khook.environ)
            shell.export(PATH=path, KAGENT_API_KEY=KEY, KAGENT_BASE_URL=agents.url)
            await prepare(cluster, tmp_path)
            shell.run(SEEDS_SECRET)
            for namespace in ("default", "production"):
                await until(lambda namespace=namespace: called(cluster, namespace))  # type: ignore[misc]
            call_id = rows(await cluster.get_hook("production", "my-hook"))[0]["call"]["id"]
            said = {}
            for block in (*(one for one in readme if one is not install), *troubleshooting):
                said[block] = await asyncio.to_thread(shell.run, here + typed(block, ("…", call_id)))
            told(said, call_id)
            shell.run(
                "kubectl delete secret/kagent-credentials hook/my-hook hook/first-hook pod/crash pod/my-app-pod-123"
            )

    play(audited, story)


def told(said: dict[str, str], call_id: str) -> None:
    """What each command is there to show."""
    whole = "\n".join(said.values())
    for expected in (
        "my-hook",  # get hooks
        "Kind:         Hook",  # describe
        "yes\n",  # can-i
        "kagent-api",  # the greps
        "leader",
        '"status":"OK"',  # curl, with the key
        "SILENT, stale",  # explain: khook knows it, and its agent was asked
        "FIRES",  # explain, as new
        "ok       given and not refused",  # check
        "leads (epoch",  # shards
        f" {call_id} Completed",  # jsonpath over the calls
    ):
        assert expected in whole, expected


async def prepare(cluster: Cluster, folder: Path) -> None:
    """What the guides' names are names of: a Hook, a pod that failed, and both as files."""
    await cluster.namespace("production")
    made = {}
    for namespace in ("default", "production"):
        made = hook("my-hook", entry("pod-restart"), namespace=namespace)
        await cluster.hook(made)
        one = await cluster.pod(pod(POD, namespace=namespace), running(now=now()))
        await cluster.pod_status(one, crash_looping(now=now()))
    said = event("BackOff", f"Back-off restarting failed container app in pod {POD}", of=one, now=now())
    (folder / "my-hook.yaml").write_text(yaml.safe_dump(made))
    for name in ("event.yaml", "my-event.yaml"):
        (folder / name).write_text(yaml.safe_dump(said))
    (folder / "crds").symlink_to(REPOSITORY / "crds")


async def called(cluster: Cluster, namespace: str) -> bool:
    found = rows(await cluster.get_hook(namespace, "my-hook"))
    return bool(found) and found[0]["call"]["state"] == "Completed"
