"""The influence step against dense algebra, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import finetune, influence
from algorithms.stopping import stop_level
from unlearn_kit import UnlearnTask
from unlearn_kit.data import labels_of
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.metrics import accuracy, per_class_accuracy

DAMPING = 1e-3


def logistic(features=5, classes=3):
    torch.manual_seed(1)
    return nn.Linear(features, classes).double()


def overlapping(count=120):
    """Three classes that no line separates, so that their logistic regression has a minimum."""
    source = torch.Generator().manual_seed(0)
    x = torch.rand(count, 5, generator=source).double()
    noise = torch.randn(count, 3, generator=source).double()
    return TensorImages(x, (x[:, :3] * 2 + noise).argmax(1))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def mean_loss(vector, x, y):
    return F.cross_entropy(x @ vector[:15].view(3, 5).T + vector[15:], y)


def newton_minimum(vector, x, y, ridge=0.0):
    for _ in range(50):
        hessian = torch.autograd.functional.hessian(lambda v: mean_loss(v, x, y), vector) + ridge * torch.eye(18)
        gradient = torch.autograd.functional.jacobian(lambda v: mean_loss(v, x, y), vector)
        vector = vector - torch.linalg.lstsq(hessian, gradient[:, None], driver="gelsd").solution[:, 0]
    return vector


def load(model, vector):
    with torch.no_grad():
        model.weight.copy_(vector[:15].view(3, 5))
        model.bias.copy_(vector[15:])
    return model


def setting():
    data = overlapping()
    return UnlearnTask.forget_samples(data, data, range(12)), logistic()


def test_the_step_is_the_dense_newton_step():
    task, model = setting()
    (fx, fy), (rx, ry) = load_tensors(task.forget), load_tensors(task.retain)
    start = flat(model)
    hessian = torch.autograd.functional.hessian(lambda v: mean_loss(v, rx, ry), start)
    gradient = torch.autograd.functional.jacobian(lambda v: mean_loss(v, fx, fy), start) * (12 / 108)
    expected = start + 0.7 * torch.linalg.solve(hessian + DAMPING * torch.eye(18).double(), gradient)
    found = influence(model, task, step=0.7, damping=DAMPING, iterations=500, tolerance=1e-12, samples=None)
    assert found.model.weight.dtype == torch.float64
    torch.testing.assert_close(flat(found.model), expected, rtol=0, atol=1e-6)
    assert 0 < found.details["products"] <= 60


def test_at_the_minimum_of_all_data_step_one_leads_to_the_minimum_of_the_retain_data():
    task, model = setting()
    everything = load_tensors(overlapping())
    rx, ry = load_tensors(task.retain)
    original = newton_minimum(flat(model), *everything)
    exact = newton_minimum(original, rx, ry)
    options = {"damping": 1e-9, "iterations": 500, "tolerance": 1e-10, "samples": None}
    found = influence(load(model, original), task, step=1.0, **options).model
    losses = [mean_loss(v, rx, ry).item() for v in (original, flat(found), exact)]
    assert losses[0] - losses[2] > 20 * (losses[1] - losses[2])
    assert losses[1] >= losses[2]


def test_woodfisher_inverts_the_mean_outer_product_of_single_gradients():
    task, model = setting()
    (fx, fy), (rx, ry) = load_tensors(task.forget), load_tensors(task.retain)

    def gradient(x, y):
        return torch.autograd.functional.jacobian(lambda v: mean_loss(v, x, y), flat(model))

    inverse = torch.eye(18).double() / DAMPING
    for x, y in zip(rx, ry, strict=True):  # The published recursion, one sample at a time.
        g = gradient(x[None], y[None])
        pushed = inverse @ g
        inverse = inverse - torch.outer(pushed, pushed) / (len(rx) + g @ pushed)
    expected = flat(model) + 0.3 * inverse @ gradient(fx, fy) * (12 / 108)
    found = influence(model, task, step=0.3, solver="woodfisher", damping=DAMPING, samples=None).model
    torch.testing.assert_close(flat(found), expected, rtol=0, atol=1e-6)


def test_negative_curvature_ends_the_iterations_at_a_finite_step():
    torch.manual_seed(0)
    data = TensorImages(torch.rand(40, 4), torch.arange(40) % 3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    task = UnlearnTask.forget_samples(data, data, range(6))
    found = influence(model, task, step=1.0, damping=1e-8, iterations=50)
    assert found.details["products"] < 50
    assert torch.isfinite(flat(found.model)).all()
    assert not torch.equal(flat(found.model), flat(model))


def test_the_searched_step_forgets_a_class_and_keeps_the_others():
    source = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    x = F.one_hot(y, 3).double() + 0.2 * torch.rand(90, 3, generator=source).double()
    data = TensorImages(x, y)
    task = UnlearnTask.forget_class(data, data, 0)
    model = nn.Linear(3, 3).double()
    with torch.no_grad():
        model.weight.copy_(4 * torch.eye(3))
        model.bias.zero_()
    found = influence(model, task, damping=0.1)
    assert accuracy(model, task.forget) == 1
    assert accuracy(found.model, task.forget) <= 0.02
    assert accuracy(found.model, task.retain) >= 0.95
    shorter = influence(model, task, damping=0.1, step=0.9 * found.details["step"]).model
    assert accuracy(shorter, task.forget) > 0.02  # The smallest step that forgets.


def test_an_attribute_aims_at_unseen_data_that_share_it():
    data = overlapping()
    table = {"site": torch.arange(120).numpy() % 4}
    task = UnlearnTask.forget_where(data, data, table, table, lambda t: t["site"] == 0)
    model = finetune(logistic(), UnlearnTask(task.retain, task.forget, task.retain, task.retain, 3), steps=30).model
    level = stop_level(model, task, "held-out")
    # Classes weigh as they do among the forget data.
    known, labels = per_class_accuracy(model, task.forget_validation), labels_of(task.forget).tolist()
    assert level == pytest.approx(sum(known[label] for label in labels) / len(labels))
    assert influence(model, task).details == influence(model, task, forget_to=level).details


def test_without_held_out_data_the_step_is_one():
    data = overlapping()
    none = TensorImages(torch.rand(0, 5), torch.arange(0))
    task = UnlearnTask.forget_samples(data, none, range(30))
    assert influence(logistic(), task).details["step"] == 1.0


def test_influence_refuses_bad_options():
    task, model = setting()
    with pytest.raises(ValueError, match=r"expected solver to be one of \['cg', 'woodfisher'\], but got 'cgs'"):
        influence(model, task, solver="cgs")
    with pytest.raises(ValueError, match=r"expected damping in \(0, inf\), but got 0"):
        influence(model, task, damping=0)
    with pytest.raises(ValueError, match=r"expected step in \[0, inf\), but got -1"):
        influence(model, task, step=-1)
    with pytest.raises(ValueError, match="expected iterations to be at least 1, but got 0"):
        influence(model, task, iterations=0)
    nothing = UnlearnTask(task.forget, TensorImages(torch.rand(0, 5), torch.arange(0)), task.forget, task.retain, 3)
    with pytest.raises(ValueError, match="expected retain data to measure the Hessian on, but got an empty data set"):
        influence(model, nothing)
