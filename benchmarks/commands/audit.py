"""The command ``unlearn-kit audit``: methods against many retrained references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Device, Download, Network, Root, Threads, TrainSize
from .reporting import Debug, reported


def audit(
    data: Annotated[str, typer.Option(help="Name of a data set.")] = "digits",
    method: Annotated[
        str, typer.Option(help="Algorithms, by comma; NAME:PRESET or NAME:OPTION=VALUE.")
    ] = "perturbed_sign",
    models: Annotated[int, typer.Option(help="Oracles, and as many originals.", min=4)] = 64,
    pairs: Annotated[int, typer.Option(help="How many of them single-model audits are run on.", min=1)] = 5,
    forget: Annotated[str | None, typer.Option(help="As in `demo`.", show_default="class:0")] = None,
    random_labels: Annotated[
        bool, typer.Option("--random-labels", help="Mislabel what is forgotten, so that it must be memorised.")
    ] = False,
    train_size: TrainSize = None,
    model: Network = None,
    epochs: Annotated[int | None, typer.Option(help="Of all trainings.", show_default="by data set")] = None,
    seed: Annotated[int, typer.Option(help="All seeds of training, unlearning and evaluation follow from it.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="out/audit-DATA")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for models and margins.", show_default="OUT/cache")] = None,
    root: Root = None,
    download: Download = False,
    workers: Annotated[int, typer.Option(help="Runs at a time, each on one CPU thread.", min=1)] = 1,
    threads: Threads = 1,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Audit methods against many retrained references: every figure beside its ideal, and a verdict for each claim.

    Oracles, originals and margins are kept: one more method costs its own runs. Writes audit.json.
    """
    with reported(debug):
        import torch

        from unlearn_kit.audits.shadow import SPLITS

        from ..analysis.tables import wide
        from ..audit.config import AuditConfig
        from ..audit.study import AuditStudy
        from ..audit.table import method_table, shadow_table
        from ..demo.config import DemoConfig
        from .tallies import Tally

        torch.set_num_threads(threads)
        study = DemoConfig(
            data=data,
            out=out,
            seed=seed,
            forget=forget,
            train_size=train_size,
            model=model,
            epochs=epochs,
            methods=tuple(name.strip() for name in method.split(",")),
            device=device,
            root=root,
            download=download,
        )
        config = AuditConfig(study, models, pairs, random_labels, cache, workers)
        with Tally() as tally:
            running = AuditStudy(config, tally.update)
            tally.say(running.estimate().text)
            report = running.run()
    console = wide(Console())
    for audited in report.methods:
        if audited.reason is None:
            console.print(method_table(report, audited))
    console.print(shadow_table(report))
    for audited in report.methods:
        if audited.reason is not None:
            console.print(Text(f"{audited.name}: {audited.reason}", style="yellow"))
        for split in SPLITS:
            verdict = (audited.verdicts or {}).get(f"klom_{split}")
            if verdict:
                console.print(Text(f"{audited.name}, margins on {split} data: {verdict}"), soft_wrap=True)
    console.print(Text(f"{report.seconds:.0f} s in all; written to {config.folder}"), soft_wrap=True)
    if any(audited.reason is not None for audited in report.methods):
        raise typer.Exit(1)
