"""CF-k and EU-k: which blocks move, which are fresh, and which statistics are learned."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from algorithms import catastrophic_forget_k, exact_unlearn_k
from unlearn_kit import UnlearnTask, models
from unlearn_kit.data.tensors import TensorImages, load_tensors


def images(count, seed):
    source = torch.Generator().manual_seed(seed)
    return TensorImages(torch.rand(count, 1, 8, 8, generator=source), torch.arange(count) % 3)


@pytest.fixture
def setting():
    data = images(48, 0)
    torch.manual_seed(0)
    model = models.small_cnn(num_classes=3, channels=1, width=4)
    for _ in range(20):
        model(data.inputs)  # Statistics as of a trained network.
    return UnlearnTask.forget_class(data, data, 1), model.eval()


def moved(before, after):
    """Names of the state that differs."""
    return {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])}


LAST_TWO = {"block5.0.weight", "block5.1.weight", "block5.1.bias"}
HEAD = {"head.weight", "head.bias"}
STATISTICS = {"block5.1.running_mean", "block5.1.running_var", "block5.1.num_batches_tracked"}


def test_only_the_last_k_blocks_and_the_head_move(setting):
    task, model = setting
    options = {"steps": 3, "lr": 0.1, "weight_decay": 0.1}
    assert moved(model, catastrophic_forget_k(model, task, k=2, **options).model) == LAST_TWO | HEAD
    assert moved(model, catastrophic_forget_k(model, task, k=0, **options).model) == HEAD
    named = catastrophic_forget_k(model, task, blocks=["block2.0", "head"], **options).model
    assert moved(model, named) == {"block2.0.weight", *HEAD}


def test_what_is_frozen_inside_the_last_blocks_stays(setting):
    task, model = setting
    model.get_parameter("block5.0.weight").requires_grad_(False)
    model.get_parameter("head.bias").requires_grad_(False)
    found = catastrophic_forget_k(model, task, k=2, steps=3, lr=0.1, weight_decay=0.1).model
    assert moved(model, found) == {"block5.1.weight", "block5.1.bias", "head.weight"}
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in model.parameters()]


def test_the_fresh_blocks_learn_their_statistics_and_the_others_keep_theirs(setting):
    task, model = setting
    found = exact_unlearn_k(model, task, k=2, steps=3, lr=0.1).model
    assert moved(model, found) == LAST_TWO | HEAD | STATISTICS
    assert found.block5[1].num_batches_tracked == 3  # Not 23: they are fresh as well.
    frozen = exact_unlearn_k(model, task, k=2, steps=3, batch_norm="frozen").model
    assert moved(model, frozen) == LAST_TWO | HEAD | STATISTICS  # Reset, and then still.


def test_exact_unlearning_forgets_the_old_weights_of_its_blocks(setting):
    task, model = setting
    other = models.small_cnn(num_classes=3, channels=1, width=4)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in (*other.block5.parameters(), *other.head.parameters()):
            parameter.mul_(3)
    runs = [exact_unlearn_k(m, task, k=2, steps=4, seed=7).model.state_dict() for m in (model, other)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    kept = [catastrophic_forget_k(m, task, k=2, steps=4, seed=7).model.state_dict() for m in (model, other)]
    assert not torch.equal(kept[0]["head.weight"], kept[1]["head.weight"])


def test_exact_unlearning_of_the_head_is_logistic_regression_on_frozen_features(setting):
    task, model = setting
    found = exact_unlearn_k(model, task, k=0, steps=150, lr=0.5, batch_size=64, weight_decay=1e-2).model
    x, y = load_tensors(task.retain)
    with torch.no_grad():
        features = model.eval()[:-1](x)
    weight, bias = torch.zeros(3, 16, requires_grad=True), torch.zeros(3, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, y) + 5e-3 * (weight.square().sum() + bias.square().sum())
        loss.backward()
        return loss

    solver.step(closure)
    expected = (features @ weight.T + bias).softmax(1)
    torch.testing.assert_close(found.eval()(x).softmax(1), expected.detach(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("method", [catastrophic_forget_k, exact_unlearn_k])
def test_bad_blocks_are_named(setting, method):
    task, model = setting
    with pytest.raises(ValueError, match="expected k to be at least 0, but got -1"):
        method(model, task, k=-1)
    with pytest.raises(ValueError, match=r"expected every one of blocks to be one of .*did you mean 'block5'"):
        method(model, task, blocks=["block55"])


def test_a_block_that_cannot_be_reset_is_refused_by_name():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x):
            return x * self.scale

    data = TensorImages(torch.rand(9, 6), torch.arange(9) % 3)
    model = nn.Sequential(Odd(), nn.Linear(6, 3))
    task = UnlearnTask.forget_class(data, data, 0)
    with pytest.raises(ValueError, match=r"expected every module of model .Odd. that owns parameters to reset them"):
        exact_unlearn_k(model, task, k=1)
    assert exact_unlearn_k(model, task, k=0, steps=1).model is not model


@pytest.mark.parametrize("method", [catastrophic_forget_k, exact_unlearn_k])
def test_last_layers_train_on_masks(method):
    source = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 6, 6, generator=source)
    data = TensorImages(x, (x > 0.5).float())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))
    found = method(model, UnlearnTask.forget_samples(data, data, [0]), k=1, steps=40, lr=0.3)
    assert found.history[-1]["total"] < found.history[0]["total"]
    assert torch.equal(found.model[0].weight, model[0].weight)
