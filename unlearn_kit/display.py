"""How values show themselves: in a line at a prompt, as a small table in a notebook. Without torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

CUT = 120  # characters of a cell of a table


def number(value: float | None) -> str:
    """Return a score for people; None is "n/a". More digits than three would claim what no test set can tell."""
    return "n/a" if value is None else f"{value:.3f}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: "1 sample", "2 samples"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def tally(values: Iterable[str]) -> str:
    """Return how often each value is there, in the order of their first appearance: "3 shown, 1 not tested"."""
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return ", ".join(f"{count:,} {value}" for value, count in found.items())


def html_table(title: str, rows: Sequence[Sequence[Any]], header: Sequence[str] = (), notes: Sequence[str] = ()) -> str:
    """Return a table as HTML, every text of it escaped.

    Args:
        title: The caption.
        rows: Of each row the name and its cells; None is "n/a", and a fraction has three digits.
        header: Above the columns.
        notes: Under the table, in a list.
    """
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row" style="text-align:left">{_cell(name)}</th>'
        + "".join(f'<td style="text-align:left">{_cell(value)}</td>' for value in cells)
        + "</tr>"
        for name, *cells in rows
    )
    caption = f'<caption style="text-align:left;font-weight:bold">{escape(title)}</caption>'
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<table>{caption}{top}<tbody>{body}</tbody></table>" + (f"<ul>{listed}</ul>" if listed else "")


def options_text(options: Mapping[str, Any]) -> str:
    """Return options as ``name=value`` with commas, without those that are None."""
    return ", ".join(f"{name}={value}" for name, value in options.items() if value is not None)


def _cell(value: Any) -> str:
    text = number(value) if value is None or isinstance(value, float) else str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        text = f"{value:,}"
    return escape(text if len(text) <= CUT else f"{text[: CUT - 3]}...")
