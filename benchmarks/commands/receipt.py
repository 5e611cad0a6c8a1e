"""The command ``unlearn-kit receipt``: the receipt of a revision, in the form that somebody wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from .reporting import Debug, reported, show_verdicts

FORMS = ("verdicts", "markdown", "json", "statement", "card")


def receipt(
    folder: Annotated[Path, typer.Argument(help="Of a revision, as `revise` writes it.")],
    form: Annotated[
        str, typer.Option("--as", help="verdicts, markdown, json, statement (in-toto) or card.")
    ] = "verdicts",
    card: Annotated[Path | None, typer.Option(help="A model card, README.md, to put the section into.")] = None,
    sign: Annotated[Path | None, typer.Option(help="A private key (PEM) to sign the folder with.")] = None,
    debug: Debug = False,
) -> None:
    """Show the receipt of a revision, put it into a model card, or sign its folder.

    Leaves with 0, and with 2 where there is no receipt.
    """
    console = Console()
    with reported(debug):
        from unlearn_kit.errors import check_choice
        from unlearn_kit.evidence import card_section, read_receipt, write_card
        from unlearn_kit.evidence.folder import STATEMENT_FILE
        from unlearn_kit.evidence.signing import sign as sign_folder
        from unlearn_kit.evidence.words import markdown

        check_choice("--as", form, FORMS)
        values = read_receipt(folder)
        if sign is not None:
            console.print(Text(f"written: {sign_folder(folder, sign)}"), soft_wrap=True)
        elif card is not None:
            console.print(Text(f"written: {write_card(values, card)}"), soft_wrap=True)
        elif form == "verdicts":
            show_verdicts(console, values)
        else:
            texts = {
                "markdown": lambda: markdown(values),
                "json": lambda: json.dumps(values, indent=2),
                "statement": lambda: (folder / STATEMENT_FILE).read_text(encoding="utf-8").rstrip(),
                "card": lambda: card_section(values),
            }
            typer.echo(texts[form]())
