from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.data import TensorDataset

from unlearn_kit import engine, models
from unlearn_kit.audits.ensemble_training import EnsembleRecipe
from unlearn_kit.audits.ensembles import Ensemble, train_ensemble
from unlearn_kit.audits.stacked import stackable
from unlearn_kit.data.tensors import subset
from unlearn_kit.errors import CheckpointError, DivergenceError
from unlearn_kit.metrics import predict
from unlearn_kit.schedules import linear


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, channels: int = 1, size: int = 8, classes: int = 3) -> TensorDataset:
    y = torch.arange(n) % classes
    return TensorDataset(torch.rand(n, channels, size, size, generator=rng(1)) * (1 + y.view(-1, 1, 1, 1)) / 3, y)


DATA = images(40)
SUBSETS = [torch.randperm(40, generator=rng(i))[:n].tolist() for i, n in enumerate((17, 24, 33))]
SEEDS = (11, 12, 13)


def tiny_cnn() -> nn.Module:
    return models.small_cnn(3, width=4)


def tiny_mlp() -> nn.Module:
    return models.mlp(3, hidden=(8,))


def train(build: Any, mode: Any = "vmap", **options: Any) -> Ensemble:
    given = {"dataset": DATA, "subsets": SUBSETS, "seeds": SEEDS, "epochs": 2, "batch_size": 8, **options}
    return train_ensemble(build, given.pop("dataset"), given.pop("subsets"), mode=mode, **given)


def assert_same(a: nn.Module, b: nn.Module, tolerance: float = 2e-5) -> None:
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("build", [tiny_mlp, tiny_cnn])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": "adam", "lr": 1e-3},
        {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1},
        {"lr": linear(0.1, 0.02)},
    ],
    ids=["sgd", "adam", "adamw", "schedule"],
)
def test_networks_are_those_of_the_engine(build: Any, options: dict[str, Any]) -> None:
    # Subsets of 17, 24 and 33 in batches of 8: other numbers of steps, and last batches of 1, 8 and 1.
    found = train(build, **options)
    for place, seed in enumerate(SEEDS):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            fresh = build()
        part = subset(DATA, SUBSETS[place])
        if "lr" in options and not isinstance(options["lr"], float):
            phase = engine.Phase(
                engine.supervised_phase(part, epochs=2).terms, {"train": part}, epochs=2, batch_size=8,
                weight_decay=5e-4, batch_norm="update", name="train", **options,
            )  # fmt: skip
            expected = engine.fit(fresh, phase, seed=seed).model
        else:
            expected = engine.train(fresh, part, epochs=2, batch_size=8, seed=seed, **options).model
        assert_same(expected, found[place], 1e-3 if "optimizer" in options else 2e-5)


@pytest.mark.parametrize("build", [tiny_mlp, tiny_cnn])
def test_all_modes_and_chunks_give_the_same_networks(build: Any) -> None:
    alone = train(build, "sequential")
    assert (alone.mode, len(alone), alone.timings, alone.reason) == ("sequential", 3, {}, None)
    for other in (train(build), train(build, chunk=2), train(build, "auto")):
        for a, b in zip(alone.models(), other.models(), strict=True):
            assert_same(a, b)
    assert other.mode == min(other.timings, key=other.timings.get)
    assert set(other.timings) == {"vmap", "sequential"}


def test_batch_norm_keeps_each_networks_own_statistics() -> None:
    found = train(tiny_cnn)
    assert found.stack["block1.1.num_batches_tracked"].tolist() == [6, 6, 10]
    means = found.stack["block1.1.running_mean"]
    assert not torch.allclose(means[0], means[1])


class Plain(nn.Sequential):
    """Layers with odd settings, each of which is rewritten for many models."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, stride=2, padding=(0, 2), dilation=(1, 2)),
            nn.BatchNorm2d(4, momentum=None, affine=False),
            nn.ReLU(), nn.Conv2d(4, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4, track_running_stats=False),
            nn.MaxPool2d(2), nn.Conv2d(4, 4, 1, groups=2), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(),
            nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.LayerNorm(6), nn.Linear(6, 3),
        )  # fmt: skip


def test_odd_layers_train_alike() -> None:
    given = {"dataset": images(40, 2, 9), "lr": 0.01, "subsets": [range(17 + 3), range(24), range(4, 40, 2)]}
    a, b = train(Plain, "sequential", **given), train(Plain, **given)
    for one, other in zip(a.models(), b.models(), strict=True):
        assert_same(one, other, 1e-4)


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (32, 32)])
@pytest.mark.parametrize("options", [{}, {"stride": (2, 1), "padding": 1}, {"padding": "same", "dilation": 2}])
def test_rewritten_convolution_and_its_gradients_are_torchs(size: tuple[int, int], options: dict[str, Any]) -> None:
    if size == (5, 3) and not options:
        options = {"kernel_size": (2, 3)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, **{"kernel_size": 3, **options}).double() for _ in range(2)]
        x = torch.randn(2, 5, 3, *size, dtype=torch.float64, requires_grad=True)
    network, _ = stackable(nn.Sequential(layers[0]))
    state = {
        f"0.{name}": torch.stack([dict(m.named_parameters())[name] for m in layers]) for name in ("weight", "bias")
    }
    state = {name: value.detach().requires_grad_() for name, value in state.items()}
    y = vmap(lambda s, x: functional_call(network, s, (x,)))(state, x)
    expected = torch.stack([layer(one) for layer, one in zip(layers, x, strict=True)])
    torch.testing.assert_close(y, expected)
    weights = torch.randn(y.shape, generator=rng(0), dtype=torch.float64)
    mine = torch.autograd.grad((y * weights).sum(), [x, *state.values()])
    theirs = torch.autograd.grad((expected * weights).sum(), [x, *(p for layer in layers for p in layer.parameters())])
    torch.testing.assert_close(mine[0], theirs[0])
    for place, pair in ((1, theirs[1::2]), (2, theirs[2::2])):
        torch.testing.assert_close(mine[place], torch.stack(pair))


@pytest.mark.parametrize("build", [tiny_mlp, tiny_cnn])
def test_outputs_are_those_of_the_single_networks(build: Any) -> None:
    found = train(build, epochs=1)
    expected = torch.stack([predict(model, DATA)[0] for model in found.models()])
    torch.testing.assert_close(found.outputs(DATA, batch_size=7, chunk=2), expected, rtol=1e-4, atol=1e-5)
    again = Ensemble.of(list(found.models()), "sequential")
    torch.testing.assert_close(again.outputs(DATA), expected, rtol=1e-4, atol=1e-5)
    assert found.outputs(TensorDataset(torch.empty(0, 1, 8, 8), torch.empty(0))).shape == (3, 0)
    assert not found[0].training
    assert_same(found[-1], found[2], 0)


def test_frozen_parameters_stay() -> None:
    def build() -> nn.Module:
        model = tiny_mlp()
        model.head.requires_grad_(False)
        return model

    start = train(build, epochs=0)
    found = train(build)
    assert torch.equal(start.stack["head.weight"], found.stack["head.weight"])
    assert not torch.equal(start.stack["block1.0.weight"], found.stack["block1.0.weight"])


def test_same_seed_same_bits_and_the_random_state_stays() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = train(tiny_cnn), train(tiny_cnn)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first.stack[name], second.stack[name]) for name in first.stack)


class Drops(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 3), nn.Dropout(0.5))


class Mixes(nn.Module):
    """Looks at the whole batch, outside a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x.flatten(1))
        return z - z.mean(0)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x.flatten(1))
        return z if z.sum() > 0 else 2 * z


@pytest.mark.parametrize("build", [Drops, Mixes, Branches])
def test_what_cannot_be_trained_at_once_is_refused_or_done_in_turn(build: Any) -> None:
    with pytest.raises(
        ValueError, match=r"expected networks that can be trained at once, but got .*use mode='sequential'"
    ):
        train(build)
    found, alone = train(build, "auto"), train(build, "sequential")
    assert found.mode == "sequential"
    assert found.reason
    assert all(torch.equal(found.stack[name], alone.stack[name]) for name in found.stack)
    assert torch.isfinite(found.outputs(DATA)).all()


def test_dropout_in_turn_is_the_engines() -> None:
    found = train(Drops, "sequential")
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS[0])
        fresh = Drops()
    expected = engine.train(fresh, subset(DATA, SUBSETS[0]), epochs=2, batch_size=8, seed=SEEDS[0]).model
    assert_same(found[0], expected, 1e-6)


def test_saved_and_loaded(tmp_path: Path) -> None:
    found = train(tiny_cnn, epochs=1)
    loaded = Ensemble.load(tiny_cnn(), found.save(tmp_path / "e.safetensors"))
    assert all(torch.equal(found.stack[name], loaded.stack[name]) for name in found.stack)
    with pytest.raises(CheckpointError, match="does not hold an ensemble of this Sequential"):
        Ensemble.load(tiny_mlp(), tmp_path / "e.safetensors")


@pytest.mark.parametrize("mode", ["vmap", "sequential"])
def test_divergence_names_the_network(mode: str) -> None:
    with pytest.raises(DivergenceError, match=r"'ensemble, network \d' diverged"):
        train(tiny_mlp, mode, lr=1e30)


@pytest.mark.parametrize("mode", ["vmap", "sequential"])
def test_a_batch_norm_with_one_value_is_refused_as_torch_does(mode: str) -> None:
    build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))  # noqa: E731
    for subsets in ([range(9)] * 3, [range(9), range(10), range(12)]):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            train(build, mode, subsets=subsets)


def test_bad_arguments_are_refused() -> None:
    for error, match, options in (
        (ValueError, r"expected one seed for each of some subsets, but got 3 and 2 seeds", {"seeds": (1, 2)}),
        (
            ValueError,
            r"expected subsets\[1\] to be positions in 0..39, but got 0..40",
            {"subsets": [[1], [0, 40], [2]]},
        ),
        (ValueError, r"expected subsets\[0\] to be positions, or a mask", {"subsets": [[], [0], [2]]}),
        (ValueError, r"expected optimizer to be one of .*did you mean 'adam'", {"optimizer": "adamm"}),
        (ValueError, r"expected mode to be one of \['auto', 'vmap', 'sequential'\]", {"mode": "vmapped"}),
        (TypeError, r"expected epochs to be an int", {"epochs": 1.5}),
        (ValueError, r"expected chunk to be at least 1, but got 0", {"chunk": 0}),
        (ValueError, r"expected lr in \[0, inf\), but got -1", {"lr": -1}),
    ):
        with pytest.raises(error, match=match):
            train(tiny_mlp, **options)
    widths = iter((4, 4, 5, 4, 4))
    with pytest.raises(ValueError, match="expected networks of one architecture"):
        train(lambda: models.mlp(3, hidden=(next(widths),)))
    with pytest.raises(ValueError, match="expected at least one model, but got none"):
        Ensemble.of([])
    with pytest.raises(ValueError, match="expected logits to be finite"):
        Ensemble.of([nn.Sequential(nn.Flatten(), nn.Linear(64, 3))]).outputs(
            TensorDataset(torch.full((2, 1, 8, 8), torch.inf), torch.zeros(2))
        )


@pytest.mark.parametrize(("mode", "chunk"), [("sequential", 64), ("vmap", 1), ("vmap", 2)])
def test_orders_of_the_data_are_made_a_chunk_at_a_time(mode: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, own = [], EnsembleRecipe.batches
    monkeypatch.setattr(EnsembleRecipe, "batches", lambda *given: made.append(given[2]) or own(*given))
    at_each: list[int] = []
    train(tiny_mlp, mode, chunk=chunk, progress=lambda done, _: at_each.append(len(made) - done))
    assert set(at_each) == {0}
    assert sorted(made) == sorted(SEEDS)


def test_masks_as_subsets() -> None:
    mask = torch.zeros(40, dtype=torch.bool)
    mask[[3, 5, 8]] = True
    a, b = (train(tiny_mlp, subsets=[chosen], seeds=[1]) for chosen in (mask, [3, 5, 8]))
    assert all(torch.equal(a.stack[name], b.stack[name]) for name in a.stack)
