"""What every loader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..arguments import checked

if TYPE_CHECKING:
    import pandas as pd


@checked
@dataclass(frozen=True)
class DataBundle:
    """A data set ready for a task.

    Attributes:
        name: the name it was loaded by.
        train, test: map-style data sets of ``(input, target)``; inputs are raw pixels ``(C, H, W)`` in [0, 1].
        num_classes: number of classes; for segmentation including the background (2 for a binary mask), for a
            multi-label set the number of findings.
        task: "classification" (targets are class indices) or "segmentation" (targets are masks: float ``(1, H, W)`` in
            {0, 1} when binary, int64 ``(H, W)`` otherwise), or "multilabel" (targets are rows ``(K,)`` of findings: 1,
            0 or ``outputs.IGNORE``).
        class_names: a name for each class, or finding.
        train_metadata, test_metadata: one row a sample, in the order of the data set; None where there is none.
        validation, validation_metadata: the official validation split and its table, to choose by; None where the data
            set has none, and tasks set a share of ``test`` aside.
        notes: what had to be found out about its files, such as the encoding of a table, in words.
    """

    name: str
    train: Any
    test: Any
    num_classes: int
    task: Literal["classification", "segmentation", "multilabel"]
    class_names: tuple[str, ...]
    train_metadata: pd.DataFrame | None = None
    test_metadata: pd.DataFrame | None = None
    validation: Any = None
    validation_metadata: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()
