"""The matrix as a page of the documentation: ``python tests/matrix/table.py`` works it out anew and writes it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from cells import ROWS, Outcome, case_of, outcome
from networks import NETWORKS

PAGE = Path(__file__).parents[2] / "docs" / "foreign-models.md"
LONGEST = 200  # characters of a refusal that are shown
Outcomes = dict[tuple[str, str], Outcome]

HEAD = """# Networks from elsewhere

What becomes of every method, of `evaluate`, of the audits, of `adapters.attach` and of the merges on networks as other
libraries build them, and on modules that are treated wrongly easily. Nothing about them is declared. They are tiny and
untrained; a cell shows that the code does what it says, not how well a method forgets.

Right (✓): it edits, or measures what is computed by hand; the caller's model stays bit for bit as it was, with its
modes, hooks and flags, and so do the random numbers; the same seed gives the same bits; everything is finite; names,
dtypes and shared tensors are the model's; frozen weights do not move. Fresh adapters give the bits of the model with
its weights frozen; adapters act, are gone bit for bit when switched off, and give the same outputs when merged. A merge
of a model with itself is itself. Of a compiled model the results are those of the plain one. A number points to a
refusal below: a `ValueError` or `TypeError` that names the argument, raised before the first gradient step. ✗ is
anything else.

The cells are in `tests/matrix/cells.py`, the networks in `tests/matrix/networks.py`. This page is written by
`python tests/matrix/table.py`, and a test holds it against the code.
"""


def column(name: str) -> Outcomes:
    """Return the outcomes of one network; in refusals its class is "Model", and the rest of a long list is left out."""
    kind = type(case_of(name).model).__name__

    def told(why: str) -> str:
        why = re.sub(r"\d{9,}", "...", re.sub(rf"\b{kind}\b", "Model", why))
        return why if len(why) <= LONGEST else why[:LONGEST].rpartition(" ")[0] + " ..."

    found = {(row, name): outcome(row, name) for row in ROWS}
    return {key: Outcome(one.kind, told(one.why)) for key, one in found.items()}


def render(outcomes: Outcomes) -> str:
    """Return the page."""
    groups: dict[str, list[str]] = {}
    for name, network in NETWORKS.items():
        groups.setdefault(network.group, []).append(name)
    ordered = [outcomes[row, name] for names in groups.values() for row in ROWS for name in names]
    notes = list(dict.fromkeys(one.why for one in ordered if one.why))
    counts = Counter(one.kind for one in ordered)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in ("right", "refused", "wrong"))
    parts = [HEAD, f"**{len(outcomes)} cells: {told}.**\n"]
    for group, names in groups.items():
        parts += [f"## {group}\n", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for row in ROWS:
            parts.append(f"| `{row}` | {' | '.join(_cell(outcomes[row, name], notes) for name in names)} |")
        parts.append("")
    parts.append("## Refusals\n")
    parts += [f"{place}. `{note}`" for place, note in enumerate(notes, start=1)]
    return "\n".join(parts) + "\n"


def _cell(one: Outcome, notes: list[str]) -> str:
    sign = {"right": "✓", "refused": "", "wrong": "✗ "}[one.kind]
    return sign + (str(notes.index(one.why) + 1) if one.why else "")


def read(page: str) -> Outcomes:
    """Return the outcomes that a page shows."""
    notes = dict(re.findall(r"^(\d+)\. `(.*)`$", page, re.MULTILINE))
    outcomes, names = {}, []
    for line in page.splitlines():
        if line.startswith("| |"):
            names = [name.strip() for name in line.split("|")[2:-1]]
        elif line.startswith("| `"):
            row, *signs = [part.strip() for part in line.split("|")[1:-1]]
            for name, sign in zip(names, signs, strict=True):
                kind = "right" if sign == "✓" else "wrong" if sign.startswith("✗") else "refused"
                outcomes[row.strip("`"), name] = Outcome(kind, notes.get(sign.removeprefix("✗ "), ""))
    return outcomes


if __name__ == "__main__":
    PAGE.write_text(render({key: one for name in NETWORKS for key, one in column(name).items()}), encoding="utf-8")
