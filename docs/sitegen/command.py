"""The page of the command line, from the command itself."""

from __future__ import annotations

import html
import re

PAGE = "reference/command"


def pages() -> dict[str, str]:
    """Return the page of every command and option, by its path."""
    import typer
    from typer.cli import get_docs_for_click

    from benchmarks.cli import app

    command = typer.main.get_command(app)
    context = command.make_context("unlearn-kit", [], resilient_parsing=True)
    text = html.unescape(get_docs_for_click(obj=command, ctx=context, name="unlearn-kit"))
    # Examples of the help are shown as they stand, and never as links or as markup.
    text = re.sub(r"^# `unlearn-kit`", "# The command line", text)
    return {PAGE: text}
