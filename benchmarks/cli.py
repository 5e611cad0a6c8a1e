"""The command line ``unlearn-kit``: a command for each file of ``commands``."""

from __future__ import annotations

from typing import Annotated

import typer

from .commands.audit import audit
from .commands.demo import demo
from .commands.inventory import list_all
from .commands.ledger import ledger
from .commands.receipt import receipt
from .commands.report import report
from .commands.revise import revise
from .commands.run import run
from .commands.verify import verify
from .commands.watch import watch

app = typer.Typer(
    name="unlearn-kit",
    help="Revise trained vision models: forget chosen training data, keep the rest, prove how well it went.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    app()


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Revise trained vision models: forget chosen training data, keep the rest, prove how well it went."""
    if version:
        from importlib.metadata import version as version_of

        typer.echo(version_of("unlearn-kit"))
        raise typer.Exit


app.command()(revise)
app.command()(receipt)
app.command()(verify)
app.add_typer(ledger)
app.command()(demo)
app.command()(audit)
app.command()(run)
app.command()(watch)
app.command()(report)
app.command(name="list")(list_all)
