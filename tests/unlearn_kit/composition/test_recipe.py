from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from unlearn_kit import save_model
from unlearn_kit.composition import (
    METHODS,
    average,
    compose,
    dare,
    fisher_merge,
    greedy_soup,
    interpolate,
    neg_merge,
    slerp,
    swap_head,
    task_arithmetic,
    ties,
)
from unlearn_kit.data import TensorImages, in_order
from unlearn_kit.gradients import mean_squared_gradients
from unlearn_kit.hashing import hash_model


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model[1].running_mean.fill_(seed)
    return model


def data() -> TensorImages:
    generator = torch.Generator().manual_seed(0)
    return TensorImages(torch.rand(12, 3, generator=generator), torch.arange(12) % 2)


BASE, A, B = (network(seed) for seed in range(3))
MODELS = {"original": BASE, "a": A, "b": B}


def score(model: nn.Module) -> float:
    return float(model[0].weight.detach().sum())


def fishers() -> list[dict[str, torch.Tensor]]:
    return [mean_squared_gradients(model, in_order(data())) for model in (A, B)]


CASES = {
    "average": ({"weights": [1, 3]}, lambda: average([A, B], [1, 3])),
    "dare": ({"base": "original", "density": 0.5, "seed": 4}, lambda: dare(BASE, [A, B], 1.0, 0.5, 4)),
    "fisher_merge": ({"weights": [1, 2]}, lambda: fisher_merge([A, B], fishers(), [1, 2])),
    "greedy_soup": ({}, lambda: greedy_soup([A, B], score).model),
    "interpolate": ({"t": {"": 0.25, "2": 1.0}}, lambda: interpolate(A, B, {"": 0.25, "2": 1.0})),
    "neg_merge": ({"base": "original", "weight": -1}, lambda: neg_merge(BASE, [A, B], -1)),
    "slerp": ({"base": "original", "t": 0.4}, lambda: slerp(A, B, 0.4, base=BASE)),
    "swap_head": ({"module": "2"}, lambda: swap_head(A, B, "2")),
    "task_arithmetic": (
        {"base": "original", "weights": [1, -0.5], "recalibrate": True},
        lambda: task_arithmetic(BASE, [A, B], [1, -0.5], recalibrate=data()),
    ),
    "ties": ({"base": "original", "density": 0.3}, lambda: ties(BASE, [A, B], density=0.3)),
}


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_every_method_has_a_case() -> None:
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("method", CASES)
def test_a_recipe_is_the_call_it_describes(method: str) -> None:
    options, expected = CASES[method]
    recipe = {"method": method, "models": ["a", "b"], **options}
    found = compose(recipe, models=MODELS, data=data(), score=score)
    assert same(found.model, expected())
    assert found.record["method"] == method
    assert [made["hash"] for made in found.record["models"]] == [hash_model(A), hash_model(B)]
    assert found.record["hash"] == hash_model(found.model)
    assert json.loads(json.dumps(found.record)) == found.record
    assert same(compose(json.dumps(recipe), models=MODELS, data=data(), score=score).model, found.model)


def test_files_and_recipes_inside_recipes(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    save_model(A, tmp_path / "runs" / "a.safetensors")
    text = """
    method: swap_head
    module: "2"
    models:
      - {method: ties, base: original, models: [runs/a.safetensors, b], density: 0.5}
      - b
    """
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    found = compose(path, models=MODELS, build=lambda: network(9))
    assert same(found.model, swap_head(ties(BASE, [A, B], density=0.5), B, "2"))
    assert found.record["models"][0]["models"][0]["hash"] == hash_model(A)
    assert found.record["models"][0]["needs_recalibration"]
    assert same(compose(path, models=MODELS, build=network(9)).model, found.model)


MODELS_IN_THEMSELVES: dict[str, Any] = {"method": "average"}
MODELS_IN_THEMSELVES["models"] = [MODELS_IN_THEMSELVES]


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ({"models": ["a"]}, "expected recipe to have a key 'method'"),
        ({"method": "tie", "models": ["a"]}, "did you mean 'ties'"),
        ({"method": "ties", "models": ["a"]}, "expected the ties recipe to have a key 'base'"),
        ({"method": "ties", "base": "original"}, "expected the ties recipe to have a key 'models'"),
        ({"method": "ties", "base": "original", "models": ["a"], "desnity": 1}, "did you mean 'density'"),
        ({"method": "average", "base": "original", "models": ["a"]}, "expected every key of the average recipe"),
        ({"method": "average", "models": "a"}, "expected models in a recipe to be a list of inputs, but got 'a'"),
        ({"method": "average", "models": ["c"]}, "expected an input of the recipe to be one of"),
        ({"method": "average", "models": [3]}, "expected an input to be a name, a path or a recipe, but got int"),
        ({"method": "average", "models": ["c.safetensors"]}, "expected build= with the file 'c.safetensors'"),
        ({"method": "interpolate", "models": ["a"], "t": 0}, "expected models of the interpolate recipe to be two"),
        ({"method": "interpolate", "models": ["a", "b"]}, "expected the interpolate recipe to have a key 't'"),
        ({"method": "average", "models": ["a"], "recalibrate": True}, "expected data= with recalibrate: true"),
        ({"method": "average", "models": ["a"], "recalibrate": 3}, "to be true or false, but got 3"),
        ({"method": "greedy_soup", "models": ["a"]}, "expected score= with the greedy_soup recipe"),
        ({"method": "fisher_merge", "models": ["a"]}, "expected data= with the fisher_merge recipe"),
        ("- a", "expected recipe to be a mapping, but got list"),
        ("method: !!bool maybe", "recipe: method: expected a value of type bool, but got 'maybe'"),
        ("a: &a {method: average, models: [*a]}", r"recipe: a\.models\.0: expected values, but got an alias"),
        ({"method": "average", "models": ["a"] * 20_000}, "recipe: models: expected at most 10000 values"),
        (MODELS_IN_THEMSELVES, "recipe: models.0.models.0.*: expected at most 32 levels"),
        ("method: average\nmodels: [a, b]\nmethod: ties", "the key 'method' comes more than once"),
        ("{", "expected recipe to be YAML"),
        (Path("missing.yaml"), "expected recipe to be an existing path, but got 'missing.yaml'"),
    ],
)
def test_bad_recipes_are_refused(recipe, text: str) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=text):
        compose(recipe, models=MODELS)
