"""A section on the revision for the model card that stands beside a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import checked
from ..files import write_text
from .statement import check_values

BEGIN, END = "<!-- unlearning: begin -->", "<!-- unlearning: end -->"


@checked
def card_section(values: Mapping[str, Any]) -> str:
    """Return the section "Unlearning" of a model card, in Markdown, between marks by which it is found again.

    Raises:
        ValueError: When ``values`` are not a receipt's.
    """
    check_values(values)
    asked = ", ".join(f"{name} {text}" for name, text in values["asked"].items()) or "not said"
    lines = [
        BEGIN,
        "## Unlearning",
        "",
        f"Training data were forgotten from this model: **{'; then '.join(values['request']['rules'])}** "
        f"({values['request']['samples']:,} samples), {values['made']}. Request: {asked}. "
        f"Method: `{values['method']['name']}`.",
        "",
        "| claim | verdict |",
        "|---|---|",
        *(f"| {one['claim']} | {one['value']} |" for one in values["verdicts"]),
        "",
        *(f"- {finding}" for finding in values["findings"]),
        *([""] if values["findings"] else []),
        f"{values['limit']} The receipt lies beside the model.",
        END,
    ]
    return "\n".join(lines)


@checked
def write_card(values: Mapping[str, Any], path: str | Path) -> Path:
    """Put the section into a card: in the place of an earlier one, else at its end; make a card where there is none.

    Args:
        values: Of the receipt.
        path: The card, ``README.md`` of a model on the Hugging Face hub.

    Raises:
        ImportError: When huggingface_hub is not installed.
        ValueError: When ``values`` are not a receipt's, or ``path`` is a folder.
        OSError: When the card cannot be read or written.
    """
    try:
        from huggingface_hub import ModelCard
    except ImportError as error:
        raise ImportError("a model card needs huggingface_hub: pip install huggingface_hub") from error

    target, section = Path(path), card_section(values)
    if target.is_dir():
        raise ValueError(f"expected path to be a file, but got {str(path)!r}, where a folder is")
    text = (
        target.read_text(encoding="utf-8")
        if target.exists()
        else "---\ntags:\n- machine-unlearning\n---\n\n# Model card\n"
    )
    card = ModelCard(text, ignore_metadata_errors=True)
    before, begin, rest = card.text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else ""
    body = f"{before.rstrip()}\n\n{section}\n{after.lstrip()}" if after.strip() else f"{before.rstrip()}\n\n{section}\n"
    card.text = body
    return write_text(str(card), target)
