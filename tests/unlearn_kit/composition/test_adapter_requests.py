"""Requests as adapters on one model: added up, combined, reversed, withdrawn."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from unlearn_kit import adapters, models
from unlearn_kit.composition import combine_adapters, join_requests, weigh, withdraw
from unlearn_kit.composition import interpolate as merge_models

X = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(7))


def original() -> nn.Module:
    return models.build("small-cnn", 3, channels=1, width=4, seed=0).eval()


def served(seed: int, where: str = "all", rank: int = 2, alpha: float = 6.0, full: tuple[str, ...] = ()) -> nn.Module:
    """An adapter that training has moved."""
    adapted = adapters.attach(original(), where, rank, alpha, full=full)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return adapted


@pytest.fixture(scope="module")
def joined() -> nn.Module:
    return join_requests({"ann": served(1), "bob": served(2, "block5"), "cat": served(3, rank=2, alpha=2)})


def said(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(X)


def updates(seed: int, **options) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight, by baking it in and taking the original away."""
    baked, plain = adapters.merge(served(seed, **options)), original()
    return {name: p.detach() - plain.get_parameter(name).detach() for name, p in baked.named_parameters()}


def with_updates(weights: dict[int, float], **options: dict) -> nn.Module:
    model = original()
    with torch.no_grad():
        for seed, weight in weights.items():
            for name, update in updates(seed, **options.get(f"of_{seed}", {})).items():
                model.get_parameter(name).add_(weight * update)
    return model


SETTINGS = {"of_2": {"where": "block5"}, "of_3": {"rank": 2, "alpha": 2.0}}


def test_joined_adapters_add_up(joined: nn.Module) -> None:
    assert adapters.adapter_names(joined) == ["ann", "bob", "cat"]
    expected = with_updates({1: 1, 2: 1, 3: 1}, **SETTINGS)
    assert torch.allclose(said(joined), said(expected), atol=1e-4)
    with adapters.switched_off(joined):
        assert torch.equal(said(joined), said(original()))


@pytest.mark.parametrize("weights", [{"ann": 1.0}, {"ann": 0.5, "cat": 2.0}, {"bob": -1.0, "ann": 1.0, "cat": 0.0}, {}])
def test_weights_scale_what_each_adds(joined: nn.Module, weights: dict[str, float]) -> None:
    before = copy.deepcopy(joined.state_dict())
    seeds = {"ann": 1, "bob": 2, "cat": 3}
    expected = with_updates({seeds[name]: weight for name, weight in weights.items()}, **SETTINGS)
    found = weigh(joined, weights)
    assert torch.allclose(said(found), said(expected), atol=1e-4)
    assert torch.allclose(said(adapters.merge(found)) if weights else said(found), said(expected), atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in joined.state_dict().items())
    assert torch.allclose(said(joined), said(with_updates({1: 1, 2: 1, 3: 1}, **SETTINGS)), atol=1e-4)


def test_order_does_not_change_a_bit(joined: nn.Module) -> None:
    weights = {"ann": 0.5, "bob": -1.0, "cat": 2.0}
    turned = dict(reversed(weights.items()))
    assert torch.equal(said(weigh(joined, weights)), said(weigh(joined, turned)))
    for how in ("sum", "svd", "ties", "dare"):
        one, other = (combine_adapters(joined, w, how=how, seed=1) for w in (weights, turned))
        assert torch.equal(said(one), said(other))


def test_a_withdrawn_request_leaves_the_others_as_if_it_had_never_been(joined: nn.Module) -> None:
    left = withdraw(joined, "bob")
    assert adapters.adapter_names(left) == ["ann", "cat"]
    assert torch.equal(said(left), said(join_requests({"ann": served(1), "cat": served(3, rank=2, alpha=2)})))
    assert torch.equal(said(left), said(weigh(joined, {"ann": 1, "cat": 1})))
    assert adapters.adapter_names(joined) == ["ann", "bob", "cat"]
    alone = withdraw(left, "ann")
    with pytest.raises(ValueError, match="expected another adapter beside 'cat', but it is the only one"):
        withdraw(alone, "cat")
    off = withdraw(weigh(joined, {"bob": 1}), "bob")
    assert torch.equal(said(off), said(original()))
    assert torch.equal(said(withdraw(weigh(joined, {}), "bob")), said(original()))


def test_concatenation_is_the_exact_sum_and_svd_its_best_approximation(joined: nn.Module) -> None:
    weights = {"ann": 0.5, "cat": -2.0}
    exact = with_updates({1: 0.5, 3: -2.0}, **SETTINGS)
    found = combine_adapters(joined, weights)
    assert adapters.adapter_names(found) == ["ann", "bob", "cat", "combined"]
    assert torch.allclose(said(found), said(exact), atol=1e-4)
    full = combine_adapters(joined, weights, how="svd", rank=4, name="svd")
    assert torch.allclose(said(full), said(exact), atol=1e-3)
    thin = adapters.merge(combine_adapters(joined, weights, how="svd", rank=1))
    name = "block3.0.weight"
    sums = (exact.get_parameter(name) - original().get_parameter(name)).detach().flatten(1)
    u, s, v = torch.linalg.svd(sums)
    best = s[0] * u[:, :1] @ v[:1]
    assert torch.allclose(
        (thin.get_parameter(name) - original().get_parameter(name)).detach().flatten(1), best, atol=1e-4
    )


@pytest.mark.parametrize("how", ["sum", "svd", "dare", "prune"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 1, 1), (4, 5, 5)),
        (nn.Conv3d(4, 2, 3, padding=1), (4, 5, 5, 5)),
        (nn.Conv3d(4, 2, 1), (4, 5, 5, 5)),
        (nn.Conv1d(4, 2, 3), (4, 9)),
        (nn.Linear(4, 2), (4,)),
    ],
)
def test_kept_whole_every_kind_of_layer_combines_to_the_sum(layer: nn.Module, shape: tuple[int, ...], how: str) -> None:
    model, x = nn.Sequential(layer).eval(), torch.rand(3, *shape)
    for seed, name in enumerate(("ann", "bob")):
        model = adapters.attach(model, "0", rank=3, name=name)
        torch.manual_seed(seed)
        for key, parameter in model.named_parameters():
            if f"lora_B.{name}." in key:
                nn.init.normal_(parameter)
    options = {"density": 1.0} if how in ("dare", "prune") else {}
    combined = combine_adapters(model, {"ann": 0.5, "bob": -2.0}, how=how, **options)
    with torch.no_grad():
        expected = weigh(model, {"ann": 0.5, "bob": -2.0})(x)
        assert torch.allclose(combined(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert torch.allclose(adapters.merge(combined)(x), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_factors_of_two_ranks_are_refused() -> None:
    model = join_requests({"ann": served(1), "bob": served(2, rank=3)})
    with pytest.raises(ValueError, match=r"expected adapters of one rank with how='factors', but got \[2, 3\]"):
        combine_adapters(model, {"ann": 1.0, "bob": 1.0}, how="factors")


def test_factors_added_up_are_not_the_sum(joined: nn.Module) -> None:
    weights = {"ann": 1.0, "cat": 1.0}
    exact = combine_adapters(joined, weights)
    factors = combine_adapters(joined, weights, how="factors")
    assert not torch.allclose(said(factors), said(exact), atol=1e-2)


@pytest.mark.parametrize("how", ["ties", "dare", "dare_ties", "prune"])
def test_thinned_combinations_repeat_and_do_something_else(joined: nn.Module, how: str) -> None:
    weights = {"ann": 1.0, "cat": 1.0}
    state = torch.get_rng_state()
    one = combine_adapters(joined, weights, how=how, density=0.5, rank=4, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(said(one), said(combine_adapters(joined, weights, how=how, density=0.5, rank=4, seed=1)))
    assert not torch.allclose(said(one), said(combine_adapters(joined, weights)), atol=1e-3)
    other = combine_adapters(joined, weights, how=how, density=0.5, rank=4, seed=2)
    assert torch.equal(said(one), said(other)) == ("dare" not in how)


def test_everything_kept_is_the_sum(joined: nn.Module) -> None:
    weights = {"ann": 1.0, "cat": -0.5}
    exact = said(combine_adapters(joined, weights))
    for how in ("dare", "prune"):
        assert torch.allclose(said(combine_adapters(joined, weights, how=how, density=1.0, rank=4)), exact, atol=1e-3)


def test_a_join_is_joined_again_with_the_bits_of_all_at_once(joined: nn.Module) -> None:
    first = join_requests({"ann": served(1), "bob": served(2, "block5")})
    both = join_requests({"in service": first, "cat": served(3, rank=2, alpha=2)})
    assert adapters.adapter_names(both) == adapters.adapter_names(joined)
    assert torch.equal(said(both), said(joined))
    merged, expected = adapters.merge(both).state_dict(), adapters.merge(joined).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in merged.items())
    # Two joins; those that rest are not in service, and stay behind.
    again = join_requests({"x": weigh(joined, {"cat": 1.0}), "y": first})
    assert adapters.adapter_names(again) == ["cat", "ann", "bob"]
    assert torch.allclose(said(again), said(joined), atol=1e-4)
    with pytest.raises(ValueError, match="expected name to be new, but the model has adapters"):
        join_requests({"in service": first, "ann": served(3)})


def test_adapters_of_other_originals_are_refused() -> None:
    other = adapters.attach(models.build("small-cnn", 3, channels=1, width=4, seed=9).eval(), "all", 2)
    with pytest.raises(ValueError, match="expected adapters of one original, but those of 'ann' and 'eve' differ"):
        join_requests({"ann": served(1), "eve": other})
    with pytest.raises(ValueError, match="expected at least one adapted model, but got none"):
        join_requests({})
    with pytest.raises(TypeError, match="expected model to have adapters"):
        join_requests({"x": original()})


def test_an_adapter_that_replaces_a_module_stands_alone_in_that() -> None:
    ann = served(1, "block5", full=("head",))
    model = join_requests({"ann": ann, "bob": served(2, "block4")})
    assert torch.equal(said(weigh(model, {"ann": 1})), said(ann))
    assert torch.equal(said(weigh(model, {"ann": 1, "bob": 1})), said(model))
    assert torch.equal(said(withdraw(model, "ann")), said(served(2, "block4")))
    three = join_requests({"ann": ann, "bob": served(2, "block4"), "cat": served(3, "block3")})
    others = join_requests({"bob": served(2, "block4"), "cat": served(3, "block3")})
    assert torch.equal(said(withdraw(three, "ann")), said(others))
    with pytest.raises(ValueError, match="expected full to name modules not replaced yet, but 'ann' replaces 'head'"):
        join_requests({"ann": ann, "eve": served(3, "block5", full=("head",))})
    with pytest.raises(ValueError, match=r"expected adapters that replace no module, but 'ann' replaces \['head'\]"):
        combine_adapters(model, {"ann": 1, "bob": 1})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weights": {"ann": 1}}, "expected weights of at least two adapters"),
        ({"weights": {"ann": 1, "bo": 1}}, "did you mean 'bob'"),
        ({"weights": {"ann": 1, "bob": float("nan")}}, r"expected weights\['bob'\] in"),
        ({"name": "cat"}, "expected name to be new, but the model has adapters"),
        ({"how": "sums"}, "did you mean 'sum'"),
        ({"rank": 3}, "expected rank with an SVD, but how='sum' settles it"),
        ({"density": 0}, r"expected density in \(0, 1\]"),
    ],
)
def test_bad_combinations_are_refused(joined: nn.Module, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        combine_adapters(joined, **{"weights": {"ann": 1, "bob": 1}, **options})


def test_adapted_models_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="expected a to be a plain model, but it has adapters"):
        merge_models(served(1), served(2), 0.5)
