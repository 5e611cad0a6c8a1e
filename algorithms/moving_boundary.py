"""The boundary of the model in training, with gradients through where it is: the bilevel problem's hypergradient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from unlearn_kit import losses as L
from unlearn_kit.boundary import smoothed_search
from unlearn_kit.losses import distances
from unlearn_kit.modules import frozen_copy
from unlearn_kit.outputs import is_binary, predicted_labels, probabilities


def moving_boundary(boundary: L.Boundary, mode: Literal["unrolled", "implicit"], solved: list[Tensor]) -> L.Term:
    """Return CE toward the original's soft labels where the model in training changes its mind.

    Each step adds to ``solved`` which of its samples have a hypergradient ``(B,)``; its backward pass settles it.
    """
    original, mix = frozen_copy(boundary.model), boundary.mix

    @L.term(reduction="forward")
    def cross_entropy(forward: Callable[[Tensor], Tensor], batch: L.Batch) -> Tensor:
        x, y = batch.inputs, batch.targets
        found = smoothed_search(boundary.search, forward, x, y, mode=mode, tolerance=1e-3, iterations=20, strict=False)
        solved.append(found.converged)
        logits = original(found.inputs)
        if boundary.uncrossed == "runner-up":
            logits = _runner_up(logits, y)
        wanted = probabilities(logits)
        if mix < 1:
            with torch.no_grad():
                here = probabilities(original(x))
            wanted = mix * wanted + (1 - mix) * here
        return distances.cross_entropy(forward(x), L.Goal("probabilities", wanted))

    return cross_entropy(on="forget", name=f"cross_entropy(forget -> {boundary}, {mode})")


def _runner_up(logits: Tensor, own: Tensor) -> Tensor:
    """Return logits with the class ``own`` taken out where it is the predicted one (a single logit changes sign)."""
    kept = (predicted_labels(logits) == own.long()).unsqueeze(1)
    if is_binary(logits):
        return torch.where(kept, -logits, logits)
    others = logits.scatter(1, own.unsqueeze(1), torch.finfo(logits.dtype).min)
    return torch.where(kept, others, logits)


def share_solved(solved: Sequence[Tensor]) -> float:
    """Return the share of samples, over all steps, that had their hypergradient; warn (UserWarning) when none had."""
    share = float(torch.cat(list(solved)).double().mean())
    if share == 0:
        warnings.warn(
            "the implicit hypergradient was solved for no sample, so that all labels were taken as constant, as with "
            "hypergradient='none'; a search with more closeness or noise makes it easier",
            stacklevel=4,
        )
    return share
