"""The command ``unlearn-kit run``: a matrix of methods, data sets and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .reporting import Debug, reported


def run(
    suite: Annotated[str, typer.Argument(help="A file SUITE.yaml, or the name of a shipped suite.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="out/SUITE")] = None,
    workers: Annotated[int, typer.Option(help="Runs at a time.", min=1)] = 1,
    threads: Annotated[int, typer.Option(help="CPU threads of each worker.", min=1)] = 1,
    backend: Annotated[str, typer.Option(help="local, or ray (on the cluster RAY_ADDRESS names).")] = "local",
    only: Annotated[str | None, typer.Option(help="Only runs whose name holds this; * and ? are wildcards.")] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/n: the i-th of n parts of the runs, such as 2/8 in a job array.")
    ] = None,
    gpus: Annotated[float, typer.Option(help="With ray on cuda: how much of a GPU each run takes.")] = 1.0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run everything again, but for what another runner is at.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and leave.")] = False,
    debug: Debug = False,
) -> None:
    """Run a matrix of methods, data sets and seeds; killed and started again, it goes on where it was.

    Leaves with 1 when a run failed, diverged or was refused; all others are run nevertheless.
    """
    console = Console()
    with reported(debug):
        from ..suites import read_suite
        from ..suites.plan import plan, read_shard, select
        from ..suites.runner import run_suite
        from ..suites.store import Store

        part = None if shard is None else read_shard(shard)
        found = read_suite(suite)
        folder = out if out is not None else Path("out") / found.name
        if dry_run:
            store = Store(folder, create=False)
            nodes = select(plan(found), only, part)
            for node in nodes:
                there = "done" if not fresh and store.has(node.key) else "run "
                console.print(Text(f"{there} {node.key} {node.name}"), soft_wrap=True)
            return
        summary = run_suite(
            found,
            folder,
            workers=workers,
            threads=threads,
            backend=backend,
            gpus=gpus,
            only=only,
            shard=part,
            fresh=fresh,
            progress=True,
        )
    for name, reason in (*summary.refused.items(), *summary.failed.items()):
        console.print(Text(f"{name}: {reason}", style="yellow"), soft_wrap=True)
    console.print(Text(f"{summary.text}; written to {folder}"), soft_wrap=True)
    if not summary.complete:
        raise typer.Exit(1)
