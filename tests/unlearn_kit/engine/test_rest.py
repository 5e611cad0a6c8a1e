"""Whatever keeps state in training mode rests while batch norm is frozen; dropout beside it does not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

from unlearn_kit import losses as L
from unlearn_kit.engine import Callback, Phase, Run, fit


class Ema(nn.Module):
    """Subtracts the batch's mean in training mode and a moving average in eval mode, and drops out."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((4, 1, 1), 0.1))
        self.drop = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)).reshape(4, 1, 1), alpha=0.1)
            return self.drop(x - x.mean((0, 2, 3), keepdim=True))
        return self.drop(x - self.mean)


class Replacing(Ema):
    """Gives its buffer anew."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1
        return x - self.mean


class Around(nn.Module):
    """Moves the buffer of a module that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.held = Ema()
        self.held.forward = lambda x: x - self.held.mean

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.held.mean.add_(0.1)
        return x - self.held.mean


class Late(Ema):
    """Moves its buffer when its own clock, which is no buffer, says so."""

    def forward(self, x: Tensor) -> Tensor:
        self.clock = getattr(self, "clock", 0) + self.training
        if self.training and self.clock > 2:
            self.mean.add_(0.1)
        return x - self.mean


class Table(nn.Module):
    """A buffer that never moves, and dropout by a function of the module's mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class OwnNorm(nn.BatchNorm2d):
    """A batch norm of a class of one's own."""


def spectral() -> nn.Module:
    return parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))


def hooked() -> nn.Module:
    return nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))


KEEPERS: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm2d(4, momentum=None),
    "batch norm of timm": lambda: BatchNormAct2d(4),
    "batch norm of smp": lambda: Conv2dReLU(4, 4, 1, use_norm="batchnorm"),
    "batch norm of one's own": lambda: OwnNorm(4),
    "instance norm": lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    "spectral norm": spectral,
    "hooked spectral norm": hooked,
    "moving average": Ema,
    "replaced buffer": Replacing,
    "buffer of a child": Around,
    "late": Late,
    "table": Table,
}
X = torch.rand(12, 4, 5, 5, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, torch.arange(12) % 3)


def network(keeper: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3), keeper, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        model.train()(X)  # Statistics and vectors that are not at their start.
    return model.eval()


def phase(**options) -> Phase:
    return Phase(L.cross_entropy(on="train"), {"train": DATA}, **({"steps": 3, "batch_size": 4, "lr": 0.1} | options))


@pytest.mark.parametrize("case", KEEPERS)
def test_no_buffer_moves_and_the_model_stays_as_it_was(case: str) -> None:
    torch.manual_seed(1)
    model = network(KEEPERS[case]())
    before = copy.deepcopy(dict(model.named_buffers()))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    trained = fit(model, phase(trainable=["5.weight"])).model
    assert torch.equal(torch.get_rng_state(), state)
    for name, buffer in trained.named_buffers():
        assert torch.equal(buffer, before[name]), name
        assert torch.equal(model.get_buffer(name), before[name]), name
    assert [m.training for m in trained.modules()] == [m.training for m in model.modules()]
    assert not torch.equal(trained.get_parameter("5.weight"), model.get_parameter("5.weight"))


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_moving_average_trains_as_it_is_evaluated_and_dropout_drops(p: float) -> None:
    torch.manual_seed(1)
    model = network(Ema(p))
    reached = fit(model, phase(trainable=["5.weight"])).model.get_parameter("5.weight")
    still = copy.deepcopy(model)
    still[1] = Still(model[1])
    assert torch.equal(fit(still, phase(trainable=["5.weight"])).model.get_parameter("5.weight"), reached)
    if p:
        model[1].drop.p = 0.0
        assert not torch.equal(fit(model, phase(trainable=["5.weight"])).model.get_parameter("5.weight"), reached)


class Still(nn.Module):
    """A moving average as it is in eval mode, and its dropout: the oracle."""

    def __init__(self, ema: Ema) -> None:
        super().__init__()
        self.mean, self.drop = ema.mean.clone(), ema.drop

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x - self.mean)


def test_dropout_by_the_mode_of_a_module_with_a_table_drops() -> None:
    model = network(Table())
    model[1].training = True
    reached = fit(model, phase(trainable=["5.weight"])).model.get_parameter("5.weight")
    model[1] = nn.Dropout(0.5)
    assert torch.equal(fit(model, phase(trainable=["5.weight"])).model.get_parameter("5.weight"), reached)


@pytest.mark.parametrize(("batch_norm", "trainable", "moves"), [
    ("update", None, True),
    ("trained", ["5.weight"], False),
    ("trained", None, True),
    ("frozen", None, False),
])  # fmt: skip
@pytest.mark.parametrize("case", ["instance norm", "spectral norm", "hooked spectral norm"])
def test_state_moves_where_it_is_asked_to(case: str, batch_norm: str, trainable: list[str] | None, moves: bool) -> None:
    torch.manual_seed(1)
    model = network(KEEPERS[case]())
    trained = fit(model, phase(trainable=trainable, batch_norm=batch_norm)).model
    moved = [not torch.equal(buffer, model.get_buffer(name)) for name, buffer in trained.named_buffers()]
    assert any(moved) is moves


class Killed(Callback):
    """Ends the run from outside after its first step."""

    def on_step(self, run: Run) -> None:
        if run.done == 1:
            raise KeyboardInterrupt


def test_resumed_with_a_moving_average_gives_the_same_bits(tmp_path) -> None:
    torch.manual_seed(1)
    model = network(Ema(0.5))
    whole = fit(model, phase()).model
    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(model, phase(), callbacks=[Killed()], checkpoint=checkpoint, checkpoint_every=1)
    resumed = fit(model, phase(), checkpoint=checkpoint, checkpoint_every=1).model
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())
