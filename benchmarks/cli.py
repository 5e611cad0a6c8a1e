"""The command ``unlearn-kit``. Heavy packages are imported inside the commands, so that help comes at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

app = typer.Typer(
    name="unlearn-kit",
    help="Revise trained vision models: forget chosen training data, keep the rest, prove how well it went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Run the command line."""
    app()


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Print an error of the toolkit as one red line and leave with 2 (a user's mistake) or 1 (a divergence)."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        from unlearn_kit import DivergenceError

        ours = not isinstance(error, RuntimeError) or isinstance(error, DivergenceError)
        if debug or not ours:
            raise
        Console(stderr=True).print(Text(f"error: {error}", style="bold red"), soft_wrap=True)
        raise typer.Exit(1 if isinstance(error, DivergenceError) else 2) from None


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Revise trained vision models: forget chosen training data, keep the rest, prove how well it went."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("unlearn-kit"))
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[str, typer.Option(help="digits (bundled) or fashion-mnist.")] = "digits",
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="out/demo-DATA")] = None,
    seed: Annotated[int, typer.Option(help="Of training, unlearning and evaluation.")] = 0,
    forget: Annotated[
        str | None,
        typer.Option(
            help="class:LABEL, fraction:LABEL:SHARE, random:SHARE or where:COLUMN:VALUE.", show_default="class:0"
        ),
    ] = None,
    train_size: Annotated[int | None, typer.Option(help="Keep only that many training images.")] = None,
    model: Annotated[str | None, typer.Option(help="Network, as listed by `list`.", show_default="by data set")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of the original's and the reference's training.", show_default="by data set")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every algorithm.")] = False,
    methods: Annotated[
        str | None, typer.Option(help="Algorithms, by comma; NAME:PRESET picks a preset.", show_default="three")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Run perturbed_sign over its tradeoff knobs.")] = True,
    root: Annotated[Path | None, typer.Option(help="Folder that holds the data.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data when they are missing.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, mps.")] = "cpu",
    debug: Debug = False,
) -> None:
    """Train a model, make it forget in several ways, and show each beside a model that never saw the data.

    Writes results.json, tradeoff.png and the models. Leaves with 1 when a method diverged, or one named refused.
    """
    with reported(debug):
        import torch

        from .demo import run_demo
        from .demo_config import DemoConfig
        from .tables import demo_table, mix_table, wide

        torch.set_num_threads(threads)
        config = DemoConfig(
            data=data,
            out=out,
            seed=seed,
            forget=forget,
            train_size=train_size,
            model=model,
            epochs=epochs,
            methods=None if methods is None else tuple(name.strip() for name in methods.split(",")),
            everything=everything,
            curves=curves,
            device=device,
            root=root,
            download=download,
            progress=True,
        )
        report = run_demo(config)
    console = wide(Console())
    console.print(demo_table(report))
    if report.mix is not None:
        console.print(mix_table(report.mix))
    for note in report.notes:
        console.print(Text(note, style="yellow"))
    console.print(Text(f"{report.seconds:.0f} s in all; written to {config.folder}"), soft_wrap=True)
    if not report.complete:
        raise typer.Exit(1)


@app.command(name="list")
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False, debug: Debug = False
) -> None:
    """Show the algorithms, data sets and models."""
    with reported(debug):
        from .tables import inventory, inventory_tables, wide

        found = inventory()
    if as_json:
        import json

        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    console = wide(Console())
    for table in inventory_tables(found):
        console.print(table)
