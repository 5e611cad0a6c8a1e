"""Damping the direction in which a class stands out, layer by layer, in closed form."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import Between, Count, NonNegative
from unlearn_kit.data import in_order
from unlearn_kit.data.sampling import random_subset
from unlearn_kit.engine import FitResult, revision
from unlearn_kit.modules import check_own_weight

LAYERS = (nn.Linear, nn.Conv2d)


@revision(source="arXiv 2604.15166", masks=False)
def damp(
    model: nn.Module,
    task: UnlearnTask,
    *,
    strength: Annotated[float, Between(0, 2)] = 1.0,
    growth: NonNegative = 2.0,
    samples: Count | None = 2048,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Damp in every layer the direction in which the forget data stand out, in one closed-form edit.

    At layer l of n: ``W <- W (I - a_l d d^T)`` with ``a_l = strength (l / n)^growth``. d is the unit residual of the
    mean layer input on the forget data after projection onto the span of the mean inputs of the retain classes, so what
    a layer gives for those means does not change. Of a convolution the input is a patch, averaged over the image.
    Layers are counted in the order in which they run; all means are of the original model. A weight that several layers
    share, or a layer that runs several times, counts and is edited once, where it runs last: d is of the forget data
    there, outside the span of the retain means of all its runs.

    The published rule for ``a_l``, which grows with depth, was not readable: this one is our own.

    Args:
        model: The original; logits ``(B, C)``. Linear and ungrouped 2-d convolution layers that may change are edited.
        task: What to forget and what to keep; classification.
        strength: That of the last layer, in [0, 2]: 1 removes the direction there, 2 reflects it.
        growth: How slowly the strength grows with depth, at least 0.
        samples: How many samples of either data set the means are measured on, drawn once; None for all.
        seed: Of the draw of samples.
        device: Where it runs; None for the model's own.

    Returns:
        The result; its details hold ``strengths``, of each edited layer by name (of a shared weight by its first).

    Raises:
        ValueError: On masks, when no layer sees a direction of the forget data's own, when a weight is shared with
            a layer of another kind, and when an option is out of its range.
        TypeError: When an option is no number.

    Source: arXiv 2604.15166.
    """
    if task.kind != "classification":
        raise ValueError(
            f"expected a classification task for damp, which makes no sense for masks, but got {task.kind}"
        )
    forget, _ = _means(model, random_subset(task.forget, samples, seed=seed), device, by_class=False)
    kept, order = _means(model, random_subset(task.retain, samples, seed=seed), device, by_class=True)
    strengths: dict[str, float] = {}
    for place, name in enumerate(order, start=1):
        direction = own_direction(forget[name][0, -1], kept[name].flatten(0, 1))
        if direction is not None:
            strengths[name] = strength * (place / len(order)) ** growth
            weight = model.get_parameter(f"{name}.weight" if name else "weight")
            with torch.no_grad():
                rows, d = weight.flatten(1), direction.to(weight)
                weight.sub_(strengths[name] * torch.outer(rows @ d, d).view_as(weight))
    if not strengths:
        raise ValueError(
            "expected a layer whose mean input on the forget data is its own, not of the retain classes, but got none"
        )
    return FitResult(model, details={"strengths": strengths})


def own_direction(mean: Tensor, others: Tensor) -> Tensor | None:
    """Return the unit residual ``(D,)`` of ``mean`` outside the span of the rows of ``others (K, D)``, or None."""
    basis = torch.linalg.svd(others, full_matrices=False)
    rank = int((max(1e-6 * float(basis.S.max()), 1e-30) < basis.S).sum())
    span = basis.Vh[:rank]
    residual = mean - span.T @ (span @ mean)
    return residual / residual.norm() if residual.norm() > 1e-4 * mean.norm() else None


def _means(
    model: nn.Module, dataset: Any, device: torch.device | str | None, *, by_class: bool
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the mean inputs ``(K, runs, D)`` (float64) of each weight, for each class or all samples; and their order.

    A weight goes by the name of its first layer; the order is that of their last runs.
    """
    runs: dict[str, list[Tensor]] = {}
    totals: dict[int, dict[str, Tensor]] = {}
    counts: dict[int, int] = {}
    samples = 0  # in the batch

    def note(name: str, module: nn.Module, given: Any) -> None:
        # Taken out and put back: the last in the order is what ran last.
        found = _layer_input(module, given[0])
        if len(found) != samples:
            raise ValueError(
                f"expected layers of model that are given a row for each sample for damp, but {name!r} is given "
                f"{len(found)} for {samples}, as where attention works in windows"
            )
        runs[name] = [*runs.pop(name, []), found]

    hooks = [
        module.register_forward_pre_hook(lambda m, given, name=name: note(name, m, given))
        for module, name in _edited(model)
    ]
    try:
        for x, y in in_order(dataset, 256, device=device):
            runs.clear()
            samples = len(x)
            with torch.no_grad():
                model(x)
            for label in y.unique().tolist() if by_class else [0]:
                rows = y == label if by_class else slice(None)
                sums = {name: torch.stack([run[rows].sum(0) for run in inputs]) for name, inputs in runs.items()}
                counts[label] = counts.get(label, 0) + len(y[rows])
                before = totals.get(label)
                totals[label] = sums if before is None else {name: before[name] + sums[name] for name in sums}
    finally:
        for hook in hooks:
            hook.remove()
    if not totals:
        raise ValueError("expected retain data to measure mean inputs on, but got an empty data set")
    means = {name: torch.stack([totals[k][name] / counts[k] for k in sorted(totals)]) for name in runs}
    return means, list(runs)


def _edited(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return every layer whose weight is edited, and the name of the first layer that holds this weight.

    Raises:
        ValueError: When the weight is also that of a layer of another kind, whose inputs are not measured, or is
            computed.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LAYERS) and module.weight.requires_grad and getattr(module, "groups", 1) == 1
    }
    first: dict[int, str] = {}
    for name, layer in layers.items():
        check_own_weight(name, layer, "damp")
        first.setdefault(id(layer.weight), name)
    for name, module in model.named_modules():
        shared = [first[id(p)] for p in module.parameters(recurse=False) if name not in layers and id(p) in first]
        if shared:
            raise ValueError(
                f"expected weights of linear and ungrouped 2-d convolution layers alone for damp, "
                f"but {shared[0]!r} shares its weight with {name!r} ({type(module).__name__})"
            )
    return [(layer, first[id(layer.weight)]) for layer in layers.values()]


def _layer_input(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what each sample multiplies the layer's weight by, averaged over positions: ``(B, D)`` in float64."""
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), -1, x.shape[-1]).mean(1).double()
    if not isinstance(layer, nn.Conv2d):
        raise TypeError(f"expected a Linear or Conv2d layer, but got {type(layer).__name__}")
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(x, _pads(layer), mode=mode)
    patches = F.unfold(padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride)
    return patches.mean(2).double()


def _pads(layer: nn.Conv2d) -> list[int]:
    """Return how far the image is enlarged to the left, right, top and bottom, in pixels."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    if isinstance(layer.padding, str):  # "same"
        width = [d * (k - 1) for d, k in zip(reversed(layer.dilation), reversed(layer.kernel_size), strict=True)]
        return [side for total in width for side in (total // 2, total - total // 2)]
    return [size for size in reversed(layer.padding) for _ in range(2)]
