"""Some worlds in every run of the tests, and that a seed is all there is to a world."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
WORLDS = 50


def sim(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    """As `make sim` runs it: in a process of its own, whose garbage and whose log are nobody else's."""
    return subprocess.run(
        [sys.executable, "-m", "sim", *arguments],
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_promise_holds_in_every_world() -> None:
    ran = sim("--worlds", str(WORLDS), "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    assert "0 failed" in ran.stderr


@pytest.mark.parametrize("seed", ["4", "17"])
def test_the_same_seed_is_the_same_world_step_by_step_whatever_strings_hash_to(seed: str) -> None:
    one, other = (sim("--seed", seed, "--trace", hash_seed=hash_seed) for hash_seed in ("1", "2"))
    assert one.returncode == 0, one.stdout[-2000:]
    assert len(one.stdout.splitlines()) > 300
    assert one.stdout == other.stdout


def test_a_world_is_large_enough_to_mean_something() -> None:
    from sim.draw import draw

    for plan in map(draw, range(200)):
        assert plan.workers >= 2
        assert len({hook.namespace for hook in plan.hooks}) == 6
        assert len(plan.tells) >= 40
        assert len(plan.faults) >= 3
        assert plan.end_s == 1800
