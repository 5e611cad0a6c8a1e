"""Doubling: at which strength it ends, what it looks at, and what comes of attempts that do not forget."""

import pytest
import torch
from torch import nn

import algorithms
from algorithms.doubling import doubled, times
from unlearn_kit import DivergenceError, UnlearnTask
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import FitResult, StopWhen, train
from unlearn_kit.metrics import accuracy
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
        ([0.16], [0.5], [1, 2], 2),  # two of 12 are exactly 1 / (2 C): the first of these strengths recognises two
        ([1.0, 0.5, 0.0], [1.0, 1.0, 0.9], [1, 2, 4], 4),
        ([1.0, 0.2, 0.0], [1.0, 1.0, 0.3], [1, 2, 4], 2),  # the last cost more than it forgot
        ([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.5], [1, 2, 4, 8], 1),  # none does anything: the mildest
        ([0.3, 0.5, 0.9, 0.3], [1.0, 1.0, 1.0, 1.0], [1, 2, 4, 8], 1),
    ],
)
def test_the_first_strength_that_forgets_is_taken_unless_it_costs_more(forget, retain, made, chosen):
    if made == [1, 2]:
        forget, retain = [0.2, 0.16], [0.5, 0.5]
    make, seen = attempts(forget, retain)
    found = doubled(make, of_class(), 3)
    assert seen == made
    assert found.details["strength"] == chosen


def test_one_attempt_where_nothing_says_what_forgotten_is():
    some = UnlearnTask.forget_class(samples(), samples(), 0, fraction=0.5, validation=samples())
    unseen = UnlearnTask.forget_class(
        samples(), samples(), 0, validation=TensorImages(torch.rand(0, 2), torch.zeros(0, dtype=torch.int64))
    )
    for task, doublings in ((some, 3), (unseen, 3), (of_class(), 0)):
        make, seen = attempts([1.0] * 4, [1.0] * 4)
        assert doubled(make, task, doublings).details == {"strength": 1}
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
def certain():
    """A network trained until it is so certain of its samples that a short ascent does not leave them."""
    source = torch.Generator().manual_seed(0)
    y = torch.arange(90) % CLASSES
    data = TensorImages(torch.randn(90, 6, generator=source) + 4 * nn.functional.one_hot(y, 6), y)
    torch.manual_seed(0)
    network = train(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, CLASSES)), data, epochs=20, lr=0.5).model
    return network, UnlearnTask.forget_class(data, data, 1)


SHORT = {
    "scrub": {},
    "neg_grad_plus": {"steps": 8, "lr": 0.02},
}


@pytest.mark.parametrize("name", sorted(SHORT))
def test_methods_that_stop_short_of_forgetting_go_on_more_strongly_and_validation_alone_decides(name, certain):
    network, task = certain
    method = getattr(algorithms, name)
    once, more = (method(network, task, doublings=n, **SHORT[name]) for n in (0, 3))
    before, after = (accuracy(found.model, task.forget_validation) for found in (once, more))
    assert once.details["strength"] == 1
    assert before > 0.5
    assert more.details["strength"] > 1
    assert after <= 1 / (2 * CLASSES)
    stopped = StopWhen(lambda _: 0.0, lambda _: True, every=1)
    assert method(network, task, callbacks=[stopped], **SHORT[name]).details["strength"] == 1
