"""Points just beside the forgotten samples: closed forms of a network of one pixel."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit.audits import residual_knowledge
from unlearn_kit.audits.nearby import Nearby


def threshold(at: float) -> nn.Sequential:
    """A network that says class 1 of a pixel above ``at``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        model[1].bias.copy_(torch.tensor([0.0, -at]))
    return model


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, 1, 1, 1)


@pytest.fixture
def task() -> UnlearnTask:
    # Class 1 at .5; the ends of the range 0 and 1 belong to class 0 and 1.
    train = TensorDataset(pixels(0.0, 0.5, 0.5, 1.0), torch.tensor([0, 1, 1, 1]))
    test = TensorDataset(pixels(0.0, 0.1, 0.9, 0.9), torch.tensor([0, 0, 1, 1]))
    return UnlearnTask.forget_samples(
        train, test, [0, 1, 2, 3], validation=TensorDataset(pixels(0.0), torch.tensor([0]))
    )


def test_the_share_is_the_part_of_the_ball_on_the_right_side(task: UnlearnTask) -> None:
    copies, radius, at = 2_000, 0.1, 0.55
    report = residual_knowledge(threshold(at), task, radius=radius, copies=copies)
    assert report is not None
    # Even on [.4, .6]: a quarter lies above .55. Four standard errors of 2,000 points.
    assert report.per_sample[1] == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / copies) ** 0.5)
    assert report.per_sample[[0, 3]].tolist() == [1.0, 1.0]
    assert report.itself == 0.5
    assert report.forget == pytest.approx(report.per_sample.mean())


def test_a_boundary_just_past_the_samples_is_found_and_one_far_away_is_not(task: UnlearnTask) -> None:
    found = {at: residual_knowledge(threshold(at), task, radius=0.1) for at in (0.55, 0.7)}
    assert found[0.55] is not None
    assert found[0.7] is not None
    assert found[0.55].itself == found[0.7].itself == 0.5
    assert found[0.55].searched == 1.0
    assert found[0.7].searched == 0.5


def test_a_model_stands_beside_the_reference(task: UnlearnTask) -> None:
    near, far = threshold(0.55), threshold(0.7)
    report = residual_knowledge(near, task, far, radius=0.1, copies=200)
    assert report is not None
    assert report.reference is not None
    assert report.ratio == pytest.approx(report.forget / 0.5)
    assert report.above == 0.5  # of the two samples at .5
    again = residual_knowledge(near, task, report.reference, radius=0.1, copies=200)
    assert again is not None
    assert again.above == report.above
    never = residual_knowledge(near, task, radius=0.1)
    assert never is not None
    assert (never.ratio, never.above) == (None, None)


def test_held_out_samples_like_the_forgotten_stand_beside_them(task: UnlearnTask) -> None:
    report = residual_knowledge(threshold(0.55), task, radius=0.1)
    assert report is not None
    assert report.unseen == 1.0
    alone = UnlearnTask(task.forget, task.retain, TensorDataset(pixels(), torch.empty(0, dtype=torch.long)), (), 2)
    nothing = residual_knowledge(threshold(0.55), alone)
    assert nothing is not None
    assert nothing.unseen is None


def test_a_report_of_other_points_is_refused(task: UnlearnTask) -> None:
    report = residual_knowledge(threshold(0.5), task, copies=3)
    with pytest.raises(ValueError, match="expected reference to be a report of 4 samples with 5 points each"):
        residual_knowledge(threshold(0.5), task, report, copies=5)


def test_changes_stay_in_the_ball_and_in_the_range(task: UnlearnTask) -> None:
    near = Nearby(task.forget, 0, radius=0.1, copies=50)
    moved = torch.stack([x for x, _ in (near[i] for i in range(len(near)))]).reshape(4, 50)
    assert (moved - pixels(0.0, 0.5, 0.5, 1.0).reshape(4, 1)).abs().max() <= 0.1 + 1e-6
    assert 0.0 <= float(moved.min()) <= float(moved.max()) <= 1.0
