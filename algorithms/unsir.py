"""UNSIR: images of noise that hurt the forget class most, to impair it; then a repair."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.arguments import Count, CountOrZero, NonNegative
from unlearn_kit.data.tensors import in_order, labels_of, subset
from unlearn_kit.engine import FitResult, Phase, Training, TrainingOptions, revision
from unlearn_kit.errors import check_count, check_number
from unlearn_kit.outputs import label_loss
from unlearn_kit.schedules import NonNegativeSchedule, ScalarOrSchedule
from unlearn_kit.seeding import generator


@revision(
    Training(steps=50, batch_size={"noise": 128, "retain": 256}, lr=3e-3, optimizer="adam", clip=1.0),
    source="Tarun et al. 2021, arXiv 2111.08947",
    masks=False,
)
def unsir(
    model: nn.Module,
    task: UnlearnTask,
    *,
    noise_samples: Count = 256,
    noise_steps: CountOrZero = 25,
    noise_lr: NonNegative = 0.1,
    noise_penalty: NonNegative = 0.1,
    retain_samples: Count = 9000,
    repair_lr: NonNegativeSchedule = 1e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Unpack[TrainingOptions],
) -> FitResult:
    """Impair on noise that maximises the loss of the forget data's labels, beside retain data; repair on retain data.

    Noise: ``max_z CE(f0(z), y) - noise_penalty mean |z - 1/2|^2`` by Adam, images in [0, 1], ``f0`` fixed. Impair:
    ``min CE(f(z) -> y) + CE(f(x_r) -> y_r)``. Repair: ``min CE(f(x_r) -> y_r)``. The forget images are never read.

    Published defaults: an epoch of each phase over 1,000 retain images a class and 20 copies of one batch of noise,
    lr .02 and .01, noise without bounds, batch norm updating. Here 50 steps each at a smaller rate, since Adam at the
    published one undoes the network; images within the range of pixels; in each step noise beside twice as many retain
    images.

    Args:
        model: The original; logits ``(B, C)``; pixels in [0, 1].
        task: What to forget (only its labels are read) and what to keep; classification.
        noise_samples: How many images; they bear the labels of the forget data in turn.
        noise_steps: Steps of the search for them.
        noise_lr: Learning rate of the search.
        noise_penalty: Weight of their squared distance from grey.
        retain_samples: Size of the random subset of the retain data that both phases read.
        repair_lr: Learning rate of the repair; ``lr`` is that of the impairment.
        **options: How it trains, as in ``engine.Training``.
        seed: Of the noise, of the subset and of the order of the samples.
        device: Where it runs; None for the model's own.

    Raises:
        ValueError: On masks, and when an option is out of its range.
        TypeError: When an option is of another type.
        DivergenceError: When training produces a non-finite number.

    Source: Tarun et al. 2021, arXiv 2111.08947.
    """
    training = Training(**options)
    if task.kind != "classification":
        raise ValueError(
            f"expected a classification task for unsir, which makes no sense for masks, but got {task.kind}"
        )
    noise = TensorDataset(
        *noise_images(model, task, noise_samples, steps=noise_steps, lr=noise_lr, penalty=noise_penalty, seed=seed)
    )
    order = torch.randperm(len(task.retain), generator=generator(seed, "retain subset"))
    streams = {"noise": noise, "retain": subset(task.retain, order[:retain_samples])}
    keep = L.cross_entropy(on="retain")
    hurt = L.cross_entropy(on="noise") + keep

    def phase(name: str, objective: L.Objective | L.Term, rate: ScalarOrSchedule | None) -> Phase:
        return training.phase(objective, task, name=name, streams=streams, lr=rate, lead="retain")

    program = [phase("impair", hurt, training.lr), phase("repair", keep, repair_lr)]
    return training.fit(model, program, seed=seed, device=device)


def noise_images(
    model: nn.Module, task: UnlearnTask, count: int, *, steps: int, lr: float, penalty: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return images ``(count, ...)`` in [0, 1] that the model gets most wrong, and the labels ``(count,)`` they bear.

    They have the dtype of the forget images. Only they take gradients; the model, in eval mode, gets none.

    Raises:
        ValueError: When an option is out of its range.
        TypeError: When an option is no number.
    """
    check_count("noise_samples", count)
    check_count("noise_steps", steps, low=0)
    check_number("noise_lr", lr, low=0)
    check_number("noise_penalty", penalty, low=0)
    first, _ = next(in_order(task.forget, 1))
    held = labels_of(task.forget)
    labels = (torch.cat([y for _, y in in_order(task.forget)]) if held is None else held).unique()
    where = next(model.parameters()).device
    y = labels[torch.arange(count) % len(labels)].long().to(where)
    # Drawn in single precision, whatever torch's default is, so that the precision of the images changes no draw.
    start = torch.randn(count, *first.shape[1:], generator=generator(seed, "noise"), dtype=torch.float32) / 2 + 0.5
    z = start.clamp_(0, 1).to(where, first.dtype).requires_grad_(True)
    adam = torch.optim.Adam([z], lr=lr)
    for _ in range(steps):
        gain = label_loss(model(z), y).mean() - penalty * (z - 0.5).square().flatten(1).sum(1).mean()
        (z.grad,) = torch.autograd.grad(-gain, z)
        adam.step()
        with torch.no_grad():
            z.clamp_(0, 1)
    return z.detach().cpu(), y.cpu()
