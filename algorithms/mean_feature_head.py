"""Class-mean features: a head that follows the features, so that forgetting has to happen in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count
from unlearn_kit.data.tensors import in_order, labels_of, subset
from unlearn_kit.engine import Alternate, FitResult, Training, TrainingOptions, revision
from unlearn_kit.heads import head_name, head_parameters
from unlearn_kit.modules import device_of
from unlearn_kit.schedules import cosine
from unlearn_kit.seeding import generator

from .boundary_expand import class_head


@revision(
    Training(steps=50, batch_size={"forget": 64, "retain": 256}, lr=cosine(2e-2, 0.0), clip=1.0),
    without=("trainable",),
    source="Gao et al. 2026, arXiv 2604.08271",
    masks=False,
)
def mean_feature_head(
    model: nn.Module,
    task: UnlearnTask,
    *,
    objective: L.Objective | L.Term | None = None,
    class_samples: Count = 200,
    rounds: Count = 2,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Set the head to the class means of the features each round, then train everything else toward ``objective``.

    Row k of the head becomes ``s (m_k - m) / |m_k - m|``, with m_k the mean feature of the training data of class k
    (forget and retain; without any, the row stays), m the mean of the m_k, and the bias ``-row m``. The paper's scale
    was not readable: here s is the root mean square norm of the original head's rows, so that logits keep their size.

    Published default: a new head each epoch of a long training. Here two heads of 50 steps each: a head that is set
    anew finds the forget class again as long as its features hold together, and it takes as many steps to lead it away.

    Args:
        model: the original; logits ``(B, C)``; its declared head is an ``nn.Linear`` with a bias.
        task: what to forget and what to keep; classification.
        objective: reads "forget", "retain" or both (default: random wrong labels on forget, 3 times CE on retain).
        class_samples: how many samples of each class the means are taken from, at most.
        rounds: how often the head is set.
        **options: How it trains, as in ``engine.Training``.
        seed, device: of the run.

    Raises:
        ValueError: On masks, on a head of another kind, a frozen one or one with a single output for two classes, by
            name. When an argument is out of range, by its name.
        TypeError: When an argument is of another type, by its name.
        DivergenceError: When a loss or a weight is no longer finite.

    Source: Gao et al. 2026, arXiv 2604.08271.
    """
    training = Training(**options)
    head, frozen = class_head(model, task, "mean_feature_head"), head_parameters(model)
    moving = isinstance(head, nn.Linear) and all(
        part is not None and part.requires_grad for part in (head.weight, head.bias)
    )
    if not moving or not isinstance(head, nn.Linear):
        raise ValueError(
            f"expected the head {head_name(model)!r} to be an nn.Linear with a bias that may change for "
            f"mean_feature_head, but got {head}"
        )
    if head.out_features != task.num_classes:
        raise ValueError(
            f"expected the head {head_name(model)!r} to have one output a class, {task.num_classes}, for "
            f"mean_feature_head, but got {head.out_features}"
        )
    if objective is None:
        wrong = L.RandomLabels(task.num_classes, wrong_only=task.num_classes > 2)
        objective = L.cross_entropy(on="forget", to=wrong) + 3.0 * L.cross_entropy(on="retain")
    scale = float(head.weight.detach().square().sum(1).mean().sqrt())
    phase = training.phase(
        objective,
        task,
        name="encoder",
        trainable=lambda name, p: p.requires_grad and name not in frozen,
        before=_setter(task, scale, class_samples, seed),
    )
    program = Alternate([phase], rounds)
    return training.fit(model, program, seed=seed, device=device)


def _setter(task: UnlearnTask, scale: float, count: int, seed: int) -> Callable[[nn.Module], None]:
    """Return what sets the head, always from the same ``count`` samples of each class."""
    both: Any = ConcatDataset([task.forget, task.retain])
    held = labels_of(both)
    labels = torch.cat([y for _, y in in_order(both)]) if held is None else held
    order = torch.randperm(len(labels), generator=generator(seed, "class samples"))
    chosen = torch.cat([order[labels[order] == label][:count] for label in range(task.num_classes)])
    x, y = (torch.cat(parts) for parts in zip(*in_order(subset(both, chosen)), strict=True))

    def set_head(model: nn.Module) -> None:
        weight, bias = mean_head(class_features(model, x, y))
        present = y.unique().to(weight.device)
        head = cast(nn.Linear, model.get_submodule(head_name(model)))
        head.weight[present] = scale * weight
        head.bias[present] = scale * bias

    return set_head


def class_features(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of what the declared head is given, for each class there is: ``(C, D)``."""
    seen: list[Tensor] = []
    hook = model.get_submodule(head_name(model)).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        for x in inputs.split(512):
            model(x.to(device_of(model)))
    finally:
        hook.remove()
    features, labels = torch.cat(seen), labels.to(seen[0].device)
    return torch.stack([features[labels == label].mean(0) for label in labels.unique()])


def mean_head(means: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight ``(C, D)``, rows of norm 1, and bias ``(C,)`` that compare centred features with centred means."""
    centre = means.mean(0)
    weight = nn.functional.normalize(means - centre, dim=1)
    return weight, -weight @ centre
