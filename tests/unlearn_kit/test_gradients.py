"""Per-sample gradients against a loop, Hessian-vector products against a dense Hessian."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from unlearn_kit import gradients, models


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    network = models.small_cnn(num_classes=3, channels=1, width=2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # Statistics and scales that are not those of a fresh layer.
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def dense(outputs: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, outputs, 1))


def logistic() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def looped(model: nn.Module, x: torch.Tensor, y: torch.Tensor, loss) -> dict[str, torch.Tensor]:
    model = model.eval()
    rows = []
    for i in range(len(x)):
        model.zero_grad()
        loss(model(x[i : i + 1]), y[i : i + 1]).backward()
        rows.append({name: p.grad.clone() for name, p in model.named_parameters()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


CASES = {
    "classes": (convolutional, (3,), F.cross_entropy),
    "binary masks": (lambda: dense(1), "float", F.binary_cross_entropy_with_logits),
    "masks of classes": (lambda: dense(3), "long", F.cross_entropy),
}


def case(name: str, count: int = 7):
    build, targets, loss = CASES[name]
    source = torch.Generator().manual_seed(5)
    x = torch.rand(count, 1, 8, 8, generator=source)
    if targets == "float":
        y = torch.randint(2, (count, 1, 8, 8), generator=source).float()
    else:
        y = torch.randint(3, (count, 8, 8) if targets == "long" else (count,), generator=source)
    return build(), x, y, loss


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("chunked", [False, True])
def test_per_sample_gradients_equal_a_loop(name: str, chunked: bool) -> None:
    model, x, y, loss = case(name)
    size = sum(p.numel() * 4 for p in model.parameters())
    memory = 6 * size if chunked else gradients.MEMORY
    assert gradients.chunk_size(model, memory) == (3 if chunked else 64)
    found = gradients.per_sample_gradients(model, x, y, memory=memory)
    expected = looped(model, x, y, loss)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)


class Counting(nn.Module):
    """Counts its calls, in eval mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.body, self.head = kind(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.flatten(1, 2))[0][:, -1])


class Recomputing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh()), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))


def watched() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    model[1].register_full_backward_hook(lambda *_: None)
    return model


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize(
    "build",
    [Counting, Recomputing, watched, lambda: Recurrent(nn.GRU), lambda: Recurrent(nn.LSTM)],
    ids=["counting", "recomputing", "watched", "GRU", "LSTM"],
)
def test_networks_that_torch_func_cannot_take_have_the_gradients_of_a_loop(build) -> None:
    torch.manual_seed(3)
    model, (_, x, y, loss) = build().eval(), case("classes")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = gradients.per_sample_gradients(model, x, y)
    mean = gradients.mean_gradients(model, [(x[:3], y[:3]), (x[3:], y[3:])])
    squared = gradients.mean_squared_gradients(model, [(x, y)])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for key, value in looped(model, x, y, loss).items():
        for one, other in ((found, value), (mean, value.mean(0)), (squared, value.square().mean(0))):
            torch.testing.assert_close(one[key], other, rtol=1e-4, atol=1e-6)


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter, self.head = nn.Parameter(torch.ones(8, 5, dtype=torch.complex64)), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter).flatten(1))


def test_complex_parameters_have_no_squares_of_gradients_to_order_them_by() -> None:
    _, x, y, _ = case("classes")
    with pytest.raises(ValueError, match=r"model to have real parameters, but got 'filter' of torch\.complex64"):
        gradients.mean_squared_gradients(Complex(), [(x, y)])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sizes", [(7,), (3, 3, 1), (1, 6)])
def test_means_over_a_data_set_do_not_depend_on_its_batches(name: str, sizes: tuple[int, ...]) -> None:
    model, x, y, loss = case(name)
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    rows = looped(model, x, y, loss)
    wanted = {
        gradients.mean_gradients: lambda g: g.mean(0),
        gradients.mean_squared_gradients: lambda g: (g**2).mean(0),
        gradients.mean_absolute_gradients: lambda g: g.abs().mean(0),
    }
    for function, reduce in wanted.items():
        found = function(model, iter(batches))
        for key, value in rows.items():
            torch.testing.assert_close(found[key], reduce(value), rtol=1e-4, atol=1e-7)


def test_mean_squared_gradients_are_not_the_squares_of_mean_gradients() -> None:
    model, x, y, _ = case("classes")
    squares, means = (f(model, [(x, y)]) for f in (gradients.mean_squared_gradients, gradients.mean_gradients))
    assert all((squares[k] >= means[k] ** 2 - 1e-9).all() for k in squares)
    assert (squares["head.weight"] > 2 * means["head.weight"] ** 2).any()


def test_hessian_vector_product_equals_the_dense_hessian() -> None:
    model = logistic()
    x, y = torch.rand(9, 4).double(), torch.randint(3, (9,))
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])

    def unflatten(vector: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = vector.split([s.numel() for s in shapes])
        return {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}

    def mean_loss(vector: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(model, unflatten(vector), (x,)), y)

    hessian = torch.autograd.functional.hessian(mean_loss, flat)
    v = torch.randn_like(flat)
    found = gradients.hessian_vector_product(model, [(x[:4], y[:4]), (x[4:], y[4:])], unflatten(v))
    torch.testing.assert_close(torch.cat([found[n].flatten() for n in names]), hessian @ v)


def test_hessian_vector_product_through_instance_norm_equals_double_backward() -> None:
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 3, 3), nn.InstanceNorm2d(3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network = nn.Sequential(*body, nn.Linear(12, 3)).double()
    x, y = torch.rand(4, 1, 6, 6, dtype=torch.float64), torch.arange(4) % 3
    vector = {name: torch.randn_like(p) for name, p in network.named_parameters()}
    product = gradients.hessian_vector_product(network, [(x, y)], vector)
    weights = list(network.parameters())
    slopes = torch.autograd.grad(F.cross_entropy(network(x), y), weights, create_graph=True)
    expected = torch.autograd.grad(slopes, weights, list(vector.values()))
    for name, value in zip(vector, expected, strict=True):
        torch.testing.assert_close(product[name], value)
        assert not product[name].requires_grad


def test_an_operation_without_a_second_derivative_is_refused_by_name() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Hardsigmoid())
    vector = {name: torch.ones_like(p) for name, p in network.named_parameters()}
    with pytest.raises(ValueError, match=r"expected a model whose operations have second derivatives, .*hardsigmoid"):
        gradients.hessian_vector_product(network, [(torch.rand(3, 2), torch.zeros(3, dtype=torch.int64))], vector)


def test_hessian_vector_product_of_a_convolutional_network_is_a_difference_of_gradients() -> None:
    model, x, y, _ = case("classes")
    model = model.double()
    batches = [(x.double(), y)]
    v = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    product = gradients.hessian_vector_product(model, batches, v)
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p += sign * 1e-6 * v[name]
        sides.append(gradients.mean_gradients(model, batches))
        with torch.no_grad():
            for name, p in model.named_parameters():
                p -= sign * 1e-6 * v[name]
    for name, value in product.items():
        torch.testing.assert_close(value, (sides[0][name] - sides[1][name]) / 2e-6, rtol=1e-3, atol=1e-5)


def test_gradients_leave_modes_buffers_and_gradients_alone() -> None:
    model, x, y, _ = case("classes")
    model.train()
    model.block1.eval()
    modes = [m.training for m in model.modules()]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients.mean_squared_gradients(model, [(x, y)])
    gradients.hessian_vector_product(model, [(x, y)], gradients.trainable(model))
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_gradients_take_a_loss_of_ones_own_and_trainable_parameters_alone() -> None:
    model, x, y, _ = case("classes", count=2)
    model.block1.requires_grad_(False)
    found = gradients.per_sample_gradients(model, x, y, loss=lambda logits, _: logits.square().sum(1))
    assert not any(name.startswith("block1") for name in found)
    features = model.eval()[:-1](x)
    torch.testing.assert_close(found["head.weight"], 2 * model(x)[:, :, None] * features[:, None, :])


def test_gradients_refuse_what_they_cannot_do() -> None:
    model, x, y, _ = case("classes", count=2)
    with pytest.raises(ValueError, match="expected batches to hold at least one sample, but got none"):
        gradients.mean_squared_gradients(model, [])
    with pytest.raises(ValueError, match="expected batches to hold at least one sample, but got none"):
        gradients.mean_gradients(model, [(x[:0], y[:0])])
    with pytest.raises(ValueError, match="expected vector to hold a tensor for each trainable parameter"):
        gradients.hessian_vector_product(model, [(x, y)], {"head.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"expected the gradient of .* to be finite"):
        gradients.mean_gradients(model, [(x * torch.nan, y)])
    with pytest.raises(ValueError, match="expected memory to be at least 1, but got 0"):
        gradients.chunk_size(model, 0)
    with pytest.raises(ValueError, match="expected Sequential to have trainable parameters, but got none"):
        gradients.per_sample_gradients(model.requires_grad_(False), x, y)
