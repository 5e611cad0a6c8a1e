"""What charts have in common: colours and symbols of methods, names of points, traces.

Colours that depend on the page's theme are written as ``@ink``, ``@faint``, ``@grid``, ``@surface`` and ``@accent``;
the page puts them in. A point's ``customdata`` is the identifier of its row or run, see :func:`identifiers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unlearn_kit.plots import PALETTE

from .rows import ReportRow
from .tasks import ReportTask

Figure = dict[str, Any]
SYMBOLS = ("circle", "diamond", "triangle-up", "cross", "triangle-down", "x")
# Who has the first colours: the methods that the toolkit is about, then the others. A new method goes to the end, so
# that no other looks different from then on. By name: what shows results needs none of the methods.
ORDER = (
    "perturbed_sign", "erase_to_retain", "amun", "bad_teacher", "boundary_expand", "boundary_shrink",
    "catastrophic_forget_k", "damp", "delete", "exact_unlearn_k", "finetune", "fisher_forgetting", "influence", "jit",
    "l1_sparse", "lfssd", "masked_small_gradient", "mean_feature_head", "neg_grad", "neg_grad_plus", "random_label",
    "salun", "scrub", "sfron", "ssd", "unsir",
)  # fmt: skip


def looks(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and symbol of each method: the same in every chart of every report, no two alike up to 48."""
    order = [*ORDER, *sorted(set(methods) - set(ORDER))]
    kinds = [(color, symbol) for symbol in SYMBOLS for color in PALETTE]
    return {name: kinds[place % len(kinds)] for place, name in enumerate(order) if name in methods}


def identifiers(task: ReportTask) -> Iterator[tuple[str, ReportRow, int | None]]:
    """Yield ``(identifier, row, None)`` of each row, and ``(identifier, row, place)`` of each of its runs."""
    for number, row in enumerate(task.rows):
        yield f"{task.name}-r{number}", row, None
        for place in range(len(row.runs)):
            yield f"{task.name}-r{number}-{place}", row, place


def trace(mode: str, x: list[Any], y: list[Any], ids: list[Any], said: list[str], **look: Any) -> dict[str, Any]:
    """Return points with their identifiers, and what is said at each."""
    return {
        "type": "scatter", "mode": mode, "x": x, "y": y, "customdata": ids, "hovertext": said, "hoverinfo": "text",
        **look,
    }  # fmt: skip


def pale(color: str, share: float) -> str:
    """Return a colour ``#RRGGBB``, see-through but for a share of it."""
    return f"rgba({int(color[1:3], 16)},{int(color[3:5], 16)},{int(color[5:7], 16)},{share})"
