"""What an algorithm returns, and many of these as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from .arguments import checked
from .display import counted, html_table, options_text
from .scores import Evaluation

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class UnlearnResult:
    """A revised model and how it came to be.

    Attributes:
        model: the revised model, on the device it was revised on, each module in the mode it was given in.
        history: one record a logged step: phase, step, epoch, total, and the value of each part of the objective.
        seconds: wall time of the whole revision.
        method: name of the algorithm.
        config: its options, as given or by default.
        details: what else a method has to tell (by its own docstring).
    """

    model: nn.Module
    history: list[dict[str, Any]]
    seconds: float
    method: str
    config: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return the method, what it took, where its loss ended, and which details it tells."""
        loss = self._last_loss()
        parts = [f"{self.seconds:.1f} s", counted(len(self.history), "record")]
        parts += [] if loss is None else [f"loss {loss:.4g} at the end"]
        parts += [f"details: {', '.join(self.details)}"] if self.details else []
        return f"<UnlearnResult {self.method} of {type(self.model).__name__}: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Return the same as a table for a notebook, with the options."""
        loss = self._last_loss()
        rows: list[tuple[str, Any]] = [
            ("model", type(self.model).__name__),
            ("seconds", f"{self.seconds:.1f}"),
            ("records", len(self.history)),
            ("loss at the end", "n/a" if loss is None else f"{loss:.4g}"),
            ("options", options_text(self.config) or "none"),
            *self.details.items(),
        ]
        return html_table(f"UnlearnResult of {self.method}", rows)

    def _last_loss(self) -> float | None:
        return next((record["total"] for record in reversed(self.history) if "total" in record), None)

    def to_frame(self) -> pandas.DataFrame:
        """Return the history as a ``pandas.DataFrame``: a row a record, a column a value, absent ones NaN."""
        import pandas

        return pandas.DataFrame(self.history)


@checked
def results_frame(
    results: Sequence[UnlearnResult], evaluations: Sequence[Evaluation | None] | None = None
) -> pandas.DataFrame:
    """Return results as a ``pandas.DataFrame``, one row each.

    Columns are ``method``, ``seconds``, ``config.NAME`` for each option and, with evaluations, ``scores.NAME`` for each
    score of :meth:`~unlearn_kit.scores.Evaluation.to_frame`. What a result has not is NaN.

    Args:
        results: What algorithms returned.
        evaluations: The scores of each result's model, in the same order; None among them where there are none.

    Raises:
        TypeError: When one of them is no result, or no evaluation.
        ValueError: When there is another number of evaluations.
    """
    import pandas

    if evaluations is not None and len(evaluations) != len(results):
        raise ValueError(f"expected one of evaluations a result, {len(results)}, but got {len(evaluations)}")
    scores = [None] * len(results) if evaluations is None else evaluations
    rows = [
        {"method": result.method, "seconds": result.seconds}
        | {f"config.{name}": value for name, value in result.config.items()}
        | {f"scores.{name}": value for name, value in ({} if found is None else found.flat()).items()}
        for result, found in zip(results, scores, strict=True)
    ]
    return pandas.DataFrame(rows)
