"""Margins of many models on one data set, and where they are kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..arguments import checked
from ..checkpoints import load_tensors_file, save_tensors
from ..data.checks import check_dataset
from ..data.tensors import labels_of, load_tensors
from ..errors import CheckpointError
from ..files import make_folder
from ..metrics.predict import class_labels
from ..outputs import check_finite, label_margin
from ..seeding import isolated
from .ensembles import Ensemble

logger = logging.getLogger("unlearn_kit")


def margins(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``z_y - logsumexp of the other logits = log(p_y / (1 - p_y))``: ``(N, S)`` float64, exact when saturated.

    Logits ``(N, S, C)`` of N models and targets ``(S,)``; a single logit ``(N, S, 1)`` decides between two classes.

    Raises:
        ValueError: On logits that are not finite, or targets that do not fit them.
    """
    check_finite("logits", logits)
    if logits.dim() != 3:
        raise ValueError(f"expected logits of shape (models, samples, C), but got {tuple(logits.shape)}")
    return torch.stack([label_margin(one.double(), class_labels(one, targets)) for one in logits])


@checked
def ensemble_margins(ensemble: Ensemble, dataset: Any, **reading: Any) -> Tensor:
    """Return :func:`margins` of an ensemble on a data set, ``(N, S)``; ``(N, 0)`` on an empty one.

    Raises:
        ValueError: As :func:`margins`; where the data set's targets are no class labels.
    """
    check_dataset("dataset", dataset, kind="classification")
    if len(dataset) == 0:
        return torch.empty(len(ensemble), 0, dtype=torch.float64)
    targets = labels_of(dataset)
    if targets is None:
        with isolated(0):
            _, targets = load_tensors(dataset)
    return margins(ensemble.outputs(dataset, **reading), targets.flatten() if targets.dim() == 2 else targets)


@checked
class TensorCache:
    """Named tensors on disk, one safetensors file a key; in memory alone where ``folder`` is None.

    Args:
        folder: made when it does not exist.

    Attributes:
        hits: How often something was found.
        misses: How often it was computed.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else make_folder("folder", folder)
        self.hits, self.misses = 0, 0
        self._held: dict[str, dict[str, Tensor]] = {}

    def path(self, key: str) -> Path | None:
        """Return the file of ``key``, whether it exists or not; None without a folder."""
        return None if self.folder is None else self.folder / f"{key}.safetensors"

    def get(self, key: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors kept under ``key``, a hash of all they depend on.

        Else those that ``compute`` returns, now kept.

        A file that is damaged, or holds another key, is reported in the log, computed again and replaced.
        """
        path = self.path(key)
        found = self._held.get(key) if path is None else self._read(path, key)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        found = compute()
        if path is None:
            self._held[key] = found
        else:
            save_tensors(found, path, {"key": key})
        return found

    def _read(self, path: Path, key: str) -> dict[str, Tensor] | None:
        if not path.exists():
            return None
        try:
            tensors, header = load_tensors_file(path)
        except CheckpointError as error:
            logger.warning("%s; it is computed again", error)
            return None
        if header.get("key") != key:
            logger.warning("%r holds other content than its name says; it is computed again", str(path))
            return None
        return tensors
