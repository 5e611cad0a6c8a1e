"""The command ``unlearn-kit demo``: the main job, end to end, on one task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Device, Download, Network, Root, Threads, TrainSize
from .reporting import Debug, reported


def demo(
    data: Annotated[
        str, typer.Option(help="digits (bundled), fashion-mnist, simulated-scanners, synthetic-lesions or mni-slices.")
    ] = "digits",
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="out/demo-DATA")] = None,
    seed: Annotated[int, typer.Option(help="Of training, unlearning and evaluation.")] = 0,
    forget: Annotated[
        str | None,
        typer.Option(
            help="class:LABEL, fraction:LABEL:SHARE, random:SHARE or where:COLUMN:VALUE.", show_default="class:0"
        ),
    ] = None,
    train_size: TrainSize = None,
    model: Network = None,
    epochs: Annotated[
        int | None, typer.Option(help="Of the original's and the reference's training.", show_default="by data set")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Run every algorithm.")] = False,
    methods: Annotated[
        str | None, typer.Option(help="Algorithms, by comma; NAME:PRESET picks a preset.", show_default="three")
    ] = None,
    curves: Annotated[bool, typer.Option(help="Run perturbed_sign over its tradeoff knobs.")] = True,
    root: Root = None,
    download: Download = False,
    threads: Threads = 1,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Train a model, make it forget in several ways, and show each beside a model that never saw the data.

    Writes results.json, tradeoff.png and the models. Leaves with 1 when a method diverged, or one named refused.
    """
    with reported(debug):
        import torch

        from ..analysis.tables import wide
        from ..demo.config import DemoConfig
        from ..demo.run import run_demo
        from ..demo.table import demo_table, mix_table

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
