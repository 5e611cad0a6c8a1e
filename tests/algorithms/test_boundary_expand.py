from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from algorithms.boundary_expand import boundary_expand, widen
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.engine import Callback, Run
from unlearn_kit.models import declare_head, mlp, resnet, with_normalization


def data(*, channels: int = 1, size: int = 4, count: int = 12) -> TensorImages:
    source = torch.Generator().manual_seed(0)
    return TensorImages(torch.rand(count, channels, size, size, generator=source), torch.arange(count) % 3)


def task(**options: int) -> UnlearnTask:
    return UnlearnTask.forget_class(data(**options), data(**options), 0)


def test_one_step_is_that_of_a_network_with_a_class_more() -> None:
    model = mlp(3, input_shape=(1, 4, 4), hidden=(5,))
    torch.manual_seed(3)
    wide = copy.deepcopy(model)
    given = task()

    class Start(Callback):
        def on_start(self, run: Run) -> None:
            wide[-1] = copy.deepcopy(run.model[-1])

    found = boundary_expand(
        model, given, steps=1, lr=0.1, clip=None, retain_weight=2.0, batch_size=20, callbacks=[Start()]
    ).model
    assert wide[-1].weight.shape == (4, 5)
    torch.testing.assert_close(wide[-1].weight[:3], model[-1].weight)
    x, y = given.forget.dataset.inputs, given.forget.dataset.targets
    own = nn.functional.cross_entropy(wide(x[y == 0]), torch.full((4,), 3))
    loss = own + 2 * nn.functional.cross_entropy(wide(x[y > 0]), y[y > 0])
    loss.backward()
    for (name, p), q in zip(wide.named_parameters(), found.parameters(), strict=True):
        expected = p.detach() - 0.1 * p.grad
        torch.testing.assert_close(q.detach(), expected[:3] if "head" in name else expected, msg=name)


@pytest.mark.parametrize("kind", ["wrapped", "resnet", "convolution", "no bias"])
def test_the_declared_head_has_its_old_form_again(kind: str) -> None:
    if kind == "resnet":
        model: nn.Module = resnet(18, 3, 1)
    elif kind == "wrapped":
        model = with_normalization(declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "1"), 0.4, 0.2)
    elif kind == "no bias":
        model = declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False)), "1")
    else:
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        model = declare_head(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 1), *pool), "1")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = boundary_expand(model, task(), steps=1).model
    assert str(found) == str(model)
    assert {n: v.shape for n, v in found.state_dict().items()} == {n: v.shape for n, v in before.items()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_frozen_head_stays_frozen() -> None:
    model = mlp(3, input_shape=(1, 4, 4), hidden=(5,))
    model[-1].requires_grad_(False)
    found = boundary_expand(model, task(), steps=2).model
    assert not found[-1].weight.requires_grad
    assert torch.equal(found[-1].weight, model[-1].weight)


def test_the_new_row_is_drawn_as_torch_draws_a_layer() -> None:
    head = nn.Linear(400, 2)
    old = head.weight.detach().clone()
    widen(head)
    new = head.weight[2].detach()
    assert head.out_features == 3
    assert torch.equal(head.weight[:2], old)
    assert new.abs().max() <= 1 / 20
    assert new.std() == pytest.approx(1 / 20 / 3**0.5, rel=0.15)


def test_without_the_retain_data_they_are_not_read() -> None:
    given = task()

    class Unread:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> None:
            raise RuntimeError("read")

    blind = UnlearnTask(given.forget, Unread(), given.forget_test, given.retain_test, 3)
    boundary_expand(mlp(3, input_shape=(1, 4, 4)), blind, retain_weight=0, steps=1)


def test_what_cannot_be_widened_is_refused_by_name() -> None:
    deep = declare_head(nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(16, 3))), "1")
    with pytest.raises(ValueError, match=r"expected the head '1' to be an nn.Linear or a 1x1 nn.Conv2d .*Sequential"):
        boundary_expand(deep, task())
    wide = declare_head(nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), "0")
    with pytest.raises(ValueError, match=r"expected the head '0' to be .*, but got Conv2d"):
        boundary_expand(wide, task())
    with pytest.raises(ValueError, match="does not declare which submodule is its head"):
        boundary_expand(nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU()), task())
    single = declare_head(nn.Sequential(nn.Flatten(), nn.Linear(16, 1)), "1")
    halves = TensorImages(data().inputs, torch.arange(12) % 2)
    with pytest.raises(ValueError, match="expected a head with one output a class, but got one output"):
        boundary_expand(single, UnlearnTask.forget_class(halves, halves, 0))
    masks = TensorImages(torch.rand(4, 1, 5, 5), torch.ones(4, 1, 5, 5))
    segmentation = UnlearnTask.forget_samples(masks, masks, [0])
    with pytest.raises(ValueError, match=r"expected a classification task for boundary_expand, .* got segmentation"):
        boundary_expand(nn.Conv2d(1, 1, 1), segmentation)
    with pytest.raises(ValueError, match=r"expected retain_weight in \[0"):
        boundary_expand(mlp(3, input_shape=(1, 4, 4)), task(), retain_weight=-1.0)
