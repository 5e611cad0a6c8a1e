"""The commands ``unlearn-kit ledger``: requests over months, one after the other, on one deployed model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .options import Threads
from .reporting import Debug, reported, say, warn

ledger = typer.Typer(
    name="ledger",
    help="Keep the requests of one deployed model over months: add, withdraw, see what serves, verify.",
    no_args_is_help=True,
)

Folder = Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger's folder.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for another process that has the ledger; -1: for good.")]
Words = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@ledger.command()
def add(
    folder: Folder,
    request: Annotated[
        Path, typer.Argument(metavar="REQUEST", help="revision.yaml, run against what serves; or a folder of `revise`.")
    ],
    name: Annotated[str | None, typer.Option(help="The request's name.", show_default="of the file or folder")] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Train an adapter beside those in service, to be withdrawn by itself.")
    ] = False,
    wait: Wait = -1,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Add a request: the model that serves now forgets it too, and every earlier one is scored again.

    Leaves with 0 when it is there, also with a relapse of an earlier one; 1 when training broke down, 2 on a mistake.
    """
    console = Console()
    with reported(debug):
        import torch

        from ..revise.ledger import add_to

        torch.set_num_threads(threads)
        line = add_to(folder, request, name=name, join=join, timeout=wait, say=lambda text: say(console, text))
        _show(console, folder, line)


@ledger.command()
def withdraw(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The request.")],
    reason: Annotated[str, typer.Option(help="Why, in words.")] = "",
    wait: Wait = -1,
    threads: Threads = 1,
    debug: Debug = False,
) -> None:
    """Withdraw a request: the model serves without it from now on. Leaves with 2 where others stand on it."""
    console = Console()
    with reported(debug):
        import torch

        from ..revise.ledger import withdraw_from

        torch.set_num_threads(threads)
        _existing(folder)
        line = withdraw_from(folder, name, reason=reason, timeout=wait)
        _show(console, folder, line)


@ledger.command(name="list")
def list_requests(folder: Folder, json: Words = False, debug: Debug = False) -> None:
    """List the requests: how each stood when it was served, and how it stands now. The page shows every step."""
    console = Console()
    with reported(debug):
        from unlearn_kit.deployed.ledger_page import figure, heading, matrix

        found = _existing(folder)
        if json:
            _print_json([line.values for line in found.lines()])
            return
        steps = [line for line in found.lines() if line.values["kind"] != "opening"]
        table = Table("request", "line", "state", "forget data", "now", "unseen now", "AUC", "now")
        for row in matrix(found):
            stood = [cell for _, cell in row["cells"] if cell is not None]
            then, now = stood[0], stood[-1]
            state = "in force" if row["withdrawn"] is None else f"withdrawn, line {row['withdrawn']}"
            state = f"{state}, RELAPSE" if now.relapse and row["withdrawn"] is None else state
            shown = (then.forget, now.forget, now.unseen, then.membership, now.membership)
            table.add_row(Text(row["name"]), str(row["own"]), state, *map(figure, shown))
        console.print(table)
        for line in steps:
            say(console, f"line {line.number}, {line.values['made'][:10]}: {heading(line)}")
            for finding in line.values["findings"]:
                warn(console, finding)
        for note in found.chain.notes:
            warn(console, note)


@ledger.command()
def show(folder: Folder, json: Words = False, debug: Debug = False) -> None:
    """Show which model serves now: its weights, their SHA-256 and what was added to them; and write the page."""
    console = Console()
    with reported(debug):
        from unlearn_kit.deployed.ledger_page import write_page

        found = _existing(folder)
        now, last = found.serves(), found.lines()[-1]
        told = last.values["serves"]
        if now is None or json:
            _print_json({**told, "line": last.number, "head": last.sha256, "active": found.active()})
            return
        say(
            console,
            f"serves: {now.checkpoint}",
            f"sha256: {told['sha256']}",
            f"since line {last.number}, {last.values['made']}",
        )
        if now.adapters:
            say(console, f"made of {now.base} and the adapters of {', '.join(one.request for one in now.adapters)}")
        say(console, f"in force: {', '.join(found.active()) or 'no request'}", f"head: {last.sha256}")
        say(console, f"page: {write_page(found)}")


@ledger.command()
def verify(
    folder: Folder,
    head: Annotated[
        str | None, typer.Option(help="SHA-256 of a last line, noted elsewhere: finds a ledger written anew.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Hold every line against the others, and every file against its line. Leaves with 1 when anything is wrong."""
    console = Console()
    with reported(debug):
        found = _existing(folder)
        faults, notes = found.verify(head)
        for note in notes:
            warn(console, note)
        for fault in faults:
            console.print(Text(f"wrong: {fault}", style="bold red"), soft_wrap=True)
        lines = found.chain.lines
        if not faults:
            say(console, f"{len(lines)} lines verify; head: {lines[-1].sha256 if lines else 'none'}")
    if faults:
        raise typer.Exit(1)


def _existing(folder: Path) -> Any:
    """Return the ledger.

    Raises:
        FileNotFoundError: When there is none.
    """
    from unlearn_kit.errors import check_path_exists
    from unlearn_kit.evidence import Ledger
    from unlearn_kit.evidence.ledger_chain import FILE, HEAD

    if not (folder / HEAD).exists():  # a file that was cut to nothing is a matter for verify
        check_path_exists("LEDGER to hold a ledger.jsonl, as `ledger add` makes it,", folder / FILE)
    return Ledger(folder)


def _show(console: Console, folder: Path, line: Any) -> None:
    from unlearn_kit.evidence import Ledger

    for finding in line.values["findings"]:
        warn(console, finding)
    found = Ledger(folder)
    now = found.serves()
    say(console, f"line {line.number}: {line.values['kind']} {line.values['name']}, {line.sha256}")
    if now is not None:
        say(console, f"serves: {now.checkpoint}")
    say(console, f"page: {folder / 'index.html'}")


def _print_json(values: Any) -> None:
    import json

    typer.echo(json.dumps(values, indent=2))
