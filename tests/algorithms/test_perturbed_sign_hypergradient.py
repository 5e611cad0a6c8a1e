"""Perturbed sign with gradients through the search, with certificates, and with balanced streams."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from algorithms import neg_grad_plus, perturbed_sign
from algorithms.perturbed_sign import boundary_objective
from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.boundary import Certificate, PerturbedSign, smoothed_search
from unlearn_kit.data import TensorImages, load_tensors
from unlearn_kit.engine import train
from unlearn_kit.metrics import accuracy

SEARCH = PerturbedSign(0.3, 4, 0.1, closeness=0.5, noise=0.3)


def blobs(count: int, seed: int) -> TensorImages:
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    centres = torch.tensor([[0.2, 0.2, 0.8, 0.2], [0.8, 0.2, 0.2, 0.2], [0.2, 0.8, 0.2, 0.8]])
    x = (centres[y] + 0.1 * torch.randn(count, 4, generator=source)).clamp(0, 1)
    return TensorImages(x, y)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3))
    return train(network, blobs(90, 0), epochs=15, batch_size=30, lr=0.3).model.eval()


def task() -> UnlearnTask:
    return UnlearnTask.forget_class(blobs(90, 0), blobs(30, 1), 0)


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


QUICK = {"steps": 12, "batch_size": {"forget": 15, "retain": 30}, "lr": 0.05}


def test_none_is_what_is_done_by_default(model):
    plain = perturbed_sign(model, task(), **QUICK)
    named = perturbed_sign(model, task(), hypergradient="none", balance=None, certificate=False, **QUICK)
    assert torch.equal(weights(plain.model), weights(named.model))
    assert plain.history == named.history
    assert plain.details == {}


@pytest.mark.parametrize("mode", ["unrolled", "implicit"])
def test_it_forgets_and_keeps(model, mode):
    assert accuracy(model, task().forget) > 0.9
    result = perturbed_sign(model, task(), labels="soft", hypergradient=mode, **{**QUICK, "steps": 40, "lr": 0.2})
    assert accuracy(result.model, task().forget) < 0.1
    assert accuracy(result.model, task().retain) > 0.9
    first_order = perturbed_sign(model, task(), labels="soft", **{**QUICK, "steps": 40, "lr": 0.2})
    assert not torch.allclose(weights(first_order.model), weights(result.model))


@pytest.fixture(scope="module")
def smooth() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 3))
    return train(network, blobs(90, 0), epochs=15, batch_size=30, lr=0.3).model.eval()


STEP = {"labels": "soft", "steps": 1, "batch_size": 99, "lr": 1e-3}


def test_the_share_of_samples_that_have_an_implicit_hypergradient_is_told(smooth):
    search = PerturbedSign(1.0, closeness=0.1, noise=0.3, bounds=None)
    told = perturbed_sign(smooth, task(), search=search, hypergradient="implicit", **STEP).details
    # By hand: the points that come to rest, and whose linear system the backward pass solves.
    x, _ = load_tensors(task().forget)
    settings = {"mode": "implicit", "tolerance": 1e-3, "iterations": 20, "strict": False}
    found = smoothed_search(search, copy.deepcopy(smooth), x, torch.zeros(30, dtype=torch.int64), **settings)
    found.logits.square().sum().backward()
    assert 0 < told["hypergradient_solved"] < 1
    assert told["hypergradient_solved"] == found.converged.double().mean()
    for mode in ("none", "unrolled"):
        assert perturbed_sign(smooth, task(), search=search, hypergradient=mode, **STEP).details == {}


def test_an_implicit_hypergradient_of_no_sample_warns(smooth):
    search = PerturbedSign(3.0, closeness=1e-3, noise=0.3, bounds=None)
    with pytest.warns(UserWarning, match="the implicit hypergradient was solved for no sample"):
        result = perturbed_sign(smooth, task(), search=search, hypergradient="implicit", **STEP)
    assert result.details["hypergradient_solved"] == 0


@pytest.mark.parametrize("uncrossed", ["keep", "runner-up"])
@pytest.mark.parametrize("mix", [1.0, 0.6])
def test_the_gradient_is_the_whole_derivative_of_the_outer_objective(model, mix, uncrossed):
    """By finite differences of the objective as it is evaluated, with the search following the weights."""
    original = _double(model)
    moving = _double(model)
    with torch.no_grad():
        for p in moving.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1), dtype=p.dtype))
    objective = boundary_objective(
        original, SEARCH, retain_weight=0, soft=True, mix=mix, uncrossed=uncrossed, hypergradient="unrolled"
    )
    data = task().forget.dataset
    batches = {"forget": L.Batch(data.inputs[:9].double(), data.targets[:9])}
    leaves = list(moving.parameters())
    gradients = torch.autograd.grad(objective.evaluate(moving, batches).total, leaves)
    direction = [torch.randn(p.shape, generator=torch.Generator().manual_seed(2), dtype=p.dtype) for p in leaves]
    ends = []
    for sign in (1, -1, -1, 1):
        with torch.no_grad():
            torch._foreach_add_(leaves, direction, alpha=sign * 1e-6)
        ends.append(objective.evaluate(moving, batches).total.item())
    slope = (ends[0] - ends[2]) / 2e-6
    along = sum(float((g * v).sum()) for g, v in zip(gradients, direction, strict=True))
    assert along == pytest.approx(slope, rel=1e-4)
    # With the targets held constant it would be another number.
    fixed = boundary_objective(
        original, replace(SEARCH, noise=1e-9), retain_weight=0, soft=True, mix=mix, uncrossed=uncrossed, refresh="step"
    )
    constant = torch.autograd.grad(fixed.evaluate(moving, batches).total, leaves)
    assert sum(float((g * v).sum()) for g, v in zip(constant, direction, strict=True)) != pytest.approx(slope, rel=1e-2)


def _double(model: nn.Module) -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    made.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    return made.eval()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, r"^expected labels to be 'soft' with hypergradient='unrolled', but got 'hard'$"),
        ({"labels": "soft", "top_k": 2}, "^expected top_k to be None with hypergradient='unrolled', but got 2$"),
        ({"labels": "soft", "batch_norm": "update"}, "^expected batch_norm to be 'frozen' with hypergradient"),
        ({"labels": "soft", "search": PerturbedSign(0.1)}, "^expected noise above 0 for a hypergradient"),
        (
            {"labels": "soft", "search": PerturbedSign(0.1, noise=1.0, stop_when_flipped=True)},
            "^expected search to have stop_when_flipped=False for a hypergradient",
        ),
        ({"labels": "soft", "hypergradient": "unroled"}, "did you mean 'unrolled'"),
    ],
)
def test_what_has_no_hypergradient_is_refused(model, options, text):
    with pytest.raises(ValueError, match=text):
        perturbed_sign(model, task(), **{"hypergradient": "unrolled", **QUICK, **options})


def test_a_certificate_tells_what_is_guaranteed_and_changes_no_weight(model):
    plain = perturbed_sign(model, task(), **QUICK)
    result = perturbed_sign(model, task(), certificate=True, **QUICK)
    assert torch.equal(weights(plain.model), weights(result.model))
    found = result.details["boundary"]
    assert isinstance(found, Certificate)
    assert len(found.gap) == len(task().forget)
    assert result.details["summary"] == found.summary()
    outer = result.details["outer"]
    assert outer["records"][0]["step"] == 0
    assert outer["records"][-1]["step"] == QUICK["steps"]
    assert outer["records"][-1]["objective"] < outer["records"][0]["objective"]
    assert outer["bound"] is None  # Clipped, with momentum.
    assert "not plain stochastic gradient descent" in outer["why"]


def test_plain_gradient_descent_carries_its_bound(model):
    options = {**QUICK, "lr": 1e-3, "preset": "paper", "retain_weight": 1.0, "search": PerturbedSign(0.3, 3)}
    options["optimizer"] = lambda parameters: torch.optim.SGD(parameters, lr=1e-3)
    outer = perturbed_sign(model, task(), certificate=True, **options).details["outer"]
    assert outer["why"] == ""
    assert 0 < outer["mean"] <= outer["bound"]


@pytest.mark.parametrize("algorithm", [perturbed_sign, neg_grad_plus])
@pytest.mark.parametrize("balance", ["nash", "pcgrad"])
def test_streams_can_be_balanced(model, algorithm, balance):
    options = {**QUICK, "steps": 60, "lr": 0.02, "optimizer": "sgd", "clip": None, "balance": balance}
    result = algorithm(model, task(), **options)
    assert result.config["balance"] == balance
    if balance == "nash":  # The sum, which pcgrad is without a conflict, takes longer at this rate.
        assert accuracy(result.model, task().forget) < 0.1
        assert accuracy(result.model, task().retain) > 0.8


def test_under_nash_no_weight_needs_choosing(model):
    runs = [perturbed_sign(model, task(), balance="nash", retain_weight=w, **QUICK) for w in (0.1, 30.0)]
    assert torch.allclose(weights(runs[0].model), weights(runs[1].model), atol=1e-4)
