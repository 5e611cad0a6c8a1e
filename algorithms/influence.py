"""Influence unlearning: one Newton step that takes back what the forget data contributed."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor, nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import Count, NonNegative, Positive, Share
from unlearn_kit.data import in_order, load_tensors
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, revision
from unlearn_kit.gradients import Named, hessian_vector_product, mean_gradients, per_sample_gradients
from unlearn_kit.losses.distances import label_cross_entropy
from unlearn_kit.modules import device_of

from .masks import forget_loss
from .step_length import forget_aim, moved_along, step_length


@revision(source="Jia et al. 2023, arXiv 2304.04934")
def influence(
    model: nn.Module,
    task: UnlearnTask,
    *,
    step: NonNegative | None = None,
    solver: Literal["cg", "woodfisher"] = "cg",
    damping: Positive = 3.0,
    iterations: Count = 10,
    tolerance: Positive = 1e-3,
    samples: Count | None = 512,
    forget_to: Share | None = None,
    retain_drop: Share = 0.05,
    search_samples: Count = 1024,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """``theta + step (H + damping I)^-1 g`` with ``g = |F| / |R|`` times the mean gradient on the forget data.

    H is the Hessian of the mean retain loss. At the minimum of the loss over all data, step 1 is the Newton step toward
    the minimum over the retain data. Published: WoodFisher on 1,000 samples, the step searched over a grid. Here
    conjugate gradients, which need no gradient of a single sample to be held; damping 3 since the Hessian of a
    network is indefinite, and with less the direction changes with the few hundred samples it is measured on.

    Args:
        model: the original; logits ``(B, C, ...)``; float64 where the step is to be exact.
        task: what to forget and what to keep; classes or masks.
        step: length, at least 0; None searches it, between 2^-12 and 2^10: the smallest at which the score (accuracy,
            or mean IoU) on forget samples is at most ``forget_to``, as long as the score on retain samples has not
            fallen by more than ``retain_drop``, else the largest for which it has not.
        solver: "cg" solves by Hessian-vector products, and ends early where the curvature is negative; "woodfisher"
            takes the mean outer product of single samples' gradients for H, whose inverse is exact. That holds
            ``samples`` times the parameters in memory.
        damping: positive.
        iterations, tolerance: of "cg": at most so many products, and the relative residual that ends it sooner.
        samples: retain samples that H is measured on, drawn once; None for all.
        forget_to: default: .02 where a class is forgotten, else the score on validation data like the forget data (as
            the "held-out" stop of ``erase_to_retain``); where there are none, the step is 1.
        retain_drop, search_samples: of the search; samples of either data set it looks at.
        seed, device: of the run.

    The result's details: ``step``, and ``products`` of "cg".

    Raises:
        ValueError: When an argument is out of range, by its name. When no step of the search keeps the retain score.
        TypeError: When an argument is of another type, by its name.

    Source: Jia et al. 2023, arXiv 2304.04934, section 3; WoodFisher: Singh and Alistarh 2020, arXiv 2004.14340.
    """
    if len(task.retain) == 0:
        raise ValueError("expected retain data to measure the Hessian on, but got an empty data set")
    retain = random_subset(task.retain, samples, seed=seed)
    g = mean_gradients(model, in_order(task.forget, 256, device=device), loss=forget_loss(task))
    g = {name: value * (len(task.forget) / len(task.retain)) for name, value in g.items()}
    if solver == "cg":
        direction, details = _newton(model, retain, g, damping, iterations, tolerance)
    else:
        direction, details = _woodfisher(model, retain, g, damping), {}
    if step is None:
        aim = forget_aim(model, task) if forget_to is None else forget_to
        step = 1.0 if aim is None else step_length(model, task, direction, aim, retain_drop, search_samples, seed)
    return FitResult(moved_along(model, direction, step), details={"step": step, **details})


def _newton(
    model: nn.Module, retain: Any, g: Named, damping: float, iterations: int, tolerance: float
) -> tuple[Named, dict[str, float]]:
    """Return ``(H + damping I)^-1 g`` by conjugate gradients; the iterate so far where a direction has no curvature."""
    batches = list(in_order(retain, 256, device=device_of(model)))
    size = sum(value.numel() for value in g.values())
    best, products = np.zeros(size), 0

    class NoCurvatureError(Exception):
        pass

    def product(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        pushed = hessian_vector_product(model, batches, _named(vector, g), loss=label_cross_entropy)
        result = _flat(pushed) + damping * vector
        if vector @ result <= 0:
            raise NoCurvatureError
        return result

    def keep(iterate: np.ndarray) -> None:
        nonlocal best
        best = iterate.copy()

    right = _flat(g)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        best, _ = cg(operator, right, rtol=tolerance, maxiter=iterations, callback=keep)
    except NoCurvatureError:
        best = best if best.any() else right / damping
    return _named(best, g), {"products": products}


def _woodfisher(model: nn.Module, retain: Any, g: Named, damping: float) -> Named:
    """Return ``(damping I + G^T G / N)^-1 g`` for the rows G of N samples' gradients, by the Woodbury identity.

    The published recursion adds one sample at a time; in closed form it is exact and one solve.
    """
    x, y = (part.to(device_of(model)) for part in load_tensors(retain))
    rows = per_sample_gradients(model, x, y, loss=label_cross_entropy)
    G = torch.cat([value.flatten(1) for value in rows.values()], dim=1)
    right = torch.cat([g[name].flatten() for name in rows])
    inner = (G @ G.T).double() + len(G) * damping * torch.eye(len(G), dtype=torch.float64, device=G.device)
    solved = torch.linalg.solve(inner, (G @ right).double())
    return _named((right - G.T @ solved.to(G)) / damping, g)


def _flat(named: Named) -> np.ndarray:
    return np.concatenate([value.flatten().double().cpu().numpy() for value in named.values()])


def _named(vector: np.ndarray | Tensor, like: Named) -> Named:
    """Return a flat vector as tensors like those of ``like``."""
    flat = torch.as_tensor(vector)
    parts = flat.split([value.numel() for value in like.values()])
    return {name: part.view(v.shape).to(v) for part, (name, v) in zip(parts, like.items(), strict=True)}
