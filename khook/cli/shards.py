"""`khook shards`: who owns what now, and what another number of workers would make of it."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson
from rich.console import Console

from khook import settings
from khook.cli import namespace_list
from khook.cli.shards_live import ask, homes_of, weights_of
from khook.cli.shards_plan import RingShape, ShardPlan, plan
from khook.cli.shards_view import plan_document, show_live, show_plan
from khook.errors import EXIT_OK, EXIT_SETTINGS, SettingsError
from khook.supervisor.status_document import RingStatus

STDIN: Final = "-"
ADDRESS: Final = ("KHOOK_STATUS_ADDRESS", "--address")
VIRTUAL_NODES: Final = ("KHOOK_VIRTUAL_NODES", "--virtual-nodes")
MAX_LOAD_FACTOR: Final = ("KHOOK_MAX_LOAD_FACTOR", "--max-load-factor")


class Chosen:
    """Options, where they are given; else the environment's settings, else their defaults. Every problem at once."""

    def __init__(self, given: Mapping[tuple[str, str], str | None], environ: Mapping[str, str]) -> None:
        problems: list[str] = []
        self._values: dict[tuple[str, str], Any] = {}
        self._given = {name for name, text in given.items() if text is not None}
        for (variable, option), text in given.items():
            try:
                self._values[variable, option] = settings.one(variable, environ if text is None else {variable: text})
            except SettingsError as error:
                named = variable if text is None else option
                problems += [problem.replace(variable, named, 1) for problem in error.problems]
        if problems:
            raise SettingsError(problems)

    def value(self, name: tuple[str, str]) -> Any:
        return self._values[name]

    def shape(self, live: RingStatus | None = None) -> RingShape:
        """`live`: what a running khook has, which wins over this environment."""
        nodes, factor = self._values[VIRTUAL_NODES], self._values[MAX_LOAD_FACTOR]
        if live is not None:
            nodes = nodes if VIRTUAL_NODES in self._given else live.virtual_nodes
            factor = factor if MAX_LOAD_FACTOR in self._given else live.max_load_factor
        return RingShape(virtual_nodes=nodes, max_load_factor=factor)


def show_assignment(chosen: Chosen, *, every_namespace: bool, as_json: bool) -> int:
    """The live assignment, on stdout. Raises KhookError where nobody answers, or who answers only stands by."""
    body, live = ask(chosen.value(ADDRESS))
    if as_json:
        _print_json(orjson.loads(body))
    else:
        show_live(Console(), live, every_namespace=every_namespace)
    return EXIT_OK


def show_shard_plan(
    chosen: Chosen,
    *,
    workers: int,
    from_workers: int | None,
    namespaces: str | None,
    every_namespace: bool,
    as_json: bool,
) -> int:
    """A plan on stdout, for the list in the file `namespaces` (`-`: stdin), or (None) for the live assignment."""
    if namespaces is None:
        planned = _plan_of_live(chosen, workers=workers, from_workers=from_workers)
    else:
        try:
            weights = _read(namespaces)
        except namespace_list.BadList as error:
            print(error, file=sys.stderr)
            return EXIT_SETTINGS
        planned = plan(weights, workers=workers, from_workers=from_workers, shape=chosen.shape())
    if as_json:
        _print_json(plan_document(planned, every_namespace=every_namespace))
    else:
        show_plan(Console(), planned, every_namespace=every_namespace)
    return EXIT_OK


def _plan_of_live(chosen: Chosen, *, workers: int, from_workers: int | None) -> ShardPlan:
    """Against where the namespaces are now, unless another size is asked for."""
    _, live = ask(chosen.value(ADDRESS))
    return plan(
        weights_of(live),
        workers=workers,
        shape=chosen.shape(live.ring),
        from_workers=len(live.slots) if from_workers is None else from_workers,
        homes_before=homes_of(live) if from_workers is None else None,
    )


def _read(name: str) -> dict[str, float]:
    """The list in a file. Raises BadList, also where there is no such file."""
    is_stdin = name == STDIN
    try:
        # Bytes that are no text become a character that is in no name.
        with open(0 if is_stdin else name, encoding="utf-8-sig", errors="replace", closefd=not is_stdin) as lines:
            return namespace_list.read(lines, name="stdin" if is_stdin else name)
    except OSError as error:
        raise namespace_list.BadList([f"{name}: {error.strerror}"]) from error


def _print_json(document: Any) -> None:
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def chosen_from(*, address: str | None, virtual_nodes: str | None, max_load_factor: str | None) -> Chosen:
    return Chosen({ADDRESS: address, VIRTUAL_NODES: virtual_nodes, MAX_LOAD_FACTOR: max_load_factor}, os.environ)
