"""Adapters change nothing until trained, everything they should when on, and nothing at all when off."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import adapters, models
from unlearn_kit import losses as L
from unlearn_kit.composition import join_requests, weigh
from unlearn_kit.engine import Phase, fit


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return models.small_cnn(num_classes=3, channels=1, width=4).eval()


def unet() -> nn.Module:
    torch.manual_seed(0)
    return models.unet(num_classes=2, channels=1, widths=(4, 8, 12, 16)).eval()


class Tokens(nn.Module):
    """16 patches of an image through a module that mixes tokens."""

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.embed, self.mixer, self.head = nn.Linear(16, 8), mixer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(1, 3))
        mixed = self.mixer(x, x, x)[0] if isinstance(self.mixer, nn.MultiheadAttention) else self.mixer(x)
        return self.head(mixed.mean(1))


def attention() -> nn.Module:
    torch.manual_seed(0)
    return Tokens(nn.MultiheadAttention(8, 2, batch_first=True)).eval()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return Tokens(nn.TransformerEncoder(layer, 2)).eval()


def swin() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"patch_size": [2, 2], "window_size": [2, 2], "embed_dim": 4, "depths": [2], "num_heads": [2]}
    network = torchvision.models.SwinTransformer(**sizes, num_classes=3)
    network.features[0][0] = nn.Conv2d(1, 4, 2, 2)
    nn.init.normal_(network.head.weight, std=0.5)
    return network.eval()


# Networks with layers that are never called: their parents read the weights.
READING = {"attention": attention, "fused encoder": encoder, "swin": swin}

CASES = {
    **{f"{name}, all": (build, "all", ()) for name, build in READING.items()},
    "attention, copied projection": (attention, "embed", ("mixer.out_proj",)),
    "classifier, all": (classifier, "all", ()),
    "classifier, head": (classifier, "head", ()),
    "classifier, body and copied head": (classifier, "block5", ("head",)),
    "unet, decoder and copied head": (unet, "decoder", ("segmentation_head",)),
    "unet, all": (unet, "all", ()),
}


def moved(model: nn.Module) -> nn.Module:
    """The same adapters with weights that are not at their start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def data(model: nn.Module) -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    x = torch.rand(12, 1, 16, 16, generator=generator)
    with torch.no_grad():
        binary = model(x).dim() == 4
    y = (x[:, 0] > 0.6).float()[:, None] if binary else torch.randint(3, (12,), generator=generator)
    return TensorDataset(x, y)


def trained(adapted: nn.Module, dataset: TensorDataset, batch_norm: str) -> nn.Module:
    phase = Phase(
        L.cross_entropy(on="train"),
        {"train": dataset},
        steps=3,
        batch_size=4,
        lr=0.1,
        batch_norm=batch_norm,  # type: ignore[arg-type]
    )
    return fit(adapted, phase).model


@pytest.mark.parametrize("case", CASES)
def test_fresh_adapter_changes_nothing_and_the_original_stays_as_it_was(case: str) -> None:
    build, where, full = CASES[case]
    model = build()
    before = copy.deepcopy(model.state_dict())
    flags = [p.requires_grad for p in model.parameters()]
    adapted = adapters.attach(model, where, rank=2, full=full)
    x = data(model).tensors[0]
    with torch.no_grad():
        assert torch.equal(adapted(x), model(x))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not adapted.training


@pytest.mark.parametrize("case", CASES)
def test_switched_off_after_training_is_the_original_bit_for_bit(case: str) -> None:
    build, where, full = CASES[case]
    model = build()
    dataset = data(model)
    x = dataset.tensors[0]
    revised = trained(adapters.attach(model, where, rank=2, full=full), dataset, "frozen")
    with torch.no_grad():
        on = revised(x)
        assert not torch.equal(on, model(x))
        with adapters.switched_off(revised):
            assert torch.equal(revised(x), model(x))
        assert torch.equal(revised(x), on)
    original = model.state_dict()
    inside = adapters.base_state(revised)
    assert set(inside) == set(original)
    assert all(torch.equal(value, original[key]) for key, value in inside.items())


def test_with_batch_norm_updating_the_original_does_not_return() -> None:
    model = classifier()
    dataset = data(model)
    revised = trained(adapters.attach(model, "all", rank=2), dataset, "update")
    with torch.no_grad(), adapters.switched_off(revised):
        assert not torch.equal(revised(dataset.tensors[0]), model(dataset.tensors[0]))
    differing = {k for k, v in adapters.base_state(revised).items() if not torch.equal(v, model.state_dict()[k])}
    assert differing
    assert all("running" in key or "num_batches" in key for key in differing)


@pytest.mark.parametrize("case", CASES)
def test_merged_model_is_plain_and_equal_up_to_rounding(case: str) -> None:
    build, where, full = CASES[case]
    model = build()
    next(model.parameters()).requires_grad_(False)
    adapted = moved(adapters.attach(model, where, rank=2, full=full))
    merged = adapters.merge(adapted)
    x = data(model).tensors[0]
    assert type(merged) is type(model)
    assert set(merged.state_dict()) == set(model.state_dict())
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in merged.named_parameters()} == flags
    with torch.no_grad():
        torch.testing.assert_close(merged(x), adapted(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", READING)
def test_every_adapter_moves_the_output_as_its_merged_weights_do(case: str) -> None:
    model = READING[case]()
    x = data(model).tensors[0]
    for layer in adapters.select(model, "*"):
        adapted = moved(adapters.attach(model, model.get_submodule(layer), rank=2))
        with torch.no_grad():
            merged, on, off = adapters.merge(adapted)(x), adapted(x), model(x)
            torch.testing.assert_close(on, merged, rtol=1e-4, atol=1e-5)
            assert (on - off).abs().max() > 1e-3, layer
        adapted.train()
        adapted(x).sum().backward()
        for name, parameter in adapted.named_parameters():
            assert not parameter.requires_grad or parameter.grad.abs().sum() > 0, name


def test_merged_while_switched_off_is_the_original() -> None:
    model = classifier()
    adapted = moved(adapters.attach(model, "block5", rank=2, full=("head",)))
    with adapters.switched_off(adapted):
        merged = adapters.merge(adapted)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in merged.state_dict().items())


def test_dropout_reaches_an_adapter_whose_weight_is_read() -> None:
    adapted = moved(adapters.attach(attention(), "mixer", rank=2, dropout=0.5))
    layer = adapted.get_submodule("base_model.model.mixer.out_proj")
    with torch.no_grad():
        update = layer.weight - layer.base_layer.weight
        torch.manual_seed(0)
        layer.train()
        drawn = layer.weight - layer.base_layer.weight
    kept = drawn.abs().sum(0) > 0
    assert 0 < kept.sum() < len(kept)
    torch.testing.assert_close(drawn, 2 * update * kept)  # A channel is dropped, or counts 1 / (1 - 0.5) times.


def test_adapted_layers_are_pickled_by_name() -> None:
    adapted = moved(adapters.attach(encoder(), "all", rank=2))
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(adapted))(x), adapted(x))


def test_update_of_a_linear_layer_is_alpha_over_rank_times_b_a() -> None:
    model = models.mlp(num_classes=3, input_shape=(1, 4, 4), hidden=(5,)).eval()
    adapted = moved(adapters.attach(model, "head", rank=2, alpha=6))
    head = adapters.select(model, "head")[0]
    weights = {key.split(".head.")[-1]: value for key, value in adapted.state_dict().items() if ".head." in key}
    update = 6 / 2 * weights["lora_B.default.weight"] @ weights["lora_A.default.weight"]
    merged = dict(adapters.merge(adapted).named_parameters())[f"{head}.weight"]
    torch.testing.assert_close(merged, dict(model.named_parameters())[f"{head}.weight"] + update)
    assert torch.linalg.matrix_rank(update) <= 2


def test_scaling_is_linear_and_negation_undoes() -> None:
    model = models.mlp(num_classes=3, input_shape=(1, 4, 4), hidden=()).eval()
    adapted = moved(adapters.attach(model, "all", rank=2))
    x = torch.rand(5, 1, 4, 4)
    with torch.no_grad():
        plain, on = model(x), adapted(x)
        torch.testing.assert_close(adapters.scale(adapted, 0.0)(x), plain)
        torch.testing.assert_close(adapters.scale(adapted, 0.5)(x), (plain + on) / 2)
        torch.testing.assert_close(adapters.negate(adapted)(x), 2 * plain - on)
        assert torch.equal(adapted(x), on)


def test_scaling_moves_a_copied_head_along_its_line() -> None:
    model = classifier()
    adapted = moved(adapters.attach(model, "block5", rank=2, full=("head",)))
    half = adapters.merge(adapters.scale(adapted, 0.5)).state_dict()["head.weight"]
    whole = adapters.merge(adapted).state_dict()["head.weight"]
    torch.testing.assert_close(half, (whole + model.state_dict()["head.weight"]) / 2)


def test_several_adapters_act_together_apart_and_not_at_all() -> None:
    model = models.mlp(num_classes=3, input_shape=(1, 4, 4), hidden=()).eval()
    one = moved(adapters.attach(model, "all", rank=1, name="one"))
    both = adapters.attach(one, "all", rank=1, name="two")
    with torch.no_grad():
        for key, parameter in both.named_parameters():
            if ".two." in key:
                parameter.add_(0.3)
    x = torch.rand(5, 1, 4, 4)
    with torch.no_grad():
        plain = model(x)
        with adapters.only(both, ["one"]):
            first = both(x)
        with adapters.only(both, ["two"]):
            second = both(x)
        assert torch.equal(first, one(x))
        assert not torch.allclose(second, plain)
        torch.testing.assert_close(both(x), first + second - plain)
        with adapters.switched_off(both), adapters.only(both, ["two"]):
            assert torch.equal(both(x), second)
        with adapters.switched_off(both):
            assert torch.equal(both(x), plain)


def test_switching_leaves_gradient_flags_alone() -> None:
    adapted = adapters.attach(classifier(), "all", rank=2)
    for parameter in adapted.parameters():
        parameter.requires_grad_(False)
    with adapters.switched_off(adapted):
        pass
    assert not any(p.requires_grad for p in adapted.parameters())


def test_switched_off_parameters_take_gradients_as_the_original_s_do() -> None:
    model = classifier()
    model.get_parameter("head.bias").requires_grad_(False)
    adapted = adapters.attach(adapters.attach(model, "head", rank=2, full=("block1",)), "head", rank=2, name="two")
    with adapters.switched_off(copy.deepcopy(adapted)) as off:
        flags = {name for name, p in off.named_parameters() if p.requires_grad}
        inside = adapters.base_state(off, buffers=False)
    wanted = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(flags) == len(wanted) == len(inside) - 1
    assert not any(
        ".lora_" in name or "modules_to_save" in name or name.endswith("head.base_layer.bias") for name in flags
    )


def test_switched_off_is_the_original_where_torch_asks_whether_weights_take_gradients() -> None:
    torch.manual_seed(0)
    model = Turned().eval()
    adapted = moved(adapters.attach(model, "all", rank=2))
    x = torch.rand(2, 160, 4)
    with torch.no_grad(), adapters.switched_off(adapted):
        assert torch.equal(adapted(x), model(x))


class Turned(nn.Sequential):
    """A linear layer of what is not contiguous, which torch multiplies in one of two orders."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(160, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2))


def test_where_chooses_by_part_pattern_module_and_head() -> None:
    model = classifier()
    assert adapters.select(model, "all") == [*(f"block{i}.0" for i in range(1, 6)), "head"]
    assert adapters.select(model, "head") == ["head"]
    assert adapters.select(model, "block2") == ["block2.0"]
    assert adapters.select(model, "block[12].*") == ["block1.0", "block2.0"]
    assert adapters.select(model, [model.get_submodule("block3"), "head"]) == ["block3.0", "head"]
    assert all(name.startswith("decoder.") for name in adapters.select(unet(), "decoder"))
    with pytest.raises(ValueError, match=r"where to choose convolutions or linear layers, but 'neck' chooses none"):
        adapters.attach(model, "neck")


@pytest.mark.parametrize("case", CASES)
def test_saved_and_loaded_acts_with_the_same_bits(case: str, tmp_path) -> None:
    build, where, full = CASES[case]
    model = build()
    adapted = adapters.scale(moved(adapters.attach(model, where, rank=2, alpha=5, full=full)), 0.75)
    path = adapters.save(adapted, tmp_path / "adapter.safetensors")
    loaded = adapters.load(model, path)
    x = data(model).tensors[0]
    with torch.no_grad():
        assert torch.equal(loaded(x), adapted(x))
        with adapters.switched_off(loaded):
            assert torch.equal(loaded(x), model(x))


def random_states() -> list[object]:
    return [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]  # noqa: NPY002


@pytest.mark.parametrize("case", CASES)
def test_adapters_that_move_draw_nothing_from_the_caller(case: str, tmp_path) -> None:
    build, where, full = CASES[case]
    model = build()
    adapted = moved(adapters.attach(model, where, rank=2, full=full))
    path = adapters.save(adapted, tmp_path / "adapter.safetensors")
    before = random_states()
    adapters.load(model, path)
    assert random_states() == before
    adapters.gather({"one": adapted} if full else {"one": adapted, "two": adapted})
    assert random_states() == before
    join_requests({"one": adapted})
    assert random_states() == before


WRONG_TYPES = {
    "model": (lambda _: adapters.attach(3, "all"), "expected model to be a torch.nn.Module, but got int"),
    "selected from": (lambda _: adapters.select(3, "all"), "expected model to be a torch.nn.Module, but got int"),
    "where": (
        lambda _: adapters.attach(classifier(), 3),
        "expected where to be a str, a torch.nn.Module or an iterable, but got int",
    ),
    "a part": (
        lambda _: adapters.attach(classifier(), ["head", None]),
        r"expected where\[1\] to be a str or a torch.nn.Module, but got NoneType",
    ),
    "example": (lambda _: adapters.attach(classifier(), "head", example="x"), "expected example to be a Tensor"),
    "name": (lambda _: adapters.attach(classifier(), "head", name=3), "expected name to be a str, but got int"),
    "names": (lambda a: adapters.switch_(a, "default"), "expected names to be a sequence, but got str"),
    "number of names": (lambda a: adapters.switch_(a, 1), "expected names to be a sequence, but got int"),
    "models": (lambda _: adapters.gather([1]), "expected models to be a mapping, but got list"),
    "weights": (lambda a: weigh(a, ["default"]), "expected weights to be a mapping, but got list"),
}


@pytest.mark.parametrize("case", WRONG_TYPES)
def test_wrong_types_are_named(case: str) -> None:
    call, told = WRONG_TYPES[case]
    with pytest.raises(TypeError, match=told):
        call(adapters.attach(classifier(), "head", rank=2))


def test_refusals_name_the_argument() -> None:
    model = classifier()
    adapted = adapters.attach(model, "head", rank=2)
    with pytest.raises(ValueError, match=r"expected name to be new, but the model has adapters \['default'\]"):
        adapters.attach(adapted, "head", rank=2)
    with (
        pytest.raises(ValueError, match=r"expected name to be one of \['default'\], but got 'other'"),
        adapters.only(adapted, ["other"]),
    ):
        pass
    with pytest.raises(ValueError, match="but a Linear chooses none: it is no module of this model"):
        adapters.attach(model, nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"expected model to have adapters .* but got Sequential"):
        adapters.merge(model)
    with pytest.raises(ValueError, match="expected full to name modules of the model, but got 'neck'"):
        adapters.attach(model, "head", full=("neck",))
    with pytest.raises(ValueError, match="expected rank to be at least 1, but got 0"):
        adapters.attach(model, "head", rank=0)
    with pytest.raises(ValueError, match="expected dropout in"):
        adapters.attach(model, "head", dropout=1.0)
