"""Bad teacher: which data each teacher teaches, by which distance, and that neither moves."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import bad_teacher
from algorithms.bad_teacher import incompetent_teacher
from unlearn_kit import UnlearnTask
from unlearn_kit.data.tensors import TensorImages, load_tensors
from unlearn_kit.modules import cpu_state


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 6, generator=source), torch.arange(count) % 3)


def setting():
    data = images(30, 0)
    torch.manual_seed(0)
    return UnlearnTask.forget_class(data, data, 1), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


class Fixed:
    """Hands out one network, and counts."""

    def __init__(self, network):
        self.network, self.calls = network, 0

    def __call__(self):
        self.calls += 1
        return self.network


def constant(label):
    """A network that names ``label`` whatever it sees."""
    network = nn.Linear(6, 3)
    with torch.no_grad():
        network.weight.mul_(0.01)
        network.bias.copy_(F.one_hot(torch.tensor(label), 3))
    return network


def test_one_step_leads_each_half_to_its_own_teacher():
    task, model = setting()
    bad = constant(2)
    options = {"retain_share": 1.0, "steps": 1, "batch_size": 64, "optimizer": "sgd", "lr": 0.3}
    found = bad_teacher(model, task, build=Fixed(bad), temperature=2.0, **options).model
    (x, _), (xr, _) = load_tensors(task.forget), load_tensors(task.retain)
    own = copy.deepcopy(model)
    with torch.no_grad():
        goals = torch.cat([bad(x), model(xr)])
    log_p = F.log_softmax(own(torch.cat([x, xr])) / 2, 1)
    q = F.softmax(goals / 2, 1)
    loss = 4 * (q * (q.log() - log_p)).sum(1).mean()  # The mean over both data sets, joined: as published.
    loss.backward()
    for a, b in zip(found.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b - 0.3 * b.grad)


def test_neither_teacher_moves():
    task, model = setting()
    bad = constant(0)
    before, bad_before = cpu_state(model), cpu_state(bad)
    found = bad_teacher(model, task, build=Fixed(bad), steps=5, lr=1e-2).model
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(bad_before[name], tensor) for name, tensor in bad.state_dict().items())
    assert not torch.equal(found[0].weight, model[0].weight)


class Counted(TensorImages):
    def __init__(self, inputs, targets):
        super().__init__(inputs, targets)
        self.read = set()

    def batch(self, indices):
        self.read |= set(indices.tolist())
        return super().batch(indices)


def test_only_a_share_of_the_retain_data_is_read():
    task, model = setting()
    retain = Counted(*load_tensors(task.retain))
    task = UnlearnTask(task.forget, retain, task.forget_test, task.retain_test, 3)
    bad_teacher(model, task, retain_share=0.25, steps=8, batch_size=4)
    assert len(retain.read) == 5  # Of 20.


def test_a_teacher_that_knows_the_class_is_drawn_again():
    task, model = setting()
    unlucky = Fixed(constant(1))
    incompetent_teacher(model, task, build=unlucky, seed=0)
    assert unlucky.calls == 20
    lucky = Fixed(constant(0))
    assert incompetent_teacher(model, task, build=lucky, seed=0) is lucky.network
    assert lucky.calls == 1
    x, y = load_tensors(task.forget)
    for seed in range(10):
        drawn = incompetent_teacher(model, task, build=None, seed=seed)
        assert (drawn(x).argmax(1) == y).float().mean() <= 1 / 3
        assert not any(torch.equal(a, b) for a, b in zip(drawn.parameters(), model.parameters(), strict=True))


def test_a_built_teacher_goes_where_the_model_is(monkeypatch):
    task, model = setting()
    there = []
    monkeypatch.setattr(nn.Module, "to", lambda self, device: there.append((self, device)) or self)
    built = constant(0)
    assert incompetent_teacher(model, task, build=Fixed(built), seed=0) is built
    assert (built, next(model.parameters()).device) in there


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_outside_its_range_is_refused(share):
    task, model = setting()
    with pytest.raises(ValueError, match=r"expected retain_share in \(0, 1\], but got"):
        bad_teacher(model, task, retain_share=share)


@pytest.mark.parametrize("channels", [1, 3])
def test_bad_teacher_leads_masks_toward_the_random_network(channels):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 6, 6, generator=source)
    y = (x > 0.5).float() if channels == 1 else (x[:, 0] * 3).long().clamp(max=2)
    data = TensorImages(x, y)
    task = UnlearnTask.forget_samples(data, data, [0, 1], num_classes=max(channels, 2))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 1))
    history = bad_teacher(model, task, steps=40, lr=1e-2).history
    name = next(key for key in history[0] if key.startswith("kl(forget"))
    assert history[-1][name] < history[0][name] / 2
