"""The presets for a class in a hurry, of both seed methods: what moves, and what is minimised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from algorithms import erase_to_retain, perturbed_sign
from unlearn_kit import UnlearnTask, adapters, data, engine, models
from unlearn_kit.boundary import PerturbedSign


@pytest.fixture(scope="module")
def task() -> UnlearnTask:
    digits = data.load("digits", train_size=300)
    return UnlearnTask.forget_class(digits.train, digits.test, 3)


@pytest.fixture(scope="module")
def original(task: UnlearnTask) -> nn.Module:
    digits = data.load("digits", train_size=300)
    network = models.build("small-cnn", 10, channels=1, width=4, seed=0)
    return engine.train(network, digits.train, epochs=10, batch_size=32, lr=0.05).model.eval()


def test_a_class_goes_and_only_the_last_stage_and_the_head_move(task: UnlearnTask, original: nn.Module) -> None:
    result = perturbed_sign(original, task, preset="fast")
    moved = [
        name
        for (name, after), before in zip(result.model.named_parameters(), original.parameters(), strict=True)
        if not after.equal(before)
    ]
    assert moved == models.parameters_of(original, "last:1")
    x = torch.stack([task.forget[i][0] for i in range(len(task.forget))])
    with torch.no_grad():
        assert (original(x).argmax(1) == 3).double().mean() > 0.8
        assert (result.model(x).argmax(1) == 3).double().mean() < 0.1


def test_the_first_loss_is_what_the_formula_says(task: UnlearnTask, original: nn.Module) -> None:
    size = {"forget": len(task.forget), "retain": len(task.retain)}  # whole, so that their order is no matter
    found = perturbed_sign(original, task, preset="fast", steps=1, batch_size=size)
    (x, y), (x_r, y_r) = (
        (torch.stack([part[i][0] for i in range(len(part))]), torch.tensor([part[i][1] for i in range(len(part))]))
        for part in (task.forget, task.retain)
    )
    there = PerturbedSign(radius=0.1, steps=1, closeness=0.0).search(original, x, y)
    with torch.no_grad():
        z, z_r = original(x).double().numpy(), original(x_r).double().numpy()
    others = there.logits.double().numpy().copy()
    kept = there.labels.numpy() == y.numpy()
    others[kept, y[kept].numpy()] = -np.inf
    forget = -log_softmax(z, axis=1)[np.arange(len(y)), others.argmax(1)].mean()
    retain = -log_softmax(z_r, axis=1)[np.arange(len(y_r)), y_r.numpy()].mean()
    taught = z_r / 2
    taught[:, 3] = -np.inf
    q, log_p = softmax(taught, axis=1), log_softmax(z_r / 2, axis=1)
    divergence = 4 * np.where(q > 0, q * (np.log(np.where(q > 0, q, 1)) - log_p), 0).sum(1).mean()
    parts = {name: value for name, value in found.history[0].items() if "(" in name}
    assert [name.split("(")[0] for name in parts] == ["cross_entropy", "cross_entropy", "kl"]
    assert [*parts.values()] == pytest.approx([forget, retain, divergence], rel=1e-4)


def test_adapters_on_the_last_stages_forget_a_class_and_can_be_switched_off(
    task: UnlearnTask, original: nn.Module
) -> None:
    result = erase_to_retain(original, task, preset="fast", batch_size=32, retain_samples=128)
    layers = {name.split(".lora_A")[0].split("base_model.model.")[-1] for name, _ in result.model.named_parameters()
              if ".lora_A." in name}  # fmt: skip
    assert layers == {"block4.0", "block5.0", "head"}
    assert "Without(Teacher" in result.details["objectives"]["erase"]
    assert "OtherClasses" in result.details["objectives"]["erase"]
    assert max(row["step"] for row in result.history) < 16  # 4 passes over 128 samples
    x = torch.stack([task.forget[i][0] for i in range(len(task.forget))])
    with torch.no_grad():
        assert (result.model(x).argmax(1) == 3).double().mean() < 0.1
        with adapters.switched_off(result.model):
            assert torch.equal(result.model(x), original(x))
    lesions = data.load("synthetic-lesions", train_size=4, test_size=4, size=16)
    masks = UnlearnTask.forget_samples(lesions.train, lesions.test, [0])
    with pytest.raises(ValueError, match="expected a classification task with preset='fast', but got segmentation"):
        erase_to_retain(models.build("unet", 2, channels=3, widths=(4, 8), decoder_widths=(8, 4)), masks, preset="fast")
