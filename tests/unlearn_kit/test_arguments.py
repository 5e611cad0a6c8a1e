from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, Unpack

import numpy as np
import pytest
import torch
from torch import nn

from unlearn_kit import UnlearnTask
from unlearn_kit.arguments import AtLeast, Positive, Share, checked
from unlearn_kit.schedules import NonNegativeSchedule, linear

if TYPE_CHECKING:
    from accelerate import Accelerator

Weight = float | Mapping[str, float]


class Reading(TypedDict, total=False):
    batch_size: int


@checked
def read(
    model: nn.Module | None = None,
    *,
    count: int | None = None,
    share: float = 0.5,
    weight: Weight = 1.0,
    models: Sequence[nn.Module] = (),
    bounds: tuple[float, float] = (0.0, 1.0),
    names: Iterable[str] = (),
    exact: bool = False,
    mode: Literal["fast", "exact"] = "fast",
    score: Callable[[Any], float] | None = None,
    task: UnlearnTask | None = None,
    accelerator: Accelerator | None = None,
    data: Any = None,
    **reading: Unpack[Reading],
) -> str:
    """Read."""
    return "read"


@checked
@dataclass(frozen=True)
class Settings:
    rate: float
    size: tuple[int, ...] = ()


LAYER = nn.Linear(1, 1)


@pytest.mark.parametrize(
    "given",
    [
        {"model": LAYER, "count": 3, "share": 1, "weight": {"head": 0.5}, "models": [LAYER], "bounds": (0, 1)},
        {"model": None, "count": np.int64(3), "share": np.float32(0.5), "weight": 2, "models": (), "bounds": [0, 1]},
        {"names": {"a", "b"}, "exact": True, "mode": "exact", "score": len, "accelerator": object(), "data": object()},
        {"names": iter("ab"), "batch_size": 4},
    ],
)
def test_what_fits_passes(given):
    assert read(**given) == "read"


@checked
def limited(
    share: Share | None = None,
    count: Annotated[int, AtLeast(2)] = 2,
    weight: NonNegativeSchedule = 1.0,
    several: Sequence[Positive] = (),
    mixed: Sequence[int] | Sequence[str] = (),
) -> str:
    """Read numbers in ranges."""
    return "read"


@pytest.mark.parametrize(
    "given",
    [
        {"share": None, "count": np.int64(2), "weight": linear(1.0, 0.0), "several": [0.5, 1]},
        {"share": 0, "weight": lambda progress: -progress, "mixed": ["a", "b"]},
        {"share": np.float32(1), "weight": 0, "mixed": [1, 2]},
    ],
)
def test_what_is_inside_its_range_passes(given):
    assert limited(**given) == "read"


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"share": 1.5}, ValueError, r"expected share in \[0, 1\], but got 1.5"),
        ({"share": math.nan}, ValueError, r"expected share in \[0, 1\], but got nan"),
        ({"share": "1"}, TypeError, "expected share to be a number, but got str: '1'"),
        ({"count": 1}, ValueError, "expected count to be at least 2, but got 1"),
        ({"count": 2.0}, TypeError, "expected count to be an int, but got float: 2.0"),
        ({"weight": -1}, ValueError, r"expected weight in \[0, inf\), but got -1"),
        ({"weight": lambda _: None}, TypeError, "expected what weight returns to be a number, but got NoneType"),
        ({"several": [1, 0]}, ValueError, r"expected several\[1\] in \(0, inf\), but got 0"),
        ({"mixed": [1, "a"]}, TypeError, "expected mixed"),
        ({"mixed": torch.tensor([1j])}, TypeError, "expected mixed to be a sequence, but got Tensor"),
    ],
)
def test_what_is_outside_its_range_is_named(given, error, text):
    with pytest.raises(error, match=text):
        limited(**given)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"model": "net"}, TypeError, "expected model to be a torch.nn.Module, but got str"),
        ({"count": True}, TypeError, "expected count to be an int, but got bool: True"),
        ({"count": 1.0}, TypeError, "expected count to be an int, but got float: 1.0"),
        ({"share": None}, TypeError, "expected share to be a number, but got NoneType"),
        ({"share": torch.tensor(0.5)}, TypeError, "expected share to be a number, but got Tensor"),
        ({"weight": "1"}, TypeError, "expected weight to be a number or a mapping, but got str: '1'"),
        ({"weight": {"head": "1"}}, TypeError, "expected weight['head'] to be a number, but got str: '1'"),
        ({"weight": {3: 1.0}}, TypeError, "expected every name in weight to be a str, but got int"),
        ({"models": LAYER}, TypeError, "expected models to be a sequence of torch.nn.Module, but got Linear"),
        ({"models": [LAYER, 3]}, TypeError, "expected models[1] to be a torch.nn.Module, but got int"),
        ({"bounds": (0, 1, 2)}, ValueError, "expected bounds to hold 2 values, but got 3"),
        ({"bounds": (0, "1")}, TypeError, "expected bounds[1] to be a number, but got str: '1'"),
        ({"names": "ab"}, TypeError, "expected names to be an iterable, but got str"),
        ({"exact": 1}, TypeError, "expected exact to be a bool, but got int"),
        (
            {"mode": "exct"},
            ValueError,
            "expected mode to be one of ['fast', 'exact'], but got 'exct'; did you mean 'exact'?",
        ),
        ({"mode": []}, ValueError, "expected mode to be one of ['fast', 'exact'], but got []"),
        ({"score": 3}, TypeError, "expected score to be a function, but got int"),
        ({"task": "class 0"}, TypeError, "expected task to be an UnlearnTask, but got str"),
        ({"batch_size": "4"}, TypeError, "expected batch_size to be an int, but got str: '4'"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given, error, text):
    with pytest.raises(error) as caught:
        read(**given)
    assert str(caught.value) == text


def test_a_class_checks_what_it_is_made_of():
    assert Settings(1, (1, 2)).size == (1, 2)
    with pytest.raises(TypeError, match=r"^expected size\[1\] to be an int, but got str: 'b'$"):
        Settings(1.0, (1, "b"))


def test_too_few_arguments_are_pythons_to_tell():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'rate'"):
        Settings()
