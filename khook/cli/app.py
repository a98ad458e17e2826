"""The command line for people: what each command is for, and its options."""

import platform
from enum import StrEnum
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from khook.sizing import MAX_WORKERS


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""
    **khook** watches a Kubernetes cluster and asks a kagent agent to look into pods that restart, hang in Pending, run
    out of memory or fail their probes: once per incident and cooldown.

    New here? `khook demo` shows all of it on this machine; no Kubernetes is needed.
    """,
    epilog="Settings are environment variables; the README lists them. "
    "Exit codes: 0 done, 1 unexpected, 70 no worker can be kept running, 75 another replica leads, 78 bad settings.",
)


@app.command()
def run() -> None:
    """
    Run the controller: in a pod with its service account, elsewhere with your kubeconfig.

    `KAGENT_BASE_URL` says where kagent is, `KAGENT_API_KEY` is its key where it needs one. Logs go to stderr,
    metrics to port 8080 (`/metrics`), health to port 8081 (`/healthz`, `/readyz`); the status page is at
    http://127.0.0.1:8082/. Ctrl-C or SIGTERM stops it in order; a second one at once.
    """
    from khook.cli.run import run as run_controller  # noqa: PLC0415 - each command imports what it needs, no more

    run_controller()


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running until Ctrl-C, and say where it listens.")
    ] = False,
) -> None:
    """
    Show everything on an embedded cluster: pods fail by script, agents are asked, a worker is killed half-way.

    Exit 0 when no incident was lost and no agent was asked twice, counted from the agents' own record; else 1.
    """
    from khook.cli.demo import demo as run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(keep=keep))


@app.command()
def shards(
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, max=MAX_WORKERS, help="Plan for so many workers instead.", show_default=False)
    ] = None,
    namespaces: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Plan for this list: one namespace a line, with its lines a second if you know them; `-` is stdin. "
            "Without it the plan is for the live namespaces.",
        ),
    ] = None,
    from_workers: Annotated[
        int | None,
        typer.Option("--from", min=1, max=MAX_WORKERS, help="Show what moves against so many. Live: as many as now."),
    ] = None,
    every_namespace: Annotated[bool, typer.Option("--all", help="List every namespace too.")] = False,
    output: Annotated[Output, typer.Option(help="`json` is for scripts.")] = Output.TEXT,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where khook shows its status. [env: KHOOK_STATUS_ADDRESS]")
    ] = None,
    virtual_nodes: Annotated[
        str | None, typer.Option(metavar="N", help="Points of a worker on the ring. [env: KHOOK_VIRTUAL_NODES]")
    ] = None,
    max_load_factor: Annotated[
        str | None, typer.Option(metavar="X", help="Most load by the mean. [env: KHOOK_MAX_LOAD_FACTOR]")
    ] = None,
) -> None:
    """
    Show which worker owns which namespaces and how busy they are, or plan for another number of workers.

    `kubectl exec -n kagent-system deploy/kagent-hook-controller -- khook shards --all`

    `kubectl get hooks -A --no-headers | cut -d' ' -f1 | sort -u | khook shards --workers 4 --from 3 --namespaces -`

    The first asks the khook that runs there (where it only stands by: exit 1, and the command that asks the leader).
    The second asks nobody: it plans with the code that the controller itself uses.
    """
    from khook.cli import shards as command  # noqa: PLC0415

    chosen = command.chosen_from(address=address, virtual_nodes=virtual_nodes, max_load_factor=max_load_factor)
    as_json = output is Output.JSON
    if workers is None:
        if namespaces is not None or from_workers is not None:
            raise typer.BadParameter("goes with --workers", param_hint="--namespaces" if namespaces else "--from")
        raise typer.Exit(command.show_assignment(chosen, every_namespace=every_namespace, as_json=as_json))
    raise typer.Exit(
        command.show_shard_plan(
            chosen,
            workers=workers,
            from_workers=from_workers,
            namespaces=namespaces,
            every_namespace=every_namespace,
            as_json=as_json,
        )
    )


@app.command()
def version() -> None:
    """Say which khook this is."""
    typer.echo(f"khook {version_of('khook')} (Python {platform.python_version()})")
