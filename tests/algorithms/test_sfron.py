from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms.sfron import adaptive_cross_entropy, saliency, sfron
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.engine import Callback, Run
from unlearn_kit.schedules import constant

SOURCE = torch.Generator().manual_seed(0)
DATA = TensorImages(torch.rand(30, 6, generator=SOURCE), torch.arange(30) % 3)


@pytest.fixture
def task() -> UnlearnTask:
    return UnlearnTask.forget_class(DATA, DATA, 0)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def fisher(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    totals = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(len(x)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient**2 / len(x)
    return totals


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_salient_weights_are_where_a_loop_over_samples_says(
    model: nn.Module, task: UnlearnTask, threshold: float
) -> None:
    masks = saliency(model, task, threshold=threshold, samples=None, seed=0)
    of_forget = fisher(model, *load_tensors(task.forget))
    of_retain = fisher(model, *load_tensors(task.retain))
    for mask, f, r in zip(masks.values(), of_forget, of_retain, strict=True):
        assert torch.equal(mask, f / r >= threshold)
    assert 0 < sum(int(m.sum()) for m in masks.values()) < sum(m.numel() for m in masks.values())


def test_the_adaptive_loss_weighs_by_the_power_of_each_loss() -> None:
    logits = torch.randn(5, 4, generator=SOURCE, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 3, 0])
    term = adaptive_cross_entropy(on="forget", adaptivity=0.7)
    value = term.value(logits, L.Goal("labels", labels), nn.Identity())
    own = F.cross_entropy(logits, labels, reduction="none")
    weights = own.detach() ** -0.7
    expected = (weights * 5 / weights.sum() * own).mean()
    torch.testing.assert_close(value, expected)
    found, wanted = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (value, expected))
    torch.testing.assert_close(found, wanted)


def test_a_loss_that_rounds_to_zero_has_a_finite_weight() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 1.0]])
    goal = L.Goal("labels", torch.tensor([0, 0]))
    assert adaptive_cross_entropy(on="forget").value(logits, goal, nn.Identity()).isfinite()


def test_a_round_is_a_masked_ascent_and_then_steps_down(model: nn.Module, task: UnlearnTask) -> None:
    result = sfron(
        model, task, steps=2, forget_every=2, forget_weight=0.5, adaptivity=0.0, lr=constant(0.1), weight_decay=0.0,
        clip=None, batch_size=30, fisher_samples=None,
    )  # fmt: skip
    own = copy.deepcopy(model)
    masks = saliency(model, task, threshold=1.0, samples=None, seed=0)
    sgd = torch.optim.SGD(own.parameters(), lr=0.1, momentum=0.9)
    (xf, yf), (xr, yr) = load_tensors(task.forget), load_tensors(task.retain)
    for step in range(3):
        sgd.zero_grad()
        loss = -0.5 * F.cross_entropy(own(xf), yf) if step == 0 else F.cross_entropy(own(xr), yr)
        loss.backward()
        if step == 0:
            for name, p in own.named_parameters():
                p.grad *= masks[name]
        sgd.step()
    for p, q in zip(result.model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    salient = torch.cat([m.flatten() for m in masks.values()]).float().mean()
    assert result.details["salient"] == pytest.approx(float(salient))


def test_steps_are_rounded_up_to_whole_rounds(model: nn.Module, task: UnlearnTask) -> None:
    seen: list[str] = []

    class Names(Callback):
        def on_step(self, run: Run) -> None:
            seen.append(run.phase)

    sfron(model, task, steps=4, forget_every=3, callbacks=[Names()])
    assert seen == ["ascend", "mend", "mend", "mend"] * 2
    seen.clear()
    sfron(model, task, epochs=1, forget_every=1, batch_size=10, callbacks=[Names()])
    assert seen == ["ascend", "mend"] * 2


def test_the_result_is_the_average_over_rounds(model: nn.Module, task: UnlearnTask) -> None:
    rounds: list[torch.Tensor] = []

    class Weights(Callback):
        def on_step(self, run: Run) -> None:
            if run.done % 3 == 0:
                rounds.append(run.model[0].weight.detach().clone())

    found = sfron(model, task, steps=6, forget_every=2, slow=0.75, callbacks=[Weights()]).model
    average = rounds[0]
    for weights in rounds[1:]:
        average = 0.75 * average + 0.25 * weights
    assert len(rounds) == 3
    torch.testing.assert_close(found[0].weight.detach(), average)


def test_masks_and_single_logits_work() -> None:
    torch.manual_seed(0)
    masks = TensorImages(torch.rand(6, 1, 4, 4), (torch.rand(6, 1, 4, 4) > 0.5).float())
    network = nn.Conv2d(1, 1, 3, padding=1)
    result = sfron(network, UnlearnTask.forget_samples(masks, masks, [0, 1]), steps=5)
    assert not torch.equal(result.model.weight, network.weight)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("forget_every", 0),
        ("threshold", -1.0),
        ("adaptivity", -0.5),
        ("slow", 1.0),
        ("fisher_samples", 0),
        ("steps", 0),
    ],
)
def test_options_out_of_range_are_refused(model: nn.Module, task: UnlearnTask, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"expected {option} "):
        sfron(model, task, **{option: value})  # type: ignore[arg-type]
