"""SSD and its label-free form against a loop over single samples."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import lfssd, ssd
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.engine import train
from unlearn_kit.metrics import accuracy


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.arange(count) % 4)


def setting():
    data = images(40, 0)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def of_each_sample(model, dataset, loss):
    """Gradients of every sample, one ordinary backward pass each."""
    rows = []
    for x, y in zip(*load_tensors(dataset), strict=True):
        model.zero_grad()
        loss(model(x[None]), y[None]).backward()
        rows.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad()
    return [torch.stack(column) for column in zip(*rows, strict=True)]


def dampened(model, task, loss, power, alpha, factor):
    own, kept = (of_each_sample(model, data, loss) for data in (task.forget, task.retain))
    edited = []
    for p, f, r in zip(model.parameters(), own, kept, strict=True):
        i_f, i_d = f.abs().pow(power).mean(0), torch.cat([f, r]).abs().pow(power).mean(0)
        edited.append(torch.where(i_f > alpha * i_d, p * torch.clamp(factor * i_d / i_f, max=1), p).detach())
    return edited


@pytest.mark.parametrize(("alpha", "factor"), [(1.5, 1.0), (1.2, 0.5), (0.5, 2.0)])
def test_ssd_dampens_what_a_loop_over_samples_finds(alpha, factor):
    task, model = setting()
    found = ssd(model, task, alpha=alpha, dampening=factor, samples=None)
    expected = dampened(model, task, F.cross_entropy, 2, alpha, factor)
    assert 0 < found.details["changed"] < 1
    for a, b in zip(found.model.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_lfssd_dampens_what_a_loop_over_squared_output_norms_finds():
    task, model = setting()
    found = lfssd(model, task, alpha=1.1, samples=None).model
    expected = dampened(model, task, lambda z, _: z.square().sum(), 1, 1.1, 1.0)
    assert any(not torch.equal(a, b) for a, b in zip(expected, model.parameters(), strict=True))
    for a, b in zip(found.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_lfssd_uses_no_labels():
    task, model = setting()
    x, y = load_tensors(task.forget)
    unlabelled = UnlearnTask(TensorImages(x, 0 * y + 3), task.retain, task.forget_test, task.retain_test, 4)
    own, other = (lfssd(model, of, alpha=1.1).model for of in (task, unlabelled))
    assert any(not torch.equal(a, b) for a, b in zip(own.parameters(), model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(("method", "times"), [(ssd, 5), (lfssd, 9)])
def test_what_is_selected_matters_so_many_times_more_and_is_halved_until_the_class_is_forgotten(method, times):
    task, model = setting()
    share = len(task.forget) / 40
    for doublings in (0, 1, 5):
        found = method(model, task, doublings=doublings)
        alpha, strength = found.details["alpha"], found.details["strength"]
        wanted = times / strength
        assert (strength == 1) if doublings == 0 else (strength >= 1 / 8)
        # I_F = wanted I_R sits exactly at the threshold.
        assert alpha * (share * wanted + (1 - share)) == pytest.approx(wanted)
        assert alpha < 1 / share
    assert method(model, task).details == method(model, task, doublings=5).details
    unlabelled = replace(task, forget_validation=())
    assert method(model, unlabelled).details == method(model, task, doublings=0).details


def test_neither_too_much_nor_too_little_is_selected_where_validation_data_tell():
    """Of a network that is certain of its samples: the mildest of six multiples that forgets, and no other."""
    source = torch.Generator().manual_seed(1)
    y = torch.arange(400) % 10
    data = TensorImages(torch.randn(400, 10, generator=source) + 4 * F.one_hot(y, 10), y)
    torch.manual_seed(0)
    model = train(nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 10)), data, epochs=20, batch_size=40).model
    task, share = UnlearnTask.forget_class(data, data, 1), 1 / 10
    left = {}
    for strength in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4):
        multiple = 5 / strength
        edited = ssd(model, task, alpha=multiple / (1 - share + multiple * share)).model
        left[strength] = max(accuracy(edited, part) for part in (task.forget, task.forget_validation))
    assert left[1 / 8] > 0.05 >= left[1]  # the mildest, and the one without this search
    assert ssd(model, task).details["strength"] == min(k for k, value in left.items() if value <= 0.05)


def test_an_alpha_beyond_the_inverse_share_selects_nothing():
    task, model = setting()
    with pytest.warns(UserWarning, match="changed no weight"):
        result = ssd(model, task, alpha=4.001, samples=None)
    assert result.details["changed"] == 0
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), model.parameters(), strict=True))


def test_ssd_measures_masks_pixel_by_pixel():
    source = torch.Generator().manual_seed(3)
    x = torch.rand(12, 1, 6, 6, generator=source)
    data = TensorImages(x, (x > 0.5).float())
    task = UnlearnTask.forget_samples(data, data, [0, 1, 2])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 1))
    found = ssd(model, task, alpha=1.2, samples=None)
    expected = dampened(model, task, F.binary_cross_entropy_with_logits, 2, 1.2, 1.0)
    assert found.details["changed"] > 0
    for a, b in zip(found.model.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_ssd_refuses_bad_options():
    task, model = setting()
    with pytest.raises(ValueError, match=r"expected alpha in \[0, inf\), but got -1"):
        ssd(model, task, alpha=-1)
    with pytest.raises(ValueError, match=r"expected dampening in \[0, inf\), but got -0.5"):
        ssd(model, task, dampening=-0.5)
    with pytest.raises(ValueError, match="expected samples to be at least 1, but got 0"):
        lfssd(model, task, samples=0)
