"""Which layers get an adapter: each acts as its merged weight does, and those that could not are refused by name."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from unlearn_kit import adapters, models


class Standardized(nn.Conv2d):
    """A convolution with a weight of zero mean, and a constructor of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(3, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=self.padding)


class Asking(nn.Module):
    """A parent that asks its layer for the attributes of a convolution, and hands its weight to a function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def net(layer: nn.Module, dimensions: int = 2) -> nn.Module:
    pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[dimensions]
    return models.declare_head(nn.Sequential(layer, nn.Tanh(), pool(1), nn.Flatten(), nn.LazyLinear(3)), "4")


def images(dimensions: int = 2) -> torch.Tensor:
    return torch.rand(2, 3, *(7 for _ in range(dimensions)), generator=torch.Generator().manual_seed(3))


def built(layer: Callable[[], nn.Module], dimensions: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model = net(layer(), dimensions).eval()
    with torch.no_grad():
        model(images(dimensions))
    return model


def moved(adapted: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return adapted


def gap(model: nn.Module, where: adapters.Where, x: torch.Tensor) -> tuple[float, float]:
    """How far merged is from adapted, and adapted from the original."""
    adapted = moved(adapters.attach(model, where, rank=2, example=x)).eval()
    with torch.no_grad():
        on, merged = adapted(x), adapters.merge(adapted).eval()(x)
        with adapters.switched_off(adapted):
            assert torch.equal(adapted(x), model(x))
        return float((merged - on).abs().max()), float((on - model(x)).abs().max())


def test_a_fresh_adapter_gives_the_bits_of_the_frozen_original_and_switched_off_those_of_the_original() -> None:
    """The case in which torch chooses how to multiply by whether the weight takes gradients."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(16, 16)), torch.rand(12, 16, 4).mT
    frozen = copy.deepcopy(model).requires_grad_(False)
    adapted = adapters.attach(model, "all", rank=2)
    with torch.no_grad():
        assert torch.equal(adapted(x), frozen(x))
        with adapters.switched_off(moved(adapted)):
            assert torch.equal(adapted(x), model(x))
        assert torch.equal(adapters.switch_(adapted, [])(x), frozen(x))


def hooked() -> nn.Module:
    layer = nn.Conv2d(3, 8, 3)
    layer.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return layer


KINDS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "Conv1d": (lambda: nn.Conv1d(3, 8, 3, padding=1), 1),
    "Conv3d": (lambda: nn.Conv3d(3, 8, 3, padding=1), 3),
    "Conv3d of one point": (lambda: nn.Conv3d(3, 8, 1), 3),
    "Conv3d of a line": (lambda: nn.Conv3d(3, 8, (1, 1, 3)), 3),
    "Conv2d of one point": (lambda: nn.Conv2d(3, 8, 1, stride=2), 2),
    "reflect": (lambda: nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), 2),
    "replicate, one side": (lambda: nn.Conv2d(3, 8, 3, padding=(0, 1), padding_mode="replicate"), 2),
    "circular, same": (lambda: nn.Conv2d(3, 8, 3, padding="same", padding_mode="circular", dilation=2), 2),
    "circular Conv1d": (lambda: nn.Conv1d(3, 8, 5, padding=2, padding_mode="circular"), 1),
    "replicate Conv3d": (lambda: nn.Conv3d(3, 8, 3, padding=1, padding_mode="replicate"), 3),
    "same, dilated": (lambda: nn.Conv2d(3, 8, 3, padding="same", dilation=2), 2),
    "same, even kernel": (lambda: nn.Conv2d(3, 8, 4, padding="same", dilation=(1, 2)), 2),
    "valid, dilated": (lambda: nn.Conv2d(3, 8, 3, padding="valid", dilation=2), 2),
    "dilated": (lambda: nn.Conv2d(3, 8, 3, padding=2, dilation=2), 2),
    "dilated and strided": (lambda: nn.Conv2d(3, 8, 3, padding=2, dilation=2, stride=2), 2),
    "overridden": (lambda: Standardized(8), 2),
    "hooked": (hooked, 2),
    "read by its parent": (Asking, 2),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("case", KINDS)
def test_merged_is_adapted_for_every_kind(case: str) -> None:
    layer, dimensions = KINDS[case]
    model = built(layer, dimensions)
    off, far = gap(model, "0", images(dimensions))
    assert far > 1e-3
    assert off < 1e-6 * max(1, far)


class Tied(nn.Module):
    """Two layers with one weight, and a third of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(147, 147), nn.Linear(147, 147), nn.Linear(147, 3)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.two(self.one(x.flatten(1)).tanh()).tanh())


class Twice(nn.Module):
    """One layer registered under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = self.two = nn.Linear(147, 147)
        self.last = nn.Linear(147, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.two(self.one(x.flatten(1)).tanh()).tanh())


class Idle(nn.Module):
    """A layer that is never used, and one whose weight was put aside when it was built."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Linear(147, 3), nn.Linear(147, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(x.flatten(1))


def pruned() -> nn.Module:
    return prune.l1_unstructured(nn.Conv2d(3, 8, 3), "weight", 0.5)


COMPUTED = "its weight is computed"
# What is built; the layer that can have no adapter; why; another that can.
REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "grouped": (lambda: built(lambda: nn.Conv2d(3, 6, 3, groups=3)), "0", "a Conv2d of 3 groups", "4"),
    "spectral norm": (lambda: built(lambda: parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))), "0", COMPUTED, "4"),
    "weight norm": (lambda: built(lambda: parametrizations.weight_norm(nn.Conv2d(3, 8, 3))), "0", COMPUTED, "4"),
    "hooked spectral norm": (lambda: built(lambda: nn.utils.spectral_norm(nn.Conv2d(3, 8, 3))), "0", COMPUTED, "4"),
    "pruned": (lambda: built(pruned), "0", COMPUTED, "4"),
    "tied": (Tied, "one", "its weight is tied", "last"),
    "registered twice": (Twice, "one", "it is registered more than once", "last"),
    "idle": (Idle, "one", "the output does not depend on it", "last"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_that_can_have_no_adapter_are_skipped_by_rule_and_refused_by_name(case: str, caplog) -> None:
    build, layer, why, other = REFUSED[case]
    model = build().eval()
    x = images()
    for named in (layer, [other, layer], model.get_submodule(layer)):
        with pytest.raises(ValueError, match=f"can have an adapter, but '{layer}': {why}"):
            adapters.attach(model, named, example=x)
    assert other in adapters.select(model, "all", example=x)
    assert adapters.skipped(model, "all", example=x)[layer].startswith(why)
    with caplog.at_level(logging.WARNING, "unlearn_kit"):
        off, far = gap(model, "all", x)
    assert f"'{layer}': {why}" in caplog.text
    assert far > 1e-3
    assert off < 1e-6
    assert adapters.skipped(adapters.attach(model, "all", example=x), "all", example=x)[layer].startswith(why)


class Aside(nn.Module):
    """A layer whose weight is read where no adapter can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(147, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = getattr(self.layer, "base_layer", self.layer)
        return self.last(layer(x.flatten(1)).tanh())


def test_an_adapter_that_does_not_act_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"adapter acts as its merged weight, but got \['layer'\]"):
        adapters.attach(Aside().eval(), "all", example=images())


class Taking(Aside):
    """A layer whose weight is looked up among its parameters, where an adapted layer has none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.linear(x.flatten(1), dict(self.layer.named_parameters())["weight"]))


def test_a_model_that_fails_with_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="expected model to run with adapters in its layers, but it fails"):
        adapters.attach(Taking().eval(), "all", example=images())


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (nn.ConvTranspose2d(3, 8, 3), "ConvTranspose2d"),
        (nn.BatchNorm2d(3), "BatchNorm2d"),
        (nn.Sequential(nn.ReLU()), "Sequential"),
    ],
)
def test_what_is_no_such_layer_is_refused_even_beside_others(layer: nn.Module, kind: str) -> None:
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(4, 3))
    for where in (["2", "0"], "0"):
        with pytest.raises(ValueError, match=f"linear layers, but '0' chooses none: it is a {kind}"):
            adapters.attach(model, where)
    with pytest.raises(ValueError, match=f"but a {kind} chooses none"):
        adapters.attach(model, ["2", layer])


def test_a_graph_is_refused() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4)))
    for model in (graph, nn.Sequential(graph, nn.Linear(4, 3))):
        with pytest.raises(TypeError, match=r"whose layers can be replaced, but got a torch\.fx graph"):
            adapters.attach(model, "all")


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x -= 1
        return self.layer(x)


def test_an_example_that_the_network_writes_into_stays_as_it_is() -> None:
    example = torch.rand(2, 4)
    before = example.clone()
    adapters.attach(Writing(), "all", rank=1, example=example)
    assert torch.equal(example, before)


def test_looking_changes_nothing_of_the_caller() -> None:
    model = built(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5)))
    model[0].train()
    model[4].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    adapted = adapters.attach(model, "all", rank=2)
    plain = torch.get_rng_state()
    torch.manual_seed(5)
    seen = adapters.attach(model, "all", rank=2, example=images())
    assert torch.equal(torch.get_rng_state(), plain)
    assert all(
        torch.equal(a, b) for a, b in zip(adapted.state_dict().values(), seen.state_dict().values(), strict=True)
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in model.modules()] == [False, True, True, True, True, False, False, False, False]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    assert all(p.grad is None for p in [*model.parameters(), *seen.parameters()])


def test_example_that_the_model_does_not_take_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"expected example to be a batch that Tied takes, but it fails with inputs of shape \(2, 5\)"
    ):
        adapters.attach(Tied(), "last", example=torch.rand(2, 5))


def test_full_replaces_the_module_of_that_name_alone() -> None:
    parts = {"flat": nn.Flatten(), "body": nn.Linear(147, 5), "aux_head": nn.Linear(5, 5), "head": nn.Linear(5, 3)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    adapted = adapters.attach(model, ["body", "aux_head"], rank=2, full=("head",))
    whole = {name for name, p in adapted.named_parameters() if p.requires_grad and "modules_to_save" in name}
    assert whole == {f"base_model.model.head.modules_to_save.default.{part}" for part in ("weight", "bias")}
    assert {name.split(".lora_")[0] for name, _ in adapted.named_parameters() if ".lora_" in name} == {
        "base_model.model.body",
        "base_model.model.aux_head",
    }


def test_layers_that_are_replaced_as_a_whole_have_no_adapter() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="'1' chooses none: those it covers are replaced as a whole"):
        adapters.attach(model, "1", full=("1",))
    with pytest.raises(ValueError, match="'1' chooses none: those it covers are replaced as a whole"):
        adapters.attach(adapters.attach(model, "0", full=("1",)), "1", name="two")


def test_modules_that_cannot_be_replaced_are_refused() -> None:
    shared = Twice()
    with pytest.raises(ValueError, match="full to name modules registered once, but 'one'"):
        adapters.attach(shared, "last", full=("one",))
    nested = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    with pytest.raises(ValueError, match=r"modules apart from each other, but got '1' and '1.0'"):
        adapters.attach(nested, "0", full=("1", "1.0"))
    with pytest.raises(ValueError, match=r"full to name modules without adapters, but '1\.0' has one"):
        adapters.attach(adapters.attach(nested, "1.0"), "0", name="two", full=("1",))
    with pytest.raises(ValueError, match=r"'default' replaces '1\.0'"):
        adapters.attach(adapters.attach(nested, "0", full=("1",)), "0", name="two", full=("1.0",))
    with pytest.raises(TypeError, match="full to be a sequence, but got str"):
        adapters.attach(nested, "0", full="1")
    listed = nn.Sequential(nn.Linear(4, 4))
    listed.add_module("parts", nn.ModuleList([nn.Linear(4, 4)]))
    with pytest.raises(ValueError, match="'parts' is a container"):
        adapters.attach(listed, "0", full=("parts",))


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "keys", "training", "lora_"])
def test_names_that_no_adapter_can_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected name to be "):
        adapters.attach(nn.Sequential(nn.Linear(4, 3)), "0", name=name)


def test_modules_of_names_that_peft_gives_are_refused() -> None:
    model = nn.Sequential()
    model.add_module("base_layer", nn.Linear(4, 3))
    with pytest.raises(ValueError, match="no module of a name that peft gives, but it has 'base_layer'"):
        adapters.attach(model, "all")


def test_nothing_depends_on_the_caller_s_settings() -> None:
    model = built(lambda: nn.Conv2d(3, 8, 3))
    torch.manual_seed(0)
    adapted = adapters.attach(model, "all", rank=2)
    torch.manual_seed(0)
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        elsewhere = adapters.attach(model, "all", rank=2)
        merged = adapters.merge(moved(elsewhere))
    for plain, found in ((adapted, elsewhere), (adapters.merge(moved(adapted)), merged)):
        pairs = zip(plain.named_parameters(), found.parameters(), strict=True)
        assert all(torch.equal(one, other) for (name, one), other in pairs if "lora_B" not in name)


def test_what_a_module_keeps_of_its_last_call_is_no_obstacle() -> None:
    model = built(lambda: nn.Conv2d(3, 8, 3))
    model[0].kept = model(images())
    off, far = gap(model, "all", images())
    assert far > 1e-3
    assert off < 1e-6
