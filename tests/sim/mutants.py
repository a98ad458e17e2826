"""Defects that the simulation has to find: each one line of the source turned into a promise that is not kept.

They are applied to a copy of the tree and run in a process of their own. A mutant that lives through its worlds means
that a checker is blind. `old` stands exactly once in its file, and a test holds it to that.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
COPIED: Final = ("khook", "shards", "tests/sim", "tests/support")
WORLDS_MOST: Final = 500
TRIED_FOR_S: Final = 3600.0
"""A mutant that hangs ends the run: no world can tell of a loop that waits for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    promise: str
    file: str
    old: str
    new: str
    first_seed: int = 0
    """A world that is known to tell it from khook: the short way begins there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    name: str
    caught_after: int | None
    """Worlds until the first that fails; None: it lived through all."""
    by: str
    seed: int | None


MUTANTS: Final = (
    Mutant(
        name="acknowledge a revoke before anything has stopped",
        promise="P3",
        file="shards/member.py",
        old="        try:\n            await self._work.stop(key, held.epoch)\n",
        new="        self._send(wire.Stopped(key=key, epoch=held.epoch))\n"
        "        try:\n            await self._work.stop(key, held.epoch)\n",
        first_seed=23,
    ),
    Mutant(
        name="send without waiting for the claim",
        promise="P2",
        file="khook/worker/attempts.py",
        old="            if not await self._claim(job, CallState.CALLING):\n                return None\n",
        new="            job.table.writer.now()\n",
    ),
    Mutant(
        name="send again without a reconcile",
        promise="P2",
        file="khook/worker/attempts.py",
        old="        if job.doubtful:\n            found = await self._reconcile(job, protocol)\n",
        new="        if job.doubtful and job.claimed:\n            found = await self._reconcile(job, protocol)\n",
        first_seed=4,
    ),
    Mutant(
        name="believe at once that nothing was sent",
        promise="P2",
        file="khook/worker/attempts.py",
        old="if found is not Finding.NO_TRACE or left_s <= 0:",
        new="if found is not Finding.NO_TRACE or left_s <= 60:",
        first_seed=52,
    ),
    Mutant(
        name="start every leader's epochs at 1",
        promise="P3",
        file="khook/supervisor/process.py",
        old="self._pool.lead(self._leadership.epoch * FIRST_EPOCHS)",
        new="self._pool.lead(FIRST_EPOCHS)",
        first_seed=1,
    ),
    Mutant(
        name="go on watching after a 410",
        promise="P1, P7",
        file="khook/kube/watch.py",
        old="                await self._compacted(error)\n",
        new="                self._wanted_list = None\n                await self._fail(WatchEnd.GONE, str(error))\n",
        first_seed=5,
    ),
    Mutant(
        name="mute after a failure for as long as after a call",
        promise="P1",
        file="khook/core/verdict.py",
        old="now < _failed_time(call) + rules.retry_gap, Verdict.FIRE",
        new="now < _failed_time(call) + cooldown, Verdict.FIRE",
        first_seed=11,
    ),
    Mutant(
        name="keep a dead worker's keys",
        promise="P3, P5",
        file="shards/plan.py",
        old="        for key in [key for key, hold in self._holds.items() if hold.slot == slot]:\n"
        "            self._free(key)\n",
        new="        for key in [key for key, hold in self._holds.items() if hold.slot == slot]:\n"
        "            self._holds[key] = replace(self._holds[key], slot='nobody')\n",
    ),
    Mutant(
        name="act without a permission",
        promise="P3",
        file="shards/permission.py",
        old="        return self._clock.monotonic() < self.until_at\n",
        new="        return True\n",
        first_seed=3,
    ),
    Mutant(
        name="take a Lease that somebody holds",
        promise="P3",
        file="khook/supervisor/leader.py",
        old="if self._observed.standing(self._clock.monotonic()) is Standing.HELD:",
        new="if self._observed.standing(self._clock.monotonic() + 55.0) is Standing.HELD:",
        first_seed=43,
    ),
    Mutant(
        name="start with an empty table",
        promise="P5",
        file="khook/worker/namespace.py",
        old='table.restore(hook.get("status") or {})',
        new="table.restore({})",
        first_seed=3,
    ),
    Mutant(
        name="take what was judged for news",
        promise="P2, P5",
        file="khook/core/verdict.py",
        old="    last = row.signal_of(signal.pod_uid)\n    if last is None:\n",
        new="    last = row.signal_of(signal.pod_uid)\n    if signal.listed or last is None:\n"
        "        return False\n    if last is None:\n",
        first_seed=3,
    ),
    Mutant(
        name="forget parked calls",
        promise="P1",
        file="khook/worker/lot.py",
        old="        for agent in self._parking.agents:\n            self._let_go(agent, now_at)\n",
        new="",
        first_seed=8,
    ),
    Mutant(
        name="look at nothing again for a new entry",
        promise="P1",
        file="khook/worker/namespace.py",
        old="                self._looks.want(audience)\n",
        new="                pass\n",
        first_seed=10,
    ),
    Mutant(
        name="count a window from its claim",
        promise="P2",
        file="khook/core/verdict.py",
        old="return (call.accepted_time or call.claimed_time) + cooldown if _was_accepted(call) else call.claimed_time",
        new="return call.claimed_time + cooldown if _was_accepted(call) else call.claimed_time",
        first_seed=51,
    ),
    Mutant(
        name="believe our own clock",
        promise="P1, P2",
        file="khook/kube/client.py",
        old="        return self._clock.now() + self._server_time.offset\n",
        new="        return self._clock.now()\n",
    ),
    Mutant(
        name="take a conflict for a write",
        promise="P1",
        file="khook/worker/status.py",
        old="        self._take(hook)\n        self._asked = None\n",
        new="        self._take(hook)\n        self._asked = self._source(self._held)\n",
        first_seed=7,
    ),
    Mutant(
        name="believe a pod stuck from a line that is old",
        promise="P1",
        file="khook/core/pods.py",
        old="stuck = held.kind is PendingKind.UNEXPLAINED and listed and now >= held.since + stuck_pending",
        new="stuck = held.kind is PendingKind.UNEXPLAINED and now >= held.since + stuck_pending",
        first_seed=15,
    ),
    Mutant(
        name="cut a pod's time to our own clock",
        promise="P2",
        file="khook/core/pending.py",
        old="    ahead = marked > now + CLOCKS_AGREE\n",
        new="    ahead = marked > now\n",
        first_seed=214,
    ),
    Mutant(
        name="find pods stuck while nobody watches them",
        promise="P1",
        file="khook/worker/namespace.py",
        old="        if pods_are_told:\n            # While",
        new="        if self.name:\n            # While",
        first_seed=5,
    ),
    Mutant(
        name="charge no call",
        promise="P8",
        file="khook/worker/allowance.py",
        old="        if self._budget is None or (not self._waiting and self._budget.take(now)):\n",
        new="        if self._budget is None or not self._waiting:\n",
        first_seed=6,
    ),
    Mutant(
        name="reckon a full bucket after a restart",
        promise="P5, P8",
        file="khook/worker/rowbook.py",
        old="charged=row_rules.charged(rows)",
        new="charged=()",
        first_seed=6,
    ),
    Mutant(
        name="forget who waits for the budget",
        promise="P1, P5",
        file="khook/worker/rowbook.py",
        old="            self._allowance.wait(key_of(row))\n",
        new="            key_of(row)\n",
        first_seed=35,
    ),
    Mutant(
        name="look up no owner",
        promise="P2",
        file="khook/worker/owners.py",
        old="return controller.ref if maker is None else maker.ref",
        new="return controller.ref",
        first_seed=6,
    ),
    Mutant(
        name="key a group by its pods",
        promise="P2",
        file="khook/worker/table.py",
        old="resource = occasion.resource if entry.group_by_owner else row_rules.pod_of(signal)",
        new="resource = row_rules.pod_of(signal)",
        first_seed=6,
    ),
    Mutant(
        name="drop what waits for an owner that nobody tells",
        promise="P1",
        file="khook/worker/owners.py",
        old="            then(known.ref)\n",
        new="            if found is not None:\n                then(known.ref)\n",
        first_seed=9,
    ),
    Mutant(
        name="send a group at once",
        promise="P2",
        file="khook/worker/namespace.py",
        old="hold_s = GROUP_WAIT_S if fire.is_group else",
        new="hold_s = 0.0 if fire.is_group else",
        first_seed=6,
    ),
    Mutant(
        name="let every stale signal join a group",
        promise="P5",
        file="khook/worker/table.py",
        old="if not row_rules.says_more(row, signal, now=self._now(), rules=self._rules):",
        new="if row.legacy:",
        first_seed=56,
    ),
    Mutant(
        name="let go what was held without a look at the pod",
        promise="P1",
        file="khook/worker/table.py",
        old="            if pod is not None and lasts(held, pod):\n",
        new="            if pod is not None:\n",
        first_seed=14,
    ),
    Mutant(
        name="hold on through a recovery",
        promise="P1",
        file="khook/core/holding.py",
        old="    if not _is_over(held, pod):\n        return held\n    told_since",
        new="    return held\n    told_since",
        first_seed=14,
    ),
    Mutant(
        name="hold from an Event of trouble that passed",
        promise="P5",
        file="khook/core/holding.py",
        old="        return max(since, pod.ready_time)\n",
        new="        return min(signal.raw_time, max(since, pod.ready_time))\n",
        first_seed=383,
    ),
)


def tried(mutant: Mutant, *, worlds: int = WORLDS_MOST, short: bool = False) -> Fate:
    """Worlds with this defect in them, until one fails. `short`: beginning where one is known to."""
    first_seed = mutant.first_seed if short else 0
    with tempfile.TemporaryDirectory(prefix="khook-mutant-") as folder:
        root = Path(folder)
        for part in COPIED:
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        apply(mutant, root)
        how = {"worlds": worlds, "first-seed": first_seed, "jobs": 1, "json": "-"}
        asked = [part for name, value in how.items() for part in (f"--{name}", str(value))]
        ran = subprocess.run(
            [sys.executable, "-m", "sim", "--stop-at-first", *asked],
            cwd=root,
            env=os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TRIED_FOR_S,
        )
        if ran.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: {ran.stderr[-2000:]}")
        found = json.loads(ran.stdout.splitlines()[-1])
    failed = found["failed"][:1]
    return Fate(
        name=mutant.name,
        caught_after=found["worlds"] if failed else None,
        by=failed[0]["violations"][0].partition(":")[0] if failed else "",
        seed=failed[0]["seed"] if failed else None,
    )


def apply(mutant: Mutant, root: Path) -> None:
    file = root / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    file.write_text(text.replace(mutant.old, mutant.new))
