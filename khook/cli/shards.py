"""`khook shards`: who owns what now, and what another number of workers would make of it."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import orjson
from rich.console import Console

from khook import settings
from khook.cli import namespace_list
from khook.cli.shards_live import ask, weights
from khook.cli.shards_plan import RingShape, plan
from khook.cli.shards_view import plan_document, show_live, show_plan
from khook.errors import EXIT_OK, EXIT_SETTINGS, SettingsError

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

    def value(self, name: tuple[str, str], *, unless_given: Any = None) -> Any:
        """`unless_given`: what a running khook has, which wins over this environment."""
        if unless_given is not None and name not in self._given:
            return unless_given
        return self._values[name]


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
    nodes, factor = None, None
    if namespaces is None:
        _, live = ask(chosen.value(ADDRESS))
        wanted = weights(live)
        from_workers = len(live.slots) if from_workers is None else from_workers
        nodes, factor = live.ring.virtual_nodes, live.ring.max_load_factor
    else:
        try:
            wanted = _read(namespaces)
        except namespace_list.BadList as error:
            print(error, file=sys.stderr)
            return EXIT_SETTINGS
    shape = RingShape(
        virtual_nodes=chosen.value(VIRTUAL_NODES, unless_given=nodes),
        max_load_factor=chosen.value(MAX_LOAD_FACTOR, unless_given=factor),
    )
    planned = plan(wanted, workers=workers, from_workers=from_workers, shape=shape)
    if as_json:
        _print_json(plan_document(planned, every_namespace=every_namespace))
    else:
        show_plan(Console(), planned, every_namespace=every_namespace)
    return EXIT_OK


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
