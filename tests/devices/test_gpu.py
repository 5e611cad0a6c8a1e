"""What only a GPU can show; ``benchmarks/speed/gpu.sh`` runs these."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import algorithms
from unlearn_kit import metrics, models
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.engine import facts_of
from unlearn_kit.modules import same_state

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.fixture(scope="module")
def promises() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[1] / "algorithms"))
    import test_promises

    return test_promises


@pytest.mark.parametrize("name", algorithms.__all__)
def test_one_seed_gives_the_same_bits(name: str, promises: Any) -> None:
    model = models.build("small-cnn", 3, channels=1, seed=0, width=4)
    runs = [getattr(algorithms, name)(model, promises.of_class(), device="cuda", **promises.QUICK[name]) for _ in "ab"]
    assert same_state(runs[0].model, runs[1].model)
    assert {value.device.type for value in runs[0].model.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("name", [name for name in algorithms.__all__ if facts_of(getattr(algorithms, name)).training])
def test_bfloat16_gives_finite_float32_weights(name: str, promises: Any) -> None:
    from accelerate import Accelerator

    model = models.build("small-cnn", 3, channels=1, seed=0, width=4)
    options = promises.QUICK[name] | {"accelerator": Accelerator(mixed_precision="bf16")}
    made = getattr(algorithms, name)(model, promises.of_class(), device="cuda", **options).model
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in made.parameters())


def test_a_search_and_scores_are_those_of_the_cpu(promises: Any) -> None:
    task, model = promises.of_class(), models.build("small-cnn", 3, channels=1, seed=0, width=4).eval()
    here = metrics.evaluate(model, task)
    there = metrics.evaluate(model.to("cuda"), task)
    assert there.forget == pytest.approx(here.forget, abs=1e-6)
    x, y = promises.images(8, 0).batch(torch.arange(8))
    search = PerturbedSign(radius=0.1, steps=3, noise=0.1)
    placed = search.search(model, x.to("cuda"), y.to("cuda")).logits.cpu()
    # A sign may flip where a gradient is 0 to rounding, in few pixels of few images.
    assert (placed - search.search(model.to("cpu"), x, y).logits).abs().median() < 1e-3
