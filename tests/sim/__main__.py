"""`python -m sim`: many worlds, or one of them again, or all mutants.

Exit codes: 0 all green, 1 a world failed or a mutant lived.
"""

import argparse
import dataclasses
import json
import logging
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pprint import pformat
from typing import Any, Final

from sim import corpus
from sim.checkers import check
from sim.draw import draw
from sim.life import live
from sim.mutants import MUTANTS, WORLDS_MOST, Fate, tried
from sim.runs import many

SHOWN_MOST: Final = 6
"""Violations of one world: the first ones tell."""
PROGRESS_EVERY: Final = 100


def main() -> int:
    asked = _arguments()
    if asked.seed is not None:
        return _replay(asked.seed, trace=asked.trace)
    result: dict[str, Any] = {"worlds": 0, "failed": []}
    if asked.worlds:
        result |= _worlds(asked)
    if asked.mutants and not result["failed"]:
        result |= _mutants(asked.jobs, short=asked.short)
    if asked.json == "-":
        print(json.dumps(result))
    elif asked.json:
        Path(asked.json).write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["failed"] or result.get("mutants_alive") else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sim", description=__doc__)
    parser.add_argument("--worlds", type=int, default=0, help="how many, beside those of the corpus")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--stop-at-first", action="store_true", help="failure, and leave the corpus out")
    parser.add_argument("--mutants", action="store_true", help="and all mutants, when the worlds are green")
    parser.add_argument("--short", action="store_true", help="try each mutant first in a world that is known to see it")
    parser.add_argument("--json", default="", help="a file for the result, - for the last line of the output")
    parser.add_argument("--seed", type=int, help="this world again, with its violations")
    parser.add_argument("--trace", action="store_true", help="and with what khook logged")
    return parser.parse_args()


def _worlds(asked: argparse.Namespace) -> dict[str, Any]:
    seeds = list(range(asked.first_seed, asked.first_seed + asked.worlds))
    if not asked.stop_at_first:
        seeds = [seed for seed in corpus.seeds() if seed not in seeds] + seeds
    began_s = time.monotonic()
    failed: list[dict[str, Any]] = []
    cpus: list[float] = []
    told = runs = faults = 0
    for outcome in many(seeds, jobs=asked.jobs):
        cpus.append(outcome.cpu_s)
        told, runs, faults = told + outcome.told, runs + outcome.runs, faults + outcome.faults
        if outcome.violations:
            failed.append({"seed": outcome.seed, "violations": list(outcome.violations)})
            _say_failure(outcome.seed, outcome.violations)
            if asked.stop_at_first:
                break
        _progress(len(cpus), len(seeds), failed=len(failed), since_s=time.monotonic() - began_s)
    seconds = time.monotonic() - began_s
    print(
        f"{len(cpus)} worlds, {len(failed)} failed: {told} signals, {runs} calls, {faults} faults in {seconds:.0f} s;"
        f" {statistics.mean(cpus) * 1000:.0f} ms CPU a world",
        file=sys.stderr,
    )
    return {
        "worlds": len(cpus),
        "failed": failed,
        "seconds": round(seconds, 1),
        "cpu_s_a_world": round(statistics.mean(cpus), 4),
        "signals": told,
        "calls": runs,
        "faults": faults,
    }


def _mutants(jobs: int, *, short: bool) -> dict[str, Any]:
    fates: list[Fate] = []
    with ThreadPoolExecutor(jobs) as pool:
        for fate in pool.map(lambda mutant: tried(mutant, short=short), MUTANTS):
            fates.append(fate)
            how = f"caught by {fate.by} in world {fate.caught_after}" if fate.caught_after else "LIVES"
            print(f"  mutant {len(fates):2} of {len(MUTANTS)}: {fate.name}: {how}", file=sys.stderr)
    alive = [fate.name for fate in fates if fate.caught_after is None]
    caught = [fate.caught_after for fate in fates if fate.caught_after is not None]
    median = statistics.median(caught) if caught else 0
    print(
        f"{len(caught)} of {len(fates)} mutants caught within {WORLDS_MOST} worlds, at the median in {median:.0f}",
        file=sys.stderr,
    )
    return {"mutants": [dataclasses.asdict(fate) for fate in fates], "mutants_alive": alive, "mutants_median": median}


def _replay(seed: int, *, trace: bool) -> int:
    plan = draw(seed)
    print(pformat(plan, width=120))
    history, log = live(plan, level=logging.DEBUG if trace else logging.ERROR)
    for at_s, words in _lines(history, log) if trace else ():
        print(f"{at_s:10.3f} {words}")
    violations = check(history)
    for violation in violations:
        print(violation)
    print(f"seed {seed}: {len(violations)} violations")
    return 1 if violations else 0


def _lines(history: Any, log: Any) -> list[tuple[float, str]]:
    """Everything with a time, in its order."""
    facts = [*history.told, *history.acts, *history.runs, *history.attempts, *history.rows, *history.deaths]
    lines = [(fact.at_s, repr(fact)) for fact in facts]
    lines += [(fact.from_s, repr(fact)) for fact in (*history.holds, *history.stopped, *history.disturbances)]
    lines += [(at_s, f"{name} {values}") for at_s, name, values in log.lines]
    return sorted(lines, key=lambda line: line[0])


def _say_failure(seed: int, violations: tuple[str, ...]) -> None:
    print(f"\nseed {seed} failed: {len(violations)} violations", file=sys.stderr)
    for violation in violations[:SHOWN_MOST]:
        print(f"  {violation}", file=sys.stderr)
    print(f"  again: PYTHONPATH=tests .venv/bin/python -m sim --seed {seed} --trace", file=sys.stderr)
    print("  once it is understood it belongs into tests/sim/corpus.py", file=sys.stderr)


def _progress(done: int, of: int, *, failed: int, since_s: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {of} worlds, {failed} failed, {since_s:.0f} s ", end="", file=sys.stderr, flush=True)
        if done == of:
            print(file=sys.stderr)
    elif done % PROGRESS_EVERY == 0:
        print(f"{done} of {of} worlds, {failed} failed, {since_s:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
