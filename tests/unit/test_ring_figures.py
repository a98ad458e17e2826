"""The script that prints the ring's figures: it says what it found, and its exit code says whether that is enough."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_figures_are_printed_as_one_json_object_and_judged() -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "bench/ring_figures.py"), "500"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(ran.stdout)
    missed = [name for name, seen in found["figures"].items() if seen["is"] > seen["at_most"]]
    assert missed == found["missed"]
    assert ran.returncode == (1 if missed else 0)
    assert found["keys"] == 500
    assert found["zipf"]["before"] > found["zipf"]["after"]
    assert {len(shares) for shares in found["one_more_slot_by_names"].values()} == {15}
    assert found["a_slot_breaks_and_returns"]["away_in_the_end"] <= 5, "another key is the last that has no room"
