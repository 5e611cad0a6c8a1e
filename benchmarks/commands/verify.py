"""The command ``unlearn-kit verify``: does what lies in a folder still fit its receipt?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .options import Threads
from .reporting import Debug, reported


def verify(
    folder: Annotated[Path, typer.Argument(help="Of a revision, as `revise` writes it.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the images.", show_default="where they lay")] = None,
    model: Annotated[Path | None, typer.Option(help="The original's weights.", show_default="where they lay")] = None,
    public_key: Annotated[Path | None, typer.Option(help="Of whoever signed the folder.")] = None,
    score: Annotated[bool, typer.Option("--score/--no-score", help="Whether to score the checkpoint again.")] = True,
    threads: Threads = 2,
    debug: Debug = False,
) -> None:
    """Hash again what a receipt names, score the checkpoint again where the data are there, and say what differs.

    Leaves with 0 where nothing differs, 1 where something does, named one by one, and 2 on a mistake.
    """
    console = Console()
    with reported(debug):
        import torch

        from unlearn_kit.evidence import Verification
        from unlearn_kit.evidence import verify as hash_again

        from ..revise.again import options_again, original_of, score_again

        torch.set_num_threads(threads)
        weights = model if model is not None else original_of(folder)
        found = hash_again(folder, data=data, model=weights, public_key=public_key)
        differences = [*found.differences, *options_again(folder)]
        again = Verification((), ("the scores: asked not to",), ())
        try:
            again = score_again(folder, data=data, model=weights) if score else again
        except (ValueError, OSError) as error:
            if not differences:  # else they are why
                raise
            again = Verification((), (f"the scores: {error}",), ())
    differences += again.differences
    for line in (*found.checked, *again.checked):
        console.print(Text(f"checked: {line}"), soft_wrap=True)
    for line in (*found.skipped, *again.skipped):
        console.print(Text(f"not checked: {line}", style="yellow"), soft_wrap=True)
    for difference in differences:
        console.print(Text(f"differs: {difference}", style="bold red"), soft_wrap=True)
    if differences:
        raise typer.Exit(1)
    console.print(Text("nothing differs", style="green"))
