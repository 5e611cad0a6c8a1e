"""Options that several commands share, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TrainSize = Annotated[int | None, typer.Option(help="Keep only that many training images.")]
Network = Annotated[str | None, typer.Option(help="Network, as listed by `list`.", show_default="by data set")]
Root = Annotated[Path | None, typer.Option(help="Folder that holds the data.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the data when they are missing.")]
Threads = Annotated[int, typer.Option(help="CPU threads.", min=1)]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, mps.")]
