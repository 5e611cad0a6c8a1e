"""Transforms in training: drawn for each sample by itself, the same for teacher and student, masks along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from algorithms import finetune
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data import TensorImages
from unlearn_kit.data.augmented import Augmented
from unlearn_kit.engine import Phase, fit
from unlearn_kit.models import build
from unlearn_kit.outputs import predicted_labels

FLIP = v2.RandomHorizontalFlip(0.5)


def images(count: int, seed: int = 0) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 4, 6, generator=source), torch.arange(count) % 3)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(24, 3))


@dataclass(frozen=True)
class Seen:
    """A target that keeps the inputs it is asked about, and those that the student is."""

    teacher: nn.Module
    kept: ClassVar[list[tuple[Tensor, Tensor]]] = []
    gives: ClassVar[tuple[str, ...]] = ("logits",)

    def __call__(self, batch: L.Batch) -> L.Goal:
        assert batch.indices is not None
        self.kept.append((batch.indices, batch.inputs.clone()))
        return L.Teacher(self.teacher)(batch)


def test_each_sample_is_changed_by_itself_and_teacher_and_student_see_the_same() -> None:
    data = images(24)
    asked: list[Tensor] = []
    model = linear()
    model.register_forward_pre_hook(lambda _, given: asked.append(given[0].clone()))
    Seen.kept.clear()
    program = Phase(L.mse(on="train", to=Seen(linear())), {"train": data}, epochs=2, batch_size=8, augment=FLIP)
    fit(model, program)
    flipped: dict[int, list[bool]] = {}
    for (indices, x), student in zip(Seen.kept, asked[-len(Seen.kept) :], strict=True):
        assert torch.equal(x, student)
        for index, one in zip(indices.tolist(), x, strict=True):
            original = data.inputs[index]
            flipped.setdefault(index, []).append(not torch.equal(one, original))
            assert torch.equal(one, original) or torch.equal(one, original.flip(-1))
    assert all(len(both) == 2 for both in flipped.values())
    # Of 48 fair coins; and some sample's two passes differ.
    assert 10 < sum(map(sum, flipped.values())) < 38
    assert any(one != other for one, other in flipped.values())


def test_workers_change_no_bit_and_the_caller_s_random_state_stays() -> None:
    task = UnlearnTask.forget_class(images(30), images(12, 1), 0)
    state = torch.get_rng_state()
    made = [
        finetune(linear(), task, steps=3, batch_size=7, augment=FLIP, workers=workers).model.state_dict()
        for workers in (0, 1)
    ]
    assert all(torch.equal(value, made[1][name]) for name, value in made[0].items())
    plain = finetune(linear(), task, steps=3, batch_size=7).model.state_dict()
    assert not torch.equal(plain["1.weight"], made[0]["1.weight"])
    assert torch.equal(state, torch.get_rng_state())


def test_masks_move_with_their_images() -> None:
    masks = torch.zeros(12, 1, 8, 8)
    masks[:, :, :, :3] = 1
    data = Augmented(TensorImages(masks.clone(), masks), v2.RandomHorizontalFlip(1.0))
    x, y = data[0]
    assert type(x) is type(y) is Tensor
    assert torch.equal(x, masks[0].flip(-1))
    assert torch.equal(x, y)
    model = build("unet", 2, seed=0, channels=1, widths=(2, 4), decoder_widths=(4, 2))
    program = Phase(L.bce(on="train"), {"train": data.dataset}, steps=2, batch_size=4, augment=v2.RandomRotation(20))
    assert fit(model, program).history


def test_cached_targets_are_those_of_the_sample_as_it_is() -> None:
    data, teacher = images(9), linear()
    said = predicted_labels(teacher(data.inputs).detach())

    @dataclass(frozen=True)
    class Told:
        gives: ClassVar[tuple[str, ...]] = ("labels",)

        def __call__(self, batch: L.Batch) -> L.Goal:
            assert torch.equal(batch.inputs, data.inputs[batch.indices])
            return L.Goal("labels", said[batch.indices])

    objective = L.cross_entropy(on="train", to=L.Cached(Told()))
    fit(linear(), Phase(objective, {"train": data}, steps=2, batch_size=4, augment=v2.RandomHorizontalFlip(1.0)))


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (int, r"expected augment to take what has shape \(1, 4, 6\), but it raised"),
        ("flip", "expected augment to be a function, but got str"),
        (lambda _: None, "expected augment to return a Tensor, but got NoneType"),
        (
            lambda x: (255 * x).byte(),
            "expected the images of what augment makes of stream 'train' to be floating point",
        ),
        (lambda x: x / 0, "expected every input of what augment makes of stream 'train' to be finite"),
    ],
)
def test_what_is_no_transform_is_refused_before_the_first_step(augment: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit(linear(), Phase(L.cross_entropy(on="train"), {"train": images(6)}, steps=1, augment=augment))
    pairs = TensorImages(torch.rand(4, 1, 8, 8), torch.zeros(4, 1, 8, 8))
    with pytest.raises(TypeError, match="expected augment to return an image and its mask, but got Image"):
        Augmented(pairs, lambda *parts: parts[0])[0]
