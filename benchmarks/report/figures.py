"""The charts of a task as plotly figures: plain dictionaries, so that nothing heavy is imported to write them."""

from __future__ import annotations

from typing import Any

from ..analysis.tradeoff_files import PAIRS
from .classes import heat
from .learning import learning
from .looks import Figure
from .scatter import WORDS, scatter
from .tasks import ReportTask

PLACES = {
    "forget": "the training data to forget", "retain": "the training data to keep",
    "forget_test": "held-out data like the forgotten", "retain_test": "held-out data like the kept",
    "test": "all held-out data",
}  # fmt: skip


def figures(task: ReportTask) -> dict[str, list[dict[str, Any]]]:
    """Return the charts of a task, each as views ``{"name", "figure"}`` to choose from, but for those without data."""
    score = task.score
    pairs = [("forget_test", "retain_test"), *PAIRS] if task.held_out else list(PAIRS)
    found = {
        "tradeoff": [
            _view(f"{WORDS[x]} and {WORDS[y]}", scatter(task, x, y, (_title(x, score), _title(y, score))))
            for x, y in pairs
        ],
        "cost": [
            _view(
                "seconds and gap",
                scatter(task, "seconds", "average_gap", ("seconds (log scale)", "gap to the reference"), cost=True),
            )
        ],
        "classes": [_view("score", heat(task)), _view("difference to the reference", heat(task, change=True))],
        "learning": [_view("learning curves", learning(task))],
    }
    kept = {name: [view for view in views if view["figure"] is not None] for name, views in found.items()}
    return {name: views for name, views in kept.items() if views}


def _title(name: str, score: str) -> str:
    return "membership AUC of the forgotten data" if name == "membership" else f"{score} on {PLACES[name]}"


def _view(name: str, figure: Figure | None) -> dict[str, Any]:
    return {"name": name, "figure": figure}
