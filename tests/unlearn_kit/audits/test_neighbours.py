"""The classes beside a forgotten one: AUCs of scikit-learn, and a head that was edited alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import neighbour_leakage
from unlearn_kit.seeding import derive


class Sharing(nn.Module):
    """A network that shares out images among four classes: logits of a pixel's noise, and of its own means."""

    def __init__(self, means: list[float], seed: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.tensor(means))
        self.mixing = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.means + x.flatten(1) @ self.mixing


@pytest.fixture
def task() -> UnlearnTask:
    x = torch.randn(160, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(x, torch.arange(160) % 4)
    return UnlearnTask.forget_class(data, data, 0, validation=TensorDataset(x[:4], torch.arange(4)))


NEAR, FAR = [0.0, 3.0, 1.0, -3.0], [0.0, -3.0, 1.0, 3.0]


def test_the_figure_is_the_auc_of_a_classifier_on_the_neighbours(task: UnlearnTask) -> None:
    one, other = Sharing(NEAR, 1), Sharing(NEAR, 2)
    report = neighbour_leakage(one, task, [other], neighbours=2, seed=5)
    assert report is not None
    assert (report.neighbours, report.judged_on) == ((1, 2), 40)
    assert (report.floor, report.floor_highest) == (None, None)
    x = torch.stack([x for x, _ in task.forget])
    tables = []
    for model in (one, other):
        z = model(x).detach().double().numpy()
        p = np.exp(z[:, 1:]) / np.exp(z[:, 1:]).sum(1, keepdims=True)
        tables.append(np.log(p[:, :2]) - np.log(1 - p[:, :2]))
    halves = np.random.default_rng(derive(5, "neighbours", "halves")).permutation(40) % 2
    aucs = []
    for fit in (0, 1):
        rows = np.concatenate([t[halves == fit] for t in tables])
        scale = StandardScaler().fit(rows)
        svc = SVC(C=3).fit(scale.transform(rows), [1] * 20 + [0] * 20)
        judged = scale.transform(np.concatenate([t[halves != fit] for t in tables]))
        aucs.append(roc_auc_score([1] * 20 + [0] * 20, svc.decision_function(judged)))
    assert report.auc == pytest.approx(np.mean(aucs))


def test_images_sent_elsewhere_are_told_and_a_further_reference_is_not(task: UnlearnTask) -> None:
    references = [Sharing(NEAR, seed) for seed in (1, 2)]
    references[1].mixing.data = references[0].mixing.data + 0.01
    further, moved = copy.deepcopy(references[0]), Sharing(FAR, 1)
    with torch.no_grad():
        further.mixing.sub_(0.01)
    alike, apart = (neighbour_leakage(model, task, references) for model in (further, moved))
    assert alike is not None
    assert apart is not None
    assert apart.auc > 0.95
    assert apart.floor == alike.floor == alike.floor_highest
    assert alike.auc < 0.65
    assert alike.auc < apart.auc - 0.3


def test_the_row_of_the_class_in_the_head_counts_for_nothing(task: UnlearnTask) -> None:
    original, reference = Sharing([8.0, *FAR[1:]], 3), Sharing(NEAR, 1)
    edited = copy.deepcopy(original)
    with torch.no_grad():
        edited.means[0] = -50.0
    before, after = (neighbour_leakage(model, task, [reference]) for model in (original, edited))
    assert before == after
    assert before is not None
    assert before.auc > 0.9


def test_nothing_to_judge_is_none_and_a_model_is_not_told_from_itself(task: UnlearnTask) -> None:
    model = Sharing(NEAR, 0)
    samples = UnlearnTask(task.forget, task.retain, (), task.retain_test, 4)
    assert neighbour_leakage(model, samples, [Sharing(NEAR, 1)]) is None
    itself = neighbour_leakage(model, task, [model])
    assert itself is not None
    assert itself.auc == 0.5
    with pytest.raises(ValueError, match="at least one model"):
        neighbour_leakage(model, task, [])
