"""The caller's global settings of torch: they change no result, and come back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, audits, composition, engine, metrics, models
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.seeding import isolated, standard_settings

SOURCE = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.rand(24, 3, 6, 6, generator=SOURCE), torch.arange(24) % 3
DATA = TensorDataset(INPUTS, LABELS)
TASK = UnlearnTask.forget_class(DATA, DATA, 0)


def network() -> nn.Module:
    return models.build("mlp", 3, seed=0, input_shape=(3, 6, 6), hidden=(5,))


A, B = (engine.train(network(), DATA, epochs=2, batch_size=5, seed=seed).model.eval() for seed in (0, 1))

CALLS: dict[str, Callable[[], Any]] = {
    "forget_class": lambda: UnlearnTask.forget_class(DATA, DATA, 0).forget.indices,
    "forget_samples": lambda: UnlearnTask.forget_samples(DATA, DATA, [2, 3]).retain.indices,
    "forget_random": lambda: UnlearnTask.forget_random(DATA, DATA, 0.3).forget.indices,
    "train": lambda: engine.train(A, DATA, epochs=1, batch_size=5).model,
    "fresh_copy": lambda: models.fresh_copy(A, seed=0),
    "evaluate": lambda: metrics.evaluate(A, TASK, B).as_dict(),
    "accuracy": lambda: metrics.accuracy(A, DATA),
    "per_class_accuracy": lambda: metrics.per_class_accuracy(A, DATA),
    "zrf": lambda: metrics.zrf(A, DATA),
    "js_divergence": lambda: metrics.js_divergence(A, B, DATA),
    "membership": lambda: str(metrics.membership_inference(A, TASK)),
    "class_leakage": lambda: str(metrics.class_leakage(A, TASK, B)),
    "feature_distance": lambda: metrics.feature_distance(A, B, DATA),
    "layerwise_distance": lambda: str(metrics.layerwise_distance(A, B)),
    "quantize_attack": lambda: str(metrics.quantize_attack(A, TASK)),
    "relearn_time": lambda: audits.relearn_time(A, TASK, original=B, max_steps=5),
    "linear_probe": lambda: audits.linear_probe(A, TASK),
    "train_ensemble": lambda: audits.train_ensemble(network, DATA, [range(9)] * 2, seeds=[0, 1], epochs=1, mode="vmap")[
        1
    ],
    "interpolate": lambda: composition.interpolate(A, B, 0.3),
    "task_arithmetic": lambda: composition.task_arithmetic(A, [B], 0.5),
    "slerp": lambda: composition.slerp(A, B, 0.3),
    "bezier_control": lambda: composition.bezier_control(A, B, TASK, batch_size=5),
    "barrier_bound": lambda: composition.barrier_bound(A, B, DATA, points=3, slopes=3),
    "tradeoff_path": lambda: [
        point.scores.as_dict() for point in composition.tradeoff_path(A, B, TASK, points=3).points
    ],
    "swap_head": lambda: composition.swap_head(A, B),
    "search": lambda: PerturbedSign(0.1, noise=0.1).search(A, INPUTS, LABELS).inputs,
}


def plain(value: Any) -> Any:
    """The bits of a result, comparable by ``==``."""
    if isinstance(value, nn.Module):
        return {name: plain(tensor) for name, tensor in value.state_dict().items()}
    return (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("name", CALLS)
def test_they_change_no_result(name: str, unusual_settings: AbstractContextManager[None]) -> None:
    expected = plain(CALLS[name]())
    with unusual_settings:
        found = CALLS[name]()
    assert plain(found) == expected


def test_inside_they_are_the_usual_ones_and_afterwards_the_caller_s(
    unusual_settings: AbstractContextManager[None],
) -> None:
    def settings() -> tuple[Any, ...]:
        return (
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
            torch.empty(0).device.type,
            torch.is_autocast_enabled("cpu"),
            torch.is_inference_mode_enabled(),
        )

    usual = settings()
    with unusual_settings, torch.inference_mode():
        own = settings()
        with standard_settings():
            assert settings() == usual
        with pytest.raises(KeyError), isolated(3):
            raise KeyError(settings())
        assert settings() == own
    assert own == (False, torch.float64, "meta", True, True)
    assert settings() == usual


def test_training_in_inference_mode_is_refused_and_measuring_is_not() -> None:
    expected = metrics.accuracy(A, DATA)
    with torch.inference_mode():
        made = copy.deepcopy(A)
        with pytest.raises(ValueError, match=r"expected fit to be called outside torch.inference_mode\(\)"):
            engine.train(A, DATA, epochs=1)
        assert metrics.accuracy(made, DATA) == expected
    # Its tensors can never be trained; a copy of them can.
    assert plain(engine.train(made, DATA, epochs=1, batch_size=5).model) != plain(A)
