"""Phases: what they refuse, how long they last, what they train, and in which order their turns come."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask
from unlearn_kit import losses as L
from unlearn_kit.engine import Alternate, Phase, streams_for
from unlearn_kit.engine.phases import plan
from unlearn_kit.models import mlp


def points(count: int) -> TensorDataset:
    return TensorDataset(torch.zeros(count, 2), torch.zeros(count, dtype=torch.int64))


def phase(**options: Any) -> Phase:
    defaults: dict[str, Any] = {
        "objective": L.cross_entropy(on="retain"),
        "streams": {"retain": points(10)},
        "batch_size": 4,
    }
    return Phase(**{**defaults, **({} if {"epochs", "steps"} & set(options) else {"steps": 1}), **options})


BOTH = L.cross_entropy(on="retain") + L.cross_entropy(on="forget")

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"objective": "loss"}, TypeError, "expected objective to be an Objective or a Term, but got str"),
    ({"epochs": 1, "steps": 1}, ValueError, "expected one of epochs and steps, but got epochs=1, steps=1"),
    ({"epochs": None}, ValueError, "expected one of epochs and steps, but got epochs=None, steps=None"),
    ({"epochs": -1}, ValueError, "expected epochs to be at least 0, but got -1"),
    ({"steps": 2.5}, TypeError, "expected steps to be an int, but got float: 2.5"),
    ({"batch_size": 0}, ValueError, "expected batch_size to be at least 1, but got 0"),
    ({"batch_size": 2.5}, TypeError, "expected batch_size to be an int or a mapping, but got float: 2.5"),
    ({"batch_size": {}}, ValueError, "expected batch_size to name stream 'retain', but got {}"),
    ({"batch_size": {"retain": 0}}, ValueError, "expected batch_size of 'retain' to be at least 1, but got 0"),
    (
        {"batch_size": {"retain": 2, "retrain": 2}},
        ValueError,
        "expected every name in batch_size to be one of ['retain'], but got 'retrain'; did you mean 'retain'?",
    ),
    ({"batch_norm": "freeze"}, ValueError, "but got 'freeze'; did you mean 'frozen'?"),
    ({"momentum": 1.0}, ValueError, "expected momentum in [0, 1), but got 1.0"),
    ({"weight_decay": -1.0}, ValueError, "expected weight_decay in [0,"),
    ({"workers": -1}, ValueError, "expected workers to be at least 0, but got -1"),
    ({"clip": 0.0}, ValueError, "expected clip in (0,"),
    ({"optimizer": "sdg"}, ValueError, "expected optimizer to be one of ['sgd', 'adam', 'adamw'], but got 'sdg'"),
    ({"optimizer": 3}, TypeError, "expected optimizer to be a str or a function, but got int"),
    ({"lr": None}, ValueError, "expected lr with optimizer='sgd', but got None"),
    ({"lr": -0.1}, ValueError, "expected lr in [0,"),
    ({"lr": math.nan}, ValueError, "expected lr in [0,"),
    ({"trainable": "head.weight"}, ValueError, "expected trainable to be 'all', 'head' or 'last:K'"),
    ({"lead": "forget"}, ValueError, "expected lead to be one of ['retain'], but got 'forget'"),
    ({"streams": {}}, ValueError, "expected the stream of cross_entropy(retain -> Labels) to be one of []"),
    (
        {"streams": {"retain": points(3), "forget": points(3)}},
        ValueError,
        "expected streams that the objective reads, ['retain'], but got ['forget'] as well",
    ),
    (
        {"objective": L.parameter_norm(2.0), "streams": {}, "epochs": 2},
        ValueError,
        "expected steps for an objective without streams, but got epochs",
    ),
]


@pytest.mark.parametrize(("options", "error", "text"), REFUSED, ids=[row[2][:60] for row in REFUSED])
def test_a_phase_that_cannot_run_is_refused_when_it_is_built(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        phase(**options)
    assert text in str(raised.value)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(0, 4))
def test_an_epoch_is_one_pass_over_the_lead_stream(forget: int, retain: int, batch: int, epochs: int) -> None:
    streams = {"forget": points(forget), "retain": points(retain)}
    default = phase(objective=BOTH, streams=streams, batch_size=batch, epochs=epochs)
    assert default.total_steps == epochs * math.ceil(forget / batch)
    led = phase(
        objective=BOTH, streams=streams, batch_size={"retain": batch, "forget": 1}, epochs=epochs, lead="retain"
    )
    assert led.total_steps == epochs * math.ceil(retain / batch)
    assert phase(objective=BOTH, streams=streams, steps=7).total_steps == 7


def test_without_a_forget_stream_the_first_one_leads() -> None:
    objective = L.cross_entropy(on="public") + L.cross_entropy(on="retain")
    assert phase(objective=objective, streams={"retain": points(9), "public": points(5)}).lead_stream == "public"
    assert phase(objective=L.parameter_norm(2.0), streams={}).lead_stream is None


def test_trained_parameters_are_chosen_by_flag_by_name_and_by_function() -> None:
    model = mlp(3, input_shape=(2,), hidden=(4,))
    model.get_parameter("block1.0.bias").requires_grad_(False)
    assert list(phase().trains(model)) == ["block1.0.weight", "head.weight", "head.bias"]
    assert list(phase(trainable=["head.bias"]).trains(model)) == ["head.bias"]
    assert list(phase(trainable=lambda _, p: p.dim() == 1).trains(model)) == ["block1.0.bias", "head.bias"]
    with pytest.raises(ValueError, match=r"expected trainable to name parameters of the model, but got \['hed.bias'\]"):
        phase(trainable=["hed.bias"]).trains(model)
    with pytest.raises(ValueError, match="expected phase 'tune' to train at least one parameter, but it trains none"):
        phase(trainable=[], name="tune").trains(model)


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        ({"head.wieght": torch.ones(3, 4).bool()}, "expected every name in masks to be one of .*did you mean 'head.we"),
        (
            {"head.weight": torch.ones(4, 3).bool()},
            r"expected masks\['head.weight'\] to be bool or float of shape \(3, 4\), but",
        ),
        ({"head.weight": torch.ones(3, 4).long()}, r"but got torch.int64 of shape \(3, 4\)"),
    ],
    ids=["name", "shape", "dtype"],
)
def test_a_mask_that_does_not_fit_is_refused(masks: dict[str, Tensor], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        phase(masks=masks).trains(mlp(3, input_shape=(2,), hidden=(4,)))


def test_an_optimizer_function_must_return_an_optimizer_over_what_it_is_given() -> None:
    parameters = list(nn.Linear(2, 2).parameters())
    with pytest.raises(TypeError, match="expected optimizer to return a torch optimiser, but got NoneType"):
        phase(optimizer=lambda _: None).make_optimizer(parameters)
    with pytest.raises(ValueError, match="expected optimizer to hold the 2 parameters it is given, but it holds 1"):
        phase(optimizer=lambda p: torch.optim.SGD(list(p)[:1])).make_optimizer(parameters)


def test_the_named_optimizers_are_torch_s_with_the_options_given() -> None:
    parameters = list(nn.Linear(2, 2).parameters())
    sgd = phase(lr=L.linear(0.5, 0.1), momentum=0.3, weight_decay=0.2).make_optimizer(parameters)
    assert isinstance(sgd, torch.optim.SGD)
    assert [sgd.param_groups[0][key] for key in ("lr", "momentum", "weight_decay")] == [0.5, 0.3, 0.2]
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        made = phase(optimizer=name, weight_decay=0.2).make_optimizer(parameters)
        assert type(made) is kind
        assert made.param_groups[0]["weight_decay"] == 0.2


def test_the_plan_lists_turns_in_order_and_counts_steps_over_all_rounds() -> None:
    keep, erase = phase(epochs=1, name="keep"), phase(steps=2, name="erase")
    legs = plan([keep, Alternate([erase, keep], 2)])
    rows = [(leg.key, leg.optimizer_key, leg.start, leg.stop, leg.total) for leg in legs]
    assert rows == [
        ("0.keep", "0.keep", 0, 3, 3),
        ("1.erase", "1.erase", 0, 2, 4),
        ("1.keep", "1.keep", 0, 3, 6),
        ("1.erase", "1.erase", 2, 4, 4),
        ("1.keep", "1.keep", 3, 6, 6),
    ]
    shared = plan(Alternate([erase, keep], 1, shared_optimizer=True))
    assert {leg.optimizer_key for leg in shared} == {"0.shared"}


@pytest.mark.parametrize(
    ("build", "error", "text"),
    [
        (lambda: Alternate([], 1), ValueError, "expected phases to hold at least one phase, but got none"),
        (lambda: Alternate([phase(), phase()], 1), ValueError, "expected phases of distinct names, but got"),
        (lambda: Alternate(["a"], 1), TypeError, r"expected phases\[0\] to be a Phase, but got str"),
        (lambda: Alternate([phase()], -1), ValueError, "expected rounds to be at least 0, but got -1"),
        (lambda: plan(BOTH), TypeError, "expected program to hold Phase and Alternate values, but got Objective"),
        (lambda: plan([BOTH]), TypeError, "expected program to hold Phase and Alternate values, but got Objective"),
    ],
    ids=["empty", "names", "kind", "rounds", "objective", "list"],
)
def test_a_program_of_other_things_is_refused(build: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        build()


def test_streams_for_brings_along_what_is_read_and_nothing_else() -> None:
    task = UnlearnTask(points(2), points(3), points(1), points(1), 2)
    public = points(4)
    assert streams_for(task, L.cross_entropy(on="retain")) == {"retain": task.retain}
    both = streams_for(task, L.mse(on="public", to=L.Teacher(nn.Linear(2, 2))) + BOTH, public=public)
    assert both == {"public": public, "retain": task.retain, "forget": task.forget}
