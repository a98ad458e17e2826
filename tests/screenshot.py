"""`make screenshot`: the status page of a running demo, as the README and the docs show it.

The demo's own story on its own stage, up to the moment that shows most: incidents fire, one worker was killed and is
back, one agent is away and its calls wait. Then a picture, and everything is stopped.
"""

import argparse
import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

from support import chromium
from support.png import with_palette

from khook.cli.demo_stage import Stage, apply, install_crd, kill, staged, start_khook, until_ready
from khook.sandbox.demo_story import DEMO
from khook.sandbox.kagent import Fault, FaultKind
from khook.sandbox.story import Moment

WIDTH = 1120
MOST_BYTES: Final = 150 * 1024
"""It is downloaded with every clone."""
SHOWN_AFTER_S: Final = 3.0
"""After the story's last step: the killed worker is back, and the calls that can be made were made."""


async def picture(out: Path) -> None:
    binary = chromium.find()
    if binary is None:
        raise SystemExit("make: no Chromium here: apt-get install chromium, or set KHOOK_CHROMIUM")
    async with staged() as stage:
        await install_crd(stage)
        await start_khook(stage)
        await until_ready(stage)
        stage.started_at = stage.clock.monotonic()
        await asyncio.gather(_tell(stage), _trouble(stage))
        await asyncio.sleep(SHOWN_AFTER_S)
        async with chromium.tab(binary) as tab:
            await tab.open(f"http://{stage.log.follow().status_address}/", width=WIDTH)
            png = with_palette(await tab.screenshot(whole=True))
    if len(png) > MOST_BYTES:
        raise SystemExit(f"make: the picture has {len(png)} bytes, {MOST_BYTES} are allowed")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(png)
    print(f"{out}: {len(png):,} bytes")


async def _tell(stage: Stage) -> None:
    start = stage.clock.now()
    for step in DEMO.steps:
        await asyncio.sleep(max(0.0, step.at_s - stage.at_s()))
        await apply(stage, step, Moment(now=start + timedelta(seconds=step.at_s), uids=stage.uids))


async def _trouble(stage: Stage) -> None:
    await asyncio.sleep(DEMO.outage.from_s)
    stage.kagent.set_faults(DEMO.outage.agent, [Fault(kind=FaultKind.UNAVAILABLE, on=None)])
    slot = stage.log.follow().busiest(but=None)
    if slot is not None:
        kill(stage, slot)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    asyncio.run(picture(parser.parse_args(arguments).out))


if __name__ == "__main__":
    main(sys.argv[1:])
