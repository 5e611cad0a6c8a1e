"""The command ``unlearn-kit revise``: make a deployed model forget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .options import Device, Threads
from .reporting import Debug, reported, say, show_verdicts, warn


def revise(
    request: Annotated[Path | None, typer.Argument(help="A file revision.yaml; options stand above it.")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm:NAME, torchvision:, smp:, monai:, hf:FOLDER, or MODULE:FUNCTION of yours.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="Of the model: NAME=VALUE; may come several times.")] = None,
    weights: Annotated[Path | None, typer.Option(help="safetensors, or .pt, .pth, .ckpt of tensors.")] = None,
    key: Annotated[str | None, typer.Option(help="Where a checkpoint keeps the weights.", show_default="found")] = None,
    mean: Annotated[str | None, typer.Option(help="Numbers by comma.", show_default="the library's")] = None,
    std: Annotated[str | None, typer.Option(help="Numbers by comma.", show_default="the library's")] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--no-normalize", help="Whether the model takes normalised pixels.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of images, in class folders or with a table, or of volumes with one.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="The table.", show_default="metadata.csv")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHT,WIDTH to resize to; volumes DEPTH,HEIGHT,WIDTH.")] = None,
    window: Annotated[str | None, typer.Option(help="Volumes: values LOW,HIGH that become 0 and 1, or 'each'.")] = None,
    classes: Annotated[int | None, typer.Option(help="Volumes: classes of their masks.", show_default="2")] = None,
    channels: Annotated[int | None, typer.Option(help="1 for grey, 3 for RGB.", show_default="3")] = None,
    file_column: Annotated[str | None, typer.Option(help="Column of file names.", show_default="file")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of classes.", show_default="label")] = None,
    mask_column: Annotated[str | None, typer.Option(help="Column of mask files: segmentation.")] = None,
    label_separator: Annotated[str | None, typer.Option(help="Between several findings in one label: |")] = None,
    finding_columns: Annotated[str | None, typer.Option(help="Columns of 1 and 0, by comma: one a finding.")] = None,
    blank: Annotated[str | None, typer.Option(help="unknown or absent: their empty cells.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of splits.", show_default="split")] = None,
    held_out: Annotated[float | None, typer.Option(help="Share to hold out where there is no split.")] = None,
    group: Annotated[str | None, typer.Option(help="Column whose groups are held out whole: patient.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the table: cp1252, ...", show_default="found")] = None,
    separator: Annotated[str | None, typer.Option(help="Between its fields.", show_default="found")] = None,
    forget: Annotated[
        str | None, typer.Option(help="Which rows of the table: device == 'B' and year < 2019, site in (A, B).")
    ] = None,
    forget_class: Annotated[str | None, typer.Option(help="A whole class instead, by its name.")] = None,
    method: Annotated[
        str | None, typer.Option(help="NAME:PRESET or NAME:OPTION=VALUE.", show_default="perturbed_sign")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Weights retrained without the data; or retrain, subsample:SHARE (with :OPTION=VALUE), none."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.")] = None,
    by: Annotated[str | None, typer.Option(help="Who asked, for the receipt.")] = None,
    ticket: Annotated[str | None, typer.Option(help="Of the request.")] = None,
    basis: Annotated[str | None, typer.Option(help="On which it stands, such as GDPR Art. 17.")] = None,
    date: Annotated[str | None, typer.Option(help="Of the request.")] = None,
    audit: Annotated[
        list[str] | None,
        typer.Option(
            help="quantization, residual knowledge, relearning, probe, features.", show_default="the first two"
        ),
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds after which no audit is begun.")] = None,
    patient: Annotated[str | None, typer.Option(help="Column whose groups count as one: patient.")] = None,
    earlier: Annotated[list[Path] | None, typer.Option(help="Folder of a revision that this one stands on.")] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="safetensors or pth.", show_default="the original's")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of revision and evaluation.", show_default="0")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be forgotten, and leave.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
    debug: Debug = False,
) -> None:
    """Make a deployed model forget: a revised checkpoint in its own form, a receipt and a page come out.

    Leaves with 0 when the folder is there, 1 when training broke down, 2 on a mistake in the request, and 130 when it
    was interrupted: the same command goes on where it was then.
    """
    console = Console()
    with reported(debug), _interrupted():
        import torch

        from ..revise.request import read_request
        from ..revise.work import estimate, look, prepare, work

        torch.set_num_threads(threads)
        given = read_request(
            request,
            {
                "model.source": model,
                "model.options": _options(option),
                "model.weights": weights,
                "model.key": key,
                "model.mean": _numbers("mean", mean),
                "model.std": _numbers("std", std),
                "model.normalize": normalize,
                "data.root": data,
                "data.metadata": metadata,
                "data.size": _numbers("size", size, int),
                "data.window": window if window == "each" else _numbers("window", window),
                "data.classes": classes,
                "data.channels": channels,
                "data.file_column": file_column,
                "data.label_column": label_column,
                "data.mask_column": mask_column,
                "data.label_separator": label_separator,
                "data.finding_columns": None if finding_columns is None else finding_columns.split(","),
                "data.blank": blank,
                "data.split_column": split_column,
                "data.held_out": held_out,
                "data.group": group,
                "data.encoding": encoding,
                "data.separator": separator,
                "forget": forget,
                "forget_class": forget_class,
                "method": method,
                "reference": reference,
                "out": out,
                "form": form,
                "seed": seed,
                "device": None if device == "cpu" else device,
                "asked": _told(by=by, ticket=ticket, basis=basis, date=date),
                "audits": audit or None,
                "budget": budget,
                "patient": patient,
                "earlier": earlier or None,
            },
        )
        prepared = prepare(given)
        say(console, *prepared.words)
        _show_counts(console, prepared.task)
        if dry_run:
            page, warnings = look(prepared)
            warn(console, *warnings)
            if (time := estimate(prepared)) is not None:
                say(console, str(time))
            say(console, f"nothing was changed; look at {page}")
            return
        revision = work(prepared, lambda time: say(console, str(time)), lambda words: say(console, words))
    warn(console, *revision.warnings)
    show_verdicts(console, revision.receipt.values)
    _show_scores(console, revision.receipt.values["metrics"])
    if revision.result is None:
        say(console, f"this revision was there already, in {revision.folder}")
    say(console, f"revised: {revision.checkpoint}", f"evidence: {revision.folder / 'receipt.md'}, index.html")


def _told(**texts: str | None) -> dict[str, str] | None:
    return {name: text for name, text in texts.items() if text is not None} or None


@contextmanager
def _interrupted() -> Iterator[None]:
    """Leave with 130, as shells do, when the user or a scheduler ends the command by an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted: the same command goes on where it was")
        raise typer.Exit(130) from None


def _options(given: list[str] | None) -> dict[str, Any] | None:
    from ..setup.methods import value_of

    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise ValueError(f"expected --option NAME=VALUE, but got {name!r}")
    return {name: value_of(value) for name, _, value in pairs}


def _numbers(name: str, text: str | None, kind: type = float) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"expected --{name} to be numbers by comma, but got {text!r}") from None


def _show_counts(console: Console, task: Any) -> None:
    from unlearn_kit.deployed.page import counts

    say(console, f"Forget {task.rule}")
    table = Table()
    for heading in ("samples", "to forget", "to keep"):
        table.add_column(heading, justify="left" if heading == "samples" else "right")
    for name, forget, retain in counts(task):
        table.add_row(name, f"{forget:,}", f"{retain:,}")
    console.print(table)


def _show_scores(console: Console, metrics: Any) -> None:
    from unlearn_kit.evidence.words import SCORES

    table = Table("measured on", "before", "after", "reference")
    for name, words in SCORES.items():
        cells = (None if metrics[who] is None else metrics[who][name] for who in ("before", "after", "reference"))
        table.add_row(words, *("n/a" if cell is None else f"{cell:.3f}" for cell in cells))
    console.print(table)
