from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import data, models
from unlearn_kit.metrics import feature_distance
from unlearn_kit.metrics.features import captured


def draw(*shape: int, seed: int = 0) -> Tensor:
    # In float64 the sums differ by the size of the batches in the last digits only.
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gram_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The same number from centred Gram matrices ``(n, n)``, as HSIC writes it."""
    centre = np.eye(len(x)) - 1 / len(x)
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": torch.zeros(len(weight)) if bias is None else bias})
    return nn.Sequential(layer).double()


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_cka_is_that_of_the_centred_gram_matrices(batch_size: int, offset: float) -> None:
    first, second = linear(draw(3, 6), torch.full((3,), offset)), linear(draw(5, 6, seed=1))
    x = draw(23, 6, seed=2)
    found = feature_distance(first, second, TensorDataset(x, torch.zeros(23)), layers=["0"], batch_size=batch_size)
    with torch.no_grad():
        expected = gram_cka(first(x).numpy(), second(x).numpy())
    assert 0.01 < expected < 0.99
    assert found == {"0": pytest.approx(expected, abs=1e-12)}


def test_rotation_and_scale_do_not_matter_and_noise_does() -> None:
    weight = draw(4, 4)
    turn, _ = torch.linalg.qr(draw(4, 4, seed=1))
    noise = TensorDataset(draw(400, 4, seed=2), torch.zeros(400))
    assert feature_distance(linear(weight), linear(3 * turn @ weight), noise)["0"] == pytest.approx(1, abs=1e-6)

    class Split(nn.Module):
        """Features of one half of the input, which know nothing of the other."""

        def __init__(self, start: int) -> None:
            super().__init__()
            self.start, self.scale = start, nn.Linear(2, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.scale(x[:, self.start : self.start + 2])

    torch.manual_seed(0)
    assert feature_distance(Split(0), Split(2), noise)["scale"] < 0.05


def test_a_model_is_like_itself_in_every_layer() -> None:
    model = models.build("small-cnn", 10, 1, seed=0, width=4)
    digits = data.load("digits").test
    found = feature_distance(model, model, digits)
    owners = [name for name, module in model.named_modules() if list(module.parameters(recurse=False))]
    assert list(found) == owners
    assert list(found.values()) == pytest.approx([1.0] * len(owners), abs=1e-12)
    other = models.build("small-cnn", 10, 1, seed=1, width=4)
    assert 0 < feature_distance(model, other, digits)["head"] < 0.99


class Maps(nn.Module):
    """One convolution that leaves its maps to the next one, which works in place."""

    def __init__(self, masks: bool, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.spoil, self.masks = nn.Conv2d(2, 3, 3).double(), nn.ReLU(inplace=True), masks

    def forward(self, x: Tensor) -> Tensor:
        maps = self.spoil(self.conv(x))
        return maps if self.masks else maps.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("masks", "space", "positions"), [(0, None, 0), (1, None, 1), (1, "mean", 0), (0, "positions", 1)]
)
def test_maps_are_averaged_or_every_position_is_a_sample(masks: int, space: str | None, positions: int) -> None:
    pair = Maps(bool(masks), 0), Maps(bool(masks), 1)
    x = draw(9, 2, 6, 5)
    found = feature_distance(*pair, TensorDataset(x, torch.zeros(9)), space=space, batch_size=4)
    with torch.no_grad():
        maps = [model.conv(x).numpy() for model in pair]  # before they were spoilt
    rows = [np.moveaxis(m, 1, -1).reshape(-1, 3) if positions else m.mean(axis=(2, 3)) for m in maps]
    assert found == {"conv": pytest.approx(gram_cka(*rows), abs=1e-9)}


def test_tokens_are_averaged_over_the_tokens() -> None:
    class Tokens(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.embed = nn.Linear(4, 6).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.embed(x).mean(dim=1)

    x, pair = draw(12, 5, 4), (Tokens(0), Tokens(1))
    with torch.no_grad():
        expected = gram_cka(*(model(x).numpy() for model in pair))
    assert feature_distance(*pair, TensorDataset(x, torch.zeros(12)))["embed"] == pytest.approx(expected, abs=1e-6)


def test_what_does_not_vary_and_what_is_empty_is_n_a() -> None:
    first, second = linear(draw(3, 4)), linear(draw(3, 4, seed=1))
    assert feature_distance(first, second, TensorDataset(draw(1, 4), torch.zeros(1))) == {"0": None}
    assert feature_distance(first, second, TensorDataset(draw(0, 4), torch.zeros(0))) is None
    dead = linear(torch.zeros(3, 4), torch.tensor([0.1, 7.7, -3.3]))
    assert feature_distance(first, dead, TensorDataset(draw(11, 4), torch.zeros(11)), batch_size=3) == {"0": None}


def test_saturated_features_stay_finite() -> None:
    huge = linear(1e15 * draw(3, 4))
    x = TensorDataset(draw(20, 4, seed=3), torch.zeros(20))
    assert feature_distance(huge, linear(draw(3, 4)), x)["0"] == pytest.approx(1, abs=1e-6)


def test_masks_of_a_segmentation_network() -> None:
    lesions = data.load("synthetic-lesions", train_size=4, test_size=2, size=16)
    pair = [models.build("unet", 2, 3, seed=s, widths=(4, 8), decoder_widths=(8, 4)) for s in (0, 1)]
    itself = feature_distance(pair[0], pair[0], lesions.train)
    assert min(itself.values()) == pytest.approx(1, abs=1e-9)
    other = feature_distance(*pair, lesions.train, layers=["segmentation_head", "encoder.stages.1"], batch_size=3)
    assert list(other) == ["segmentation_head", "encoder.stages.1"]
    assert 0 <= other["encoder.stages.1"] < 1


def test_bad_layers_are_refused_and_hooks_never_stay() -> None:
    model, x = linear(draw(3, 4)), TensorDataset(draw(5, 4), torch.zeros(5))
    with pytest.raises(ValueError, match=r"expected submodule of Sequential to be one of .*, but got 'body'"):
        feature_distance(model, model, x, layers=["0", "body"])
    with pytest.raises(ValueError, match=r"expected space to be one of .*, but got 'flat'"):
        feature_distance(model, model, x, space="flat")
    with pytest.raises(ValueError, match="expected two models with layers of the same names, but got none"):
        feature_distance(model, nn.Identity(), x)
    idle = nn.Sequential()
    idle.add_module("0", nn.Linear(4, 3))
    idle.forward = lambda x: x
    with pytest.raises(ValueError, match=r"expected layers to run in both models, but got \['0'\] that did not"):
        feature_distance(idle, model, x, layers=["0"])
    assert feature_distance(idle, model, x) == {}

    class Wide(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, size).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x)

    images = TensorDataset(draw(2, 1, 5, 5), torch.zeros(2))
    with pytest.raises(ValueError, match=r"expected as many positions .* at 'conv', but got 50 and 18; space='mean'"):
        feature_distance(Wide(1), Wide(3), images)
    assert not any(module._forward_hooks for m in (model, idle) for module in m.modules())


def test_features_are_captured_of_a_copy_too() -> None:
    # For another device the model is copied while the hooks are on.
    model, x = linear(draw(3, 4)), draw(5, 4)
    with captured(model, ["0"]) as held:
        expected = copy.deepcopy(model)(x)
        assert torch.equal(held["0"], expected)


def test_captured_inputs_and_what_is_no_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)).double()
    x = draw(5, 4)
    with captured(model, ["2"], side="input") as held:
        model(x)
    assert torch.equal(held["2"], model[0](x).relu())
    assert not held["2"].requires_grad

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    odd = nn.Sequential(Pair())
    text = r"expected the output of '0' to be a Tensor \(B, ...\), but got dict"
    with captured(odd, ["0"]), pytest.raises(ValueError, match=text):
        odd(x)
    assert not odd[0]._forward_hooks
