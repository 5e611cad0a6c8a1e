"""Doubling: at which strength it ends, what it looks at, and what comes of attempts that do not forget."""

import math

import pytest
import torch
from torch import nn

import algorithms
from algorithms import masked_small_gradient
from algorithms.doubling import doubled, recognised, times
from unlearn_kit import DivergenceError, UnlearnTask
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import FitResult, StopWhen, facts_of, train
from unlearn_kit.schedules import cosine, rate_at

CLASSES = 3


class Answers(nn.Module):
    """Recognises the first ``shares[y]`` of the samples of class y, which tell their place and label as pixels."""

    def __init__(self, shares):
        super().__init__()
        self.shares = torch.tensor(shares)

    def forward(self, x):
        place, label = x[:, 0], x[:, 1].long()
        said = torch.where(place < self.shares[label], label, (label + 1) % CLASSES)
        return 10.0 * nn.functional.one_hot(said, CLASSES)


def samples(count=12):
    label = torch.arange(CLASSES).repeat_interleave(count)
    place = (torch.arange(count) / count).repeat(CLASSES)
    return TensorImages(torch.stack([place, label.float()], dim=1), label)


def of_class(**options):
    return UnlearnTask.forget_class(samples(), samples(), 0, validation=samples(), **options)


def attempts(forget, retain, **told):
    """What a method makes of each strength: shares of the forgotten and of the kept classes that it recognises."""
    made = []

    def make(strength):
        made.append(strength)
        known, kept = forget[len(made) - 1], retain[len(made) - 1]
        return FitResult(Answers([known, kept, kept]), **told)

    return make, made


@pytest.mark.parametrize(
    ("forget", "retain", "made", "chosen"),
    [
        ([0.0], [1.0], [1], 1),
        ([0.2, 0.16], [0.5, 0.5], [1, 2], 2),  # three of 12, then two, which are 1 / (2 C)
        ([1.0, 0.5, 0.0], [1.0, 1.0, 0.9], [1, 2, 4], 4),
        ([1.0, 0.2, 0.0], [1.0, 1.0, 0.3], [1, 2, 4], 2),  # the last cost more than it forgot
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.5], [1, 2, 4, 8], 1),  # none does anything: the mildest
        ([0.3, 0.5, 0.9, 0.3], [1.0, 1.0, 1.0, 1.0], [1, 2, 4, 8], 1),
    ],
)
def test_the_first_strength_that_forgets_is_taken_unless_it_costs_more(forget, retain, made, chosen):
    for start in (1, 1 / 8):
        make, seen = attempts(forget, retain)
        found = doubled(make, of_class(), 3, start=start)
        assert seen == [start * strength for strength in made]
        assert found.details["strength"] == start * chosen


def test_forget_samples_count_as_validation_data_do():
    """Of validation data nothing is left at once; of the samples to forget a quarter, until they double."""
    few = TensorImages(torch.tensor([[0.5, 0.0], [0.1, 1.0], [0.1, 2.0]]), torch.arange(CLASSES))
    task = UnlearnTask.forget_class(samples(), samples(), 0, validation=few)
    make, seen = attempts([0.3, 0.1], [1.0, 1.0])
    assert doubled(make, task, 3).details["strength"] == 2
    assert seen == [1, 2]


def test_one_attempt_where_nothing_says_what_forgotten_is():
    some = UnlearnTask.forget_class(samples(), samples(), 0, fraction=0.5, validation=samples())
    unseen = UnlearnTask.forget_class(
        samples(), samples(), 0, validation=TensorImages(torch.rand(0, 2), torch.zeros(0, dtype=torch.int64))
    )
    for task, doublings in ((some, 3), (unseen, 3), (of_class(), 0)):
        make, seen = attempts([1.0] * 4, [1.0] * 4)
        assert doubled(make, task, doublings, start=1 / 4).details == {"strength": 1}
        assert seen == [1]
    make, seen = attempts([1.0] * 4, [1.0] * 4, stopped="as its caller wished")
    doubled(make, of_class(), 3)
    assert seen == [1]


def test_a_stronger_attempt_that_diverges_leaves_the_weaker_ones_and_a_first_one_is_raised():
    def make(strength, fails):
        if strength >= fails:
            raise DivergenceError("unlearn", 3, "the loss", {})
        return FitResult(Answers([1.0 / strength, 1.0, 1.0]))

    assert doubled(lambda k: make(k, 4), of_class(), 3).details["strength"] == 2
    with pytest.raises(DivergenceError, match="unlearn"):
        doubled(lambda k: make(k, 1), of_class(), 3)


def test_a_rate_times_a_factor_keeps_its_shape():
    falling = cosine(0.3, 0.0)
    assert times(1, falling) is falling
    assert times(2, None) is None
    for lr in (0.3, falling, lambda progress: 0.3 * (1 - progress)):
        for step in range(4):
            assert rate_at(times(2, lr), step, 4) == pytest.approx(2 * rate_at(lr, step, 4))


@pytest.fixture(scope="module")
def setting():
    """A network that knows a class of noisy samples by heart, which a short ascent does not leave."""
    source = torch.Generator().manual_seed(0)
    y = torch.arange(90) % CLASSES
    data = TensorImages(torch.randn(90, 6, generator=source) + 2 * nn.functional.one_hot(y, 6), y)
    torch.manual_seed(0)
    network = train(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES)), data, epochs=20, lr=0.5).model
    return network, UnlearnTask.forget_class(data, data, 1)


# What makes each method stop short, and whether it goes on by the norm of its gradients or by its rate alone.
SHORT = {
    "scrub": ({}, "clip"),
    "neg_grad": ({"steps": 20, "lr": 0.05}, "clip"),
    "hamu": ({"steps": 20, "lr": 0.1}, "clip"),
    "neg_grad_plus": ({"steps": 8, "lr": 0.02}, "lr"),
    "lotus": ({"epochs": 10, "lr": 0.02}, "lr"),
}


@pytest.mark.parametrize("name", sorted(SHORT))
def test_methods_that_stop_short_of_forgetting_go_on_more_strongly(name, setting):
    network, task = setting
    method, (options, by) = getattr(algorithms, name), SHORT[name]
    # hamu begins at an eighth.
    once, more = (method(network, task, doublings=n, **options) for n in (0, 6 if name == "hamu" else 3))
    before, after = (recognised(found.model, task) for found in (once, more))
    assert once.details["strength"] == 1
    assert before > 1 / CLASSES
    strength = more.details["strength"]
    assert strength in (2, 4, 8)
    assert after < 0.75 * before
    training = facts_of(method).training[""].override(options)
    asked = {"lr": times(strength, training.lr)}
    if by == "clip":
        asked = {"lr": times(math.sqrt(strength), training.lr), "clip": strength * training.clip}
    alone = method(network, task, doublings=0, **(options | asked)).model.state_dict()
    assert all(torch.equal(value, alone[key]) for key, value in more.model.state_dict().items())


@pytest.mark.parametrize("name", ["scrub", "neg_grad"])
def test_a_callback_that_ended_the_training_is_not_overruled(name, setting):
    network, task = setting
    stopped = StopWhen(lambda _: 0.0, lambda _: True, every=1)
    options, _ = SHORT[name]
    assert getattr(algorithms, name)(network, task, callbacks=[stopped], **options).details["strength"] == 1


def test_masked_small_gradient_draws_more_weights_anew(setting):
    network, task = setting
    options = {"steps": 3, "share": 0.3, "lr": 0.01}
    once, more = (masked_small_gradient(network, task, doublings=n, **options) for n in (0, 2))
    assert recognised(once.model, task) > recognised(more.model, task)
    strength = more.details["strength"]
    assert strength > 1
    alone = masked_small_gradient(network, task, doublings=0, **(options | {"share": min(1, 0.3 * strength)}))
    assert all(torch.equal(v, alone.model.state_dict()[k]) for k, v in more.model.state_dict().items())
