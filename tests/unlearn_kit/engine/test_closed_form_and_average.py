"""Weights set before a phase trains, batch sizes of the streams that are read, and averages of weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unlearn_kit import losses as L
from unlearn_kit.data.tensors import TensorImages
from unlearn_kit.engine import Alternate, Callback, Phase, Run, WeightAverage, fit
from unlearn_kit.engine.phases import sizes_for

SOURCE = torch.Generator().manual_seed(0)
DATA = TensorImages(torch.rand(12, 4, generator=SOURCE), torch.arange(12) % 3)


def phase(**options: object) -> Phase:
    given: dict[str, object] = {"steps": 2, "batch_size": 4, "lr": 0.5} | options
    return Phase(L.cross_entropy(on="train"), {"train": DATA}, **given)  # type: ignore[arg-type]


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step(self, run: Run) -> None:
        if run.done == self.at:
            raise KeyboardInterrupt


def test_before_is_called_at_the_start_of_each_turn_with_the_model_at_rest() -> None:
    seen: list[torch.Tensor] = []

    def reset(model: nn.Module) -> None:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(model.weight.detach().clone())
        model.weight.zero_()

    model = nn.Linear(4, 3)
    found = fit(model, Alternate([phase(before=reset)], 3)).model
    assert len(seen) == 3
    assert torch.equal(seen[0], model.weight)
    assert not torch.equal(seen[1], torch.zeros(3, 4))
    assert found.weight.abs().max() > 0


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_continued_inside_a_turn_does_not_begin_it_again(stop: int, tmp_path: Path) -> None:
    def double(model: nn.Module) -> None:
        model.weight.mul_(2)

    torch.manual_seed(0)
    model, program = nn.Linear(4, 3), Alternate([phase(before=double)], 2)
    whole = fit(model, program).model
    path = tmp_path / "run.safetensors"
    options = {"checkpoint": path, "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        fit(model, program, callbacks=[Stop(stop + 1)], checkpoint=path, checkpoint_every=stop)
    continued = fit(model, program, callbacks=[Stop(99)], **options).model  # type: ignore[arg-type]
    assert torch.equal(whole.weight, continued.weight)


def test_sizes_for_leaves_out_streams_that_are_not_read() -> None:
    forget = L.cross_entropy(on="forget")
    both = {"forget": 2, "retain": 8}
    assert sizes_for(both, forget) == {"forget": 2}
    assert sizes_for(both, forget + L.cross_entropy(on="retain")) == both
    assert sizes_for(5, forget) == 5


def test_the_average_of_the_weights_is_the_result() -> None:
    seen: list[torch.Tensor] = []

    class Weights(Callback):
        def on_step(self, run: Run) -> None:
            seen.append(run.model[0].weight.detach().clone())

    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    found = fit(model, phase(steps=7, batch_norm="update"), callbacks=[Weights(), WeightAverage(0.6, every=2)]).model
    expected = 0.6 * (0.6 * seen[1] + 0.4 * seen[3]) + 0.4 * seen[5]
    torch.testing.assert_close(found[0].weight.detach(), expected)
    assert found[1].num_batches_tracked == 6  # Counts are not averaged.


def test_an_average_is_not_carried_into_another_run() -> None:
    average = WeightAverage(0.5, every=1)
    model = nn.Linear(4, 3)
    first = fit(model, phase(), callbacks=[average]).model
    again = fit(model, phase(), callbacks=[average]).model
    assert torch.equal(first.weight, again.weight)


def test_an_average_continues_from_a_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    whole = fit(model, phase(steps=4), callbacks=[WeightAverage(0.5, every=1)]).model
    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(
            model, phase(steps=4), callbacks=[WeightAverage(0.5, every=1), Stop(3)], checkpoint=path, checkpoint_every=2
        )
    callbacks = [WeightAverage(0.5, every=1), Stop(99)]
    continued = fit(model, phase(steps=4), callbacks=callbacks, checkpoint=path).model
    assert torch.equal(whole.weight, continued.weight)


@pytest.mark.parametrize(("keep", "every", "name"), [(1.0, 1, "keep"), (-0.1, 1, "keep"), (0.5, 0, "every")])
def test_averages_refuse_options_out_of_range(keep: float, every: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected {name} "):
        WeightAverage(keep, every=every)
