"""Difficulty, ranks and the test of exchangeability, against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from scipy.stats import ks_2samp, rankdata
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from unlearn_kit import UnlearnTask, difficulty, models
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.data import TensorImages


def images(count: int, seed: int) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    x = 0.6 * torch.rand(count, 1, 8, 8, generator=source)
    x[torch.arange(count), 0, 2 * y] += 0.3
    return TensorImages(x, y)


@pytest.fixture(scope="module")
def task() -> UnlearnTask:
    return UnlearnTask.forget_random(images(60, 0), images(40, 1), 0.2)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(num_classes=3, channels=1, width=4).eval()


def both(task: UnlearnTask, split: str) -> tuple[Tensor, Tensor]:
    data = getattr(task, split)
    return data.dataset.inputs[data.indices], data.dataset.targets[data.indices]


def test_own_loss_is_the_cross_entropy_of_each_sample(model: nn.Module, task: UnlearnTask) -> None:
    scores = difficulty.own_loss(model, task)
    for found, split in zip(scores, ("forget", "retain", "retain_validation"), strict=True):
        x, y = both(task, split)
        with torch.no_grad():
            logs = log_softmax(model(x).double().numpy(), axis=1)
        np.testing.assert_allclose(found.numpy(), -logs[np.arange(len(y)), y.numpy()], atol=1e-5)


def test_ridge_loss_is_scikit_learn_s_ridge_and_leaves_each_retain_sample_out(
    model: nn.Module, task: UnlearnTask
) -> None:
    scores = difficulty.ridge_loss(model, task, penalty=0.1, sharpness=3.0)
    assert difficulty.early_layer(model) == "block2"
    parts = {}
    for split in ("forget", "retain", "retain_validation"):
        x, y = both(task, split)
        with torch.no_grad():
            maps = model.block2(model.block1(model.normalize(x)))
        parts[split] = (nn.functional.adaptive_avg_pool2d(maps, 2).flatten(1).double().numpy(), y.numpy())
    kept, labels = parts["retain"]
    mean, std = kept.mean(0), np.maximum(kept.std(0, ddof=1), 1e-6)
    with_one = {split: np.c_[(x - mean) / std, np.ones(len(x))] for split, (x, _) in parts.items()}
    onehot = np.eye(3)[labels]

    def losses(fit_on: np.ndarray, wanted: np.ndarray, asked: np.ndarray, own: np.ndarray) -> np.ndarray:
        head = Ridge(alpha=0.1 * len(kept), fit_intercept=False).fit(fit_on, wanted)
        return -log_softmax(3.0 * head.predict(asked), axis=1)[np.arange(len(own)), own]

    expected = losses(with_one["retain"], onehot, with_one["forget"], parts["forget"][1])
    np.testing.assert_allclose(scores.forget.numpy(), expected, atol=1e-4)
    for place in (0, 7, 40):
        others = np.arange(len(kept)) != place
        alone = losses(with_one["retain"][others], onehot[others], with_one["retain"][[place]], labels[[place]])
        assert scores.retain[place].item() == pytest.approx(alone[0], abs=1e-4)


def test_percentiles_are_ranks_among_all_training_samples_and_within_classes() -> None:
    source = torch.Generator().manual_seed(0)
    forget, retain = torch.randint(6, (9,), generator=source).float(), torch.randint(6, (20,), generator=source).float()
    scores = difficulty.Scores(forget, retain, torch.empty(0))
    ranks = rankdata(torch.cat([forget, retain]).numpy())
    np.testing.assert_allclose(difficulty.percentiles(scores).numpy(), (ranks[:9] - 0.5) / 29)
    own, kept = torch.arange(9) % 2, torch.arange(20) % 2
    found = difficulty.percentiles(scores, (own, kept))
    for label in (0, 1):
        ranks = rankdata(torch.cat([forget[own == label], retain[kept == label]]).numpy())
        count = int((own == label).sum())
        np.testing.assert_allclose(found[own == label].numpy(), (ranks[:count] - 0.5) / len(ranks))


def test_mean_rank_adds_the_ranks(model: nn.Module, task: UnlearnTask) -> None:
    found = difficulty.mean_rank(difficulty.own_loss, difficulty.ridge_loss)(model, task)
    parts = [score(model, task) for score in (difficulty.own_loss, difficulty.ridge_loss)]
    ranks = [rankdata(torch.cat([part.forget, part.retain]).numpy()) for part in parts]
    expected = sum((rank - 0.5) / len(rank) for rank in ranks)
    np.testing.assert_allclose(torch.cat([found.forget, found.retain]).numpy(), expected, atol=1e-9)
    with pytest.raises(ValueError, match="at least one score"):
        difficulty.mean_rank()


def test_boundary_radius_ranks_by_how_near_the_boundary_is(model: nn.Module, task: UnlearnTask) -> None:
    search = PerturbedSign(radius=0.4)
    scores = difficulty.boundary_radius(search)(model, task)
    x, y = both(task, "forget")
    torch.testing.assert_close(scores.forget, -search.radii(model, x, y).radii)
    assert len(scores.retain) == len(task.retain)


def test_exchange_is_scipy_s_two_sample_test() -> None:
    source = torch.Generator().manual_seed(0)
    same, other = torch.randn(2, 80, generator=source)
    scores = difficulty.Scores(same, torch.empty(0), other)
    found, expected = difficulty.exchange(scores), ks_2samp(other.numpy(), same.numpy(), alternative="greater")
    assert (found.statistic, found.p_value) == (expected.statistic, expected.pvalue)
    assert found.holds
    assert not difficulty.exchange(scores._replace(forget=same + 1)).holds
    assert difficulty.exchange(scores._replace(forget=same - 1)).holds, "what is remembered is easier"
    with pytest.raises(ValueError, match="expected scores of validation data"):
        difficulty.exchange(scores._replace(validation=torch.empty(0)))


def test_wrong_labels_are_told_from_validation_data_and_right_ones_are_not(model: nn.Module) -> None:
    train, test = images(240, 2), images(160, 3)
    wrong = train.targets.clone()
    chosen = torch.arange(0, 240, 7)
    wrong[chosen] = (wrong[chosen] + 1) % 3
    for labels, holds in ((train.targets, True), (wrong, False)):
        task = UnlearnTask.forget_samples(TensorImages(train.inputs, labels), test, chosen)
        assert difficulty.exchange(difficulty.ridge_loss(model, task)).holds == holds


def test_calibration_reads_validation_data_and_small_classes_take_all(model: nn.Module, task: UnlearnTask) -> None:
    x, y = both(task, "retain_validation")
    with torch.no_grad():
        p = model(x).double().softmax(1).gather(1, y[:, None])[:, 0]
    found = difficulty.calibrate(model, task.retain_validation, within_class=True, least=4)
    np.testing.assert_allclose(found.margins.numpy(), (p / (1 - p)).log().numpy(), atol=1e-5)
    counts = torch.bincount(y)
    assert found.labels is not None
    assert torch.equal(found.labels, torch.where(counts[y] >= 4, y, -1))
    with pytest.raises(ValueError, match="expected validation data"):
        difficulty.calibrate(model, ())


def test_matched_puts_the_pieces_together(model: nn.Module, task: UnlearnTask) -> None:
    target = difficulty.matched(model, task, shrink=0.4)
    scores = difficulty.mean_rank(difficulty.own_loss, difficulty.ridge_loss)(model, task)
    assert torch.equal(target.percentiles, difficulty.percentiles(scores))
    assert target.calibration.labels is None
    assert target.calibration.shrink == 0.4
    within = difficulty.matched(model, task, within_class=True)
    assert within.calibration.labels is not None
    assert "within classes" in repr(within)


def test_balance_of_classes_decides_whether_ranks_are_within_them() -> None:
    assert not difficulty.unbalanced(torch.tensor([0, 0, 1, 2, 2]))
    assert difficulty.unbalanced(torch.tensor([0, 0, 0, 1]))


def test_the_early_layer_of_wrapped_and_other_networks() -> None:
    perceptron = models.mlp(3, hidden=(4, 4, 4, 4, 4))
    assert difficulty.early_layer(perceptron) == "block2"
    convolutions = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(5)), nn.Flatten(), nn.Linear(64, 3))
    assert difficulty.early_layer(models.with_normalization(convolutions, (0.5,), (0.5,))) == "network.1"
    with pytest.raises(ValueError, match="expected layer="):
        difficulty.early_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
