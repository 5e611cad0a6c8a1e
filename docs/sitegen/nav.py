"""What stands where in the site: one list of pages a section."""

from __future__ import annotations

from collections.abc import Sequence

SECTIONS = {
    "Start": ("start", "which-method"),
    "How to": (
        "deployed-models",
        "how-to/what-to-forget",
        "evidence",
        "ledger",
        "how-to/reversible",
        "composition",
        "forgetting-samples",
        "how-to/own-network",
        "how-to/own-loss",
        "how-to/own-metric",
        "add-an-algorithm",
        "how-to/watch",
        "how-to/many-devices",
        "how-to/suites",
        "how-to/export",
    ),
    "Concepts": ("concepts", "evaluation", "proofs", "limits", "published-code", "glossary"),
    "Results": ("results", "suites/README", "foreign-models", "hostile-inputs"),
    "Reference": ("reference/methods", "reference/python", "reference/suites", "reference/command", "data"),
    "Project": ("contributing", "changelog"),
}
# A page that no section names needs no line here: what studies wrote is a result, and all else a guide.
STUDIES, RESULTS, GUIDES = "measured/", "Results", "How to"
REST = (RESULTS, GUIDES)


def toctrees(pages: Sequence[str], nested: Sequence[str]) -> str:
    """Return the tables of contents of the first page, in MyST.

    Args:
        pages: Every page by its path without ``.md``.
        nested: Those that another page's table of contents names.

    Raises:
        ValueError: When a section names a page that is not there.
    """
    named = [page for section in SECTIONS.values() for page in section]
    gone = sorted(set(named) - set(pages))
    if gone:
        raise ValueError(f"expected every page of SECTIONS to be there, but these are not: {gone}")
    others = sorted(set(pages) - {*named, *nested, "index"})
    rest = {section: [page for page in others if (section == RESULTS) == page.startswith(STUDIES)] for section in REST}
    blocks = []
    for caption, section in SECTIONS.items():
        listed = "\n".join((*section, *rest.get(caption, ())))
        blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n")
    return "\n".join(blocks)
