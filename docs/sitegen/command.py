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
    context = typer.Context(command, info_name="unlearn-kit")
    text = html.unescape(get_docs_for_click(obj=command, ctx=context, name="unlearn-kit"))
    text = re.sub(r"^# `unlearn-kit`", "# The command line", text)
    return {PAGE: text}
