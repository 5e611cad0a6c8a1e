"""What the decorator promises for every algorithm, on algorithms made for the test."""

from __future__ import annotations

import copy
import inspect
import json
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from unlearn_kit import UnlearnResult, UnlearnTask
from unlearn_kit.boundary import PerturbedSign
from unlearn_kit.engine import Callback, FitResult, revision
from unlearn_kit.models import build


def points(count: int, classes: int = 3) -> TensorDataset:
    return TensorDataset(torch.rand(count, 1, 8, 8), torch.arange(count) % classes)


TASK = UnlearnTask(points(4), points(6), points(2), points(2), 3)


def dense(classes: int = 3) -> nn.Module:
    return build("mlp", classes, seed=0, hidden=(4,))


@revision()
def shake(
    model: nn.Module,
    task: UnlearnTask,
    *,
    strength: float = 0.1,
    search: PerturbedSign | None = None,
    optimizer: Any = "sgd",
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    device: torch.device | str | None = None,
) -> FitResult:
    """Adds noise to every weight, in place: to the copy it was given."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(strength * torch.randn_like(parameter))
    np.random.rand()  # noqa: NPY002
    random.random()
    return FitResult(model, [{"phase": "shake", "step": 0}], details={"modes": [m.training for m in model.modules()]})


def test_the_algorithm_gets_a_private_copy_in_eval_mode_and_the_result_the_modes_that_were_given() -> None:
    model = dense().train()
    model.get_submodule("block1").eval()
    model.get_parameter("head.bias").requires_grad_(False)
    state, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    result = shake(model, TASK)
    assert not any(result.details["modes"])
    assert [m.training for m in model.modules()] == [m.training for m in result.model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not torch.equal(result.model.get_parameter("head.weight"), state["head.weight"])
    assert not result.model.get_parameter("head.bias").requires_grad


def test_the_seed_decides_and_the_caller_s_random_state_is_left_alone() -> None:
    def weight(**options: Any) -> Tensor:
        return shake(dense(), TASK, **options).model.get_parameter("head.weight")

    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    first = weight(seed=4)
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    torch.manual_seed(5)
    assert torch.equal(first, weight(seed=4))
    assert not torch.equal(first, weight(seed=5))


def test_data_that_draw_random_numbers_leave_the_caller_s_random_state_alone() -> None:
    class Drawing(Dataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.rand(1, 8, 8) * random.random() * float(np.random.rand()), index  # noqa: NPY002

    model, task = dense(), UnlearnTask(Drawing(), points(3), points(1), points(1), 3)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    shake(model, task)
    assert random.getstate() == states[0]
    assert str(np.random.get_state()) == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])


def test_the_result_says_what_was_done_and_how_long_it_took() -> None:
    @revision()
    def wait(model: nn.Module, task: UnlearnTask, *, seed: int = 0, device: Any = None) -> FitResult:
        time.sleep(0.02)
        return shake.__wrapped__(model, task)  # type: ignore[attr-defined]

    result = shake(dense(), TASK, strength=0.2)
    assert isinstance(result, UnlearnResult)
    assert (result.method, result.history) == ("shake", [{"phase": "shake", "step": 0}])
    assert 0.02 <= wait(dense(), TASK).seconds < 5


def test_a_run_that_changed_no_weight_says_so() -> None:
    @revision()
    def rest(model: nn.Module, task: UnlearnTask, *, seed: int = 0, device: Any = None) -> FitResult:
        return FitResult(model, details={"of": "its own"})

    with pytest.warns(UserWarning, match="rest changed no weight"):
        assert rest(dense(), TASK).details == {"of": "its own", "unchanged": True}
    assert "unchanged" not in shake(dense(), TASK).details


def test_the_configuration_is_json_and_names_every_option_but_what_it_is_applied_to() -> None:
    search = PerturbedSign(radius=0.25)
    config = shake(dense(), TASK, search=search, optimizer=torch.optim.SGD, callbacks=[Callback()], device="cpu").config
    assert json.loads(json.dumps(config, allow_nan=False)) == {
        "strength": 0.1,
        "search": repr(search),
        "optimizer": "SGD",
        "seed": 0,
        "device": "cpu",
    }
    odd: list[Any] = [dense(), lambda p: p, object(), float("inf"), {"a": (1, None)}, search.search]
    texts = [shake(dense(), TASK, optimizer=value).config["optimizer"] for value in odd]
    assert texts[0] == "Sequential"
    assert texts[3:5] == ["inf", {"a": [1, None]}]
    assert "0x" not in json.dumps(texts, allow_nan=False)


def test_modules_that_a_method_adds_follow_the_whole_model() -> None:
    @revision()
    def wrap(model: nn.Module, task: UnlearnTask, *, seed: int = 0, device: Any = None) -> FitResult:
        return FitResult(nn.Sequential(model, nn.Dropout(0.1)).train())

    assert not any(m.training for m in wrap(dense().eval(), TASK).model.modules())
    assert all(m.training for m in wrap(dense().train(), TASK).model.modules())


def test_the_signature_and_the_docstring_stay_those_of_the_method() -> None:
    assert list(inspect.signature(shake).parameters)[:3] == ["model", "task", "strength"]
    assert shake.__doc__ is not None
    assert shake.__name__ == "shake"


def spoiled() -> nn.Module:
    model = dense()
    with torch.no_grad():
        model.get_parameter("head.bias")[1] = torch.nan
    return model


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"strenght": 1.0}, TypeError, r"expected option of shake to be one of \['strength', .* did you mean 'strengt"),
        ({"model": "net"}, TypeError, "expected model to be a torch.nn.Module, but got str"),
        ({"task": [1, 2]}, TypeError, "expected task to be an UnlearnTask, but got list"),
        ({"model": spoiled()}, ValueError, "expected model's 'head.bias' to be finite, but got 1 NaN or infinite of 3"),
        ({"model": dense(4)}, ValueError, r"expected model to have 3 outputs, .* but got outputs of shape \(1, 4\)"),
        ({"model": nn.Sequential(nn.Flatten(0), nn.Linear(64, 3))}, ValueError, r"but got outputs of shape \(3,\)"),
        ({"model": nn.Flatten(0)}, ValueError, "expected model to have floating-point parameters, but got none in Fl"),
        ({"seed": 0.5}, TypeError, "expected seed to be an int, but got float: 0.5"),
        ({"strength": torch.inf}, ValueError, "expected the model that shake returns's '.*' to be finite"),
    ],
    ids=["option", "model", "task", "nan", "width", "shape", "parameters", "seed", "result"],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        shake(**{"model": dense(), "task": TASK, **arguments})


@pytest.mark.parametrize("width", [1, 2])
def test_two_classes_may_have_one_logit_or_two(width: int) -> None:
    two = UnlearnTask(points(4, 2), points(6, 2), points(2), points(2), 2)
    assert shake(dense(width), two).model(torch.rand(1, 1, 8, 8)).shape == (1, width)


def test_the_model_is_tried_on_the_first_sample_alone():
    class Large(list):
        """Indices that must not be gone through."""

        def __iter__(self):
            raise AssertionError("all indices were read")

    data = TensorDataset(torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1]))
    large = torch.utils.data.Subset(data, Large([1] * 1000))

    @revision()
    def untouched(model, task, *, seed=0, device=None):
        return FitResult(model)

    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="changed no weight"):
        assert untouched(network, UnlearnTask(large, data, (), (), 2)).method == "untouched"
