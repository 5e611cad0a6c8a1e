"""What chooses never judges: composition and tuning read no test sample, whatever their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, Subset

from algorithms import finetune, perturbed_sign
from unlearn_kit import UnlearnTask, tuning
from unlearn_kit import composition as C
from unlearn_kit.data import TensorImages
from unlearn_kit.engine import train


class Judge(Dataset):
    """Test data that are counted, and otherwise not to be touched."""

    def __init__(self, dataset: Any) -> None:
        self.count = len(dataset)

    def __len__(self) -> int:
        return self.count

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ("targets", "labels", "inputs", "batch"):
            raise AssertionError(f"{attribute} of test data were asked for")
        raise AttributeError(attribute)

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a test sample was read")


def images(count: int, seed: int) -> TensorImages:
    """Class k is a bright spot at place k."""
    source = torch.Generator().manual_seed(seed)
    x, y = torch.rand(count, 1, 4, 4, generator=source), torch.arange(count) % 3
    x[torch.arange(count), 0, 0, y] += 1.5
    return TensorImages(x / 2.5, y)


def sealed(task: UnlearnTask) -> UnlearnTask:
    judge = Judge(TEST)
    parts = {name: Subset(judge, getattr(task, name).indices) for name in ("forget_test", "retain_test")}
    return replace(task, **parts)


TRAIN, TEST = images(60, 0), images(30, 1)
OF_CLASS, OF_SAMPLES = UnlearnTask.forget_class(TRAIN, TEST, 0), UnlearnTask.forget_samples(TRAIN, TEST, [3, 7])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)).eval()


@pytest.fixture(scope="module")
def ends() -> tuple[nn.Module, nn.Module]:
    knows = train(network(0), TRAIN, epochs=4, batch_size=20, lr=0.3).model.eval()
    return finetune(knows, OF_CLASS, steps=3).model, knows


Chooser = Callable[[nn.Module, nn.Module, UnlearnTask], object]

CHOOSERS: dict[str, Chooser] = {
    "tradeoff_path": lambda a, b, task: C.tradeoff_path(a, b, task, 3),
    "tradeoff_path, bezier": lambda a, b, task: C.tradeoff_path(
        a, b, task, 3, bezier=True, bezier_options={"steps": 2}, reference=b, recalibrate=True
    ),
    "pick": lambda a, b, task: pick_middle(C.tradeoff_path(a, b, task, 3)),
    "search_coefficients": lambda a, b, task: C.search_coefficients(
        lambda c: C.task_arithmetic(b, [a], c), C.held_out_objectives(task), [0.5], evaluations=4
    ),
    "apply_requests": lambda _, b, task: C.apply_requests(b, [task], finetune, options={"steps": 1}),
    "apply_requests, compose": lambda a, b, task: C.apply_requests(
        b, [task], finetune, mode="compose", reference=a, options={"steps": 1}
    ),
    "recalibrate_batch_norm": lambda a, b, task: C.recalibrate_batch_norm(C.interpolate(a, b, 0.5), task.retain),
    "tune_tradeoff": lambda _, b, task: tuning.tune_tradeoff(
        perturbed_sign, b, task, target=0.5, bounds=(0.1, 10.0), budget=2, steps=2, batch_size=8
    ),
    "tune_tradeoff, seen": lambda _, b, task: tuning.tune_tradeoff(
        perturbed_sign,
        b,
        task,
        target=0.5,
        bounds=(0.1, 10.0),
        budget=2,
        judge="seen",
        held_out=0,
        steps=2,
        batch_size=8,
    ),
}


def pick_middle(path: C.TradeoffPath) -> object:
    levels = [path.points[0].scores, path.points[-1].scores]
    held_out = [s.forget_test if s.sizes["forget_test"] else s.forget for s in levels]
    return C.pick(path, sum(held_out) / 2, steps=2)


@pytest.mark.parametrize("task", [OF_CLASS, OF_SAMPLES], ids=["class", "samples"])
@pytest.mark.parametrize("name", sorted(CHOOSERS))
def test_no_test_sample_is_read(name: str, task: UnlearnTask, ends: tuple[nn.Module, nn.Module]) -> None:
    if name == "tune_tradeoff" and task is OF_SAMPLES:
        pytest.skip("two samples leave none to judge on")
    CHOOSERS[name](*ends, sealed(task))


def test_the_seal_breaks_when_test_data_are_read(ends: tuple[nn.Module, nn.Module]) -> None:
    from unlearn_kit.metrics import evaluate

    with pytest.raises(AssertionError, match="test"):
        evaluate(ends[1], sealed(OF_CLASS))
