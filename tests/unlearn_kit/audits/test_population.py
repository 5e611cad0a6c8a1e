"""Membership against a population: by loops over pairs, and on what networks know by heart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import ConcatDataset, TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import reference_membership
from unlearn_kit.audits.population import _parts


class Table(nn.Module):
    """A network whose answers are looked up: the first pixel says where."""

    def __init__(self, seed: int, rows: int = 80, sure_of: int = 0) -> None:
        super().__init__()
        logits = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
        logits[:sure_of, 1] += 6 * (torch.arange(sure_of) % 2) - 3
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits[x.flatten(1)[:, 0].round().long()]


def data(first: int, count: int) -> TensorDataset:
    places = torch.arange(first, first + count)
    return TensorDataset(places.float().reshape(-1, 1, 1, 1), places % 2)


@pytest.fixture
def task() -> UnlearnTask:
    # Samples 0..19 are forgotten; 40..59 are held out like them, 60..79 like the kept.
    return UnlearnTask(data(0, 20), data(20, 20), data(40, 20), data(60, 20), 2)


def ratios(model: Table, references: list[Table], a: float) -> list[float]:
    """How much likelier the model makes each of the 80 labels than it would be on average, one by one."""
    every = torch.arange(80)
    p = [torch.softmax(one.logits.double(), 1)[every, every % 2].tolist() for one in (model, *references)]
    return [p[0][i] / (0.5 * ((1 + a) * sum(q[i] for q in p[1:]) / len(references) + (1 - a))) for i in range(80)]


@pytest.mark.parametrize(("a", "gamma"), [(0.3, 1.0), (0.0, 1.2), (0.9, 2.0)])
def test_scores_are_those_of_the_pairs_one_by_one(task: UnlearnTask, a: float, gamma: float) -> None:
    model, references = Table(0, sure_of=20), [Table(seed) for seed in (1, 2, 3, 4)]
    report = reference_membership(model, task, references, offline_a=a, gamma=gamma, seed=3)
    assert report is not None
    ratio = ratios(model, references, a)
    assert (report.held_out, report.population, report.references) == (10, 30, 4)
    # Which of the held-out samples are population is the audit's draw; its parts are read back from their own pixels.
    _, compared, population = _parts(task, 3) or pytest.fail("no parts")
    places = [[int(x) for x, _ in part] for part in (compared, population)]
    score = lambda i: np.mean([ratio[i] >= gamma * ratio[z] for z in places[1]])  # noqa: E731
    mine, theirs = [score(i) for i in range(20)], [score(i) for i in places[0]]
    assert report.per_sample.tolist() == pytest.approx(mine)
    assert report.auc == pytest.approx(roc_auc_score([1] * 20 + [0] * 10, mine + theirs))
    assert isinstance(population, ConcatDataset)


def test_what_is_known_by_heart_is_found_and_a_further_reference_is_not(task: UnlearnTask) -> None:
    references = [Table(seed) for seed in (1, 2, 3, 4)]
    original, further = Table(0, sure_of=20), Table(9)
    found = reference_membership(original, task, references)
    other = reference_membership(further, task, references, original=original)
    assert found is not None
    assert other is not None
    assert found.auc is not None
    assert other.auc is not None
    assert found.auc > 0.85
    assert other.auc == pytest.approx(0.5, abs=0.25)  # 20 against 10: three standard errors are about .35
    assert other.attack_auc == found.auc
    assert found.attack_auc is None


def test_population_and_held_out_samples_are_apart_where_no_held_out_data_are_named() -> None:
    task = UnlearnTask(data(0, 20), data(20, 20), (), data(40, 40), 2)
    report = reference_membership(Table(0), task, [Table(1)])
    assert report is not None
    assert report.population == 20
    assert 0 < report.held_out <= 20
    assert reference_membership(Table(0), UnlearnTask(data(0, 2), data(2, 2), (), (), 2), [Table(1)]) is None


def test_a_model_is_no_reference_of_itself(task: UnlearnTask) -> None:
    model = Table(0)
    with pytest.raises(ValueError, match="expected a model that is none of the references"):
        reference_membership(model, task, [Table(1), model])
    with pytest.raises(ValueError, match="expected references to hold at least one model, but got none"):
        reference_membership(model, task, [])
