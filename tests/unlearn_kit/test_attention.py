"""Second derivatives through attention, whose fused kernels have none, against differences of first ones in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import VisionTransformer

from unlearn_kit import gradients
from unlearn_kit.boundary import PerturbedSign, smoothed_search
from unlearn_kit.boundary.curvature import extremes, input_gradient
from unlearn_kit.composition.barrier import directional_curvature
from unlearn_kit.data import TensorImages
from unlearn_kit.tuning.hyper import expected_accuracy, unroll

# Central differences of float64: the truncation is of order STEP ** 2, rounding of order 1e-16 / STEP.
STEP, CLOSE = 1e-5, {"rtol": 1e-5, "atol": 1e-7}


def torchvision_network() -> nn.Module:
    network = VisionTransformer(4, 2, 1, 2, 4, 8, num_classes=3)
    # torchvision's start is 0 in places, where layer norm bends too sharply for differences.
    for parameter in (network.class_token, network.encoder.pos_embedding, network.heads.head.weight):
        nn.init.normal_(parameter)
    return network


class Encoder(nn.Module):
    """An encoder layer that torch fuses as a whole where no gradients are wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 2, 2)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.layer(self.embed(x).flatten(2).mT)
        out: Tensor = self.head(tokens.mean(1))
        return out


@pytest.fixture(params=[torchvision_network, Encoder])
def network(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made: nn.Module = request.param().double().eval()
    return made


def batch(count: int = 3) -> tuple[Tensor, Tensor]:
    own = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 4, 4, generator=own, dtype=torch.float64), torch.arange(count) % 3


def direction(network: nn.Module) -> dict[str, Tensor]:
    own = torch.Generator().manual_seed(2)
    return {name: torch.randn(p.shape, generator=own, dtype=p.dtype) for name, p in network.named_parameters()}


def moved(network: nn.Module, along: dict[str, Tensor], step: float) -> None:
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter += step * along[name]


def sides(network: nn.Module, along: dict[str, Tensor], values):
    """What ``values`` returns at the two ends of a short way."""
    found = []
    for start, back in ((STEP, -STEP), (-STEP, STEP)):
        moved(network, along, start)
        found.append(values())
        moved(network, along, back)
    return found


def first_order(network: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(cross_entropy(network(x), y), list(network.parameters())))


def test_a_hessian_vector_product_is_a_difference_of_gradients(network: nn.Module) -> None:
    (x, y), v = batch(), direction(network)
    product = gradients.hessian_vector_product(network, [(x, y)], v)
    after, before = sides(network, v, lambda: first_order(network, x, y))
    for found, a, b in zip(product.values(), after, before, strict=True):
        torch.testing.assert_close(found, (a - b) / (2 * STEP), **CLOSE)
    expected = sum(float((product[name] * v[name]).sum()) for name in v)
    assert directional_curvature(network, v, TensorImages(x, y)) == pytest.approx(expected, rel=1e-6)


def test_gradients_of_single_samples_are_those_of_a_loop(network: nn.Module) -> None:
    x, y = batch()
    found = gradients.per_sample_gradients(network, x, y)
    for i in range(len(x)):
        for own, expected in zip(found.values(), first_order(network, x[i : i + 1], y[i : i + 1]), strict=True):
            torch.testing.assert_close(own[i], expected)


def test_curvature_by_the_input_is_that_of_the_dense_hessian(network: nn.Module) -> None:
    x, y = batch(2)

    def loss(u: Tensor) -> Tensor:
        return cross_entropy(network(u), y[: len(u)], reduction="none")

    def gradient(u: Tensor) -> Tensor:
        return input_gradient(loss, u).flatten(1)

    units = STEP * torch.eye(x[0].numel(), dtype=x.dtype).reshape(-1, 1, *x.shape[1:])
    hessians = torch.stack([gradient(x + e) - gradient(x - e) for e in units], 1) / (2 * STEP)
    eigenvalues = torch.linalg.eigvalsh((hessians + hessians.mT) / 2)
    frozen = network.requires_grad_(False)
    found = extremes(loss, x, 0.5, iterations=100, generator=torch.Generator().manual_seed(0))
    # Power iteration comes near from below: the rest falls by the ratio of two eigenvalues a step.
    torch.testing.assert_close(found.largest, (eigenvalues - 0.5).abs().amax(1), rtol=1e-2, atol=0)
    torch.testing.assert_close(found.top, (eigenvalues - 0.5).amax(1), rtol=1e-2, atol=0)
    certified = PerturbedSign(radius=0.1, steps=2).search(frozen, x, y, certificate=True)
    assert certified.certificate is not None
    assert certified.certificate.smoothness.isfinite().all()


@pytest.mark.parametrize("mode", ["unrolled", "implicit"])
def test_a_hypergradient_is_a_difference_of_searches(network: nn.Module, mode) -> None:
    (x, y), v = batch(), direction(network)
    search = PerturbedSign(radius=0.1, steps=3, closeness=30.0, noise=0.5, update="frank-wolfe")

    def outer() -> Tensor:
        return smoothed_search(search, network, x, y, mode=mode).logits.softmax(1)[:, 0].sum()

    slopes = torch.autograd.grad(outer(), list(network.parameters()), allow_unused=True, materialize_grads=True)
    after, before = sides(network, v, lambda: outer().detach())
    found = sum((slope * along).sum() for slope, along in zip(slopes, v.values(), strict=True))
    torch.testing.assert_close(found, (after - before) / (2 * STEP), **CLOSE)


def test_the_gradient_of_a_run_by_a_weight_of_its_loss_is_a_difference_of_runs(network: nn.Module) -> None:
    x, y = batch()

    def level(weight: float):
        return unroll(
            network,
            lambda model, data, knobs: knobs["weight"] * cross_entropy(model(data[0]), data[1]),
            expected_accuracy(x, y),
            {"weight": weight},
            [(x, y)] * 3,
            lr=0.1,
        )

    difference = (level(1 + STEP).level - level(1 - STEP).level) / (2 * STEP)
    assert level(1.0).gradients["weight"] == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_caller_s_choice_of_kernels_returns(enabled: bool) -> None:
    def choice() -> list[bool]:
        own = torch.backends.cuda
        flags = [own.flash_sdp_enabled(), own.mem_efficient_sdp_enabled(), own.math_sdp_enabled()]
        return [torch.backends.mha.get_fastpath_enabled(), *flags]

    usual = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        before = choice()
        with gradients.plain_attention():
            assert choice() == [False, False, False, True]
        assert choice() == before
    finally:
        torch.backends.mha.set_fastpath_enabled(usual)
