"""Where a whole class was forgotten: what its images still look like among the classes that remain."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..arguments import checked
from ..seeding import standardized
from ..tasks import check_task
from .membership import FEATURES, MembershipReport, membership_inference
from .predict import Reading, map_batches
from .reference import agreement, js_divergences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..tasks import UnlearnTask


@dataclass(frozen=True)
class ClassLeakage:
    """What :func:`class_leakage` found, of the predictions among the remaining classes.

    Attributes:
        membership: the attack, of the class's training images against its held-out ones; None without the latter.
        reference: the same attack on the reference: the ideal.
        js: mean Jensen-Shannon divergence to the reference on the class's training images, in nats, [0, log 2];
            ideal: between two references.
        agreement: share of those images for which both put the same remaining class first; ideal: between two
            references.
    """

    membership: MembershipReport | None
    reference: MembershipReport | None
    js: float
    agreement: float


@checked
@standardized
def class_leakage(
    model: nn.Module,
    task: UnlearnTask,
    reference: nn.Module,
    *,
    features: str | Sequence[str] = tuple(FEATURES),
    attack: str = "logistic",
    limit: int = 10_000,
    seed: int = 0,
    **reading: Unpack[Reading],
) -> ClassLeakage | None:
    """Return membership of a forgotten class's images, seen through the classes that remain.

    A model that never predicts a class gives each image of it a loss that says nothing. What it can still tell is in
    how it shares those images out among the other classes. So the forgotten classes' logits are left out, which
    renormalises the others' probabilities, and the label of every image is the remaining class that the reference puts
    first.
    On these outputs :func:`membership_inference` compares training with held-out images of the forgotten class; and the
    outputs themselves are compared with the reference's.

    Args:
        model: the model to audit; untouched.
        task: a task that forgets whole classes.
        reference: the retrained model.
        features, attack, limit, seed: as in :func:`membership_inference`.
        **reading: see :class:`.predict.Reading`.

    Returns:
        A report, or None where no whole class is forgotten, fewer than two remain, or the targets are masks.

    Raises:
        ValueError: On unknown features or attacks, on models with other numbers of classes, or a single logit.
    """
    check_task(task)
    remaining = [label for label in range(task.num_classes) if label not in task.forget_classes]
    if task.kind != "classification" or not task.forget_classes or len(remaining) < 2 or len(task.forget) == 0:
        return None

    def restricted(logits: Tensor, other: Tensor, _targets: Tensor) -> tuple[Tensor, Tensor]:
        for name, z in (("model", logits), ("reference", other)):
            if z.shape[1:] != (task.num_classes,):
                raise ValueError(
                    f"expected {name} to give logits (B, {task.num_classes}), but got {tuple(z.shape)}; what a method "
                    "appended must be dropped"
                )
        return logits[:, remaining], other[:, remaining]

    empty = torch.empty(0, len(remaining))
    outputs: dict[str, tuple[Tensor, ...]] = {
        split: map_batches([model, reference], getattr(task, split), restricted, **reading) or (empty, empty)
        for split in ("forget", "retain", "forget_test", "retain_test")
    }

    def attacked(side: int) -> MembershipReport | None:
        if len(outputs["forget_test"][0]) == 0:
            return None
        # The attack is given outputs in place of images, and a model that passes them on.
        seen: Any = SimpleNamespace(
            **{split: TensorDataset(both[side], both[1].argmax(dim=1)) for split, both in outputs.items()}
        )
        return membership_inference(
            nn.Identity(), cast("UnlearnTask", seen), features=features, attack=attack, limit=limit, seed=seed
        )

    mine, theirs = outputs["forget"]
    return ClassLeakage(
        membership=attacked(0),
        reference=attacked(1),
        js=float(js_divergences(mine, theirs).mean()),
        agreement=float(agreement(mine, theirs).mean()),
    )
