"""Which modules are a network's last, and which parameters are theirs."""

import pytest
from torch import nn

from unlearn_kit import models
from unlearn_kit.heads import declare_head, last_blocks, parameters_under


def test_a_convolution_and_its_batch_norm_are_two_blocks_and_the_head_comes_after():
    model = models.small_cnn()
    assert last_blocks(model, 0) == ["head"]
    assert last_blocks(model, 3) == ["block4.1", "block5.0", "block5.1", "head"]
    assert len(last_blocks(model, 10)) == 11
    assert last_blocks(model, 99) == last_blocks(model, 10)


def test_without_a_declared_head_the_last_module_is_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.Linear(2, 2))
    assert last_blocks(model, 1) == ["2", "3"]
    declare_head(model, "0")
    assert last_blocks(model, 1) == ["3", "0"]


def test_a_head_of_several_modules_is_one():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    declare_head(model, "1")
    assert last_blocks(model, 1) == ["0", "1"]
    assert parameters_under(model, ["1"]) == ["1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias"]


def test_a_name_that_begins_like_another_is_not_under_it():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "ab": nn.Linear(1, 1)})
    assert parameters_under(model, ["a"]) == ["a.weight", "a.bias"]


@pytest.mark.parametrize(
    ("k", "error", "text"),
    [
        (-1, ValueError, "expected k to be at least 0, but got -1"),
        (1.0, TypeError, "expected k to be an int, but got float: 1.0"),
    ],
)
def test_k_is_checked(k, error, text):
    with pytest.raises(error, match=text):
        last_blocks(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), k)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="expected ReLU to have modules that own parameters, but got none"):
        last_blocks(nn.ReLU(), 0)
    with pytest.raises(ValueError, match=r"expected modules to be submodules that own parameters, but got \['1'\]"):
        parameters_under(nn.Sequential(nn.Linear(1, 1), nn.ReLU()), ["1"])
    with pytest.raises(TypeError, match="expected modules to be a sequence of names of submodules, but got the string"):
        parameters_under(nn.Sequential(nn.Linear(1, 1)), "0")
