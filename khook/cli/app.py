"""The command line for people: what each command is for, and its options."""

import platform
from importlib.metadata import version as version_of
from typing import Annotated

import typer

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
    metrics to port 8080 (`/metrics`), health to port 8081 (`/healthz`, `/readyz`). Ctrl-C or SIGTERM stops it in
    order; a second one at once.
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
def version() -> None:
    """Say which khook this is."""
    typer.echo(f"khook {version_of('khook')} (Python {platform.python_version()})")
