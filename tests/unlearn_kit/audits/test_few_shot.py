"""What a few forgotten samples bring back: by hand, and on a head that was edited alone."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import few_shot_recovery
from unlearn_kit.data.tensors import load_tensors


def blobs(count: int, seed: int, spread: float = 0.7) -> TensorDataset:
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return TensorDataset(2 * nn.functional.one_hot(y, 3) + spread * torch.randn(count, 3, generator=source), y)


@pytest.fixture
def task() -> UnlearnTask:
    return UnlearnTask.forget_class(blobs(600, 0), blobs(300, 1), 2)


def headed() -> nn.Sequential:
    """A network whose features are its input, and whose head is right."""
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 3))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(3))
        model[1].bias.zero_()
    return model


def test_all_samples_of_a_class_give_the_discriminant_of_scikit_learn(task: UnlearnTask) -> None:
    every = len(task.forget)
    report = few_shot_recovery(headed(), task, shots=[every], draws=1)
    (x, y), (unseen, labels) = load_tensors(blobs(600, 0)), load_tensors(task.forget_test)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[1 / 3] * 3).fit(x.numpy(), y.numpy())
    wanted = (oracle.predict(unseen.numpy()) == labels.numpy()).mean()
    # The oracle's covariance has the third class in it, which these blobs make no different.
    assert report is not None
    assert report.features[every] == pytest.approx(wanted, abs=0.03)
    assert report.judged_on == len(labels)


def test_a_head_that_was_edited_alone_hides_nothing_of_the_features(task: UnlearnTask) -> None:
    original, edited = headed(), headed()
    with torch.no_grad():
        edited[1].bias[2] = -50.0
        edited[1].weight[2] = 0.0
    before, after = few_shot_recovery(original, task), few_shot_recovery(edited, task)
    assert before is not None
    assert after is not None
    assert after.features == before.features
    assert after.margin < before.margin - 40
    assert set(after.features) == {1, 5}
    assert after.features[5] > after.features[1] > 0.3


def test_the_head_s_row_becomes_the_mean_feature(task: UnlearnTask) -> None:
    edited = headed()
    with torch.no_grad():
        edited[1].bias[2] = -50.0
    every = len(task.forget)
    report = few_shot_recovery(edited, task, shots=[every], draws=1)
    x, _ = load_tensors(task.forget)
    unseen, labels = load_tensors(task.forget_test)
    row = x.double().mean(0)
    head = np.stack([[1, 0, 0], [0, 1, 0], (row / row.norm()).numpy()])
    wanted = ((unseen.double().numpy() @ head.T).argmax(1) == labels.numpy()).mean()
    assert report is not None
    assert report.head == {every: pytest.approx(wanted)}
    own = unseen @ torch.eye(3) + torch.tensor([0.0, 0.0, -50.0])
    assert report.margin == pytest.approx(float((own[:, 2] - own[:, :2].amax(1)).mean()), rel=1e-5)


def test_features_that_never_vary_are_no_obstacle(task: UnlearnTask) -> None:
    wide = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        wide[0].weight.zero_()
        wide[0].bias.fill_(1.0)
    report = few_shot_recovery(wide, task)
    assert report is not None
    assert all(math.isfinite(value) for value in report.features.values())


def test_the_reference_is_scored_on_the_same_samples(task: UnlearnTask) -> None:
    model = headed()
    state = copy.deepcopy(model.state_dict())
    report = few_shot_recovery(model, task, headed(), seed=3)
    assert report is not None
    assert report.reference is not None
    assert report.features == report.reference.features
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    again = few_shot_recovery(model, task, report.reference, seed=3)
    assert again == report


def test_what_has_no_class_to_bring_back(task: UnlearnTask) -> None:
    samples = UnlearnTask.forget_samples(blobs(60, 0), blobs(60, 1), [1, 2])
    with pytest.raises(ValueError, match="expected task to forget whole classes"):
        few_shot_recovery(headed(), samples)
    with pytest.raises(ValueError, match="expected shots to hold at least one"):
        few_shot_recovery(headed(), task, shots=[])
    assert few_shot_recovery(headed(), task, shots=[10_000]) is None
