"""Quantile matching and its sibling of the boundary: targets, draws, the test that chooses, the fallback."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from algorithms import erase_to_retain, perturbed_sign, quantile_matching
from algorithms.matching import MATCHING, fitting_shrink, matching_phase
from algorithms.perturbed_sign import matched_boundary
from algorithms.proxy import proxy_predictions
from algorithms.quantile_matching import PROXY_LR
from unlearn_kit import UnlearnTask, adapters, difficulty, models
from unlearn_kit import losses as L
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import train
from unlearn_kit.metrics import loss_auc, predict
from unlearn_kit.schedules import cosine


def images(count: int, seed: int, mislabeled: float = 0.25) -> TensorImages:
    """Three classes, a share of them with labels that only memory can know, seen and unseen alike."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.7 * torch.rand(count, 1, 8, 8, generator=source)
    x[torch.arange(count), 0, 2 * y] += 0.3
    moved = torch.rand(count, generator=source) < mislabeled
    return TensorImages(x, torch.where(moved, (y + 1) % 3, y))


def task_of(train_data: TensorImages, chosen: Tensor | None = None) -> UnlearnTask:
    chosen = torch.arange(0, len(train_data), 5) if chosen is None else chosen
    return UnlearnTask.forget_samples(train_data, images(240, 1), chosen)


@pytest.fixture(scope="module")
def task() -> UnlearnTask:
    return task_of(images(150, 0))


@pytest.fixture(scope="module")
def original(task: UnlearnTask) -> nn.Module:
    return memorised(task.forget.dataset)


def memorised(data: TensorImages) -> nn.Module:
    torch.manual_seed(0)
    return train(models.mlp(3, hidden=(32, 32)), data, epochs=60, batch_size=30, lr=0.2, weight_decay=0.0).model.eval()


def logits_of(model: nn.Module, data: object) -> tuple[np.ndarray, np.ndarray]:
    logits, y = predict(model, data)
    return logits.double().numpy(), y.numpy()


def test_unseen_samples_and_forgotten_ones_are_told_apart_no_better_than_chance(
    task: UnlearnTask, original: nn.Module
) -> None:
    result = quantile_matching(original, task)
    assert result.details["targets"] == "quantiles"
    assert result.details["exchangeable"]
    before, after = (loss_auc(model, task.forget, task.retain_validation) for model in (original, result.model))
    assert before is not None
    assert after is not None
    assert before > 0.6
    # Thirty samples beside sixty: twice the standard error of an AUC is .13.
    assert abs(after - 0.5) < 0.15


def test_samples_are_drawn_by_how_far_they_are_from_their_target(task: UnlearnTask, original: nn.Module) -> None:
    target = difficulty.matched(original, task)
    phase = matching_phase(original, task, target, MATCHING, distill=0.8, temperature=2.0)
    logits, y = logits_of(original, task.forget)
    asked = L.Batch(torch.zeros(len(y), 1, 8, 8), torch.from_numpy(y), torch.arange(len(y)))
    x = torch.stack([task.forget[i][0] for i in range(len(y))])
    q = target(replace(asked, inputs=x)).values.double().numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(q > 0, q * (np.log(q) - log_softmax(logits, axis=1)), 0).sum(1)
    expected = np.sqrt(np.minimum(distance, 3) + 0.05)
    np.testing.assert_allclose(phase.sampling["forget"].numpy(), expected, atol=1e-4)
    kept = torch.stack([task.retain[i][0] for i in range(len(task.retain))])
    labels = torch.tensor([int(task.retain[i][1]) for i in range(len(task.retain))])
    shifted = kept.clone()
    shifted[..., 1:] = kept[..., :-1]
    with torch.no_grad():
        losses = -log_softmax(original(shifted).double().numpy(), axis=1)[np.arange(len(labels)), labels.numpy()]
    expected = np.sqrt(np.minimum(losses, 2) + 0.05)
    np.testing.assert_allclose(phase.sampling["retain"].numpy(), expected, atol=1e-4)
    assert phase.joint
    assert str(phase.objective) == (
        f"cross_entropy(forget -> Table({len(y)} probabilities)) + 0.2 * cross_entropy(retain -> Labels) "
        "+ 0.8 * kl(retain -> Teacher(Sequential), temperature=2)"
    )


@pytest.mark.parametrize(("steps", "expected"), [(1, 0.6), (3, 0.6), (15, 0.75), (75, 0.9), (500, 0.9)])
def test_targets_of_samples_that_are_drawn_often_are_shrunk_less(
    steps: int, expected: float, task: UnlearnTask, original: nn.Module
) -> None:
    training = replace(MATCHING, steps=steps)
    assert len(task.forget) == 30
    # 64 samples a step of 30: 6.4 draws of each after 3 steps, 32 (the geometric middle) after 15, 160 after 75.
    assert fitting_shrink(task, training) == pytest.approx(expected, abs=1e-9)
    if steps == 15:
        assert quantile_matching(original, task, steps=steps).details["shrink"] == pytest.approx(0.75)
        assert quantile_matching(original, task, steps=steps, shrink=0.5).details["shrink"] == 0.5


def test_wrong_labels_are_told_apart_and_get_a_proxy_s_predictions() -> None:
    data = images(150, 0, mislabeled=0.0)
    chosen = torch.arange(0, 150, 5)
    wrong = data.targets.clone()
    wrong[chosen] = (wrong[chosen] + 1) % 3
    task = task_of(TensorImages(data.inputs, wrong), chosen)
    model = memorised(task.forget.dataset)
    result = quantile_matching(model, task, steps=2)
    assert result.details["targets"] == "proxy"
    assert not result.details["exchangeable"]
    assert result.details["p_value"] < 0.01
    # A rate of its own, unless another is asked for.
    weights = [
        quantile_matching(model, task, steps=2, **options).model[-1].weight
        for options in ({}, {"lr": PROXY_LR}, {"lr": cosine(0.02, 0.0)})
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    by_hand = quantile_matching(model, task, steps=2, targets="quantiles")
    assert by_hand.details["targets"] == "quantiles"
    assert not by_hand.details["exchangeable"]
    # Nobody who never saw the wrong labels would give them.
    said = proxy_predictions(model, task).values
    assert (said.argmax(1) != wrong[chosen]).float().mean() > 0.8


def test_a_proxy_is_as_confident_as_the_original_on_validation_data_and_never_sees_the_forget_data(
    task: UnlearnTask, original: nn.Module
) -> None:
    said = proxy_predictions(original, task, seed=1)
    shifted = replace(task, forget=[(x, (y + 1) % 3) for x, y in task.forget])
    assert torch.equal(proxy_predictions(original, shifted, seed=1).values, said.values)
    on_validation = proxy_predictions(original, replace(task, forget=task.retain_validation), seed=1).values
    wanted = softmax(logits_of(original, task.retain_validation)[0], axis=1).max(1).mean()
    # Colder, until it is as sure as the original; never warmer.
    assert on_validation.amax(1).mean().item() == pytest.approx(wanted, abs=2e-3)
    unsure = copy.deepcopy(original)
    with torch.no_grad():
        unsure[-1].weight.zero_()
    assert torch.equal(_plain(unsure, task), proxy_predictions(unsure, task, seed=1).values)


def _plain(model: nn.Module, task: UnlearnTask) -> Tensor:
    """Return the proxy's own probabilities: without validation data nothing is made colder."""
    return proxy_predictions(model, replace(task, retain_validation=()), seed=1).values


def test_a_target_of_one_s_own_is_taken_and_no_other_word(task: UnlearnTask, original: nn.Module) -> None:
    result = quantile_matching(original, task, targets=L.Uniform(3), steps=150)
    assert result.details == {"targets": "given", "exchangeable": None}
    p = softmax(logits_of(result.model, task.forget)[0], axis=1)
    assert p.max(1).mean() < softmax(logits_of(original, task.forget)[0], axis=1).max(1).mean() - 0.2
    with pytest.raises(ValueError, match="expected targets to be"):
        quantile_matching(original, task, targets="quantile")  # type: ignore[arg-type]


def test_validation_data_are_needed_and_unbalanced_classes_are_ranked_within(
    task: UnlearnTask, original: nn.Module
) -> None:
    with pytest.raises(ValueError, match="validation data"):
        quantile_matching(original, replace(task, retain_validation=()))
    data = task.forget.dataset
    rare = [i for i, label in enumerate(data.targets.tolist()) if label or i % 5 == 0]
    uneven = task_of(TensorImages(data.inputs[rare], data.targets[rare]))
    assert quantile_matching(original, uneven, steps=1, max_share=1.0).details["within_class"]
    assert not quantile_matching(original, task, steps=1).details["within_class"]


def test_quantiles_of_a_share_beyond_what_was_measured_are_refused(task: UnlearnTask, original: nn.Module) -> None:
    third = task_of(task.forget.dataset, torch.arange(0, 150, 3))
    told = "expected at most 20% of the training data to be forgotten by quantiles, .* but got 33%: "
    with pytest.raises(ValueError, match=told + "max_share=1 takes"):
        quantile_matching(original, third)
    with pytest.raises(ValueError, match=told + "quantile_matching"):
        perturbed_sign(original, third, preset="samples")
    for options in ({"max_share": 0.34}, {"targets": "proxy"}, {"targets": L.Uniform(3)}):
        quantile_matching(original, third, steps=1, **options)  # type: ignore[arg-type]


def test_the_boundary_ranks_the_samples_and_labels_what_is_left(task: UnlearnTask, original: nn.Module) -> None:
    search = PerturbedSign(radius=0.5)
    target = matched_boundary(original, task, search)
    x = torch.stack([task.forget[i][0] for i in range(len(task.forget))])
    y = torch.tensor([int(task.forget[i][1]) for i in range(len(task.forget))])
    kept = torch.stack([task.retain[i][0] for i in range(len(task.retain))])
    near, others = search.radii(original, x, y), search.radii(original, kept, torch.tensor([b for _, b in task.retain]))
    among = torch.cat([near.radii, others.radii])
    expected = [((among > r).sum() + 0.5 * (among == r).sum()) / len(among) for r in near.radii]
    torch.testing.assert_close(target.percentiles.float(), torch.stack(expected), atol=1e-6, rtol=0)
    q = target(L.Batch(x, y, torch.arange(len(y)))).values
    rest = q.scatter(1, y[:, None], -1).argmax(1)
    assert torch.equal(rest[near.flipped], near.labels[near.flipped])
    result = perturbed_sign(original, task, preset="samples")
    auc = loss_auc(result.model, task.forget, task.retain_validation)
    assert auc is not None
    assert abs(auc - 0.5) < 0.15
    assert not torch.equal(
        perturbed_sign(original, task, labels="matched", steps=2).model[-1].weight, original[-1].weight
    )


@pytest.mark.parametrize(
    "options",
    [{"mix": 0.5}, {"top_k": 2}, {"refresh": "step"}, {"retain_target": L.Uniform(3)}, {"distill_weight": 1.0}],
)
def test_what_means_nothing_with_matched_labels_is_refused(
    options: dict[str, object], task: UnlearnTask, original: nn.Module
) -> None:
    with pytest.raises(ValueError, match=f"expected {next(iter(options))} to be .* with labels='matched'"):
        perturbed_sign(original, task, preset="samples", **options)  # type: ignore[arg-type]


def test_an_adapter_led_to_the_matched_target_can_be_switched_off(task: UnlearnTask, original: nn.Module) -> None:
    target = difficulty.matched(original, task)
    result = erase_to_retain(original, task, erase_to=target, where="all", rounds=10, stop_at="never", restore_epochs=0)
    before, after = (loss_auc(model, task.forget, task.retain_validation) for model in (original, result.model))
    assert before is not None
    assert after is not None
    assert abs(after - 0.5) < abs(before - 0.5)
    x = torch.rand(4, 1, 8, 8)
    with adapters.switched_off(result.model), torch.no_grad():
        assert torch.equal(result.model(x), original(x))
